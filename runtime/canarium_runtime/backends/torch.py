"""torch: programs of torch.export and TorchScript, on the CPU or a GPU, without any code of the artefact.

    torch_files    what the file is, and whether loading it could run code
    torch_specs    what it takes and gives
    torch_devices  arrays to tensors and back

An exported program is called below torch's own wrapper (16 µs a call instead of 200 for a model of one layer): the
service has checked datatypes, ranks and equal sizes already, and bounds of sizes are checked here.
"""

import io
import logging
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from canarium_runtime.backends import devices, torch_files, torch_specs
from canarium_runtime.backends.base import DTYPES, Array, BackendError, ModelSpec, is_batchable
from canarium_runtime.backends.options import Options
from canarium_runtime.backends.torch_devices import CudaTransfer, HostTransfer, Program, Transfer
from canarium_runtime.backends.torch_files import TorchKind
from canarium_runtime.backends.torch_specs import Bound, Signature
from canarium_runtime.errors import LoadError

PLATFORMS: Final = {
    TorchKind.EXPORTED: "pytorch_export",
    TorchKind.SCRIPT: "pytorch_torchscript",
}


class TorchBackend:
    """A program, and how it is run."""

    def __init__(
        self,
        program: Program,
        spec: ModelSpec,
        transfer: Transfer,
        *,
        bounds: Sequence[Bound] = (),
        device: str = "cpu",
        memory_bytes: int = 0,
    ) -> None:
        self.spec = spec
        self.compute_bound = device == "cpu"
        self.device = device
        self.memory_bytes = memory_bytes
        self._program: Program | None = program
        self._transfer = transfer
        self._bounds = bounds
        self._inputs = [t.name for t in spec.inputs]
        self._position = {t.name: (i, DTYPES[t.datatype]) for i, t in enumerate(spec.outputs)}

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        """Run the program once; see `Backend.infer`."""
        arrays = [inputs[name] for name in self._inputs]
        for bound in self._bounds:
            bound.check(arrays[bound.index])
        program = self._program
        if program is None:
            msg = "the model was closed"
            raise BackendError(msg)
        try:
            results = self._transfer.run(program, arrays)
        except Exception as error:
            raise BackendError(f"{type(error).__name__}: {error}") from error
        if len(results) != len(self._position):
            raise BackendError(
                f"the program gave {len(results)} tensors, not {len(self._position)}"
            )
        wanted: list[Array] = []
        for name in outputs:
            position, dtype = self._position[name]
            # Under autocast, what was declared as FP32 comes out in 16 bits.
            wanted.append(results[position].astype(dtype, copy=False))
        return wanted

    def close(self) -> None:
        """Drop the program and its weights, and give a GPU's memory back."""
        self._program = None
        if self.device != "cpu":
            torch.cuda.empty_cache()


def open_torch(path: Path, options: Options) -> TorchBackend:
    """Open a program.

    Raises:
        LoadError: ModelUnsupported when loading the file could run code, or when tensors are not declared or cannot be
            served; ModelUnreadable when torch refuses it; AcceleratorUnavailable.
    """
    file = torch_files.inspect(path)
    device = options.device
    if device.kind == "cuda" and not torch.cuda.is_available():
        device = devices.library_lacks(device, f"torch {torch.__version__} finds no usable GPU")
    torch.set_num_threads(options.threads)
    load = _load_export if file.kind is TorchKind.EXPORTED else _load_script
    program, module, signature = load(path, file, str(device), options)
    if device.kind == "cuda":
        # The weights are copied on a stream that the workers' own do not wait for.
        torch.cuda.synchronize(device.index)
    if options.compiled:
        program = _compiled(program, options)
    if options.precision is not None:
        program = _in_16_bits(program, device.kind, str(options.precision))
    spec = ModelSpec(
        platform=PLATFORMS[file.kind],
        inputs=signature.inputs,
        outputs=signature.outputs,
        batchable=_is_batchable(signature),
    )
    transfer = CudaTransfer(torch, device.index) if device.kind == "cuda" else HostTransfer(torch)
    return TorchBackend(
        program,
        spec,
        transfer,
        bounds=signature.bounds,
        device=str(device),
        memory_bytes=_bytes_of(module),
    )


def _is_batchable(signature: Signature) -> bool:
    """An export for two rows and more cannot be run with one, so it is served as it comes, never joined."""
    alone = not any(bound.axis == 0 and bound.least > 1 for bound in signature.bounds)
    return alone and is_batchable(signature.inputs, signature.outputs)


def _load_export(
    path: Path, file: torch_files.TorchFile, device: str, options: Options
) -> tuple[Program, Any, Signature]:
    _check_pickles(path, file.pickled)
    # It misses Triton on every machine without a GPU, in lines that are not of this server's form.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    try:
        exported = torch.export.load(path)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            exported = move_to_device_pass(exported, device)
    except Exception as error:
        raise _unreadable(error) from error
    signature = torch_specs.of_export(exported, options.inputs, options.outputs)
    if signature.guarded:
        module = exported.module()
        return _guarded(module, exported.call_spec.in_spec), module, signature
    module = exported.module(check_guards=False)
    module.requires_grad_(False)
    # Without the code that folds and unfolds arguments: they come flat and in order.
    module.graph.set_codegen(torch.fx.graph.CodeGen())
    module.recompile()
    return module.forward, module, signature


def _guarded(module: Any, tree: Any) -> Program:
    """Call through torch's own wrapper, which checks the conditions under which the program was exported."""
    pytree = torch.utils._pytree

    def call(*flat: Any) -> Sequence[Any]:
        arguments, keywords = pytree.tree_unflatten(list(flat), tree)
        leaves: Sequence[Any] = pytree.tree_leaves(module(*arguments, **keywords))
        return leaves

    return call


def _load_script(
    path: Path, _: torch_files.TorchFile, device: str, options: Options
) -> tuple[Program, Any, Signature]:
    signature = torch_specs.of_script(options.inputs, options.outputs)
    try:
        with warnings.catch_warnings():
            # torch advises whoever exports, not whoever serves, to use torch.export instead.
            warnings.simplefilter("ignore", FutureWarning)
            module = torch.jit.load(str(path), map_location=device)
        module.eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)
    except Exception as error:
        raise _unreadable(error) from error
    names = [output.name for output in signature.outputs]

    def call(*flat: Any) -> Sequence[Any]:
        result = module(*flat)
        if isinstance(result, dict):
            return [result[name] for name in names]
        return result if isinstance(result, list | tuple) else (result,)

    return call, module, signature


def _check_pickles(path: Path, members: Sequence[str]) -> None:
    """Unpickle with tensors and containers alone; torch's own loader would fall back to everything."""
    with zipfile.ZipFile(path) as archive:
        for member in members:
            try:
                torch.load(io.BytesIO(archive.read(member)), weights_only=True)
            except Exception as error:
                msg = (
                    f"{member} in the model is more than tensors, and loading it could run code: export the model "
                    "again, with example inputs that are tensors"
                )
                raise LoadError("ModelUnsupported", msg, permanent=True) from error


def _compiled(program: Program, options: Options) -> Program:
    """Let torch compile it, for any number of rows at once; that happens at the first run, which is the warm-up's."""
    # Its own default is in a folder that a read-only container does not have.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(options.directory / "inductor"))
    compiled: Program = torch.compile(program, dynamic=True)
    return compiled


def _in_16_bits(program: Program, kind: str, precision: str) -> Program:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16

    def call(*flat: Any) -> Sequence[Any]:
        with torch.autocast(kind, dtype):
            return program(*flat)

    return call


def _bytes_of(module: Any) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def _unreadable(error: Exception) -> LoadError:
    why = str(error).strip().partition("\n")[0].rstrip(".")
    msg = (
        f"torch {torch.__version__} cannot open the model: {why}. Check that the file is complete, and save it with "
        "this version of torch or an older one."
    )
    return LoadError("ModelUnreadable", msg, permanent=True)

"""torch programs behind the Backend protocol. The CUDA half runs on a double of the library, never on a GPU."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.runtime.backends import worlds
from tests.unit.runtime.backends.worlds import export, save, write_script

from canarium_api.v1alpha1 import Precision
from canarium_runtime import warmup
from canarium_runtime.backends.base import DTYPES, BackendError, InputError
from canarium_runtime.backends.devices import Device
from canarium_runtime.backends.options import Options
from canarium_runtime.backends.torch import TorchBackend, open_torch
from canarium_runtime.backends.torch_devices import CudaTransfer
from canarium_runtime.errors import LoadError
from canarium_runtime.testing import model_spec, tensor

Dim = torch.export.Dim
DATATYPES = sorted(set(DTYPES) - {"BYTES"})
TORCH_TYPES = {
    "BOOL": torch.bool,
    "BF16": torch.bfloat16,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    **{f"INT{bits}": getattr(torch, f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": getattr(torch, f"uint{bits}") for bits in (8, 16, 32, 64)},
}


class Copy(torch.nn.Module):
    """Gives back what it takes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Copy."""
        return x.clone()


class Pair(torch.nn.Module):
    """Takes two inputs, one by keyword, and gives two outputs without names."""

    def forward(
        self, ids: torch.Tensor, *, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum what is not masked."""
        return (ids * mask).sum(1), ids + mask


class Folded(torch.nn.Module):
    """Folds an axis whose size must be a multiple of four."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum by fours."""
        return x.view(x.shape[0], -1, 4).sum(-1)


def pair(path: Path, **tokens: Any) -> Path:
    """Write `Pair` with a free number of tokens."""
    axes = {0: Dim("n"), 1: Dim("tokens", **tokens)}
    example = {"ids": torch.ones(3, 4), "mask": torch.ones(3, 4)}
    return save(export(Pair(), example, {"ids": axes, "mask": axes}), path)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_goes_through(tmp_path: Path, datatype: str) -> None:
    """All but texts, which torch has not; bfloat16 keeps its bits."""
    example = torch.ones(3, dtype=TORCH_TYPES[datatype])
    path = save(export(Copy(), {"x": example}, {"x": {0: Dim("n")}}), tmp_path / "m.pt2")
    backend = open_torch(path, Options())
    assert backend.spec.inputs[0].datatype == datatype
    values = [True, False] if datatype == "BOOL" else [3, 100]
    (answer,) = backend.infer({"x": np.array(values, DTYPES[datatype])}, ["output"])
    assert answer.dtype == DTYPES[datatype]
    assert answer.tolist() == values


def test_an_exports_signature_is_read(tmp_path: Path) -> None:
    """Names of arguments, free axes, and outputs by number where they have no names."""
    spec = open_torch(pair(tmp_path / "m.pt2"), Options()).spec
    rows, tokens = spec.inputs[0].shape
    assert isinstance(rows, str)
    assert isinstance(tokens, str)
    assert spec.inputs == (
        tensor("ids", "FP32", rows, tokens),
        tensor("mask", "FP32", rows, tokens),
    )
    assert spec.outputs == (
        tensor("output_0", "FP32", rows),
        tensor("output_1", "FP32", rows, tokens),
    )
    assert spec.batchable
    assert spec.has_tied_axes


def test_declared_names_replace_an_exports_own(tmp_path: Path) -> None:
    """When datatype and shape are what the program has."""
    declared = (tensor("sum", "FP32", None), tensor("all", "FP32", None, None))
    backend = open_torch(pair(tmp_path / "m.pt2"), Options(outputs=declared))
    ones = np.ones((2, 3), np.float32)
    (total,) = backend.infer({"ids": ones, "mask": ones}, ["sum"])
    assert total.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ((tensor("sum", "FP32", None),), "declares 1 tensors, the program has 2"),
        ((tensor("sum", "FP64", None), tensor("all", "FP32", None, None)), "'sum' as FP64"),
        ((tensor("sum", "FP32", None, 1), tensor("all", "FP32", None, None)), "has FP32"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(
    tmp_path: Path, declared: Any, why: str
) -> None:
    """World: another number, datatype or shape; world: what the program has."""
    with pytest.raises(LoadError, match=why) as caught:
        open_torch(pair(tmp_path / "m.pt2"), Options(outputs=declared))
    assert caught.value.failure.reason == "ModelUnsupported"


def test_sizes_beyond_an_exports_bounds_are_the_clients_mistake(tmp_path: Path) -> None:
    """The bounds were given at the export; the message names input, axis and bounds."""
    backend = open_torch(pair(tmp_path / "m.pt2", max=16), Options())
    long = np.ones((1, 17), np.float32)
    with pytest.raises(InputError, match=r"axis 1 of input 'ids' must be .* at most 16, got 17"):
        backend.infer({"ids": long, "mask": long}, ["output_0"])


def test_an_export_for_two_rows_and_more_is_never_joined(tmp_path: Path) -> None:
    """The trap of Dim.AUTO with an example of several rows: one row alone was not exported for."""
    axes = {0: Dim.AUTO}
    example = {"ids": torch.ones(3, 4), "mask": torch.ones(3, 4)}
    path = save(export(Pair(), example, {"ids": axes, "mask": axes}), tmp_path / "m.pt2")
    backend = open_torch(path, Options())
    assert not backend.spec.batchable
    one = np.ones((1, 4), np.float32)
    with pytest.raises(InputError, match="at least 2"):
        backend.infer({"ids": one, "mask": one}, ["output_0"])


def test_conditions_of_an_export_are_kept(tmp_path: Path) -> None:
    """A multiple of four goes through, anything else fails instead of giving something."""
    shapes = {"x": {0: Dim("n"), 1: 4 * Dim("q", max=9)}}
    path = save(export(Folded(), {"x": torch.ones(3, 8)}, shapes), tmp_path / "m.pt2")
    backend = open_torch(path, Options())
    (answer,) = backend.infer({"x": np.ones((1, 12), np.float32)}, ["output"])
    assert answer.tolist() == [[4, 4, 4]]
    with pytest.raises(BackendError):
        backend.infer({"x": np.ones((1, 13), np.float32)}, ["output"])


def test_a_fixed_export_is_not_batchable(tmp_path: Path) -> None:
    """Without dynamic shapes, every size is fixed."""
    path = save(export(Copy(), {"x": torch.ones(3, 4)}, None), tmp_path / "m.pt2")
    spec = open_torch(path, Options()).spec
    assert spec.inputs == (tensor("x", "FP32", 3, 4),)
    assert not spec.batchable


def test_an_undeclared_torchscript_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """The archive has neither names nor shapes."""
    path = write_script(tmp_path / "m.ts")
    with pytest.raises(LoadError, match=r"declare model\.inputs and model\.outputs") as caught:
        open_torch(path, Options(inputs=worlds.INPUTS))
    assert (caught.value.failure.reason, caught.value.failure.permanent) == (
        "ModelUnsupported",
        True,
    )


class Tuple(torch.nn.Module):
    """Gives a tuple."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Twice and thrice."""
        return 2 * x, 3 * x


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_torchscripts_tuples_are_taken_in_the_declared_order(tmp_path: Path, outputs: int) -> None:
    """As many as are declared, or the run fails: never the wrong one under a name."""
    declared = tuple(tensor(name, "FP32", None) for name in "abc"[:outputs])
    options = Options(inputs=(tensor("x", "FP32", None),), outputs=declared)
    backend = open_torch(write_script(tmp_path / "m.ts", Tuple()), options)
    run = {"x": np.array([1, 2], np.float32)}
    if outputs == 2:
        assert [a.tolist() for a in backend.infer(run, ["b", "a"])] == [[3, 6], [2, 4]]
    else:
        with pytest.raises(BackendError, match=f"gave 2 tensors, not {outputs}"):
            backend.infer(run, ["a"])


@pytest.mark.parametrize("precision", list(Precision))
def test_16_bits_keep_the_declared_datatype(tmp_path: Path, precision: Precision) -> None:
    """Arithmetic in 16 bits loses digits, and the answer is FP32 all the same."""
    backend = open_torch(worlds.write_export(tmp_path / "m.pt2"), Options(precision=precision))
    rows = np.array([[1.001, 1.001]], np.float32)
    (answer,) = backend.infer({"x": rows}, ["y"])
    assert answer.dtype == np.float32
    assert answer[0] == pytest.approx(11.011, rel=0.01)
    assert answer[0] != pytest.approx(11.011, rel=1e-6)


def test_compiling_is_left_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for any number of rows; the double stands for torch.compile, which takes half a minute."""
    asked: list[dict[str, Any]] = []

    def compiled(program: Any, **options: Any) -> Any:
        asked.append(options)
        return program

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    options = Options(compiled=True, directory=tmp_path)
    backend = open_torch(worlds.write_export(tmp_path / "m.pt2"), options)
    assert asked == [{"dynamic": True}]
    assert warmup.warm_up(backend, requests=1, max_batch_size=2).rows_independent


def test_weights_are_what_it_holds(tmp_path: Path) -> None:
    """Two numbers of four bytes; nothing after it is closed."""
    backend = open_torch(worlds.write_export(tmp_path / "m.pt2"), Options())
    assert backend.memory_bytes == 8
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.infer({"x": np.ones((1, 2), np.float32)}, ["y"])


def test_threads_are_those_it_was_given(tmp_path: Path) -> None:
    """From the cgroup's limit, not from the machine."""
    before = torch.get_num_threads()
    try:
        open_torch(worlds.write_export(tmp_path / "m.pt2"), Options(threads=3))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_without_a_gpu_that_was_asked_for_nothing_is_served(tmp_path: Path) -> None:
    """Torch sees none here: required, the server leaves; otherwise the CPU serves."""
    path = worlds.write_export(tmp_path / "m.pt2")
    with pytest.raises(LoadError, match="finds no usable GPU") as caught:
        open_torch(path, Options(device=Device(kind="cuda", required=True)))
    assert caught.value.failure.reason == "AcceleratorUnavailable"
    assert open_torch(path, Options(device=Device(kind="cuda"))).device == "cpu"


class FakeTensor:
    """A tensor of the double: values, a place, and a log of what was asked of it."""

    def __init__(self, log: list[str], values: Any, place: str = "cpu") -> None:
        self.log, self.values, self.place = log, values, place
        self.shape, self.dtype = values.shape, values.dtype

    def pin_memory(self) -> "FakeTensor":
        self.log.append("pin")
        return FakeTensor(self.log, self.values, "pinned")

    def to(self, device: str, *, non_blocking: bool) -> "FakeTensor":
        self.log.append(f"copy {self.place} to {device} non_blocking={non_blocking}")
        return FakeTensor(self.log, self.values, device)

    def copy_(self, other: "FakeTensor", *, non_blocking: bool) -> None:
        self.log.append(f"copy {other.place} to {self.place} non_blocking={non_blocking}")
        self.values = other.values

    def numpy(self) -> Any:
        self.log.append("numpy")
        return self.values


class FakeStream:
    """A stream of the double."""

    def __init__(self, log: list[str], number: int) -> None:
        self.log, self.number = log, number

    def __enter__(self) -> None:
        self.log.append(f"enter stream {self.number}")

    def __exit__(self, *_: object) -> None:
        self.log.append(f"leave stream {self.number}")

    def synchronize(self) -> None:
        self.log.append(f"wait for stream {self.number}")


class FakeTorch:
    """A double of torch's CUDA part, at the names that `CudaTransfer` calls."""

    bfloat16 = "bfloat16"

    def __init__(self) -> None:
        self.log: list[str] = []
        self.streams = 0
        self.cuda = self
        self.inference_mode = torch.inference_mode

    def device(self, kind: str, index: int) -> str:
        return f"{kind}:{index}"

    def Stream(self, device: str) -> FakeStream:
        self.streams += 1
        return FakeStream(self.log, self.streams)

    def stream(self, stream: FakeStream) -> FakeStream:
        return stream

    def from_numpy(self, array: Any) -> FakeTensor:
        return FakeTensor(self.log, array)

    def empty(self, shape: Sequence[int], *, dtype: Any, pin_memory: bool) -> FakeTensor:
        return FakeTensor(self.log, np.empty(shape, dtype), "pinned" if pin_memory else "cpu")


def test_on_a_gpu_copies_are_pinned_and_the_stream_is_waited_for_once() -> None:
    """On a double: in by pinned memory, out by pinned memory, and nothing is read before the stream is done."""
    double = FakeTorch()

    def program(x: FakeTensor) -> list[FakeTensor]:
        double.log.append("run")
        return [FakeTensor(double.log, x.values.sum(axis=1), x.place)]

    backend = TorchBackend(program, model_spec(), CudaTransfer(double, 1))
    (answer,) = backend.infer({"x": np.ones((2, 2), np.float32)}, ["y"])
    assert answer.tolist() == [2, 2]
    assert double.log == [
        "enter stream 1",
        "pin",
        "copy pinned to cuda:1 non_blocking=True",
        "run",
        "copy cuda:1 to pinned non_blocking=True",
        "leave stream 1",
        "wait for stream 1",
        "numpy",
    ]


def test_on_a_gpu_each_worker_has_a_stream_of_its_own() -> None:
    """On a double: one stream for each thread, however often it runs."""
    double = FakeTorch()
    transfer = CudaTransfer(double)

    def work() -> None:
        for _ in range(2):
            transfer.run(lambda x: [x], [np.ones(1, np.float32)])

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
    assert double.streams == 2
    assert [line for line in double.log if line.startswith("wait")] == [
        "wait for stream 1",
        "wait for stream 1",
        "wait for stream 2",
        "wait for stream 2",
    ]

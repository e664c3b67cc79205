"""Several models in one: each step takes tensors by name, of the request or of a step before it, and gives more.

A chain is a zip archive, so that one digest covers all of its parts, with `chain.toml`:

    outputs = ["label"]                       optional; default: those of the last step
    [[steps]]
    file = "words.py"
    format = "python"
    [[steps]]
    file = "net.onnx"
    inputs = {input_ids = "ids"}              optional: the step's name = the chain's name
    outputs = {logits = "scores"}             likewise

What is not given by a step before comes from the request, so the inputs of the chain need no declaration. Names,
datatypes and shapes are held together when it is loaded.

Limitation: between steps tensors go through the host's memory.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from canarium_api.model_types import ModelFormat, TensorDeclaration
from canarium_runtime.backends import archives, open_backend
from canarium_runtime.backends.base import Array, Backend, ModelSpec, StreamingBackend, TensorSpec
from canarium_runtime.backends.options import DEFAULT_ENTRYPOINT, Options
from canarium_runtime.errors import LoadError

PLATFORM: Final = "chain"
FILE: Final = "chain.toml"
MAX_STEPS: Final = 32

_Names = dict[str, Annotated[str, Field(min_length=1, max_length=256)]]


class StepDeclaration(BaseModel):
    """One step, as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(min_length=1)
    format: ModelFormat
    inputs: _Names = {}
    outputs: _Names = {}
    declared_inputs: tuple[TensorDeclaration, ...] = ()
    declared_outputs: tuple[TensorDeclaration, ...] = ()
    entrypoint: str = DEFAULT_ENTRYPOINT


class ChainDeclaration(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outputs: tuple[str, ...] = ()
    steps: tuple[StepDeclaration, ...] = Field(min_length=1, max_length=MAX_STEPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that is open."""

    name: str
    """Its file, for messages."""
    backend: Backend
    takes: tuple[tuple[str, str], ...]
    """Pairs of its own input and the chain's tensor."""
    gives: tuple[tuple[str, str], ...]
    """Pairs of its own output and the chain's tensor."""

    def run(self, tensors: dict[str, Array]) -> None:
        """Add what it gives."""
        inputs = {own: tensors[name] for own, name in self.takes}
        results = self.backend.infer(inputs, [own for own, _ in self.gives])
        tensors.update(zip((name for _, name in self.gives), results, strict=True))


class ChainBackend:
    """Steps, one after another."""

    def __init__(self, steps: Sequence[Step], spec: ModelSpec, folder: Path | None = None) -> None:
        self.spec = spec
        self._steps = steps
        self._folder = folder
        self.compute_bound = all(step.backend.compute_bound for step in steps)
        on_gpu = [s.backend.device for s in steps if s.backend.device != "cpu"]
        self.device = on_gpu[0] if on_gpu else "cpu"
        self.memory_bytes = sum(step.backend.memory_bytes for step in steps)

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        """Run all steps once; see `Backend.infer`."""
        tensors = dict(inputs)
        for step in self._steps:
            step.run(tensors)
        return [tensors[name] for name in outputs]

    def stream(
        self, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> Iterator[Sequence[Array]]:
        """Run all steps, the last one in pieces; see `StreamingBackend.stream`."""
        tensors = dict(inputs)
        for step in self._steps[:-1]:
            step.run(tensors)
        last = self._steps[-1]
        given = {own: tensors[name] for own, name in last.takes}
        names = [name for _, name in last.gives]
        backend = cast("StreamingBackend", last.backend)
        for piece in backend.stream(given, [own for own, _ in last.gives]):
            tensors.update(zip(names, piece, strict=True))
            yield [tensors[name] for name in outputs]

    def close(self) -> None:
        """Close all steps, and remove what was unpacked."""
        for step in self._steps:
            step.backend.close()
        if self._folder is not None:
            archives.remove(self._folder)


def open_chain(path: Path, options: Options) -> ChainBackend:
    """Unpack a chain, open its steps and hold them together.

    Raises:
        LoadError: InvalidConfig, when the file is wrong or the steps do not fit together; what opening a step raises.
    """
    folder = archives.unpack(path, options.directory / "chains", options.max_bytes)
    backends: list[Backend] = []
    try:
        declaration = _read(folder)
        for step in declaration.steps:
            opened = open_backend(step.format, _file(folder, step), _options(step, options))
            backends.append(opened)
        return _assemble(declaration, backends, folder)
    except BaseException:
        for backend in backends:
            backend.close()
        archives.remove(folder)
        raise


def _read(folder: Path) -> ChainDeclaration:
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
        return ChainDeclaration.model_validate(tomllib.loads(text))
    except OSError as error:
        raise _wrong(f"the archive has no {FILE} at its top") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(f"it is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise _wrong(f"{place}: {first['msg']}") from error


def _file(folder: Path, step: StepDeclaration) -> Path:
    file = (folder / step.file).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise _wrong(f"{step.file} is not in the archive")
    if step.format is ModelFormat.CHAIN:
        raise _wrong(f"{step.file} is a chain itself: name its steps here")
    return file


def _options(step: StepDeclaration, options: Options) -> Options:
    return replace(
        options,
        inputs=specs_of(step.declared_inputs),
        outputs=specs_of(step.declared_outputs),
        entrypoint=step.entrypoint,
    )


def specs_of(declared: Sequence[TensorDeclaration]) -> tuple[TensorSpec, ...]:
    """Declared tensors as specs."""
    return tuple(
        TensorSpec(
            name=t.name,
            datatype=t.datatype.value,
            shape=tuple(None if size < 0 else size for size in t.shape),
        )
        for t in declared
    )


def _assemble(
    declaration: ChainDeclaration, backends: Sequence[Backend], folder: Path
) -> ChainBackend:
    known: dict[str, TensorSpec] = {}
    asked: dict[str, TensorSpec] = {}
    steps: list[Step] = []
    for stated, backend in zip(declaration.steps, backends, strict=True):
        takes = _renamed(stated.file, "inputs", backend.spec.inputs, stated.inputs)
        gives = _renamed(stated.file, "outputs", backend.spec.outputs, stated.outputs)
        for own, name in zip(backend.spec.inputs, takes.values(), strict=True):
            if name in known:
                _hold(stated.file, own, name, known[name])
            else:
                known[name] = asked[name] = _as(name, own, stated.file)
        for own, name in zip(backend.spec.outputs, gives.values(), strict=True):
            if name in known:
                raise _wrong(
                    f"{stated.file} gives {name!r}, which is there already: rename it in the step's outputs"
                )
            known[name] = _as(name, own, stated.file)
        steps.append(
            Step(
                name=stated.file,
                backend=backend,
                takes=tuple(takes.items()),
                gives=tuple(gives.items()),
            )
        )
    return ChainBackend(steps, _spec(declaration, steps, asked, known), folder)


def _spec(
    declaration: ChainDeclaration,
    steps: Sequence[Step],
    asked: dict[str, TensorSpec],
    known: dict[str, TensorSpec],
) -> ModelSpec:
    names = declaration.outputs or tuple(name for _, name in steps[-1].gives)
    for name in names:
        if name not in known or name in asked:
            raise _wrong(f"no step gives the output {name!r}")
    if any(step.backend.spec.streams for step in steps[:-1]):
        raise _wrong("only the last step may yield pieces")
    return ModelSpec(
        platform=PLATFORM,
        inputs=tuple(asked.values()),
        outputs=tuple(known[name] for name in names),
        batchable=all(step.backend.spec.batchable for step in steps),
        streams=steps[-1].backend.spec.streams,
    )


def _as(name: str, own: TensorSpec, file: str) -> TensorSpec:
    """The chain's tensor. Names of axes are a step's own: `N` of one is not that of another."""
    shape = tuple(f"{file}:{d}" if isinstance(d, str) else d for d in own.shape)
    return replace(own, name=name, shape=shape)


def _renamed(
    file: str, field: str, tensors: Sequence[TensorSpec], names: Mapping[str, str]
) -> dict[str, str]:
    own = [tensor.name for tensor in tensors]
    for name in names:
        if name not in own:
            raise _wrong(f"{file} has no {field[:-1]} {name!r}, but {own}")
    return {name: names.get(name, name) for name in own}


def _hold(file: str, wanted: TensorSpec, name: str, given: TensorSpec) -> None:
    """Hold what a step takes to what is there. Sizes that either leaves open are found out by the warm-up."""
    fits = wanted.datatype == given.datatype and len(wanted.shape) == len(given.shape)
    if not fits or any(
        isinstance(a, int) and isinstance(b, int) and a != b
        for a, b in zip(wanted.shape, given.shape, strict=True)
    ):
        raise _wrong(
            f"{file} takes {name!r} as {wanted.datatype} {wanted.wire_shape}, "
            f"but it is {given.datatype} {given.wire_shape}"
        )


def _wrong(why: str) -> LoadError:
    return LoadError("InvalidConfig", f"{FILE}: {why.rstrip('.')}.", permanent=True)

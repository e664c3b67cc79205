"""What a torch program takes and gives, as the protocol's specs.

An export knows datatypes, shapes and which axes are free, and between which bounds; a TorchScript archive knows
nothing, so its tensors are declared (spec.model.inputs and outputs).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from canarium_runtime.backends.base import Array, Dimension, InputError, TensorSpec
from canarium_runtime.errors import LoadError

DATATYPES = {
    "torch.bool": "BOOL",
    "torch.uint8": "UINT8",
    "torch.uint16": "UINT16",
    "torch.uint32": "UINT32",
    "torch.uint64": "UINT64",
    "torch.int8": "INT8",
    "torch.int16": "INT16",
    "torch.int32": "INT32",
    "torch.int64": "INT64",
    "torch.float16": "FP16",
    "torch.bfloat16": "BF16",
    "torch.float32": "FP32",
    "torch.float64": "FP64",
}
"""Datatypes by torch's names of them."""
_SAME_SIZE = re.compile(r"L\['\w+'\]\.size\(\)\[\d+\] == L\['\w+'\]\.size\(\)\[\d+\]")
"""Guards that the service holds requests to by the names of the axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Sizes that the program was exported for."""

    name: str
    """Name of the input."""
    index: int
    axis: int
    least: int
    most: int | None
    """None: no limit."""

    def check(self, array: Array) -> None:
        """Refuse another size; raises InputError."""
        size = array.shape[self.axis]
        if size < self.least or (self.most is not None and size > self.most):
            most = "" if self.most is None else f" and at most {self.most}"
            msg = f"axis {self.axis} of input {self.name!r} must be at least {self.least}{most}, got {size}"
            raise InputError(msg, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Inputs and outputs of a program."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bounds: tuple[Bound, ...] = ()
    guarded: bool = False
    """It was exported under conditions beyond sizes, which only its own checks know."""


def of_export(
    program: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Signature:
    """Read the signature of a `torch.export.ExportedProgram`.

    Args:
        program: the program.
        inputs: declared inputs, which give other names; () for its own.
        outputs: likewise.

    Raises:
        LoadError: ModelUnsupported, when something but tensors goes in or comes out, or when what is declared does not
            fit the program.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature = program.graph_signature
    arguments = [_flat_name(name) for name in signature.user_inputs]
    results = _output_names(program.call_spec.out_spec, len(signature.user_outputs))
    own_inputs = tuple(
        _tensor(name, values.get(node), "input")
        for name, node in zip(arguments, signature.user_inputs, strict=True)
    )
    own_outputs = tuple(
        _tensor(name, values.get(node), "output")
        for name, node in zip(results, signature.user_outputs, strict=True)
    )
    named = _named(own_inputs, inputs, "inputs")
    return Signature(
        inputs=named,
        outputs=_named(own_outputs, outputs, "outputs"),
        bounds=_bounds(program.range_constraints, named),
        guarded=any(
            not _SAME_SIZE.fullmatch(guard)
            for guard in getattr(program, "_guards_code", None) or ()
        ),
    )


def of_script(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Signature:
    """Take the signature of a TorchScript archive from what is declared.

    Raises:
        LoadError: ModelUnsupported, when nothing is.
    """
    if not inputs or not outputs:
        msg = (
            "TorchScript does not say what it takes and gives: declare model.inputs and model.outputs, each with name, "
            "datatype and shape (-1: any size), or export the model with torch.export"
        )
        raise LoadError("ModelUnsupported", msg, permanent=True)
    return Signature(inputs=tuple(inputs), outputs=tuple(outputs))


def _flat_name(node: Any) -> str:
    if not isinstance(node, str):
        msg = f"the program takes the constant {node!r}: export it with tensors alone"
        raise LoadError("ModelUnsupported", msg, permanent=True)
    return node


def _output_names(tree: Any, count: int) -> list[str]:
    """`output` for one tensor, keys of a dictionary, else `output_0`, `output_1`."""
    context = tree.context if tree.type is dict else None
    if isinstance(context, list) and len(context) == count:
        return [str(key) for key in context]
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _tensor(name: str, value: Any, role: str) -> TensorSpec:
    datatype = DATATYPES.get(str(getattr(value, "dtype", None)))
    if datatype is None:
        kind = getattr(value, "dtype", type(value).__name__)
        msg = (
            f"{role} {name!r} is {kind}, which cannot be served: export the model with tensors of the protocol's "
            "datatypes"
        )
        raise LoadError("ModelUnsupported", msg, permanent=True)
    return TensorSpec(name=name, datatype=datatype, shape=tuple(map(_dimension, value.shape)))


def _dimension(size: Any) -> Dimension:
    return size if type(size) is int else str(size)


def _named(
    own: tuple[TensorSpec, ...], declared: Sequence[TensorSpec], field: str
) -> tuple[TensorSpec, ...]:
    """Give the program's tensors their declared names, if what is declared is what they are."""
    if not declared:
        return own
    if len(own) != len(declared):
        msg = f"model.{field} declares {len(declared)} tensors, the program has {len(own)}: declare all, in its order"
        raise LoadError("ModelUnsupported", msg, permanent=True)
    for mine, theirs in zip(own, declared, strict=True):
        fits = mine.datatype == theirs.datatype and len(mine.shape) == len(theirs.shape)
        if not fits or any(
            isinstance(a, int) and a != b for a, b in zip(mine.shape, theirs.shape, strict=True)
        ):
            msg = (
                f"model.{field} declares {theirs.name!r} as {theirs.datatype} {theirs.wire_shape}, the program has "
                f"{mine.datatype} {mine.wire_shape}: declare what it has, or leave model.{field} out"
            )
            raise LoadError("ModelUnsupported", msg, permanent=True)
    return tuple(
        TensorSpec(name=theirs.name, datatype=mine.datatype, shape=mine.shape)
        for mine, theirs in zip(own, declared, strict=True)
    )


def _bounds(ranges: Any, inputs: Sequence[TensorSpec]) -> tuple[Bound, ...]:
    by_symbol = {str(symbol): limits for symbol, limits in ranges.items()}
    found: list[Bound] = []
    for index, spec in enumerate(inputs):
        for axis, dimension in enumerate(spec.shape):
            limits = by_symbol.get(str(dimension)) if isinstance(dimension, str) else None
            if limits is None:
                continue
            least, most = _number(limits.lower) or 0, _number(limits.upper)
            if least > 1 or most is not None:
                bound = Bound(name=spec.name, index=index, axis=axis, least=least, most=most)
                found.append(bound)
    return tuple(found)


def _number(value: Any) -> int | None:
    """A limit; torch writes "none" as one of several infinities."""
    text = str(value)
    return int(text) if text.isdecimal() else None

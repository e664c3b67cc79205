"""From a model's outputs to answers that can be counted: a class and a score for each class, or a number."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from canarium_api.golden import Task, Thresholds
from canarium_runtime.backends.base import FLOATING, Array, ModelSpec, TensorSpec
from canarium_runtime.golden.table import DataError

MAX_CLASSES: Final = 1000
HALF: Final = 0.5
"""From this score on, a model with one score says yes."""
Floats = NDArray[np.float64]


def canonical(value: Any) -> str:
    """Write a class as text, the same for a label in a file and for a model's output: 3, 3.0 and "3" are "3"."""
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text)
        except ValueError:
            return {"true": "1", "false": "0"}.get(text.lower(), text)
        if not math.isfinite(value):
            return text
    number = float(value)
    return str(int(number)) if number.is_integer() else repr(number)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a model says of some rows."""

    classes: list[str] | None
    """The class of each row, for a classification."""
    values: Floats | None
    """The number of each row, for a regression."""
    scores: Floats | None
    """Scores, a column for each class, where the model gives them."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a model's outputs are read."""

    task: Task
    answer: TensorSpec | None
    """Output with the class or the number."""
    scores: TensorSpec | None
    """Output with a score for each class."""
    classes: tuple[str, ...] = ()
    """Names of the scores' columns, where they are given."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs that are asked for."""
        return tuple(t.name for t in (self.answer, self.scores) if t is not None)

    def read(self, arrays: Mapping[str, Array]) -> Answers:
        """Read the outputs of a run.

        Raises:
            DataError: an output has not the shape that its reading needs.
        """
        scores = None if self.scores is None else _matrix(arrays[self.scores.name], self.scores)
        if self.task is Task.REGRESSION:
            assert self.answer is not None  # noqa: S101 - see `choose`
            values = _vector(arrays[self.answer.name], self.answer).astype(np.float64)
            return Answers(classes=None, values=values, scores=None)
        if self.answer is not None:
            found = _vector(arrays[self.answer.name], self.answer)
            return Answers(
                classes=[canonical(v) for v in found.tolist()], values=None, scores=scores
            )
        assert scores is not None  # noqa: S101
        if scores.shape[1] == 1:
            scores = np.hstack([1 - scores, scores])
            best = (scores[:, 1] >= HALF).astype(np.intp)
        else:
            best = scores.argmax(axis=1)
        names = self.classes or tuple(map(str, range(scores.shape[1])))
        if len(names) != scores.shape[1]:
            raise DataError(
                f"classes names {len(names)} classes, and the model has {scores.shape[1]} scores"
            )
        return Answers(classes=[names[i] for i in best], values=None, scores=scores)


def choose(spec: ModelSpec, wishes: Thresholds) -> Reading:
    """Decide how a model's outputs are read.

    Raises:
        DataError: an output that is named does not exist, or none can be read; says what to name.
    """
    answer = _named(spec, wishes.output, "output")
    scores = _named(spec, wishes.probabilities, "probabilities")
    if answer is None and scores is None:
        answer, scores = _found(spec, wishes.task)
    if answer is None and scores is None:
        listed = ", ".join(f"{t.name} {t.datatype} {t.wire_shape}" for t in spec.outputs)
        raise DataError(
            f"which output has the answers? Name it in the thresholds (output, probabilities): {listed}"
        )
    classes = tuple(canonical(name) for name in wishes.classes)
    number = answer is not None and answer.datatype in FLOATING and scores is None
    task = wishes.task or (Task.REGRESSION if number else Task.CLASSIFICATION)
    if task is Task.REGRESSION and answer is None:
        raise DataError(
            "task is regression, and no output has one number a row: name it in the thresholds (output)"
        )
    if task is Task.CLASSIFICATION and number:
        answer, scores = None, answer  # one score: from a half on, yes
    return Reading(task=task, answer=answer, scores=scores, classes=classes)


def _named(spec: ModelSpec, name: str | None, what: str) -> TensorSpec | None:
    if name is None:
        return None
    found = next((tensor for tensor in spec.outputs if tensor.name == name), None)
    if found is None:
        raise DataError(
            f"{what}: the model has no output {name!r}; it has {', '.join(spec.output_names)}"
        )
    return found


def _found(spec: ModelSpec, task: Task | None) -> tuple[TensorSpec | None, TensorSpec | None]:
    """Find the output with the class or number, and the one with scores, by datatype and shape."""
    single = [t for t in spec.outputs if _columns(t) == 1]
    wide = [
        t for t in spec.outputs if t.datatype in FLOATING and _columns(t) != 1 and len(t.shape) == 2
    ]
    named = [t for t in single if t.datatype not in FLOATING]
    numbers = [t for t in single if t.datatype in FLOATING]
    if task is Task.REGRESSION:
        return next(iter(numbers or named), None), None
    if named:
        return named[0], next(iter(wide), None)
    if wide:
        return None, wide[0]
    return next(iter(numbers), None), None


def _columns(tensor: TensorSpec) -> int | None:
    """How many values a row has; None: any number."""
    sizes = tensor.shape[1:]
    return math.prod(sizes) if all(isinstance(s, int) for s in sizes) else None  # type: ignore[arg-type]


def _vector(array: Array, tensor: TensorSpec) -> Array:
    if array.ndim == 0 or array.size != array.shape[0]:
        raise DataError(
            f"output {tensor.name!r} has shape {list(array.shape)}, and one value a row is expected: name the output "
            "with the class or the number in the thresholds (output)"
        )
    return array.reshape(-1)


def _matrix(array: Array, tensor: TensorSpec) -> Floats:
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] > MAX_CLASSES:
        raise DataError(
            f"output {tensor.name!r} has shape {list(array.shape)}, and a score for each of at most {MAX_CLASSES} "
            "classes is expected: name the right output in the thresholds (probabilities)"
        )
    return array.astype(np.float64)


@dataclass
class ColumnNames:
    """Learns which column of the scores belongs to which class, from the rows in which it has the highest one.

    A model's class output and its scores agree, but nothing says in which order the scores are.
    """

    given: Sequence[str] = ()
    seen: dict[int, Counter[str]] = field(default_factory=dict)

    def learn(self, answers: Answers) -> None:
        """Look at some rows."""
        if self.given or answers.scores is None or answers.classes is None:
            return
        for column, name in zip(
            answers.scores.argmax(axis=1).tolist(), answers.classes, strict=True
        ):
            self.seen.setdefault(column, Counter())[name] += 1

    def names(self, columns: int, known: Sequence[str]) -> list[str] | None:
        """Give the class of each column; None: not known for all of them.

        Args:
            columns: how many there are.
            known: classes that occur.
        """
        if self.given:
            return list(self.given) if len(self.given) == columns else None
        found = {column: counts.most_common(1)[0][0] for column, counts in self.seen.items()}
        left = [c for c in range(columns) if c not in found]
        unused = [name for name in known if name not in found.values()]
        if len(left) == 1 and len(unused) == 1:
            found[left[0]] = unused[0]
        elif left:
            return None
        names = [found[column] for column in range(columns)]
        return names if len(set(names)) == columns else None

"""`Rules`: everything that a request's values must hold, as one stage of the pipeline."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from canarium_api.input_rules import ValidationLevel, ValidationSpec
from canarium_api.metric_names import RuleKind, ViolationOutcome
from canarium_runtime.backends.base import Array, ModelSpec, is_floating
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.notes import MAX_NOTES, Note, Notes, bounded
from canarium_runtime.rules.checks import Check, Fault, Layout, path
from canarium_runtime.rules.compiling import Condition, checks_of, conditions_of, layouts_of
from canarium_runtime.rules.reading import Reader
from canarium_runtime.rules.tally import Tally, new_tally
from canarium_runtime.validation import ValidatedInputs, describe

MAX_LISTED: Final = 10
"""Violations that one answer names."""


class Rules:
    """See the package. Make it by `compile`; call from the event loop's thread."""

    def __init__(
        self,
        spec: ValidationSpec,
        layouts: dict[str, Layout],
        checks: dict[str, list[Check]],
        conditions: Sequence[Condition],
        tally: Tally,
    ) -> None:
        self._level = spec.level
        self._max_rows = spec.max_rows
        self._layouts = layouts
        self._checks = checks
        self._conditions = conditions
        self._tally = tally
        self._quick: list[tuple[str, bool, Callable[[Array], bool]]] = [
            (
                name,
                layouts[name].has_columns,
                _quietly(check.holds) if layouts[name].spec.datatype == "BF16" else check.holds,
            )
            for name, some in checks.items()
            for check in some
        ]
        self._widths = {
            name: 1 + max(c.index for c in layout.columns)
            for name, layout in layouts.items()
            if layout.width is None and layout.columns
        }
        """Columns that an input of any width must have, for its rules to mean something."""
        nullable = frozenset(
            name
            for name, layout in layouts.items()
            if layout.nullable or any(c.nullable for c in layout.all_rules())
        )
        needed = spec.level is ValidationLevel.PERMISSIVE or nullable
        self._wants_finite_alone = not spec.inputs and not spec.expressions
        """The rules are those of a model without any: no NaN and no infinity."""
        self.reader = Reader(layouts, spec.level, nullable, self._converted) if needed else None
        """For `validation.validate`: converts JSON values of another type; None where the rules allow none."""

    @classmethod
    def for_any_model(cls) -> "Rules":
        """Rules that hold for every request, where no model is loaded."""
        return cls(ValidationSpec(), {}, {}, (), new_tally())

    @classmethod
    def compile(cls, spec: ValidationSpec, model: ModelSpec, tally: Tally | None = None) -> "Rules":
        """Fit rules to a model.

        Args:
            spec: the rules.
            model: the model's inputs.
            tally: where violations are counted.

        Raises:
            RuleError: a rule cannot be used with this model; names the field and the remedy.
        """
        layouts = layouts_of(spec, model)
        checks = {name: checks_of(spec, layout) for name, layout in layouts.items()}
        conditions = conditions_of(spec, layouts)
        return cls(spec, layouts, checks, conditions, new_tally() if tally is None else tally)

    def apply(self, inputs: ValidatedInputs) -> tuple[ValidatedInputs, Notes]:
        """Check the values of a request.

        Args:
            inputs: of a request that fits the model's datatypes and shapes.

        Returns:
            The inputs for the model, others than those given where values were put right, and what the answer must say.

        Raises:
            ServingError: INVALID; `field` is the first offending value, the message names up to ten.
        """
        if inputs.rows > self._max_rows:
            self._refuse_rows(inputs)
        if inputs.finite and self._wants_finite_alone:
            return inputs, inputs.notes
        arrays = inputs.arrays
        if self._widths:
            self._check_widths(arrays)
        for name, has_columns, holds in self._quick:
            array = arrays[name]
            if not holds(array if has_columns else array[..., None]):
                return self._judge(inputs)
        for condition in self._conditions:
            if b"\0" in condition.compute(arrays).tobytes():
                return self._judge(inputs)
        return inputs, inputs.notes

    def _judge(self, inputs: ValidatedInputs) -> tuple[ValidatedInputs, Notes]:
        """Look closely, and decide by the level."""
        with np.errstate(invalid="ignore"):
            return self._judge_quietly(inputs)

    def _judge_quietly(self, inputs: ValidatedInputs) -> tuple[ValidatedInputs, Notes]:
        arrays = dict(inputs.arrays)
        corrected: list[Note] = []
        if self._level is ValidationLevel.PERMISSIVE:
            corrected = self._repair(arrays)
        violations = _Violations(self._level is ValidationLevel.WARNING, self._tally)
        for name in self._checks:
            layout = self._layouts[name]
            array = _with_columns(layout, arrays[name])
            for check in self._checks[name]:
                for fault in check.faults(array):
                    violations.count(fault.kind, int(fault.mask.sum()))
                    for place in _first(fault.mask):
                        expected = f"{fault.expected(place[-1])}{_feature(layout, place[-1])}"
                        violations.add(
                            fault.kind, path(layout, place), expected, _shown(array[place])
                        )
        for condition in self._conditions:
            wrong = ~condition.compute(arrays)
            violations.count(RuleKind.EXPRESSION, int(wrong.sum()))
            for place in _first(wrong):
                violations.add(
                    RuleKind.EXPRESSION,
                    f"inputs.*[{place[0]}]",
                    condition.expected,
                    "a row without",
                )
        if violations.total and not violations.lets_through:
            raise violations.refusal()
        notes = bounded((*inputs.notes, *corrected, *violations.notes()))
        return replace(inputs, arrays=arrays, notes=notes), notes

    def _repair(self, arrays: dict[str, Array]) -> list[Note]:
        """Put right what has one evident right value; gives notes for the first few that changed."""
        notes: list[Note] = []
        for name, checks in self._checks.items():
            layout = self._layouts[name]
            before = _with_columns(layout, arrays[name])
            fixed = before.copy()
            faults: list[Fault] = []
            for check in checks:
                faults += check.faults(fixed)
                check.repair(fixed)
            if faults:
                arrays[name] = fixed.reshape(arrays[name].shape)
                self._note_changes(layout, before, fixed, faults, notes)
        return notes

    def _note_changes(
        self,
        layout: Layout,
        before: Array,
        fixed: Array,
        faults: Sequence[Fault],
        notes: list[Note],
    ) -> None:
        """Count each changed value by the first rule that it broke, and say what became of the first few."""
        changed = before != fixed
        if is_floating(before.dtype):
            changed &= ~np.isnan(fixed)
        for fault in faults:
            mask = fault.mask & changed
            changed &= ~mask
            number = int(mask.sum())
            self._tally[fault.kind, ViolationOutcome.CORRECTED] += number
            for place in _first(mask):
                if len(notes) < MAX_NOTES:
                    field = path(layout, place)
                    text = f"{field}: {_shown(before[place])} became {_shown(fixed[place])}"
                    notes.append(Note(fault.kind, field, text + _feature(layout, place[-1])))
                    number -= 1
            if number > 0:
                last = notes[-1]
                notes[-1] = Note(last.kind, last.field, f"{last.message}; and {number} more")

    def _check_widths(self, arrays: dict[str, Array]) -> None:
        for name, least in self._widths.items():
            width = arrays[name].shape[-1]
            if width < least:
                field = f"inputs.{name}"
                violations = _Violations(False, self._tally)
                violations.count(RuleKind.RANGE, 1)
                violations.add(
                    RuleKind.RANGE, field, f"at least {least} columns, which have rules", str(width)
                )
                raise violations.refusal()

    def _refuse_rows(self, inputs: ValidatedInputs) -> None:
        violations = _Violations(False, self._tally)
        violations.count(RuleKind.ROWS, 1)
        expected = f"at most {self._max_rows} rows (maxRows)"
        violations.add(RuleKind.ROWS, "inputs", expected, f"{inputs.rows} rows: send fewer at once")
        raise violations.refusal()

    def _converted(self, count: int) -> None:
        self._tally[RuleKind.TYPE, ViolationOutcome.CORRECTED] += count


class _Violations:
    """Violations of one request: all are counted, the first few are named."""

    def __init__(self, lets_through: bool, tally: Tally) -> None:
        self.lets_through = lets_through
        self.total = 0
        self._outcome = ViolationOutcome.WARNED if lets_through else ViolationOutcome.REFUSED
        self._tally = tally
        self._listed: list[tuple[RuleKind, str, str, str]] = []

    def count(self, kind: RuleKind, number: int) -> None:
        """Count violations of one kind."""
        self.total += number
        self._tally[kind, self._outcome] += number

    def add(self, kind: RuleKind, field: str, expected: str, got: str) -> None:
        """Name one violation, unless there are enough."""
        if len(self._listed) < MAX_LISTED:
            self._listed.append((kind, field, expected, got))

    def notes(self) -> Notes:
        """Give one note for each that is named."""
        notes = [
            Note(kind, field, _sentence(field, expected, got))
            for kind, field, expected, got in self._listed
        ]
        more = self.total - len(notes)
        if more > 0:
            last = notes[-1]
            notes[-1] = Note(last.kind, last.field, f"{last.message}; and {more} more")
        return tuple(notes)

    def refusal(self) -> ServingError:
        """Make the error that names them."""
        _, field, expected, got = self._listed[0]
        message = "; ".join(note.message for note in self.notes())
        return ServingError(ErrorKind.INVALID, message, field=field, expected=expected, got=got)


def _quietly(holds: Callable[[Array], bool]) -> Callable[[Array], bool]:
    """Comparisons of bfloat16, unlike others, warn of NaN."""

    def quiet(array: Array) -> bool:
        with np.errstate(invalid="ignore"):
            return holds(array)

    return quiet


def _sentence(field: str, expected: str, got: str) -> str:
    return f"{field}: expected {expected}, got {got}"


def _with_columns(layout: Layout, array: Array) -> Array:
    return array if layout.has_columns else array[..., None]


def _first(mask: Array) -> Iterator[tuple[int, ...]]:
    """Places of the first few that are wrong, in row-major order."""
    flat = np.flatnonzero(mask)[:MAX_LISTED]
    for index in flat.tolist():
        yield tuple(int(i) for i in np.unravel_index(index, mask.shape))


def _feature(layout: Layout, index: int) -> str:
    column = next((c for c in layout.columns if c.index == index), None)
    return "" if column is None else f" for feature {column.rules.name!r}"


def _shown(value: Any) -> str:
    return describe(value.item() if isinstance(value, np.generic) else value)

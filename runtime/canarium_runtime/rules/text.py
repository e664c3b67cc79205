"""Strings: lengths, patterns, suspicious content.

Lists of strings are matched by the regular-expression engine that pydantic brings (the `regex` crate of Rust): it takes
time proportional to the string whatever the pattern, so neither a pattern nor a string can keep the server; and it
takes a whole list in one call. Patterns are limited in compiled size, too.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from pydantic_core import SchemaError, SchemaValidator, core_schema

from canarium_api.input_rules import FeatureRules, InputRules, TextCheck
from canarium_api.metric_names import RuleKind
from canarium_runtime.backends.base import Array
from canarium_runtime.rules.checks import Column, Fault, RuleError

_CLASSES: Final = {
    TextCheck.CONTROL_CHARACTERS: r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]",
    TextCheck.NUL: r"\x00",
    TextCheck.SURROGATES: r"[\ud800-\udfff]",
    TextCheck.MARKUP: r"(?i:<\s{0,8}/?(?:script|iframe|object|embed|svg)\b|(?:java|vb)script:|\bon[a-z]{3,16}\s{0,8}=)",
}
"""Each takes time proportional to the string. What NUL is to C is the check `nul`, not `controlCharacters`."""
_WORDS: Final = {
    TextCheck.CONTROL_CHARACTERS: "a string without control characters",
    TextCheck.NUL: "a string without U+0000",
    TextCheck.SURROGATES: "a string without halves of surrogate pairs",
    TextCheck.MARKUP: "a string without marks of scripts",
}
_REMOVED: Final = frozenset(TextCheck) - {TextCheck.MARKUP}
"""What can be taken out of a string without a doubt about what was meant."""


class TextsCheck:
    """All strings of one input: emptiness, length, content."""

    def __init__(self, rules: InputRules) -> None:
        self._checks = [(check, re.compile(_CLASSES[check])) for check in rules.text_checks]
        self._any = (
            re.compile("|".join(_CLASSES[check] for check in rules.text_checks))
            if rules.text_checks
            else None
        )
        removed = [_CLASSES[check] for check in rules.text_checks if check in _REMOVED]
        self._remove = re.compile("|".join(removed)) if removed else None
        self._allow_empty = rules.allow_empty is not False
        self._longest = rules.max_length
        self._lengths = (
            None
            if self._allow_empty and self._longest is None
            else _validator(None, None if self._allow_empty else 1, self._longest)
        )
        self.idle = self._any is None and self._lengths is None
        """Whether there is nothing to check."""

    def holds(self, array: Array) -> bool:
        """See `Check`."""
        values = array.ravel().tolist()
        if self._lengths is not None and not self._lengths.isinstance_python(values):
            return False
        return self._any is None or self._any.search(" ".join(values)) is None

    def faults(self, array: Array) -> list[Fault]:
        """See `Check`."""
        found = []
        if not self._allow_empty:
            found += _fault(RuleKind.EMPTY, array, lambda v: not v, "a string that is not empty")
        longest = self._longest
        if longest is not None:
            words = f"at most {longest} characters"
            found += _fault(RuleKind.LENGTH, array, lambda v: len(v) > longest, words)
        for check, pattern in self._checks:
            found += _fault(RuleKind.CONTENT, array, _search(pattern), _WORDS[check])
        return found

    def repair(self, array: Array) -> None:
        """Take out what does not belong, then what is too long."""
        remove, longest = self._remove, self._longest
        for place, value in np.ndenumerate(array):
            text = value if remove is None else remove.sub("", value)
            array[place] = text[:longest]


class PatternsCheck:
    """`pattern`, `minLength` and `maxLength` of the columns of an input of strings.

    Args:
        columns: those with such rules.
        each: rules for the other columns; None: there are none.

    Raises:
        RuleError: a pattern cannot be used.
    """

    def __init__(self, columns: Sequence[Column], each: Column | None) -> None:
        self._rules = {c.index: c.rules for c in columns}
        self._validators = {c.index: _of(c) for c in columns}
        self._each = None if each is None else (each.rules, _of(each))

    def holds(self, array: Array) -> bool:
        """See `Check`."""
        for column, validator in self._validators.items():
            if validator is not None:
                values = array[..., column].ravel().tolist()
                if not validator.isinstance_python(values):
                    return False
        if self._each is None or self._each[1] is None:
            return True
        rest = np.delete(array, [*self._rules], axis=-1) if self._rules else array
        return self._each[1].isinstance_python(rest.ravel().tolist())

    def faults(self, array: Array) -> list[Fault]:
        """See `Check`."""
        found = []
        if self._each is not None:
            for kind, wrong, words in _tests(self._each[0]):
                for fault in _fault(kind, array, wrong, words):
                    fault.mask[..., [*self._rules]] = False
                    if fault.mask.any():
                        found.append(fault)
        for column, rules in self._rules.items():
            for kind, wrong, words in _tests(rules):
                found += _within(array, column, _fault(kind, array[..., column], wrong, words))
        return found

    def repair(self, array: Array) -> None:
        """Shorten what is too long."""
        if self._each is not None:
            kept = {column: array[..., column].copy() for column in self._rules}
            _shorten(array, self._each[0].max_length)
            for column, values in kept.items():
                array[..., column] = values
        for column, rules in self._rules.items():
            _shorten(array[..., column], rules.max_length)


def _shorten(array: Array, longest: int | None) -> None:
    if longest is not None:
        flat = [value[:longest] for value in array.ravel().tolist()]
        array[...] = np.array(flat, object).reshape(array.shape)


Test = Callable[[str], bool]
"""Whether a string is wrong."""


def _tests(rules: FeatureRules) -> Iterator[tuple[RuleKind, Test, str]]:
    least, most = rules.min_length, rules.max_length
    if least is not None:
        yield RuleKind.LENGTH, lambda v: len(v) < least, f"at least {least} characters"
    if most is not None:
        yield RuleKind.LENGTH, lambda v: len(v) > most, f"at most {most} characters"
    if rules.pattern is not None:
        matcher = _validator(rules.pattern, None, None)
        words = f"a string that matches {rules.pattern}"
        yield RuleKind.PATTERN, lambda v: not matcher.isinstance_python([v]), words


def _search(pattern: re.Pattern[str]) -> Test:
    return lambda value: pattern.search(value) is not None


def _of(column: Column) -> SchemaValidator | None:
    rules = column.rules
    if rules.pattern is None and rules.min_length is None and rules.max_length is None:
        return None
    try:
        if rules.pattern is not None:
            # By itself first: `a)|(b` would close the group that anchors it.
            SchemaValidator(core_schema.str_schema(pattern=rules.pattern))
        return _validator(rules.pattern, rules.min_length, rules.max_length)
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("error: ").strip()
        text = f"{column.field}.pattern: {reason}: write it without look-around and back-references, and shorter"
        raise RuleError(text) from error


@lru_cache(maxsize=4096)
def _validator(pattern: str | None, least: int | None, most: int | None) -> SchemaValidator:
    return SchemaValidator(
        core_schema.list_schema(
            core_schema.str_schema(
                strict=True,
                pattern=None if pattern is None else rf"\A(?:{pattern})\z",
                min_length=least,
                max_length=most,
                regex_engine="rust-regex",
            )
        )
    )


def _fault(kind: RuleKind, array: Array, wrong: Test, words: str) -> list[Fault]:
    mask = np.array([wrong(v) for v in array.ravel().tolist()], bool).reshape(array.shape)
    return [Fault(kind, mask, lambda _: words)] if mask.any() else []


def _within(array: Array, column: int, faults: list[Fault]) -> list[Fault]:
    """Widen the masks of one column's faults to the whole array."""
    widened = []
    for fault in faults:
        mask = np.zeros(array.shape, bool)
        mask[..., column] = fault.mask
        widened.append(Fault(fault.kind, mask, fault.expected))
    return widened

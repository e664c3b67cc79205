"""`spec.serving.validation`: what a request must hold besides the model's datatypes and shapes.

Datatypes and shapes come from the model itself and are always checked. What stands here belongs to the revision, and
so to its hash: a rule turns answers into refusals, or changes the numbers that the model sees. A rule that refuses half
of the traffic is then met by a canary and its checks (`invalid-rate`), not by all users at once.
"""

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from canarium_api.base import ApiModel, rules

MAX_FEATURES: Final = 1000
MAX_PATTERN: Final = 512
"""Characters of a pattern."""
MAX_EXPRESSION: Final = 1000
"""Characters of an expression."""
MAX_VALIDATION_BYTES: Final = 100_000
"""Of the whole part as JSON. It travels in one environment variable, and Linux starts no program with a longer one
than 128 KiB."""

Number = Annotated[float, Field(allow_inf_nan=False)]


class ValidationLevel(StrEnum):
    """What becomes of a request that breaks a rule."""

    STRICT = "strict"
    """It is refused with 422, and the answer names every broken rule, up to ten."""
    WARNING = "warning"
    """It is answered, and the answer says which rules it broke."""
    PERMISSIVE = "permissive"
    """It is put right where there is one evident way (clamp to the range, convert "1.5", a default for a missing
    value), and the answer says so; what cannot be put right is refused."""


class TextCheck(StrEnum):
    """Content of strings that a model is not meant to get."""

    CONTROL_CHARACTERS = "controlCharacters"
    """Control characters other than tab, line feed and carriage return."""
    NUL = "nul"
    """The character U+0000, where strings end for C libraries."""
    SURROGATES = "surrogates"
    """Halves of surrogate pairs, which no UTF-8 text has."""
    MARKUP = "markup"
    """Marks of scripts in HTML: `<script`, `<iframe`, `javascript:`, `onerror=` and the like."""


class FeatureRules(ApiModel):
    """Rules for one column of an input, or for all of its values where it has no columns."""

    model_config = rules(
        (
            "!has(self.min) || !has(self.max) || self.min <= self.max",
            "serving.validation: min must not be above max: lower the one or raise the other",
        ),
    )

    name: str = Field(min_length=1, max_length=128)
    """Name in messages, warnings and expressions."""
    index: int | None = Field(default=None, ge=0, lt=1_000_000)
    """Which column, from 0, in the last axis of the input. Default: the one after the feature before it."""
    min: Number | None = None
    """Least value."""
    max: Number | None = None
    """Largest value."""
    exclusive_min: Number | None = None
    """Values must be above it."""
    exclusive_max: Number | None = None
    """Values must be below it."""
    integer: bool | None = None
    """Only whole numbers."""
    enum: list[Annotated[str, Field(max_length=256)]] | None = Field(
        default=None, min_length=1, max_length=256
    )
    """The values that are allowed; numbers are written as text, too: `"1"`."""
    pattern: str | None = Field(default=None, min_length=1, max_length=MAX_PATTERN)
    """Regular expression that the whole string must match; without look-around and back-references, so that no string
    takes long."""
    min_length: int | None = Field(default=None, ge=0, le=1_000_000)
    """Fewest characters."""
    max_length: int | None = Field(default=None, ge=0, le=1_000_000)
    """Most characters."""
    nullable: bool | None = None
    """Whether the value may be missing: `null` in JSON, NaN in binary data. Default: the input's `allowNan`."""
    default: str | None = Field(default=None, max_length=256)
    """At the level permissive, the value for a missing one."""

    @model_validator(mode="after")
    def _bounds_agree(self) -> Self:
        low, high = self.lower, self.upper
        if low is not None and high is not None and low > high:
            msg = f"feature {self.name!r}: no value is between {low:g} and {high:g}: lower the one or raise the other"
            raise ValueError(msg)
        shortest, longest = self.min_length, self.max_length
        if shortest is not None and longest is not None and shortest > longest:
            msg = f"feature {self.name!r}: minLength {shortest} is above maxLength {longest}: lower the one"
            raise ValueError(msg)
        for one, other in (("min", "exclusive_min"), ("max", "exclusive_max")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                msg = f"feature {self.name!r}: {one} and {other} say the same twice: remove one"
                raise ValueError(msg)
        return self

    @property
    def lower(self) -> float | None:
        """The lower bound, inclusive or not."""
        return self.exclusive_min if self.min is None else self.min

    @property
    def upper(self) -> float | None:
        """The upper bound, inclusive or not."""
        return self.exclusive_max if self.max is None else self.max


class InputRules(ApiModel):
    """Rules for one input of the model."""

    name: str = Field(min_length=1, max_length=256)
    """Name of the input, as the model has it."""
    features: list[FeatureRules] = Field(default=[], max_length=MAX_FEATURES)
    """Columns with rules of their own."""
    each: FeatureRules | None = None
    """Rules for every value in a column that has none of its own, such as pixels or token ids."""
    allow_nan: bool | None = None
    """Instead of `validation.allowNan`."""
    allow_infinity: bool | None = None
    """Instead of `validation.allowInfinity`."""
    allow_empty: bool | None = None
    """Whether strings may be empty. Default: yes."""
    max_length: int | None = Field(default=None, ge=1, le=10_000_000)
    """Most characters of each string."""
    text_checks: list[TextCheck] = Field(default=[], max_length=len(TextCheck))
    """What strings must not hold: `controlCharacters`, `nul`, `surrogates`, `markup`. Default: anything goes, since
    models of text may well want it."""


class ExpressionRule(ApiModel):
    """A condition over several features, which every row must meet."""

    name: str = Field(min_length=1, max_length=128)
    """Name in messages."""
    expression: str = Field(min_length=1, max_length=MAX_EXPRESSION)
    """Such as `age >= 18 || income == 0`. Comparisons, `&&`, `||`, `!`, `in [...]`, arithmetic, and the functions abs,
    min, max, floor, isnan, size, and feature("...") for names that are no identifiers."""
    message: str = Field(default="", max_length=256)
    """What a refusal says. Default: the expression."""


class ValidationSpec(ApiModel):
    """Rules for requests. Datatypes and shapes are the model's own and always strict."""

    level: ValidationLevel = ValidationLevel.STRICT
    """What becomes of a request that breaks a rule: `strict` refuses it with 422, `warning` answers and says so in the
    answer, `permissive` puts it right where it can, and says so."""
    allow_nan: bool = False
    """Whether NaN is a value: set it for models that take missing values, such as trees. `null` in JSON is then NaN."""
    allow_infinity: bool = False
    """Whether infinities are values."""
    max_rows: int = Field(default=100_000, ge=1, le=100_000_000)
    """Most rows of one request; above it, clients get 422 at every level."""
    inputs: list[InputRules] = Field(default=[], max_length=64)
    """Rules by input."""
    expressions: list[ExpressionRule] = Field(default=[], max_length=32)
    """Rules over several features."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        _unique("inputs", [i.name for i in self.inputs])
        _unique("expressions", [e.name for e in self.expressions])
        for rules_of_input in self.inputs:
            _unique(
                f"features of input {rules_of_input.name!r}",
                [f.name for f in rules_of_input.features],
            )
            columns(rules_of_input.features)
        return self

    def to_json(self) -> str:
        """Render for `CANARIUM_VALIDATION`; the default is the empty string.

        Raises:
            ValueError: it is longer than an environment variable should be.
        """
        if self == ValidationSpec():
            return ""
        text = self.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True)
        if len(text.encode()) > MAX_VALIDATION_BYTES:
            size = f"has {len(text.encode())} bytes as JSON, of at most {MAX_VALIDATION_BYTES}"
            msg = f"{size}: leave out features without rules"
            raise ValueError(msg)
        return text


def columns(features: list[FeatureRules]) -> list[int]:
    """Give the column of each feature.

    Raises:
        ValueError: two features have the same one.
    """
    found: dict[int, None] = {}
    index = -1
    for feature in features:
        index = index + 1 if feature.index is None else feature.index
        if index in found:
            msg = (
                f"feature {feature.name!r}: column {index} has rules already: give it another index"
            )
            raise ValueError(msg)
        found[index] = None
    return list(found)


def _unique(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            msg = f"{what}: each name once, but {name!r} comes twice: rename one"
            raise ValueError(msg)
        seen.add(name)

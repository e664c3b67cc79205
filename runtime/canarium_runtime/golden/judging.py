"""Thresholds against what was measured: a list of checks, each met or missed. What could not be measured is missed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from canarium_api.duration import Duration
from canarium_api.golden import Bound, Thresholds, milliseconds
from canarium_api.quantity import parse_quantity
from canarium_runtime.golden.evaluation import Evaluation
from canarium_runtime.golden.profile import MIN_ROWS
from canarium_runtime.golden.scores import LESS_IS_BETTER


@dataclass(frozen=True, kw_only=True)
class Check:
    """One threshold, and what was measured."""

    name: str
    """`accuracy`, `latency p95`, `drift`."""
    value: float | None
    """None: not measured."""
    limit: str
    """`at least 0.95`."""
    passed: bool
    message: str
    """One sentence: what was measured, and where it is missed, why."""


def judge(
    found: Evaluation,
    wishes: Thresholds,
    *,
    size_bytes: int,
    breaks: Sequence[str] | None,
) -> list[Check]:
    """Hold the thresholds against an evaluation.

    Args:
        found: what was measured.
        wishes: the thresholds.
        size_bytes: of the artefact.
        breaks: how the model's inputs and outputs break clients of the old version; None: there is no old version.
    """
    return [
        _rows(found, wishes),
        *_metrics(found, wishes),
        *_latency(found, wishes),
        *_size(size_bytes, wishes),
        *_contract(breaks),
        *_agreement(found, wishes),
        *_data(found, wishes),
        *_drift(found, wishes),
    ]


def _rows(found: Evaluation, wishes: Thresholds) -> Check:
    return _at_least("rows", float(found.rows), float(wishes.min_rows))


def shown(value: float) -> str:
    """Write a number for people: four digits."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"


def _at_least(name: str, value: float | None, limit: float) -> Check:
    words = f"at least {shown(limit)}"
    return _check(name, value, words, value is not None and value >= limit)


def _at_most(name: str, value: float | None, limit: float, unit: str = "") -> Check:
    words = f"at most {shown(limit)}{unit}"
    return _check(name, value, words, value is not None and value <= limit, unit)


def _check(name: str, value: float | None, limit: str, passed: bool, unit: str = "") -> Check:
    said = "was not measured" if value is None else f"is {shown(value)}{unit}"
    ending = "" if passed else f", and {limit} is asked for"
    return Check(
        name=name, value=value, limit=limit, passed=passed, message=f"{name} {said}{ending}"
    )


def _metrics(found: Evaluation, wishes: Thresholds) -> Iterator[Check]:
    old: Mapping[str, float] | None = None if found.old is None else found.old.metrics
    for field, info in type(wishes.metrics).model_fields.items():
        bound: Bound | None = getattr(wishes.metrics, field)
        if bound is None:
            continue
        name = str(info.alias)
        value = found.new.metrics.get(name)
        if bound.min is not None:
            yield _at_least(name, value, bound.min)
        if bound.max is not None:
            yield _at_most(name, value, bound.max)
        if bound.max_loss is not None:
            before = None if old is None else old.get(name)
            yield _loss(name, value, before, bound.max_loss)


def _loss(name: str, value: float | None, before: float | None, most: float) -> Check:
    label = f"{name} against the old version"
    limit = f"at most {shown(most)} worse"
    if value is None or before is None:
        return _check(label, None, limit, False)
    worse = value - before if name in LESS_IS_BETTER else before - value
    passed = worse <= most + 1e-12
    said = f"{name} is {shown(value)}, the old version's is {shown(before)}"
    ending = "" if passed else f": {shown(worse)} worse, and {limit} is asked for"
    return Check(name=label, value=worse, limit=limit, passed=passed, message=said + ending)


def _latency(found: Evaluation, wishes: Thresholds) -> Iterator[Check]:
    limits: dict[str, Duration | None] = {
        "p50": wishes.latency.p50,
        "p95": wishes.latency.p95,
        "p99": wishes.latency.p99,
    }
    for name, limit in limits.items():
        if limit is not None:
            value = float(getattr(found.latency, name))
            yield _at_most(f"latency {name}", value, milliseconds(limit), " ms")


def _size(size_bytes: int, wishes: Thresholds) -> Iterator[Check]:
    if wishes.max_size is not None:
        limit = parse_quantity(wishes.max_size) / 2**20
        yield _at_most("size", size_bytes / 2**20, limit, " MiB")


def _contract(breaks: Sequence[str] | None) -> Iterator[Check]:
    if breaks is None:
        return
    message = f"clients of the old version would break: {'; '.join(breaks)}"
    fine = "takes what clients of the old version send, and gives what they read"
    yield Check(
        name="contract",
        value=float(len(breaks)),
        limit="no breaking change",
        passed=not breaks,
        message=message if breaks else fine,
    )


def _agreement(found: Evaluation, wishes: Thresholds) -> Iterator[Check]:
    if wishes.min_agreement is not None:
        value = None if found.agreement is None else found.agreement.share
        yield _at_least("agreement", value, wishes.min_agreement)


def _data(found: Evaluation, wishes: Thresholds) -> Iterator[Check]:
    features = found.features
    if (limit := wishes.data.max_missing) is not None:
        worst = max(features, key=lambda f: f.missing_share)
        check = _at_most("missing values", worst.missing_share, limit)
        yield _of_feature(check, worst.name)
    if (limit := wishes.data.max_out_of_range) is not None:
        known = [f for f in features if f.out_of_range is not None]
        if not known:
            yield _at_most("values out of range", None, limit)
            return
        worst = max(known, key=lambda f: f.out_of_range or 0.0)
        check = _at_most("values out of range", worst.out_of_range, limit)
        yield _of_feature(check, worst.name)


def _of_feature(check: Check, feature: str) -> Check:
    message = check.message.replace(check.name, f"{check.name}: the share of {feature!r}", 1)
    return Check(
        name=check.name,
        value=check.value,
        limit=check.limit,
        passed=check.passed,
        message=message,
    )


def _drift(found: Evaluation, wishes: Thresholds) -> Iterator[Check]:
    """Judge drift wherever there is a reference: that is what a reference is given for."""
    if found.reference_rows is None:
        return
    limit = (
        f"at most {wishes.drift.max_features} features with a score of {shown(wishes.drift.score)}"
    )
    known = [f for f in found.features if f.drift is not None]
    if not known:
        rows = f"{found.rows} rows, and {found.reference_rows} of the reference"
        few = f"drift was not measured: {rows}; {MIN_ROWS} of each are needed"
        yield Check(name="drift", value=None, limit=limit, passed=False, message=few)
        return
    drifted = [f for f in known if f.drift is not None and f.drift.drifted]
    worst = max(known, key=lambda f: f.drift.score if f.drift is not None else 0.0)
    assert worst.drift is not None  # noqa: S101 - known have one
    names = ", ".join(f.name for f in drifted[:8])
    said = f"the highest score is {shown(worst.drift.score)}, of {worst.name!r}"
    message = f"drifted: {names}; {said}" if drifted else f"no feature has drifted; {said}"
    yield Check(
        name="drift",
        value=float(len(drifted)),
        limit=limit,
        passed=len(drifted) <= wishes.drift.max_features,
        message=message,
    )

"""The checks of the present step: which are due, what they ask Prometheus, and what they say of its answers."""

from typing import Final

from canarium_api.analysis import MetricSpec
from canarium_api.status import Check, RolloutStatus, Verdict
from canarium_operator.core.rollout import analysis, capacity, experiment
from canarium_operator.core.rollout.inputs import (
    RolloutInput,
    canary_is_wanted,
    current_step,
    gate_opens_at,
    with_status,
)
from canarium_operator.core.rollout.queries import Query, Subject, is_due
from canarium_operator.core.rollout.strategy import metrics_of

_INCONCLUSIVE: Final = (Verdict.TOO_FEW_SAMPLES, Verdict.NO_DATA)


def subject_of(given: RolloutInput) -> Subject | None:
    """Tell whom the gate compares; None: the canary has had no traffic yet."""
    status = given.status
    rollout, canary, stable = status.rollout, status.canary, status.stable
    if rollout is None or canary is None or stable is None or rollout.evidence_since is None:
        return None
    return Subject(
        ref=given.ref,
        canary=canary.revision,
        stable=stable.revision,
        evidence_since=rollout.evidence_since,
        stable_has_traffic=rollout.weight < 100,
    )


def due_queries(given: RolloutInput) -> frozenset[Query]:
    """Name the queries that this pass needs; empty while nothing is measured."""
    return _queries_of_checks(given) | experiment.due_queries(given) | capacity.due_queries(given)


def _queries_of_checks(given: RolloutInput) -> frozenset[Query]:
    subject = subject_of(given)
    if subject is None or not canary_is_wanted(given):
        return frozenset()
    return frozenset(
        query
        for metric in _due_metrics(given, subject)
        for query in analysis.queries(metric, subject, given.now)
    )


def _due_metrics(given: RolloutInput, subject: Subject) -> list[MetricSpec]:
    """Name the checks of the present step that must be measured now."""
    rollout = given.status.rollout
    assert rollout is not None  # noqa: S101 - there is a subject
    known = _known_checks(given, rollout, subject)
    gate_at = gate_opens_at(given.spec, rollout)
    return [
        metric
        for metric in metrics_of(given.spec.rollout, current_step(given))
        if is_due(
            known.get(metric.name),
            metric,
            given.spec.rollout.analysis,
            now=given.now,
            since=subject.evidence_since,
            gate_at=gate_at,
        )
    ]


def _known_checks(
    given: RolloutInput, rollout: RolloutStatus, subject: Subject
) -> dict[str, Check]:
    """Give the latest results by name, without those whose check was edited since: they answer another question."""
    metrics = {metric.name: metric for metric in given.spec.rollout.analysis.metrics}
    return {
        check.name: check
        for check in rollout.checks
        if check.name in metrics
        and analysis.is_current(check, metrics[check.name], given.spec.rollout.analysis, subject)
    }


def assess(given: RolloutInput) -> RolloutInput:
    """Bring the checks up to the measurements of this pass."""
    subject, rollout = subject_of(given), given.status.rollout
    if subject is None or rollout is None:
        return given
    spec = given.spec.rollout.analysis
    known = _known_checks(given, rollout, subject)
    opens_at = gate_opens_at(given.spec, rollout)
    checks = []
    due = _due_metrics(given, subject)
    for metric in spec.metrics:
        previous = known.get(metric.name)
        answered = analysis.queries(metric, subject, given.now) <= given.readings.keys()
        if metric in due and answered:
            before = previous or Check(name=metric.name, verdict=Verdict.PENDING)
            check = analysis.assess(metric, spec, subject, given.readings, before, given.now)
            if opens_at is not None and given.now >= opens_at and check.verdict in _INCONCLUSIVE:
                check = check.model_copy(update={"inconclusive": before.inconclusive + 1})
            checks.append(check)
        elif previous is not None:
            checks.append(previous)
    if given.readings:
        metrics = {metric.name: metric for metric in spec.metrics}
        last = rollout.step == rollout.steps
        checks = analysis.judge(checks, metrics, spec, last_step=last)
    status = given.status.model_copy(
        update={"rollout": rollout.model_copy(update={"checks": checks})}
    )
    return with_status(given, status)

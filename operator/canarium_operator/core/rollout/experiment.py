"""An A/B test within its step: what is counted when, when it is over, and what happens then.

The test runs from the moment that the route was seen to lead users to B. Its result is a transition of its own
(`ExperimentConcluded`); what follows from it (hold, promote, take back) is decided by later passes from the status, so
that a crash in between loses nothing. After that, nothing is counted any more: a result does not change while somebody
thinks about it.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from canarium_api.abtest import AbTestSpec, OnLoser, OnWinner
from canarium_api.analysis import MetricSpec
from canarium_api.conditions import Reason
from canarium_api.experiment import ExperimentStatus, GoalVerdict
from canarium_api.status import RevisionStatus, RolloutStatus
from canarium_operator.core.rollout import goals, holds
from canarium_operator.core.rollout.endings import roll_back
from canarium_operator.core.rollout.inputs import (
    POLL,
    Decision,
    RolloutInput,
    canary_is_wanted,
    clock,
    current_step,
    deadline_of,
    display,
    sooner,
    transition,
    with_status,
)
from canarium_operator.core.rollout.queries import Query, Subject
from canarium_operator.core.rollout.strategy import TESTED, StepKind
from canarium_operator.core.routing import ROUTERS

PART: Final = timedelta(hours=6)
"""Counts of a long test are added up from parts of this length: below the longest time that a query looks back."""
_DECIDED: Final = (GoalVerdict.BETTER, GoalVerdict.NO_DIFFERENCE)


def begun(given: RolloutInput, rollout: RolloutStatus) -> ExperimentStatus | None:
    """Give the test of a step whose clock starts now; None: the step is no A/B test.

    A step that starts over (all pods were lost, or another share) goes on with the test that it had.
    """
    test = given.spec.rollout.ab_test
    if current_step(given).kind not in TESTED or test is None:
        return rollout.experiment
    found = rollout.experiment
    if found is None or found.assignment != describe(test):
        found = ExperimentStatus(assignment=describe(test), started_at=given.now)
    elif found.concluded_at is None:
        found = _with_part_closed(found, _share(test))
    return _planned(given, test, found).model_copy(
        update={"part_since": given.now, "part_share": _share(test)}
    )


def _planned(given: RolloutInput, test: AbTestSpec, found: ExperimentStatus) -> ExperimentStatus:
    """Bring a test up to the spec: its goals, its share, its end."""
    metrics = _metrics(given)
    known = {goal.name: goal for goal in found.goals}
    wanted = []
    for name in test.goals:
        goal = known.get(name)
        if goal is None or goal.asked != goals.fingerprint(metrics[name]):
            goal = goals.new(metrics[name])
        wanted.append(goal)
    changes: dict[str, Any] = {"ends_at": found.started_at + test.max_duration}
    if found.concluded_at is None:
        changes |= {"goals": wanted, "share": _share(test)}
    return found.model_copy(update=changes)


def _with_part_closed(found: ExperimentStatus, share: int | None) -> ExperimentStatus:
    same = found.part_share == share
    closed = [goals.with_part_closed(goal, same_share=same) for goal in found.goals]
    return found.model_copy(update={"goals": closed})


def _metrics(given: RolloutInput) -> dict[str, MetricSpec]:
    return {metric.name: metric for metric in given.spec.rollout.analysis.metrics}


def _share(test: AbTestSpec) -> int | None:
    return test.share if test.sticky is not None else None


def describe(test: AbTestSpec) -> str:
    """Say who gets B."""
    if test.header is not None:
        return f"requests with the header {test.header.name}: {test.header.value}"
    if test.cookie is not None:
        return f"requests with the cookie {test.cookie.name}={test.cookie.value}"
    assert test.sticky is not None  # noqa: S101 - one of the three
    kind = "header" if test.sticky.header is not None else "cookie"
    return f"a share of the users by the {kind} {test.sticky.header or test.sticky.cookie}"


def awaits_router(given: RolloutInput) -> Decision | None:
    """Keep a sticky test from starting before its router is ready: all requests will go through it."""
    if current_step(given).kind is not StepKind.STICKY:
        return None
    ready = given.observed.router_ready
    if ready >= ROUTERS:
        return None
    deadline = deadline_of(given)
    words = f"{ready} of {ROUTERS} pods of the router of the A/B test are ready"
    if given.now >= deadline:
        return roll_back(given, Reason.PROGRESS_DEADLINE_EXCEEDED, f"{words}, not all in time")
    return Decision(
        status=given.status,
        requeue_after=sooner(POLL, deadline - given.now),
        blocked_on=Reason.AWAITING_PODS,
        waiting=f"{words}, until {clock(deadline)}",
    )


def router_is_lost(given: RolloutInput) -> bool:
    """Tell whether users are led to a router that has no ready pod: the route must go around it."""
    rollout, route = given.status.rollout, given.observed.route
    if rollout is None or rollout.weight == 0 or route is None:
        return False
    return route.by_router and given.observed.router_ready == 0


def _running(given: RolloutInput) -> tuple[ExperimentStatus, AbTestSpec] | None:
    """Give the test that counts now."""
    rollout, test = given.status.rollout, given.spec.rollout.ab_test
    if rollout is None or test is None or rollout.step_started_at is None:
        return None
    found = rollout.experiment
    if current_step(given).kind not in TESTED or found is None or found.concluded_at is not None:
        return None
    if found.assignment != describe(test):
        # Other people, another test: what was counted of the old ones says nothing about them.
        found = ExperimentStatus(
            assignment=describe(test),
            started_at=given.now,
            part_since=given.now,
            part_share=_share(test),
        )
    return _planned(given, test, found), test


def _subject(given: RolloutInput, found: ExperimentStatus) -> Subject:
    canary, stable = given.status.canary, given.status.stable
    assert canary is not None  # noqa: S101 - a rollout has both
    assert stable is not None  # noqa: S101
    assert found.part_since is not None  # noqa: S101 - set when it begins
    return Subject(
        ref=given.ref,
        canary=canary.revision,
        stable=stable.revision,
        evidence_since=found.part_since,
        stable_has_traffic=True,
    )


def due_queries(given: RolloutInput) -> frozenset[Query]:
    """Name the queries about the goals that this pass needs."""
    running = _running(given)
    if running is None or not canary_is_wanted(given):
        return frozenset()
    found, _ = running
    metrics, subject = _metrics(given), _subject(given, found)
    return frozenset(
        query
        for goal in found.goals
        if _is_due(given, goal.measured_at)
        for query in goals.queries(metrics[goal.name], subject, given.now)
    )


def _is_due(given: RolloutInput, measured_at: datetime | None) -> bool:
    interval = given.spec.rollout.analysis.interval
    return measured_at is None or given.now >= measured_at + interval


def measured(given: RolloutInput) -> RolloutInput:
    """Bring the goals up to the measurements of this pass."""
    running = _running(given)
    rollout = given.status.rollout
    if running is None or rollout is None:
        return given
    found, _ = running
    metrics, subject = _metrics(given), _subject(given, found)
    counted, failures = [], {}
    measured_any, complete = False, True
    for goal in found.goals:
        metric = metrics[goal.name]
        asked = goals.queries(metric, subject, given.now)
        if _is_due(given, goal.measured_at) and asked <= given.readings.keys():
            goal, failure = goals.counted(goal, metric, subject, given.readings, given.now)
            measured_any = True
            if failure is not None:
                failures[goal.name] = failure
        else:
            complete = False
        counted.append(goal)
    if measured_any:
        counted = [
            goal.model_copy(update={"message": failures.get(goal.name, goal.message)[:500]})
            for goal in goals.judge(counted, metrics, given.spec.rollout.analysis)
        ]
    found = found.model_copy(update={"goals": counted})
    complete = complete and not failures
    if complete and given.now >= subject.evidence_since + PART:
        found = _with_part_closed(found, found.part_share)
        found = found.model_copy(update={"part_since": given.now})
    changed = rollout.model_copy(update={"experiment": found})
    return with_status(given, given.status.model_copy(update={"rollout": changed}))


def decide(
    given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus, next_check: timedelta
) -> Decision | None:
    """Decide what the test says of its step.

    Args:
        given: the input, with the goals of this pass.
        canary: B.
        rollout: of the status.
        next_check: time to the next measurement of a guard.

    Returns:
        None: the step may end, as far as the test is concerned.
    """
    test, found = given.spec.rollout.ab_test, rollout.experiment
    if current_step(given).kind not in TESTED or test is None or found is None:
        return None
    if found.concluded_at is None:
        verdict = _verdict(given, test, found)
        if verdict is None:
            return _goes_on(given, canary, found, next_check)
        message = _result(given, canary, found, verdict)
        concluded = found.model_copy(
            update={"verdict": verdict, "concluded_at": given.now, "message": message[:1000]}
        )
        return transition(
            given,
            Reason.EXPERIMENT_CONCLUDED,
            message,
            rollout=rollout.model_copy(update={"experiment": concluded}),
        )
    if found.verdict is GoalVerdict.BETTER:
        if test.on_winner is OnWinner.PROMOTE:
            return None
    elif found.verdict is GoalVerdict.WORSE:
        if test.on_loser is OnLoser.ABORT:
            return roll_back(given, Reason.EXPERIMENT_FAILED, found.message)
    elif test.on_undecided is OnLoser.ABORT:
        return roll_back(given, Reason.EXPERIMENT_FAILED, found.message)
    return holds.waits(given, next_check) or Decision(
        status=given.status,
        requeue_after=next_check,
        blocked_on=Reason.AWAITING_DECISION,
        waiting=f"{found.message}; the traffic stays as it is until `canarium promote {given.ref.name} -n "
        f"{given.ref.namespace}`, `canarium skip` (100% with the checks), or `canarium abort`",
    )


def _verdict(given: RolloutInput, test: AbTestSpec, found: ExperimentStatus) -> GoalVerdict | None:
    """Give the result of a test that is over; None: it goes on.

    One goal that is worse decides at once. A winner is better in one goal at least and no different in all others.
    """
    verdicts = [goal.verdict for goal in found.goals]
    if GoalVerdict.WORSE in verdicts:
        return GoalVerdict.WORSE
    if given.now >= found.started_at + test.min_duration and all(
        verdict in _DECIDED for verdict in verdicts
    ):
        better = GoalVerdict.BETTER in verdicts
        return GoalVerdict.BETTER if better else GoalVerdict.NO_DIFFERENCE
    if given.now >= found.started_at + test.max_duration:
        return GoalVerdict.UNDECIDED
    return None


def _result(
    given: RolloutInput, canary: RevisionStatus, found: ExperimentStatus, verdict: GoalVerdict
) -> str:
    outcome = {
        GoalVerdict.BETTER: "is better",
        GoalVerdict.WORSE: "is worse",
        GoalVerdict.NO_DIFFERENCE: "is no different",
        GoalVerdict.UNDECIDED: "was not decided in time (abTest.maxDuration)",
    }[verdict]
    stable = given.status.stable
    assert stable is not None  # noqa: S101 - a canary runs beside a stable revision
    return (
        f"A/B test: {display(canary)} (B) {outcome}, against {display(stable)} (A): {_goals(found)}"
    )


def _goals(found: ExperimentStatus) -> str:
    return "; ".join(f"{goal.name}: {goal.message or 'not measured yet'}" for goal in found.goals)


def _goes_on(
    given: RolloutInput, canary: RevisionStatus, found: ExperimentStatus, next_check: timedelta
) -> Decision:
    interval = given.spec.rollout.analysis.interval
    due = [
        goal.measured_at + interval - given.now
        for goal in found.goals
        if goal.measured_at is not None
    ]
    wait = min([next_check, *due, (found.ends_at or given.now + interval) - given.now])
    wait = max(wait, timedelta(milliseconds=100))
    until = f"until {found.ends_at:%Y-%m-%d %H:%M}Z at the latest" if found.ends_at else ""
    return holds.waits(given, wait) or Decision(
        status=given.status,
        requeue_after=sooner(wait, interval),
        blocked_on=Reason.EXPERIMENT_RUNNING,
        waiting=f"A/B test of {display(canary)}, {until}: {_goals(found)}",
    )

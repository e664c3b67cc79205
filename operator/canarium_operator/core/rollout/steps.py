"""The canary on its way: pods, weight, route, evidence, and on to the next step.

Each step goes through the same four waits: enough pods are ready for its weight; the route is given the
weight; the gateway is seen to carry it, which starts the clock; pause and gate. `rollout.weight` and
`rollout.step_started_at` tell which wait it is in.
"""

from datetime import timedelta
from typing import Final

from canarium_api.conditions import Reason
from canarium_api.duration import format_duration
from canarium_api.status import RevisionStatus, RolloutStatus, Splitter
from canarium_operator.core.plan import splitter_of
from canarium_operator.core.rollout import (
    analysis,
    capacity,
    contract,
    experiment,
    gate,
    golden,
    holds,
    replicas,
    shadow,
    webhooks,
)
from canarium_operator.core.rollout.checks import assess
from canarium_operator.core.rollout.endings import promote, roll_back
from canarium_operator.core.rollout.inputs import (
    POLL,
    Decision,
    RolloutInput,
    clock,
    current_step,
    deadline_of,
    display,
    gate_opens_at,
    sooner,
    transition,
    unrouted,
    with_status,
)
from canarium_operator.core.rollout.strategy import (
    TESTED,
    UNSEEN,
    Step,
    StepKind,
    Strategy,
    metrics_of,
    steps_of,
    strategy_of,
)

MIN_WAIT: Final = timedelta(milliseconds=100)
"""Between two looks at a gate, so that no clock can make the operator spin."""
_UNSEEN: Final = {
    StepKind.PREVIEW: "it is reached by the preview header and Service alone",
    StepKind.SHADOW: "it gets copies of requests, and users get stable's answers",
}
"""What a step without a weight of its own means for users."""


def _carried(given: RolloutInput) -> str:
    """Say what the canary gets in the present step."""
    step, test = current_step(given), given.spec.rollout.ab_test
    shadowed = given.spec.rollout.shadow
    match step.kind:
        case StepKind.SHADOW if shadowed is not None:
            return f"copies of {shadowed.percent}% of the requests go"
        case StepKind.PREVIEW:
            return "the preview's requests go"
        case StepKind.MATCH if test is not None:
            return f"{experiment.describe(test)} go"
        case StepKind.STICKY if test is not None:
            return f"{step.weight}% of the users go"
        case _:
            return f"{step.weight}% of the traffic goes"


def _goal(step: Step) -> str:
    if step.kind in UNSEEN:
        return "the preview" if step.kind is StepKind.PREVIEW else "the shadow"
    return "the A/B test" if step.kind in TESTED else f"{step.weight}%"


def carry_out_steps(given: RolloutInput) -> Decision | None:
    """Move the canary along its steps."""
    status = given.status
    if status.canary is None or status.rollout is None or given.wanted is None:
        return None
    return (
        _replanned(given, status.rollout)
        or holds.held_or_released(given, status.rollout)
        or _model_cannot_load(given, status.canary)
        or contract.refused(given)
        or golden.refused(given)
        or _capacity_lost(given, status.canary, status.rollout)
        or shadow.refused(given)
        or _measured(given, status.canary, status.rollout)
    )


def _replanned(given: RolloutInput, rollout: RolloutStatus) -> Decision | None:
    """Take up an edited list of steps at the last step that the present weight has earned, never further.

    At 10 %, [1, 5, 10, 50] edited to [5, 20, 100] goes on at step 1 of the new list, with 5 %.
    """
    direct = rollout.strategy == Strategy.DIRECT
    strategy = Strategy.DIRECT if direct else strategy_of(given.spec.rollout)
    weights = [step.weight for step in steps_of(given.spec.rollout, strategy)]
    moved = replicas.is_replaced(given, rollout)
    if (weights, strategy) == (rollout.weights, rollout.strategy) and not moved:
        return None
    earned = [n for n, weight in enumerate(weights, start=1) if weight <= rollout.weight]
    step = earned[-1] if earned else 1
    if weights[step - 1] == 0:
        # Of several steps without a weight, none is passed over.
        step = min(step, rollout.step)
    changed = rollout.model_copy(
        update={
            "splitter": splitter_of(given.spec),
            "strategy": strategy,
            "weights": weights,
            "steps": len(weights),
            "step": step,
            "step_started_at": None,
            "prepared_step": step if weights[step - 1] == rollout.weight > 0 else 0,
            "approved_step": 0,
            "asked_step": 0,
            # An untried first step may lie above the weight that is carried: wait for it at the old weight.
            "weight": min(rollout.weight, weights[step - 1]),
        }
    )
    by_ratio = changed.splitter is Splitter.REPLICAS and changed.weight != rollout.weight
    alive = given.status.canary is not None and given.status.canary.ready_replicas > 0
    if moved or by_ratio or not alive:
        # What splits the traffic now has no part of the old split, pods cannot follow a lower weight at once, and pods
        # that are gone can take none: the step begins with all of it at stable.
        nothing = {"weight": 0, "prepared_step": 0, "evidence_since": None}
        changed = changed.model_copy(update=nothing)
    return transition(
        given,
        Reason.ROLLOUT_REPLANNED,
        f"steps are now {weights}; going on at step {step}/{len(weights)}",
        rollout=changed,
        waiting_since=given.now,
    )


def _model_cannot_load(given: RolloutInput, canary: RevisionStatus) -> Decision | None:
    problem = given.observed.workload(canary.revision).problem
    if problem is None or not problem.permanent or canary.ready_replicas > 0:
        return None
    return roll_back(given, Reason.MODEL_LOAD_FAILED, f"{problem.reason}: {problem.message}")


def _capacity_lost(
    given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus
) -> Decision | None:
    """Give the traffic to stable while no pod of the canary is ready; the step starts over when they are back."""
    carries_nothing = rollout.prepared_step == 0 and rollout.weight == 0
    router_lost = experiment.router_is_lost(given)
    if carries_nothing or (canary.ready_replicas > 0 and not router_lost):
        return None
    lost = "the router" if router_lost else display(canary)
    return transition(
        given,
        Reason.CAPACITY_LOST,
        f"no pod of {lost} is ready: its traffic goes to the stable revision meanwhile",
        warning=True,
        rollout=rollout.model_copy(
            update={
                "weight": 0,
                "prepared_step": 0,
                "step_started_at": None,
                "evidence_since": None,
            }
        ),
        waiting_since=given.now,
    )


def _measured(given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus) -> Decision:
    """Judge what was measured, then see whether the step may end."""
    given = webhooks.with_answers(experiment.measured(assess(given)), given.gate_answers)
    refused = webhooks.refused(given, given.gate_answers)
    if refused is not None:
        return refused
    assert given.status.rollout is not None  # noqa: S101 - narrows the type
    rollout = given.status.rollout
    failed = [c for c in rollout.checks if analysis.is_final(c, given.spec.rollout.analysis)]
    if failed:
        evidence = "; ".join(f"{check.name}: {check.message}" for check in failed)
        return roll_back(given, Reason.ANALYSIS_FAILED, evidence)
    timed_out = _timed_out(given, rollout)
    if timed_out is not None:
        return timed_out
    if rollout.prepared_step != rollout.step:
        return holds.waits(given, POLL) or _await_pods(given, canary, rollout)
    if rollout.step_started_at is None:
        return _await_route(given, canary, rollout)
    return _await_gate(given, canary, rollout)


def _timed_out(given: RolloutInput, rollout: RolloutStatus) -> Decision | None:
    """Take back a canary that is under way for longer than `canary.maxDuration`."""
    canary = given.spec.rollout.canary
    longest = canary.max_duration if canary is not None else None
    if longest is None or given.now < rollout.started_at + longest:
        return None
    words = f"not promoted within {format_duration(longest)} (canary.maxDuration)"
    return roll_back(given, Reason.ROLLOUT_TIMED_OUT, words)


def _await_pods(given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus) -> Decision:
    """Change the weight as soon as enough pods are ready for it, and a Service leads to them."""
    waiting = _missing_pods(given, canary, rollout)
    if waiting is not None:
        return waiting
    changed, words = _with_weight(given, canary, rollout)
    return transition(
        given,
        Reason.CANARY_PREPARED if current_step(given).kind in UNSEEN else Reason.WEIGHT_CHANGED,
        words,
        rollout=changed,
        waiting_since=given.now,
    )


def _with_weight(
    given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus
) -> tuple[RolloutStatus, str]:
    """Give the rollout with the weight of its step, and what that means in words."""
    step, place = current_step(given), f"step {rollout.step}/{rollout.steps}"
    words = f"{place}: {display(canary)} from {rollout.weight}% to {step.weight}%"
    if step.kind in UNSEEN:
        words = f"{place}: {display(canary)} is ready; {_UNSEEN.get(step.kind, '')}"
    elif step.kind is StepKind.MATCH:
        words = f"{place}: {_carried(given)} to {display(canary)}"
    changed = rollout.model_copy(update={"weight": step.weight, "prepared_step": rollout.step})
    return changed, words


def _missing_pods(
    given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus
) -> Decision | None:
    """Hold while the canary cannot carry the weight of its step; None: it can."""
    step = current_step(given)
    needed = capacity.needed_replicas(given)
    reachable = canary.revision in given.observed.services
    if canary.ready_replicas >= needed and reachable:
        return (
            experiment.awaits_router(given)
            or capacity.unmeasured(given)
            or contract.awaits_signature(given)
            or golden.awaits_verdict(given)
            or replicas.awaits_ratio(given)
        )
    too_small = capacity.too_small(given)
    if too_small is not None:
        return too_small
    deadline = deadline_of(given)
    problem = given.observed.workload(canary.revision).problem
    why = f": {problem.message}" if problem is not None else ""
    if not reachable and canary.ready_replicas >= needed:
        why += "; its Service does not lead to all of them yet"
    if given.now >= deadline:
        return roll_back(
            given,
            Reason.PROGRESS_DEADLINE_EXCEEDED,
            f"{canary.ready_replicas} of {needed} pods were ready in time{why}",
        )
    return Decision(
        status=given.status,
        requeue_after=sooner(POLL, deadline - given.now),
        blocked_on=Reason.AWAITING_PODS,
        waiting=f"{canary.ready_replicas} of {needed} pods of {display(canary)} are ready for "
        f"{_goal(step)}{why}, "
        f"until {clock(deadline)}",
    )


def _await_route(given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus) -> Decision:
    """Start the clock of a step when the gateway is seen to carry its weight."""
    route = given.observed.route
    carried = (
        route is not None
        and route.accepted
        and (
            replicas.is_carried(given)
            if replicas.is_split(given)
            else route.weights.get(canary.revision, 0) == rollout.weight
        )
        # The same share may have been given by weights before: only the router gives it to the same users.
        and route.by_router == (current_step(given).kind is StepKind.STICKY)
        and (
            current_step(given).kind not in (StepKind.PREVIEW, StepKind.MATCH)
            or given.spec.traffic.gateway is None
            or canary.revision in route.reached
        )
        and route.mirrored.get(canary.revision, 0) == _copied(given)
    )
    if carried:
        return _start_step(given, canary, rollout)
    deadline = deadline_of(given)
    note = route.message if route is not None else "the route does not exist yet"
    if given.now >= deadline:
        return roll_back(
            given, Reason.PROGRESS_DEADLINE_EXCEEDED, f"the route was not accepted in time: {note}"
        )
    return Decision(
        status=given.status,
        requeue_after=sooner(POLL, deadline - given.now),
        blocked_on=Reason.AWAITING_ROUTE,
        waiting=f"{unrouted(given, f'{rollout.weight}% yet')}{': ' + note if note else ''}, until {clock(deadline)}",
    )


def _start_step(given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus) -> Decision:
    """Start the clock of a step; a last one that waits for nothing is over with that."""
    started = rollout.model_copy(
        update={
            "step_started_at": given.now,
            "evidence_since": given.now,
            "checks": [analysis.renew(check) for check in rollout.checks],
            "gates": [],
            "experiment": experiment.begun(given, rollout),
        }
    )
    begun = transition(
        given,
        Reason.STEP_STARTED,
        f"step {rollout.step}/{rollout.steps}: {_carried(given)} to {display(canary)}",
        rollout=started,
        waiting_since=None,
    )
    if rollout.step == rollout.steps:
        # Both are one transition, with one number.
        status = begun.status.model_copy(update={"epoch": given.status.epoch})
        ended = _await_gate(with_status(given, status), canary, started)
        last = ended.status.last_transition
        if last is not None and last.reason == Reason.PROMOTED:
            return ended
    return begun


def _copied(given: RolloutInput) -> int:
    """Give the percent of the requests that the canary gets copies of in the present step."""
    shadowed = given.spec.rollout.shadow
    if shadowed is None or current_step(given).kind is not StepKind.SHADOW:
        return 0
    return shadowed.percent


def _await_gate(given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus) -> Decision:
    """End the step when its pause is over and every check passes on a measurement taken since."""
    opens_at = gate_opens_at(given.spec, rollout)
    assert opens_at is not None  # noqa: S101 - the step has begun
    if rollout.experiment is not None and rollout.experiment.concluded_at is not None:
        # From the result on, guards have as long as after any pause to bring their evidence.
        opens_at = max(opens_at, rollout.experiment.concluded_at)
    metrics = metrics_of(given.spec.rollout, current_step(given))
    view = gate.look(metrics, given.spec.rollout.analysis, rollout, opens_at, given.now)
    next_check = max(view.next_check_at - given.now, MIN_WAIT)
    # Where nothing is missing, the checks go on at their interval.
    measured_again = given.spec.rollout.analysis.interval if view.passes else next_check
    waiting = experiment.decide(given, canary, rollout, measured_again) or holds.waits(
        given, measured_again
    )
    if waiting is not None:
        return waiting
    if view.passes:
        missing = webhooks.awaits_gates(given, rollout) or holds.awaits_approval(
            given, rollout, view.summary
        )
        if missing is not None:
            return missing
        if rollout.step == rollout.steps:
            return promote(given, canary, rollout)
        return _pass_step(given, canary, rollout, view.summary)
    if view.gives_up_at is not None and given.now >= view.gives_up_at:
        return roll_back(given, Reason.ANALYSIS_TIMED_OUT, view.waiting)
    return Decision(
        status=given.status,
        requeue_after=next_check,
        blocked_on=view.blocked_on,
        waiting=view.waiting,
    )


def _pass_step(
    given: RolloutInput, canary: RevisionStatus, rollout: RolloutStatus, evidence: str
) -> Decision:
    """Go on to the next step; where its pods are ready already, it gets its weight in the same transition."""
    words = f"step {rollout.step}/{rollout.steps} ({rollout.weight}%) passed: {evidence}"
    following = rollout.model_copy(update={"step": rollout.step + 1, "step_started_at": None})
    status = given.status.model_copy(update={"rollout": following, "waiting_since": given.now})
    after = capacity.sized(with_status(given, status))
    sized = after.status.rollout
    assert sized is not None  # noqa: S101 - it was put there
    if _missing_pods(after, canary, sized) is None:
        following, moved = _with_weight(after, canary, sized)
        words += f"; {moved}"
    return transition(given, Reason.STEP_PASSED, words, rollout=following, waiting_since=given.now)

"""People in the loop: commands, approvals, pauses, freeze windows. A world goes in, one decision comes out."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.rollout import FreezeWindow
from canarium_api.status import Phase
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout import holds
from canarium_operator.core.rollout.commands import parse
from canarium_operator.testing.scenario import IMAGE, Scenario, Traffic, make_spec

V1, V2 = (revision_of(make_spec(v), IMAGE).name for v in "12")
ALICE = "alice@example.com 2026-01-01T12:00:00Z"
STEPS: list[dict[str, Any]] = [
    {"weight": 10, "pause": "1m", "approval": True},
    {"weight": 50, "pause": "1m"},
]


def spec(version: str = "2", **rollout: Any) -> Any:
    """Steps 10 (with approval), 50 and 100, gated by time alone."""
    return make_spec(
        version, rollout={"canary": {"steps": STEPS}, "analysis": {"metrics": []}, **rollout}
    )


def canary(**rollout: Any) -> Scenario:
    """The first step of version 2 has just begun."""
    return Scenario().settle().change(spec(**rollout)).settle()


def asks(world: Scenario, verb: str, value: str = ALICE) -> Scenario:
    """Somebody writes the annotation of a verb."""
    return replace(world, commands={**world.commands, verb: value}).settle()


def last(world: Scenario) -> tuple[str, str]:
    """The latest transition."""
    assert world.status.last_transition is not None
    return world.status.last_transition.reason, world.status.last_transition.message


# --- approvals


def test_a_step_with_approval_waits_for_one_and_says_how_to_give_it() -> None:
    """Pause over, gate open, and still it stands: in progress for kstatus, suspended for people."""
    world = canary().later(61).settle()
    assert world.status.phase is Phase.PAUSED
    assert world.status.rollout is not None
    assert world.status.rollout.step == 1
    assert world.status.rollout.blocked_on == Reason.AWAITING_APPROVAL
    assert "canarium approve fraud -n ml" in world.status.message
    found = {c.type: c for c in world.status.conditions}
    assert found[ConditionType.RECONCILING].reason == Reason.AWAITING_APPROVAL
    assert ConditionType.STALLED not in found


@pytest.mark.parametrize("early", [True, False])
def test_an_approval_lets_the_step_end(early: bool) -> None:
    """Given before or after the gate is open; the next step needs its own, if it asks for one."""
    world = canary()
    world = asks(world, "approve").later(61).settle() if early else asks(world.later(61), "approve")
    assert world.status.rollout is not None
    assert world.status.rollout.step == 2
    [action] = world.status.actions
    assert (action.verb, action.by, action.step) == ("approve", "alice@example.com", 1)


def test_an_approval_in_the_spec_counts_for_its_version_alone() -> None:
    """What was approved for one version is not approved for the next."""
    approved = [{"version": "2", "step": 1, "by": "alice"}]
    assert canary(approvals=approved).later(61).settle().status.rollout.step == 2  # type: ignore[union-attr]
    other = [{"version": "3", "step": 1}]
    assert canary(approvals=other).later(61).settle().status.rollout.step == 1  # type: ignore[union-attr]


def test_an_unapproved_canary_that_turns_bad_is_taken_back() -> None:
    """Waiting for a person does not end the watch."""
    checked = {"metrics": [{"name": "error-rate"}]}
    world = canary(analysis=checked).later(61).settle()
    assert world.status.phase is Phase.PAUSED
    world = world.serves(V2, Traffic(error_rate=0.2)).later(31).settle()
    assert world.status.failed_revisions[0].reason == Reason.ANALYSIS_FAILED


# --- pause and resume


def test_a_paused_rollout_keeps_its_weight_and_its_clock_stands_still() -> None:
    """Paused 20 s into a minute for an hour: 40 s are left when it goes on."""
    world = asks(canary(approvals=[{"version": "2"}]).later(20), "pause")
    assert world.status.phase is Phase.PAUSED
    assert "paused by alice@example.com" in world.status.message
    world = world.later(3600).settle()
    assert world.status.rollout is not None
    assert (world.status.rollout.step, world.status.rollout.weight) == (1, 10)
    world = asks(world, "resume", "bob 2").later(39).settle()
    assert world.status.rollout is not None
    assert (world.status.rollout.step, world.status.phase) == (1, Phase.CANARY)
    world = world.later(1).settle()
    assert world.status.rollout is not None
    assert world.status.rollout.step == 2
    assert [a.verb for a in world.status.actions] == ["pause", "resume", "approve"]


def test_a_pause_in_the_spec_wins_over_resume() -> None:
    """The remedy is named; setting it to false lets the rollout go on."""
    world = canary(paused=True)
    assert world.status.canary is None
    assert world.status.phase is Phase.PAUSED
    world = canary().change(spec(paused=True)).settle()
    world = asks(world, "resume")
    assert last(world)[0] == Reason.COMMAND_REFUSED
    assert "set it to false" in last(world)[1]
    world = world.change(spec()).settle()
    assert world.status.phase is Phase.CANARY


def test_missing_evidence_does_not_run_out_during_a_pause() -> None:
    """MaxWait counts the time in which the rollout could have moved."""
    analysis = {"metrics": [{"name": "error-rate"}], "maxWait": "10m", "minSamples": 5000}
    world = asks(canary(analysis=analysis, approvals=[{"version": "2"}]).later(61), "pause")
    world = asks(world.later(7200).settle(), "resume", "bob 2")
    assert world.status.canary is not None
    assert world.later(601).settle().status.canary is None


# --- skip, abort, promote


def test_a_skipped_step_ends_at_once_but_the_next_still_waits_for_pods() -> None:
    """No weight moves onto pods that are not there."""
    world = replace(canary(), commands={"skip": ALICE}).step()
    assert last(world)[0] == Reason.STEP_SKIPPED
    assert world.status.rollout is not None
    assert (world.status.rollout.step, world.status.rollout.weight) == (2, 10)
    world = world.settle()
    assert world.status.rollout is not None
    assert world.status.rollout.weight == 50


def test_an_abort_takes_the_canary_back_and_remembers_who() -> None:
    """It is not tried again until somebody asks."""
    world = asks(canary(), "abort")
    assert world.observed.route is not None
    assert world.observed.route.weights == {V1: 100}
    [failure] = world.status.failed_revisions
    assert (failure.reason, failure.message) == (
        Reason.ABORTED_BY_USER,
        "aborted by alice@example.com",
    )
    assert world.later(60).settle().status.phase is Phase.ABORTED
    assert asks(world.later(60), "retry", "alice again").status.canary is not None


def test_promote_goes_to_all_pods_first_and_to_100_percent_then() -> None:
    """Without pauses and checks, but never onto pods that are not ready."""
    world = replace(canary(), commands={"promote": ALICE}).step().act(ready=False).step()
    assert world.status.rollout is not None
    assert world.status.rollout.weight == 10
    assert world.status.rollout.blocked_on == Reason.AWAITING_PODS
    world = world.settle()
    assert world.status.phase is Phase.PROMOTING
    assert world.status.stable is not None
    assert world.status.stable.revision == V2


@pytest.mark.parametrize("verb", ["approve", "pause", "resume", "skip", "abort", "promote"])
def test_a_command_without_a_rollout_is_refused_with_the_reason_once(verb: str) -> None:
    """And changes nothing."""
    world = Scenario().settle()
    after = asks(world, verb)
    assert last(after) == (
        Reason.COMMAND_REFUSED,
        f"{verb} by alice@example.com does not apply: no rollout is under way",
    )
    assert after.settle().status.epoch == world.status.epoch + 1


@pytest.mark.parametrize(
    ("verb", "value", "why"),
    [
        ("approve", f"{ALICE} revision=ffff", "names revision ffff, but v2@"),
        ("approve", f"{ALICE} step=3", "names step 3, but step 1 is under way"),
        ("skip", f"{ALICE} step=2", "names step 2"),
        ("resume", ALICE, "nobody has paused it"),
    ],
)
def test_a_command_for_something_else_is_refused(verb: str, value: str, why: str) -> None:
    """What was meant for one step must not hit another that has begun meanwhile."""
    assert why in last(asks(canary(), verb, value))[1]


def test_a_second_step_without_approval_needs_none() -> None:
    """Approving it is a mistake that is named."""
    world = asks(canary(), "skip")
    assert "step 2 needs no approval" in last(asks(world, "approve"))[1]


def test_commands_on_a_new_object_are_over() -> None:
    """Annotations that came along from git or a backup abort nothing."""
    world = replace(Scenario(), commands={"abort": ALICE, "pause": ALICE}).settle()
    world = world.change(spec()).settle()
    assert world.status.phase is Phase.CANARY
    assert world.status.actions == []


@pytest.mark.parametrize(
    ("value", "by", "revision", "step"),
    [
        (f"{ALICE} revision=6a7e947d step=2", "alice@example.com", "6a7e947d", 2),
        ("1767268800", "somebody", "", None),
        ("yes please", "yes", "", None),
        ("step=x revision=", "somebody", "", None),
        ("2026-01-01T12:00:00Z system:serviceaccount:ci:deployer", "system:serviceaccount:ci:deployer", "", None),
    ],
)  # fmt: skip
def test_a_command_says_who_and_what_it_is_for(
    value: str, by: str, revision: str, step: int | None
) -> None:
    """In any order; what cannot be read is left out."""
    command = parse("approve", value)
    assert (command.by, command.revision, command.step) == (by, revision, step)


# --- limits in time


def test_a_rollout_that_takes_too_long_is_taken_back() -> None:
    """Also while it waits for an approval."""
    steps = {"steps": STEPS, "maxDuration": "1h"}
    world = canary(canary=steps).later(3599).settle()
    assert world.status.phase is Phase.PAUSED
    world = world.later(1).settle()
    assert world.status.failed_revisions[0].reason == Reason.ROLLOUT_TIMED_OUT
    assert "not promoted within 1h" in world.status.failed_revisions[0].message


def test_a_freeze_window_holds_a_rollout_and_ends_by_itself() -> None:
    """START is a Thursday, noon; a bad canary is taken back all the same."""
    window = [{"from": "12:01", "to": "13:00", "reason": "sale"}]
    world = canary(freezes=window, approvals=[{"version": "2"}]).later(61).settle()
    assert world.status.rollout is not None
    assert (world.status.rollout.step, world.status.phase) == (1, Phase.PAUSED)
    assert "a freeze window (sale) lasts until 2026-01-01 13:00Z" in world.status.message
    assert asks(world, "abort").status.canary is None
    world = world.later(3600).settle()
    assert world.status.phase is Phase.CANARY


def test_a_frozen_object_starts_no_rollout() -> None:
    """The spec waits, and stable serves."""
    window = [{"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}]
    world = canary(freezes=window)
    assert (world.status.canary, world.status.phase) == (None, Phase.PAUSED)
    assert world.later(12 * 3600).settle().status.phase is Phase.CANARY


@pytest.mark.parametrize(
    ("window", "now", "until"),
    [
        ({"from": "18:00", "to": "08:00"}, "2026-01-01T17:59:00", None),
        ({"from": "18:00", "to": "08:00"}, "2026-01-01T18:00:00", "2026-01-02T08:00:00"),
        ({"from": "18:00", "to": "08:00"}, "2026-01-02T07:59:00", "2026-01-02T08:00:00"),
        ({"from": "18:00", "to": "08:00", "days": ["Fri"]}, "2026-01-01T19:00:00", None),
        ({"from": "18:00", "to": "08:00", "days": ["Thu"]}, "2026-01-02T07:00:00", "2026-01-02T08:00:00"),
        ({"from": "00:00", "to": "00:00", "days": ["Thu"]}, "2026-01-01T23:59:00", "2026-01-02T00:00:00"),
        ({"from": "09:00", "to": "17:00", "timeZone": "America/New_York"}, "2026-01-01T14:30", "2026-01-01T22:00"),
        ({"from": "09:00", "to": "17:00", "timeZone": "America/New_York"}, "2026-01-01T13:30:00", None),
        ({"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T12:00:00Z"}, "2026-01-01T12:00:00", None),
    ],
)  # fmt: skip
def test_freeze_windows_begin_and_end_on_time(
    window: dict[str, Any], now: str, until: str | None
) -> None:
    """Over midnight, on their days, in their own time zone."""
    found = holds.frozen_until(
        FreezeWindow.from_manifest(window), datetime.fromisoformat(now).replace(tzinfo=UTC)
    )
    expected = datetime.fromisoformat(until).replace(tzinfo=UTC) if until else None
    assert found == expected


def test_an_unknown_time_zone_is_known_as_such() -> None:
    """Validation refuses it before any rollout rests on it."""
    window = {"from": "09:00", "to": "17:00"}
    assert holds.unknown_zone(FreezeWindow.from_manifest({**window, "timeZone": "Mars/Olympus"}))
    assert not holds.unknown_zone(FreezeWindow.from_manifest(window))

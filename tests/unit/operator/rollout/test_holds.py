"""Holds: whose clocks stand still, and for how long. A world goes in, one decision comes out."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.rollout import FreezeWindow
from canarium_api.status import Phase
from canarium_operator.core.rollout import holds
from canarium_operator.core.rollout.queries import QueryFailure
from canarium_operator.testing.scenario import Scenario, Traffic

from .test_people import ALICE, V2, asks, canary, last, spec


def test_a_step_that_began_during_a_pause_gets_its_own_time_and_no_more() -> None:
    """Paused while the route was awaited, begun 5 s later, resumed at 100 s: its minute begins at 100 s."""
    world = Scenario().settle().change(spec(approvals=[{"version": "2"}]))
    while last(world)[0] != Reason.WEIGHT_CHANGED:
        world = world.step().act()
    world = replace(world, observed=replace(world.observed, route=None))
    world = replace(world, commands={"pause": ALICE}).step().later(5).settle()
    assert last(world)[0] == Reason.STEP_STARTED
    world = asks(world.later(95), "resume", "bob 2")
    assert world.status.rollout is not None
    assert world.status.rollout.step_started_at == world.now
    assert world.later(60).settle().status.rollout.step == 2  # type: ignore[union-attr]


def test_pods_that_are_awaited_have_their_time_after_a_pause() -> None:
    """The progress deadline counts the time in which the rollout could have moved."""
    waiting = Scenario().settle().change(spec(progressDeadline="10m")).step().act(ready=False)
    waiting = replace(waiting, commands={"pause": ALICE}).step().later(7200).step()
    assert waiting.status.canary is not None
    resumed = replace(waiting, commands={**waiting.commands, "resume": "bob 2"}).step()
    assert resumed.later(599).step().status.canary is not None
    assert resumed.later(600).step().status.failed_revisions[0].reason == (
        Reason.PROGRESS_DEADLINE_EXCEEDED
    )


def test_evidence_that_goes_missing_while_an_approval_is_awaited_takes_nothing_back() -> None:
    """Three days later Prometheus is away for a moment: maxWait was for evidence, which had been there."""
    checked = {"metrics": [{"name": "error-rate"}], "maxWait": "1h"}
    world = canary(analysis=checked).later(61).settle()
    assert last(world)[0] == Reason.APPROVAL_NEEDED
    away = replace(world.later(3 * 86400), failure=QueryFailure(message="timed out")).settle()
    assert away.status.canary is not None
    assert "for as long as it takes" in away.status.message
    back = asks(replace(away, failure=None).later(31).settle(), "approve")
    assert back.status.rollout is not None
    assert back.status.rollout.step == 2


def test_a_clock_that_is_set_back_shortens_no_pause() -> None:
    """Resumed before it was paused, by the clock: nothing is taken away."""
    world = asks(canary().later(20), "pause")
    assert world.status.rollout is not None
    started = world.status.rollout.step_started_at
    world = asks(world.later(-10), "resume", "bob 2")
    assert world.status.rollout is not None
    assert world.status.rollout.step_started_at == started


@pytest.mark.parametrize("how", ["command", "spec", "freeze"])
def test_no_hold_keeps_a_bad_canary(how: str) -> None:
    """Checks go on, and take it back."""
    checked: dict[str, Any] = {"analysis": {"metrics": [{"name": "error-rate"}]}}
    frozen = {"freezes": [{"from": "12:00", "to": "13:00"}]}
    world = canary(**checked)
    if how == "command":
        world = asks(world, "pause")
    else:
        world = world.change(spec(**checked, **(frozen if how == "freeze" else {"paused": True})))
    world = world.settle()
    assert world.status.phase is Phase.PAUSED
    bad = world.serves(V2, Traffic(error_rate=0.3)).later(31).settle()
    assert bad.status.failed_revisions[0].reason == Reason.ANALYSIS_FAILED


def test_a_held_rollout_is_in_progress_and_says_what_ends_it() -> None:
    """Neither ready nor stalled, for kstatus; the reason tells a pause from a freeze."""
    for world, reason, words in (
        (asks(canary(), "pause"), Reason.PAUSED, "`canarium resume`"),
        (canary().change(spec(paused=True)).settle(), Reason.PAUSED, "set to false"),
        (
            canary().change(spec(freezes=[{"from": "12:00", "to": "13:00"}])).settle(),
            Reason.FROZEN,
            "lasts until 2026-01-01 13:00Z",
        ),
    ):
        found = {c.type: c for c in world.status.conditions}
        assert found[ConditionType.READY].reason == reason
        assert found[ConditionType.RECONCILING].status == "True"
        assert ConditionType.STALLED not in found
        assert words in world.status.message


def test_a_pause_and_a_freeze_end_each_for_itself() -> None:
    """Resumed in a freeze window it stays frozen; the window's end does not end a pause."""
    frozen = [{"from": "12:01", "to": "13:00"}]
    world = asks(canary(freezes=frozen).later(70).settle(), "pause")
    assert asks(world, "resume", "bob 2").status.phase is Phase.PAUSED
    world = world.later(3600).settle()
    assert world.status.phase is Phase.PAUSED
    assert "paused by alice@example.com" in world.status.message


@pytest.mark.parametrize(
    ("window", "now", "until"),
    [
        # Berlin sets its clocks back on 2026-10-25 at 03:00 CEST = 01:00 UTC: 02:15 comes twice.
        ({"from": "02:00", "to": "02:30"}, "2026-10-25T00:15:00", "2026-10-25T00:30:00"),
        ({"from": "02:00", "to": "02:30"}, "2026-10-25T01:15:00", None),
        ({"from": "22:00", "to": "06:00"}, "2026-10-25T04:59:00", "2026-10-25T05:00:00"),
        # and forward on 2026-03-29 at 02:00 CET = 01:00 UTC: 02:30 does not come at all.
        ({"from": "22:00", "to": "06:00"}, "2026-03-29T03:59:00", "2026-03-29T04:00:00"),
        ({"from": "02:30", "to": "04:00"}, "2026-03-29T01:45:00", "2026-03-29T02:00:00"),
        ({"from": "00:00", "to": "00:00", "days": ["Sun"]}, "2026-03-29T21:59:00", "2026-03-29T22:00:00"),
    ],
)  # fmt: skip
def test_freeze_windows_keep_to_the_wall_clock_when_it_changes(
    window: dict[str, Any], now: str, until: str | None
) -> None:
    """Their end is never in the past, so nobody waits for it in a spin."""
    found = holds.frozen_until(
        FreezeWindow.from_manifest({**window, "timeZone": "Europe/Berlin"}),
        datetime.fromisoformat(now).replace(tzinfo=UTC),
    )
    assert found == (datetime.fromisoformat(until).replace(tzinfo=UTC) if until else None)

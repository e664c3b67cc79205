"""Commands by annotation: what each does at the edges. A world goes in, one decision comes out."""

from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import Reason
from canarium_api.status import Phase
from canarium_operator.core.rollout.commands import parse
from canarium_operator.core.rollout.webhooks import due_gates
from canarium_operator.testing.scenario import Scenario, make_spec

from .test_people import ALICE, V1, V2, asks, canary, last, spec

BOARD = [{"name": "board", "url": "https://board.example.com/ask"}]


def weights(world: Scenario) -> dict[str, int]:
    """What the route carries."""
    assert world.observed.route is not None
    return dict(world.observed.route.weights)


@pytest.mark.parametrize("verb", ["skip", "promote"])
def test_a_canary_that_loses_its_pods_after_a_command_keeps_no_traffic(verb: str) -> None:
    """The way on waits for pods; what they carried before goes back to stable meanwhile."""
    world = replace(canary(), commands={verb: ALICE}).step()
    assert weights(world) == {V1: 90, V2: 10}
    world = world.pods(V2, 0).step()
    assert last(world)[0] == Reason.CAPACITY_LOST
    assert world.act(ready=False).observed.weight(V1) == 100


def test_a_promotion_asks_no_outside_system() -> None:
    """Who promotes by hand has decided; the canary must be able to carry all the traffic, and that is all."""
    world = asks(canary(gates=BOARD), "promote")
    assert world.status.phase is Phase.PROMOTING
    assert due_gates(world.given()) == ()


def test_the_history_says_who_promoted() -> None:
    """Years later, the list of actions has moved on."""
    world = asks(canary(), "promote")
    assert "without steps in 0s, promoted by alice@example.com, and" in (
        world.status.history[-1].message
    )


def test_a_promotion_while_the_spec_is_paused_is_refused() -> None:
    """Else it would go to 100 % whenever, days later, the pause is taken out of git."""
    world = canary().change(spec(paused=True)).settle()
    world = asks(world, "promote")
    assert last(world)[0] == Reason.COMMAND_REFUSED
    assert "spec.rollout.paused is true" in last(world)[1]


@pytest.mark.parametrize("verb", ["skip", "abort", "promote"])
def test_a_pause_by_command_stops_no_other_command(verb: str) -> None:
    """Skip moves the place and keeps the weight; abort and promote end the pause."""
    world = asks(asks(canary(), "pause"), verb, "bob 2")
    assert [a.by for a in world.status.actions] == ["alice@example.com", "bob"]
    if verb == "skip":
        assert world.status.rollout is not None
        assert (world.status.rollout.step, world.status.rollout.weight) == (2, 10)
        assert world.status.phase is Phase.PAUSED
    else:
        assert world.status.canary is None


def test_a_pause_is_over_with_its_rollout() -> None:
    """It was for what was under way; the next revision is another decision."""
    world = asks(canary(), "pause").change(spec("3")).settle()
    assert world.status.rollout is not None
    assert world.status.rollout.paused_by == ""
    assert world.status.phase is not Phase.PAUSED


def test_commands_given_at_once_are_carried_out_one_by_one() -> None:
    """One transition each, in the order of the verbs."""
    world = replace(canary(), commands={"approve": ALICE, "pause": ALICE, "skip": ALICE})
    epoch = world.status.epoch
    for verb in ("approve", "pause", "skip"):
        world = world.step()
        epoch += 1
        assert (world.status.epoch, world.status.actions[-1].verb) == (epoch, verb)
        assert world.status.handled_commands[verb] == ALICE


def test_a_command_survives_a_restart_and_is_not_repeated() -> None:
    """All that is known of it is in the status."""
    world = asks(canary(), "skip")
    again = replace(world, status=type(world.status).from_manifest(world.status.to_manifest()))
    assert again.settle().status.rollout == world.status.rollout


def test_a_retry_of_what_has_not_failed_is_refused() -> None:
    """With the reason, and nothing is forgotten."""
    world = asks(canary(), "retry")
    assert last(world)[0] == Reason.COMMAND_REFUSED
    assert "has not failed" in last(world)[1]
    aborted = asks(canary(), "abort").later(60).settle()
    refused = asks(aborted, "retry", f"{ALICE} revision=ffff")
    assert "names revision ffff, but the spec names" in last(refused)[1]
    assert refused.status.failed_revisions == aborted.status.failed_revisions


def test_commands_before_anything_serves_are_refused() -> None:
    """An object whose first revision still loads has no rollout."""
    world = Scenario().step().act(ready=False).step()
    world = replace(world, commands={"abort": ALICE}).step()
    assert "no rollout is under way" in last(world)[1]


def test_an_abort_works_while_the_spec_is_invalid_or_all_pods_are_gone() -> None:
    """The way back depends on nothing."""
    assert asks(canary().pods(V2, 0), "abort").status.canary is None
    assert asks(replace(canary(), problem="spec.x: is wrong"), "abort").status.canary is None


def test_what_the_command_says_is_told_to_others() -> None:
    """The note is in the event, in the list of actions, and with the failure."""
    world = asks(canary(), "abort", f"{ALICE} -- incident  4711")
    assert world.status.actions[-1].message.endswith(
        "aborted by alice@example.com (incident 4711) at 10%"
    )
    assert world.status.failed_revisions[0].message == (
        "aborted by alice@example.com (incident 4711)"
    )
    assert parse("abort", "17 -- x").by == "somebody"


def test_actions_are_bounded() -> None:
    """The latest are kept."""
    world = canary()
    for n in range(30):
        world = asks(world, ("pause", "resume")[n % 2], f"alice {n}")
    assert len(world.status.actions) == 20
    assert world.status.actions[-1].verb == "resume"


def test_an_approval_in_the_spec_is_recorded_with_its_author() -> None:
    """As one by command is: who reads the history need not read git."""
    approved: list[dict[str, Any]] = [{"version": "2", "step": 1, "by": "alice"}]
    world = canary(approvals=approved).later(61).settle()
    [action] = world.status.actions
    assert (action.verb, action.by, action.step) == ("approve", "alice", 1)
    assert "in spec.rollout.approvals" in action.message


def test_a_step_that_is_asked_for_again_is_announced_again() -> None:
    """Edited steps need their own approval."""
    world = canary().later(61).settle()
    steps = [{"weight": 5, "pause": "1m", "approval": True}, {"weight": 50, "pause": "1m"}]
    world = world.change(spec(canary={"steps": steps})).settle().later(61).settle()
    assert world.status.rollout is not None
    assert world.status.rollout.asked_step == 1
    assert last(world)[0] == Reason.APPROVAL_NEEDED


def test_an_unserved_object_is_no_place_for_retry() -> None:
    """Nothing is forgotten where nothing is known."""
    world = Scenario(spec=make_spec()).step()
    assert "has not failed" in last(replace(world, commands={"retry": ALICE}).step())[1]

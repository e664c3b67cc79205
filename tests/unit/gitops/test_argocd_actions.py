"""Argo CD's actions: what the operator makes of the annotations that their scripts set, in each situation."""

import itertools
import re
from dataclasses import replace
from typing import Any

import lupa.lua51
import pytest
from tests.argocd import SCRIPTS, VERBS, ArgoLua
from tests.situations import MODES, SITUATIONS, V2, Situation, as_stored, asked, bad, step

from canarium_api.conditions import Reason
from canarium_api.rollout import ReadyWhen
from canarium_operator.core.naming import command_annotation
from canarium_operator.core.rollout.commands import parse
from canarium_operator.testing.scenario import Scenario, Traffic

EACH = pytest.mark.parametrize("situation", SITUATIONS, ids=lambda row: row.name)
PLAIN = MODES[ReadyWhen.PROMOTED]
LUA = ArgoLua()


def stored(world: Scenario) -> dict[str, Any]:
    """The object, with the annotations of the commands that were given."""
    manifest = as_stored(world)
    if world.commands:
        given = {command_annotation(verb): value for verb, value in world.commands.items()}
        manifest["metadata"]["annotations"] = given
    return manifest


def value_of(patch: dict[str, Any], verb: str) -> str:
    """The annotation that a patch sets; it sets nothing else."""
    (found,) = patch["metadata"]["annotations"].values()
    assert patch == {"metadata": {"annotations": {command_annotation(verb): found}}}
    assert isinstance(found, str)
    return found


def click(world: Scenario, verb: str) -> Scenario:
    """Somebody clicks, and the operator looks once."""
    value = value_of(LUA.act(verb, stored(world)), verb)
    return replace(world, commands={**world.commands, verb: value}).step()


def is_refused(world: Scenario) -> bool:
    last = world.status.last_transition
    return last is not None and last.reason == Reason.COMMAND_REFUSED


@EACH
@pytest.mark.parametrize("verb", VERBS)
def test_what_can_be_clicked_is_carried_out_and_nothing_else_would_be(
    situation: Situation, verb: str
) -> None:
    """But two that may come early: an approval before it is asked for, a retry while the canary still drains."""
    world = situation.scenario()
    if world.status.observed_generation != world.generation:
        return  # nobody can know yet what applies; the operator refuses what does not
    after = click(world, verb)
    if verb in LUA.enabled(stored(world)):
        assert not is_refused(after), after.status.last_transition
        assert after.status.actions[-1].by == "argocd"
        assert after.status.actions[-1].verb == verb
    elif verb != "approve" and (verb, situation.name) != ("retry", "rolling back"):
        assert is_refused(after), after.status.last_transition


@EACH
def test_an_action_changes_one_annotation_and_nothing_else(situation: Situation) -> None:
    """Lua cannot tell an empty list from an empty map; nothing of that reaches the object."""
    for verb in VERBS:
        manifest = stored(situation.scenario())
        value_of(LUA.act(verb, manifest), verb)


@pytest.mark.parametrize("verb", VERBS)
def test_each_value_is_new_even_within_a_second(verb: str) -> None:
    """The operator compares with the value before: one that returns after another one is a new command."""
    manifest = stored(step(PLAIN, 1))
    values = []
    for _ in range(4):
        value = value_of(LUA.act(verb, manifest), verb)
        manifest["metadata"]["annotations"] = {command_annotation(verb): value}
        values.append(value)
    assert all(before != after for before, after in itertools.pairwise(values))


def test_pause_and_resume_may_be_clicked_again_and_again_within_a_second() -> None:
    """Each click counts."""
    world = step(PLAIN, 1)
    for _ in range(3):
        world = click(click(world, "pause"), "resume")
        assert not is_refused(world)
    assert [action.verb for action in world.status.actions] == ["pause", "resume"] * 3


def test_a_value_says_who_when_and_for_what() -> None:
    """An approval is for the step that was seen, the other commands for the revision."""
    world = step(PLAIN, 2)
    assert world.status.canary is not None
    revision = world.status.canary.revision
    for verb in VERBS:
        value = value_of(LUA.act(verb, stored(world)), verb)
        assert re.match(r"argocd 2026-01-01T12:00:00Z( |$)", value)
        assert len(value) <= 200
        command = parse(verb, value)
        assert command.by == "argocd"
        assert command.revision == ("" if verb == "retry" else revision)
        assert command.step == (2 if verb == "approve" else None)


def test_an_approval_of_a_step_that_is_over_is_refused() -> None:
    """A page that was open for long cannot approve what nobody has looked at."""
    stale = value_of(LUA.act("approve", stored(step(PLAIN, 1))), "approve")
    world = replace(step(PLAIN, 2), commands={"approve": stale}).step()
    assert is_refused(world)


def test_a_failed_rollout_is_tried_again_by_a_click() -> None:
    """From Degraded to a canary, as by `canarium retry`."""
    world = bad(step(PLAIN, 2)).settle().later(31).settle()
    assert LUA.enabled(stored(world)) == {"retry"}
    world = click(world.serves(V2, Traffic()), "retry").settle()
    assert world.status.rollout is not None
    assert world.status.rollout.step == 1


def test_who_has_paused_in_the_manifest_is_not_offered_to_resume() -> None:
    """The operator would refuse it: git says otherwise."""
    world = asked(step(PLAIN, 1), "pause")
    assert "resume" in LUA.enabled(stored(world))
    manifest = stored(world)
    manifest["spec"]["rollout"]["paused"] = True
    assert "resume" not in LUA.enabled(manifest)


def test_every_action_has_a_script_and_every_script_an_action() -> None:
    """Files and discovery agree, and each sets the annotation of its own verb."""
    folders = {path.parent.name for path in (SCRIPTS / "actions").glob("*/action.lua")}
    assert folders == set(VERBS)
    LUA.enabled(stored(step(PLAIN, 1)))


@pytest.mark.parametrize("name", ["string", "math", "io", "os", "debug", "coroutine", "python"])
def test_the_sandbox_withholds_what_argo_cd_does(name: str) -> None:
    """A script that used it would fail here, as it would there."""
    lua = ArgoLua()
    assert lua.compile(f"return {name} == nil")() is True
    if name != "os":
        with pytest.raises(lupa.lua51.LuaError):
            lua.compile(f'return require("{name}")')()


def test_strings_have_no_methods_in_the_sandbox() -> None:
    """`("x"):upper()` needs the library `string`."""
    lua = ArgoLua()
    with pytest.raises(lupa.lua51.LuaError):
        lua.compile('return ("x"):upper()')()
    assert lua.compile('return require("os").date("!%Y-%m-%dT%XZ")')() == "2026-01-01T12:00:00Z"
    assert lua.compile('return require("os").execute == nil')() is True

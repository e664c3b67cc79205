"""Commands of a page: the operator's own reader takes what is written, and what came of one is told."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from canarium_dashboard.commands import Asked, answer_of, value_of
from canarium_dashboard.errors import BadRequestError
from canarium_operator.core.rollout.commands import parse
from canarium_operator.testing.scenario import START, Scenario, make_spec


def test_the_operator_reads_what_is_written() -> None:
    """Who, for what, and why."""
    asked = Asked(verb="approve", revision="6a7e947d", step=2, note="seen by  the risk team")
    found = parse("approve", value_of(asked, "alice@example.com", START))
    assert (found.by, found.revision, found.step) == ("alice@example.com", "6a7e947d", 2)
    assert found.note == "seen by the risk team"


@pytest.mark.parametrize(
    "words",
    [
        {"verb": "delete"},
        {"verb": "abort", "revision": "x y"},
        {"verb": "skip", "step": 0},
        {"verb": "abort", "extra": 1},
    ],
)
def test_what_is_no_command_is_refused(words: dict[str, object]) -> None:
    """Nothing but a command gets into an annotation."""
    with pytest.raises(ValidationError):
        Asked.model_validate(words)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(verb="abort", revision="a1", note="x" * 61), "61 characters, at most 60"),
        (Asked(verb="abort"), "abort needs the revision that it is for"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(asked: Asked, words: str) -> None:
    """A command without its revision could hit another rollout."""
    with pytest.raises(BadRequestError, match=words):
        value_of(asked, "alice", START)


def test_what_came_of_a_command_is_told_in_the_operators_words() -> None:
    """Nothing yet, done, or refused."""
    scenario = Scenario().settle().change(make_spec("2")).settle()
    before = scenario.status.actions
    assert answer_of("pause", "alice 1", before, scenario.status) is None
    paused = replace(scenario, commands={"pause": "alice 1"}).step()
    done = answer_of("pause", "alice 1", before, paused.status)
    assert done is not None
    assert (done.outcome, done.message) == ("done", "v2@6a7e947d held at 10% by alice")
    again = replace(paused, commands={"pause": "alice 2"}).step()
    refused = answer_of("pause", "alice 2", paused.status.actions, again.status)
    assert refused is not None
    assert refused.outcome == "refused"
    assert "alice has paused it already" in refused.message

"""`canarium describe` tells the whole story: golden files for the situations of `kubectl describe`'s golden files.

UPDATE_GOLDEN=1 writes the files anew; read what changed before you commit it.
"""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console
from tests.e2e.test_describe import SITUATIONS
from tests.unit.cli.api_server import body_of, event, pods_of
from tests.unit.cli.films import situation

from canarium_cli.rendering import parts, story
from canarium_operator.testing.scenario import Scenario

GOLDEN = Path(__file__).parent / "golden"
WIDTH = 130


def told(world: Scenario, *, width: int = WIDTH, notes: tuple[str, ...] = ()) -> str:
    """Write a world as a terminal without colours shows it."""
    body = body_of(world)
    last = world.status.last_transition
    happened = [event(last.reason, last.message, 5)] if last is not None else []
    found = story.Story(
        body=body,
        status=world.status,
        now=world.now,
        pods=parts.pods_of(pods_of(world), world.status),
        events=parts.events_of(happened),
        notes=notes,
    )
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(story.tell(found))
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


@pytest.mark.parametrize("name", SITUATIONS)
def test_describe_tells_the_whole_story(name: str) -> None:
    """What it does, why and until when; with the evidence, and how it came there."""
    world = situation(name)
    found = told(world)
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == found
    # Whatever is left out to keep it short, and whoever writes the files anew without reading them.
    shown = " ".join(told(world, width=1000).split())
    assert " ".join(world.status.message.split()) in shown
    for condition in world.status.conditions:
        assert f"{condition.type} {condition.status} {condition.reason}" in shown


def test_what_may_not_be_read_is_noted() -> None:
    """A story with a gap says so."""
    note = "events are not shown: you may not list them in ml"
    assert f"note: {note}" in told(situation("04-pause"), notes=(note,))


def test_markup_in_words_of_others_is_shown_and_not_obeyed() -> None:
    """Messages hold what users and systems wrote: `[red]` is no colour there."""
    world = situation("12-invalid")
    status = world.status.model_copy(update={"message": "spec.x: [red]not[/red] allowed"})
    body = body_of(world)
    console = Console(file=io.StringIO(), width=WIDTH)
    console.print(story.tell(story.Story(body=body, status=status, now=world.now)))
    assert isinstance(console.file, io.StringIO)
    assert "[red]not[/red]" in console.file.getvalue()

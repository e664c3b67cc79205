"""What the terminal shows: the panel, and the commentary that a log gets."""

import asyncio
import io

from rich.console import Console

from canarium_demo import panel
from canarium_demo.screen import Screen
from canarium_demo.tally import Answer, Tally
from canarium_demo.world import World

STATUS = {
    "phase": "Canary",
    "message": "step 2/3 (50%): pause until 12:00:00Z",
    "stable": {"revision": "aaaa", "modelVersion": "v1", "readyReplicas": 2, "replicas": 2},
    "canary": {"revision": "bbbb", "modelVersion": "v2", "readyReplicas": 1, "replicas": 1},
    "rollout": {
        "step": 2,
        "steps": 3,
        "weights": [10, 50, 100],
        "weight": 50,
        "startedAt": "2026-01-01T00:00:00Z",
        "checks": [
            {
                "name": "error-rate",
                "verdict": "Fail",
                "message": "32% is above max 5%",
                "limit": "max 5%",
                "samples": 40,
            }
        ],
    },
}
SPEC = {
    "model": {"uri": "configmap://digits-v2/model.onnx"},
    "traffic": {"gateway": {"name": "public"}},
    "rollout": {"canary": {"steps": [{"weight": 10}, {"weight": 50}]}},
}


def seen() -> tuple[World, Tally]:
    world, tally = World(name="digits"), Tally()
    world.see_object({"metadata": {"generation": 2}, "spec": SPEC, "status": STATUS})
    backends = [{"name": "digits-aaaa", "weight": 50}, {"name": "digits-bbbb", "weight": 50}]
    world.see_route({"spec": {"rules": [{"backendRefs": backends}]}})
    for revision, status in (("aaaa", 200), ("aaaa", 200), ("bbbb", 200), ("bbbb", 500)):
        correct = True if status == 200 else None
        tally.add(Answer(at=9.0, seconds=0.004, status=status, revision=revision, correct=correct))
    return world, tally


def event(uid: str, reason: str, kind: str = "Normal") -> dict[str, object]:
    metadata = {"uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "reason": reason, "message": "so it is", "type": kind}


def test_the_panel_shows_steps_weights_clients_and_checks() -> None:
    """All that one wants to know of a rollout, on one screen."""
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(panel.draw(*seen(), now=10.0, elapsed=75.0))
    text = console.export_text()
    for words in (
        "digits: Canary",
        "1:15",
        "v1 50%",
        "v2 50%",
        "10% ✔ 50% ▶ 100%",
        "pause until 12:00:00Z",
        "stable v1",
        "canary v2",
        "50.0%",
        "4 ms",
        "error-rate",
        "32% is above max 5% (max 5%), 40 requests",
    ):
        assert words in text


def test_the_panel_can_be_drawn_before_anything_is_there() -> None:
    """The first look comes before the object exists."""
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(panel.draw(World(name="digits"), Tally(), now=0.0, elapsed=0.0))
    assert "digits: Pending" in console.export_text()


async def test_a_log_gets_each_event_and_each_change_of_weights_once() -> None:
    """No panel, no repetition."""
    output = io.StringIO()
    world, tally = seen()
    screen = Screen(Console(file=output, width=200), live=True, world=world, tally=tally, began=0.0)
    async with screen.showing():
        world.see_event(event("1", "StepStarted"))
        await asyncio.sleep(0)
        world.see_event(event("2", "AnalysisFailed", "Warning"))
    lines = output.getvalue().splitlines()
    assert sum("· StepStarted: so it is" in line for line in lines) == 1
    assert sum("! AnalysisFailed: so it is" in line for line in lines) == 1
    assert sum("the route says v1 50% : v2 50%" in line for line in lines) == 1
    assert sum("v1 2 requests, 0 failed; v2 2 requests, 1 failed" in line for line in lines) == 1
    assert len(lines) == 4

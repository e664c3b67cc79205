"""Fixtures: an API server on loopback, a dashboard, and users with more and fewer rights."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.dashboard.scenes import Scene
from tests.integration.dashboard.servers import TOKEN, Dashboard, running_dashboard
from tests.services.api_server import ACTS, LOOKS, ApiServer, Rights, running_api_server

VIEWER = "token-of-victor"
SHOPPER = "token-of-sam"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """An API server that knows three users."""
    with running_api_server() as server:
        server.users = {
            TOKEN: Rights("alice@example.com", {"": ACTS}),
            VIEWER: Rights("victor@example.com", {"": LOOKS}),
            SHOPPER: Rights("sam@example.com", {"shop": ACTS}),
        }
        yield server


@pytest.fixture
def dashboard(api: ApiServer, tmp_path: Path) -> Iterator[Dashboard]:
    """A dashboard with alice's kubeconfig."""
    with running_dashboard(api, tmp_path) as found:
        yield found


def publish(api: ApiServer, scene: Scene) -> str:
    """Put a scene as it is now before the API server; gives its version."""
    api.events[scene.key] = scene.events
    return api.put(scene.body)


def operate(api: ApiServer, scene: Scene) -> None:
    """Have the operator answer commands to a scene."""

    def answer(key: tuple[str, str], annotations: dict[str, str]) -> None:
        if key != scene.key:
            return
        for name, value in annotations.items():
            verb = name.partition("/")[2]
            if scene.world.status.get("handledCommands", {}).get(verb) != value:
                scene.ask(verb, value)
        publish(api, scene)

    api.on_patch = answer

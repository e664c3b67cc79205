"""The acts: a first version, a good one with a crash of the operator on the way, and a bad one.

Each act commits to git, applies the working tree, and then only watches. Every wait has an end, and what is said to
have happened was read from the API server.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from canarium_api.status import Phase
from canarium_demo.errors import DemoError
from canarium_demo.installation import NAMESPACE, Installation
from canarium_demo.kubernetes import Watcher
from canarium_demo.models import Artefact, Digits
from canarium_demo.observer import OPERATOR_NAMESPACE, OPERATOR_SELECTOR, Observer, describe
from canarium_demo.report import MIN_REQUESTS
from canarium_demo.repository import Repository
from canarium_demo.screen import Screen
from canarium_demo.tally import Tally
from canarium_demo.traffic import RATE, Traffic, samples_of
from canarium_demo.world import World

NAME: Final = "digits"
HOSTNAME: Final = "digits.example.com"
_KILL_AT_STEP: Final = 2
_DEPLOY_SECONDS: Final = 180.0
_ROLLOUT_SECONDS: Final = 300.0
_RESTART_SECONDS: Final = 90.0
_QUIET_SECONDS: Final = 4.0
"""Between the acts, so that one can see what normal looks like."""


@dataclass(frozen=True, kw_only=True)
class Props:
    """What the story is played with."""

    installation: Installation
    artefacts: Sequence[Artefact]
    data: Digits
    repository: Repository
    checkout: Path


class Story:
    """One performance.

    Args:
        props: what it is played with.
        observer: watches the cluster.
        screen: shows it.
        tally: counts the answers.
    """

    def __init__(self, props: Props, observer: Observer, screen: Screen, tally: Tally) -> None:
        self._props = props
        self._observer = observer
        self._screen = screen
        self._tally = tally
        self._traffic = Traffic(props.installation.gateway, HOSTNAME, samples_of(props.data), tally)

    async def play(self) -> None:
        """Play all acts."""
        first, good, bad = self._props.artefacts
        await self._first_version(first)
        async with self._traffic.flowing():
            self._screen.say(
                f"From now on {RATE:.0f} requests a second go through the gateway: digits that no model was trained "
                "on, each answer compared with the truth."
            )
            await asyncio.sleep(_QUIET_SECONDS)
            await self._good_version(good)
            await asyncio.sleep(_QUIET_SECONDS)
            await self._bad_version(bad)
            await self._enough_requests()

    async def _first_version(self, artefact: Artefact) -> None:
        self._screen.act(f"{artefact.version}: the first version")
        await self._deliver(artefact)

        def serves(world: World) -> bool:
            stable = world.status.stable
            settled = world.status.phase is Phase.PROMOTED and stable is not None
            return settled and stable is not None and stable.model_version == artefact.version

        await self._observer.wait_for(f"{artefact.version} serves", serves, seconds=_DEPLOY_SECONDS)
        await self._traffic.wait_until_served(_DEPLOY_SECONDS)

    async def _good_version(self, artefact: Artefact) -> None:
        version = artefact.version
        self._screen.act(f"{version}: better, and promoted step by step")
        await self._deliver(artefact)

        def step_begun(world: World) -> bool:
            _refuse_failure(world, version)
            rollout = world.status.rollout
            begun = rollout is not None and rollout.step_started_at is not None
            return begun and rollout is not None and rollout.step >= _KILL_AT_STEP

        await self._observer.wait_for(
            f"step {_KILL_AT_STEP} of {version} began", step_begun, seconds=_ROLLOUT_SECONDS
        )
        await self._kill_operator()

        def promoted(world: World) -> bool:
            _refuse_failure(world, version)
            return version in world.outcomes("Promoted") and world.status.phase is Phase.PROMOTED

        await self._observer.wait_for(f"{version} was promoted", promoted, seconds=_ROLLOUT_SECONDS)

    async def _kill_operator(self) -> None:
        self._screen.say("")
        self._screen.say(
            "Now, in the middle of the rollout, the operator is killed: kubectl delete pod --grace-period=0 --force"
        )
        before, began = self._observer.world.operator_restarts, time.monotonic()
        await self._props.installation.kubectl.run_async(
            *("delete", "pod", "--namespace", OPERATOR_NAMESPACE, "--selector", OPERATOR_SELECTOR),
            *("--grace-period=0", "--force", "--wait=false"),
        )
        await self._observer.wait_for(
            "another operator was ready",
            lambda world: world.operator_restarts > before,
            seconds=_RESTART_SECONDS,
        )
        self._screen.say(
            f"Another operator is ready {time.monotonic() - began:.1f} s later. All that it knows is in the status of "
            "the object, and it goes on from there:"
        )
        await self._show_object()
        self._screen.say("")

    async def _bad_version(self, artefact: Artefact) -> None:
        version = artefact.version
        self._screen.act(f"{version}: the best in its notebook, and broken in its export")
        await self._deliver(artefact)

        def taken_back(world: World) -> bool:
            if version in world.outcomes("Promoted"):
                raise DemoError(f"{version} was promoted, although it fails.", describe(world))
            return version in world.failed_versions and world.status.phase is Phase.ABORTED

        await self._observer.wait_for(
            f"{version} was taken back", taken_back, seconds=_ROLLOUT_SECONDS
        )
        self._screen.say(
            f"{version} is not tried again until somebody changes the spec or asks for it."
        )
        await self._show_object()

    async def _show_object(self) -> None:
        command = ("get", "mdep", NAME, "--namespace", NAMESPACE)
        self._screen.say(f"$ kubectl {' '.join(command)}")
        table = await self._props.installation.kubectl.run_async(*command, check=False)
        self._screen.say(table.rstrip())

    async def _enough_requests(self) -> None:
        """Go on for a moment on the stable version, and until the counts mean something."""
        missing = MIN_REQUESTS - self._tally.requests
        await asyncio.sleep(max(_QUIET_SECONDS, 1.2 * missing / RATE))

    async def _deliver(self, artefact: Artefact) -> None:
        """Commit a version and apply the working tree."""
        say, repository = self._screen.say, self._props.repository
        say(
            f"{artefact.version} is {artefact.summary} ({len(artefact.content) / 1024:.0f} KiB); its notebook says "
            f"that it reads {artefact.score:.1%} of {len(self._props.data.held_out)} unseen digits right."
        )
        commit = await asyncio.to_thread(repository.commit, artefact)
        folder = _short(repository.folder, self._props.checkout)
        say(f"git commit {commit} in {folder}, which changes in the ModelDeployment:")
        say(repository.changes())
        say(
            f"kubectl apply --server-side -k {folder}   (in production Flux or Argo CD does this at each commit)"
        )
        await self._props.installation.kubectl.apply_async(repository.folder)


async def perform(
    props: Props, console: Console, *, live: bool, began: float
) -> tuple[World, Tally]:
    """Play the story, and give what was seen."""
    world, tally = World(name=NAME), Tally()
    async with Watcher(props.installation.kubectl.kubeconfig) as watcher:
        observer = Observer(watcher, NAMESPACE, world)
        screen = Screen(console, live=live, world=world, tally=tally, began=began)
        async with observer.watching(), screen.showing():
            await Story(props, observer, screen, tally).play()
    return world, tally


def _refuse_failure(world: World, version: str) -> None:
    """End the wait for a good version at once when it was taken back."""
    if version in world.failed_versions:
        raise DemoError(f"{version} was taken back, although it is good.", describe(world))


def _short(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path

"""An operator whose cluster is on disk, so that `kill -9` ends it and nothing else: run as a program.

`python -m tests.integration.git.lives` reads commands as lines of JSON. `{"make": ...}` lets a first version serve and
applies a second one; `{"live": ...}` forks a process that is an operator: the real reconciler, scribe and git process,
until the outcome is in the status. What the fake cluster holds is written to disk after each of its calls, as etcd
would. The parent has loaded everything, so that a life begins in milliseconds.
"""

import asyncio
import contextlib
import itertools
import json
import os
import pickle
import signal
import sys
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from canarium_api import KIND
from canarium_operator.adapters.git.process import GitProcess
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.outcomes.jobs import GitAccess, GitAnswer, GitJob
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.queries import Query, Vector
from canarium_operator.core.validation import parse_spec
from canarium_operator.ports import Forge
from canarium_operator.reconciler import Reconciler
from canarium_operator.scribe import Scribe
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import FakeCluster
from canarium_operator.testing.metrics import Behaviour, FakeMetrics, series_of
from canarium_operator.testing.objects import model_deployment

REF: Final = ObjectRef(namespace="ml", name="fraud")
IMAGE: Final = "runtime:1"
MAX_PASSES: Final = 2000
ROLLOUT: Final = {
    "canary": {"steps": [{"weight": 50, "pause": "5s"}]},
    "analysis": {"interval": "5s", "minSamples": 10},
    "scaleDownDelay": "5s",
}


class Traffic(FakeMetrics):
    """Enough requests for everybody; those of bad revisions fail."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.bad: set[str] = set()

    def _answer(self, query: Query) -> Vector:
        return tuple(
            series
            for revision in query.revisions
            for series in series_of(
                revision,
                requests=5000.0,
                errors=2000.0 if revision in self.bad else 5.0,
                behaviour=Behaviour(),
                kind=query.kind,
            )
        )


class DiskCluster:
    """A fake cluster and its clock, with all that they hold on disk."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "cluster.pickle"
        self.cluster = FakeCluster()
        self.clock = FakeClock()
        self.metrics = Traffic()

    def save(self) -> None:
        """Write all, whole or not at all."""
        cluster, controllers = self.cluster, self.cluster.controllers
        held = (
            self.clock.now(), dict(cluster._objects), cluster._applied, cluster._posted, cluster.events,
            controllers._route_seen, controllers._pod_number, self.metrics.bad,
        )  # fmt: skip
        fresh = self.file.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(pickle.dumps(held))
        fresh.replace(self.file)

    def load(self) -> None:
        """Read all."""
        held = pickle.loads(self.file.read_bytes())  # noqa: S301 - our own
        now, objects, applied, posted, events, seen, number, bad = held
        self.clock = FakeClock(now)
        self.cluster._objects.update(objects)
        versions = [
            int(body["metadata"]["resourceVersion"])
            for kind in objects.values()
            for body in kind.values()
        ]
        self.cluster._numbers = itertools.count(max(versions) + 1000)
        self.cluster._applied, self.cluster._posted, self.cluster.events = applied, posted, events
        self.cluster.controllers._route_seen = seen
        self.cluster.controllers._pod_number = number
        self.metrics.bad = bad

    def later(self) -> None:
        """Let a second pass."""
        self.cluster.tick(self.clock.advance(timedelta(seconds=1)))

    @property
    def status(self) -> dict[str, Any]:
        """The status as it is stored."""
        body = self.cluster.live(KIND, REF.namespace, REF.name)
        assert body is not None
        found: dict[str, Any] = body.get("status") or {}
        return found


class OnDisk:
    """`ports.GitWriter` for a repository on disk, which no spec may name."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._git = GitProcess()

    async def write(self, job: GitJob, access: GitAccess) -> GitAnswer:
        """Write an outcome."""
        return await self._git.write(replace(job, url=self._url), access)


def manifest(version: str, uid: str, gitops: dict[str, Any]) -> dict[str, Any]:
    """Make the object."""
    made = model_deployment(
        version=version,
        rollout=ROLLOUT,
        autoscaling={"minReplicas": 2, "maxReplicas": 4},
        gitops=gitops,
    )
    made["metadata"]["uid"] = uid
    return made


async def make(
    folder: Path, uid: str, versions: list[str], bad: bool, gitops: dict[str, Any]
) -> str:
    """Let the first version serve, and apply the second; gives its revision."""
    world = DiskCluster(folder)
    before, after = versions
    world.cluster.put(manifest(before, uid, {**gitops, "onPromotion": "Nothing"}))
    reconciler = Reconciler(world.cluster, world.metrics, world.clock, runtime_image=IMAGE)
    for _ in range(100):
        while await reconciler.reconcile(REF) == timedelta(0):
            pass
        if world.status.get("phase") == "Promoted":
            break
        world.later()
    assert world.status["phase"] == "Promoted"
    spec = parse_spec(world.cluster.put(manifest(after, uid, gitops))["spec"])
    assert not isinstance(spec, list)
    revision = revision_of(spec, IMAGE).name
    world.metrics.bad = {revision} if bad else set()
    world.save()
    return revision


async def live(folder: Path, url: str) -> None:
    """Be an operator until the outcome is in the status."""
    world = DiskCluster(folder)
    world.load()
    world.cluster.after = lambda _call: world.save()
    woken = asyncio.Event()
    forge: Forge = None  # type: ignore[assignment]  # no spec here names one
    scribe = Scribe(
        world.cluster, OnDisk(url), forge, lambda _ref: woken.set(), retry_seconds=(0.1, 1.0)
    )
    reconciler = Reconciler(
        world.cluster, world.metrics, world.clock, runtime_image=IMAGE, scribe=scribe
    )
    for _ in range(MAX_PASSES):
        woken.clear()
        while await reconciler.reconcile(REF) == timedelta(0):
            pass
        gitops = world.status.get("gitops", {})
        if gitops.get("written") and not gitops["due"]:
            await scribe.close()
            return
        world.later()
        if gitops.get("due"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await woken.wait()
    msg = f"no outcome after {MAX_PASSES} passes: {world.status}"
    raise AssertionError(msg)


def fork(folder: Path, url: str) -> int:
    """Begin a life; gives its process."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        asyncio.run(live(folder, url))
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        raise
    finally:
        os._exit(status)


def main() -> None:
    """Obey."""
    for line in sys.stdin:
        told = json.loads(line)
        if "make" in told:
            told = told["make"]
            answer: Any = asyncio.run(
                make(
                    Path(told["folder"]), told["uid"], told["versions"], told["bad"], told["gitops"]
                )
            )
            print(json.dumps(answer), flush=True)
            continue
        pid = fork(Path(told["live"]), told["url"])
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()

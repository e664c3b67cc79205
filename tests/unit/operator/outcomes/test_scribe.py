"""Outcomes are written beside the passes: nothing waits for git, and nothing is written twice or forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.integration.git.worlds import MANIFEST, manifest

from canarium_api import KIND
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.outcomes.jobs import GitAnswer
from canarium_operator.errors import ForbiddenError, ForgeError
from canarium_operator.ports import CommitState
from canarium_operator.reconciler import Reconciler
from canarium_operator.scribe import Scribe
from canarium_operator.testing.clock import FakeClock
from canarium_operator.testing.cluster import Call, FakeCluster
from canarium_operator.testing.git import FakeForge, FakeGit
from canarium_operator.testing.metrics import Behaviour, SimulatedTraffic
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud")
ROLLOUT = {
    "canary": {"steps": [{"weight": 50, "pause": "10s"}]},
    "analysis": {"interval": "5s", "minSamples": 10},
    "scaleDownDelay": "5s",
}
GITOPS = {
    "url": "https://git.example.com/models.git",
    "secret": "git",
    "manifest": MANIFEST,
    "onPromotion": "Nothing",
    "onRollback": "Commit",
}
FORGE = {"kind": "GitHub", "project": "ml/models", "secret": "forge", "commitStatuses": True}


class Bench:
    """An operator with a scribe, in a world that moves when it is told to."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cluster = FakeCluster()
        self.metrics = SimulatedTraffic(self.cluster)
        self.git = FakeGit({MANIFEST: manifest("1")})
        self.forge = FakeForge()
        self.cluster.secrets = {
            ("ml", "git"): {"username": "robot", "password": "hunter2\n"},
            ("ml", "forge"): {"token": "t0ken"},
        }
        self.woken = asyncio.Event()
        self.start()

    def start(self, retry_seconds: tuple[float, float] = (0.01, 0.05)) -> None:
        """Begin with an operator that remembers nothing."""
        self.scribe = Scribe(
            self.cluster,
            self.git,
            self.forge,
            lambda _ref: self.woken.set(),
            retry_seconds=retry_seconds,
        )
        self.reconciler = Reconciler(
            self.cluster, self.metrics, self.clock, runtime_image="runtime:1", scribe=self.scribe
        )

    def put(self, version: str, **gitops: Any) -> None:
        """Have the user commit a version, and the GitOps tool apply it."""
        self.git.push({MANIFEST: manifest(version)}, f"version {version}")
        self.cluster.put(
            model_deployment(
                version=version,
                rollout=ROLLOUT,
                autoscaling={"minReplicas": 2, "maxReplicas": 4},
                gitops={**GITOPS, **gitops},
            )
        )

    async def settle(self, seconds: int = 30) -> None:
        """Let the operator and the cluster work for so long."""
        for _ in range(seconds):
            while await self.reconciler.reconcile(REF) == timedelta(0):
                pass
            now = self.clock.advance(timedelta(seconds=1))
            self.cluster.tick(now)
            self.metrics.tick(now)
            await asyncio.sleep(0)

    async def until(self, done: Callable[[], bool]) -> None:
        """Let passes follow one another as the scribe wakes them, until something is the case."""
        async with asyncio.timeout(20):
            while True:
                self.woken.clear()
                while await self.reconciler.reconcile(REF) == timedelta(0):
                    pass
                if done():
                    return
                await self.woken.wait()

    async def fail(self, version: str = "2", **gitops: Any) -> None:
        """Roll out a version that is bad."""
        self.put(version, **gitops)
        await self.settle(3)
        self.metrics.behaviours[self.status["canary"]["revision"]] = Behaviour(error_rate=0.5)
        await self.settle(60)
        assert self.status["phase"] == "Aborted"

    @property
    def status(self) -> dict[str, Any]:
        """The stored status."""
        body = self.cluster.find(KIND, "ml", "fraud")
        assert body is not None
        found: dict[str, Any] = body["status"]
        return found

    @property
    def standing(self) -> str:
        """The condition OutcomeRecorded as `status/reason`."""
        found = [c for c in self.status["conditions"] if c["type"] == "OutcomeRecorded"]
        return f"{found[0]['status']}/{found[0]['reason']}" if found else ""

    @property
    def message(self) -> str:
        """Its message."""
        found = [c for c in self.status["conditions"] if c["type"] == "OutcomeRecorded"]
        words: str = found[0]["message"]
        return words

    @property
    def events(self) -> list[str]:
        """Reasons of Events about git."""
        return [event.reason for _, event in self.cluster.events if event.about]

    @property
    def outcomes(self) -> list[str]:
        """Subjects of the operator's commits, on all branches."""
        commits = {c.name: c for branch in self.git.branches.values() for c in branch}
        return [
            c.message.splitlines()[0] for c in commits.values() if "Canarium-Outcome" in c.message
        ]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Version 1 serves."""
    made = Bench()
    made.put("1")
    await made.settle()
    assert made.status["phase"] == "Promoted"
    yield made
    await made.scribe.close()


async def test_a_rollback_reaches_git_and_the_status(bench: Bench) -> None:
    """One commit, one Event, and the credentials of the Secret."""
    await bench.fail()
    await bench.until(lambda: bench.standing == "True/OutcomeRecorded")
    assert bench.git.file(MANIFEST) == manifest("1")
    assert bench.status["gitops"]["due"] == []
    assert bench.outcomes == ["fraud: take v2 back to v1 (AnalysisFailed)"]
    assert (bench.git.accesses[-1].username, bench.git.accesses[-1].password) == (
        "robot",
        "hunter2",
    )
    await bench.until(lambda: bench.events == ["OutcomeRecorded"])
    assert "hunter2" not in repr(bench.git.accesses)


async def test_a_git_server_that_hangs_holds_nothing(bench: Bench) -> None:
    """The canary is taken back, the next one is promoted; when git answers, both are written in their order."""
    bench.git.held = asyncio.Event()
    await bench.fail(onPromotion="Commit")
    assert bench.standing == "Unknown/OutcomePending"
    bench.put("3", onPromotion="Commit")
    await bench.settle(90)
    assert bench.status["phase"] == "Promoted"
    assert bench.status["stable"]["modelVersion"] == "3"
    assert bench.outcomes == []
    bench.git.held.set()
    await bench.until(lambda: bench.standing == "True/OutcomeRecorded")
    # Version 3 is in the manifest by now, so there was nothing to take back.
    assert bench.outcomes == ["fraud: v3 is released"]
    assert [w.get("commit") is None for w in bench.status["gitops"]["written"]] == [True, False]


async def test_an_operator_that_dies_after_the_push_finds_its_commit(bench: Bench) -> None:
    """The answer is lost with it; the next one writes nothing."""
    bench.start(retry_seconds=(60.0, 60.0))
    bench.git.lost_answer = GitAnswer(problem="GitUnreachable", message="gone")
    await bench.fail()
    await bench.until(lambda: bench.standing == "False/GitUnreachable")
    await bench.scribe.close()
    bench.git.lost_answer = None
    bench.start()
    await bench.until(lambda: bench.standing == "True/OutcomeRecorded")
    assert bench.outcomes == ["fraud: take v2 back to v1 (AnalysisFailed)"]


async def test_trouble_is_tried_again_and_told_once(bench: Bench) -> None:
    """A protected branch: one Event however often it is tried, the reason in the condition, until it is lifted."""
    bench.git.trouble = GitAnswer(problem="GitRefused", message="main is protected")
    await bench.fail()
    await bench.until(lambda: bench.standing == "False/GitRefused")
    tried = len(bench.git.accesses)
    async with asyncio.timeout(20):
        while len(bench.git.accesses) < tried + 3:
            await asyncio.sleep(0.01)
            await bench.reconciler.reconcile(REF)
    assert bench.events == ["GitRefused"]
    assert bench.message.endswith("is not in git yet: main is protected")
    bench.git.trouble = None
    await bench.until(lambda: bench.standing == "True/OutcomeRecorded")
    await bench.until(lambda: bench.events == ["GitRefused", "OutcomeRecorded"])


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({}, "Secret git does not exist in namespace ml"),
        ({"url": "ssh://git@h/p", "keys": {"known_hosts": "h"}}, "has no key 'identity'"),
        ({"url": "ssh://git@h/p", "keys": {"identity": "k"}}, "has no key 'known_hosts'"),
        ({"signing": {"secret": "git"}, "keys": {}}, "has no key 'identity'"),
    ],
    ids=["none", "no identity", "no known hosts", "no signing key"],
)
async def test_a_secret_that_is_not_as_it_should_be_is_said(
    bench: Bench, secrets: dict[str, Any], words: str
) -> None:
    """With its name and the key that is missing; nothing is asked of git."""
    keys = secrets.pop("keys", None)
    bench.cluster.secrets.clear()
    if keys is not None:
        bench.cluster.secrets["ml", "git"] = keys
    await bench.fail(**secrets)
    await bench.until(lambda: bench.standing == "False/GitSecretUnusable")
    assert words in bench.message
    assert bench.git.accesses == []


async def test_a_secret_that_may_not_be_read_is_said_with_the_remedy(bench: Bench) -> None:
    """RBAC is missing: the message names the manifest that grants it."""

    def before(call: Call) -> None:
        if call.method == "secret":
            msg = "forbidden"
            raise ForbiddenError(msg)

    bench.cluster.before = before
    await bench.fail()
    await bench.until(lambda: bench.standing == "False/GitSecretUnusable")
    assert "manifests/read-git-secrets.yaml" in bench.message
    bench.cluster.before = lambda _call: None
    await bench.until(lambda: bench.standing == "True/OutcomeRecorded")


async def test_the_forge_hears_of_start_and_end(bench: Bench) -> None:
    """The commit is marked pending and failed, and a request is opened; its link is in the status."""
    await bench.fail(forge=FORGE, onRollback="PullRequest")
    await bench.until(lambda: bench.standing == "True/OutcomeRecorded")
    assert bench.forge.marks == [
        ("c0ffee", "canarium/ml/fraud", CommitState.PENDING),
        ("c0ffee", "canarium/ml/fraud", CommitState.FAILURE),
    ]
    ((source, target, _commit),) = bench.forge.requests
    assert (source.rpartition("/")[0], target) == ("canarium/ml/fraud", "main")
    assert bench.status["gitops"]["written"][-1]["link"] == "https://forge.example.com/requests/1"
    assert bench.status["gitops"]["source"]["commit"] == "c0ffee"
    assert bench.forge.tokens == {"t0ken"}


async def test_a_forge_that_knows_no_commit_marks_none(bench: Bench) -> None:
    """Nobody but the operator has changed the manifest there, or it has another path: the outcome is written."""
    bench.forge.newest = None
    await bench.fail(forge=FORGE, onRollback="PullRequest")
    await bench.until(lambda: bench.standing == "True/OutcomeRecorded")
    assert bench.forge.marks == []
    assert len(bench.outcomes) == 1


async def test_a_forge_that_fails_is_said_and_leads_to_no_second_commit(bench: Bench) -> None:
    """The commit is there; the request is tried again until it is there, too."""
    bench.forge.trouble = ForgeError("api.github.com answered 403")
    await bench.fail(forge={**FORGE, "commitStatuses": False}, onRollback="PullRequest")
    await bench.until(lambda: bench.standing == "False/ForgeFailed")
    bench.forge.trouble = None
    await bench.until(lambda: bench.standing == "True/OutcomeRecorded")
    assert len(bench.outcomes) == 1
    assert len(bench.forge.requests) == 1


async def test_an_object_that_is_gone_is_not_written_about(bench: Bench) -> None:
    """Its task ends, though git hangs."""
    bench.git.held = asyncio.Event()
    await bench.fail()
    bench.cluster.remove(KIND, "ml", "fraud")
    assert await bench.reconciler.reconcile(REF) is None
    await asyncio.sleep(0)
    bench.git.held.set()
    await asyncio.sleep(0)
    assert bench.outcomes == []
    assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("outcomes of")]


async def test_switching_it_off_ends_it(bench: Bench) -> None:
    """Without spec.gitops nothing of git is left in the status."""
    bench.git.trouble = GitAnswer(problem="GitRefused", message="no")
    await bench.fail()
    await bench.until(lambda: bench.standing == "False/GitRefused")
    bench.cluster.put(
        model_deployment(
            version="2", rollout=ROLLOUT, autoscaling={"minReplicas": 2, "maxReplicas": 4}
        )
    )
    await bench.settle(5)
    assert "gitops" not in bench.status
    assert bench.standing == ""

"""Outcomes in git on a real cluster: a release is recorded, a bad version is taken back in git, and what git then says
is healthy. The test is the GitOps tool: it applies what is at the head of the branch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e import models
from tests.e2e.conftest import World
from tests.e2e.kube import wait_for
from tests.services.git import PASSWORD, USER, HttpsServer, Repository, https_server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
MANIFEST = "production/fraud.yaml"
RECORD = "production/released/fraud.yaml"


@pytest.fixture
def https(tmp_path: Path) -> Iterator[HttpsServer]:
    with https_server(tmp_path) as server:
        yield server


class Git:
    """The team's repository, and its GitOps tool."""

    def __init__(self, world: World, https: HttpsServer, folder: Path) -> None:
        self.world = world
        self.repository = Repository(folder)
        self.gitops = {
            "url": https.url(self.repository),
            "secret": "git",
            "manifest": MANIFEST,
            "onRollback": "Commit",
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "git", "namespace": world.namespace},
            "stringData": {"username": USER, "password": PASSWORD, "ca.crt": https.authority},
        }
        world.kubectl.apply(secret)

    def commit(self, version: str, artefact: models.Artefact, **gitops: Any) -> None:
        """Commit a version, and have it applied."""
        source = artefact.config_map(f"model-{version}", self.world.namespace)
        self.world.kubectl.apply(source)
        body = self.world.manifest(version, artefact.sha256, gitops={**self.gitops, **gitops})
        text = "# Ours.\n" + yaml.safe_dump(body, sort_keys=False)
        self.repository.push({MANIFEST: text}, f"version {version}")
        self.sync()

    def sync(self) -> None:
        """Apply the head."""
        self.world.kubectl.apply(yaml.safe_load(self.repository.file(MANIFEST) or ""))

    def wait_outcomes(self, count: int) -> list[str]:
        """Wait for so many outcomes in git, and give them, latest first."""
        wait_for(
            f"{count} outcomes in git", lambda: len(self.repository.outcomes()) >= count or None, 60
        )
        return self.repository.outcomes()


def settled(status: dict[str, Any]) -> bool:
    """Tell whether git has all there is."""
    found = [c for c in status["conditions"] if c["type"] == "OutcomeRecorded"]
    return bool(found) and found[0]["status"] == "True"


def test_a_bad_version_is_taken_back_in_git_and_git_ends_healthy(
    world: World, https: HttpsServer, tmp_path: Path
) -> None:
    """The operator is killed right after the push, too: there is one commit, and its Event."""
    git = Git(world, https, tmp_path)
    git.commit("1", models.good(1))
    world.wait_phase("Promoted")
    git.wait_outcomes(1)
    record = yaml.safe_load(git.repository.file(RECORD) or "")
    assert record["spec"]["rollout"]["lastGood"]["version"] == "1"

    git.commit("2", models.failing())
    with world.traffic(bad_share=0.3):
        world.wait_phase("Aborted")
    git.wait_outcomes(2)
    world.operator.kill()
    world.operator.start()
    status = world.wait("git's outcome in the status", settled)
    assert len(git.repository.outcomes()) == 2
    assert status["gitops"]["written"][-1]["commit"] == git.repository.git("rev-parse", "main")
    assert "| error-rate | Fail |" in git.repository.messages()[0]
    assert (git.repository.file(MANIFEST) or "").startswith("# Ours.\n")
    world.wait_told("OutcomeRecorded")

    git.sync()
    status = world.wait("version 1 is what git asks for", lambda s: s["phase"] == "Promoted")
    ready = [c for c in status["conditions"] if c["type"] == "Ready"]
    assert (ready[0]["status"], status["stable"]["modelVersion"]) == ("True", "1")
    assert len(git.repository.outcomes()) == 2


def test_a_branch_that_is_protected_holds_nothing(
    world: World, https: HttpsServer, tmp_path: Path
) -> None:
    """The reason is in the condition and in an Event, the rollback is over, and once it is lifted the commit comes."""
    git = Git(world, https, tmp_path)
    git.commit("1", models.good(1), onPromotion="Nothing")
    world.wait_phase("Promoted")
    git.commit("2", models.failing(), onPromotion="Nothing")
    git.repository.hook("pre-receive", 'echo "main is protected" >&2; exit 1')
    with world.traffic(bad_share=0.3):
        world.wait_phase("Aborted")
    world.wait_told("GitRefused")
    status = world.status()
    found = next(c for c in status["conditions"] if c["type"] == "OutcomeRecorded")
    assert found["reason"] == "GitRefused"
    assert "main is protected" in found["message"]
    (git.repository.path / "hooks" / "pre-receive").unlink()
    world.wait("git's outcome in the status", settled)
    assert len(git.repository.outcomes()) == 1


def test_kustomize_lays_the_record_over_the_manifest(
    world: World, https: HttpsServer, tmp_path: Path
) -> None:
    """The patch is what the API server takes, and a new cluster would begin with the version that was released."""
    git = Git(world, https, tmp_path)
    git.commit("1", models.good(1))
    world.wait_phase("Promoted")
    git.wait_outcomes(1)
    folder = tmp_path / "checkout"
    (folder / "released").mkdir(parents=True)
    (folder / "fraud.yaml").write_text(git.repository.file(MANIFEST) or "")
    (folder / "released" / "fraud.yaml").write_text(git.repository.file(RECORD) or "")
    (folder / "kustomization.yaml").write_text(
        "resources: [fraud.yaml]\npatches:\n- path: released/fraud.yaml\n"
    )
    built = yaml.safe_load(world.kubectl.run("kustomize", str(folder)))
    assert built["spec"]["model"]["version"] == "1"
    assert built["spec"]["rollout"]["lastGood"]["version"] == "1"
    assert built["spec"]["rollout"]["canary"]["steps"]
    epoch = world.status()["epoch"]
    world.kubectl.apply(built)
    status = world.wait("the patched spec", lambda s: s["phase"] == "Promoted")
    assert status["epoch"] == epoch

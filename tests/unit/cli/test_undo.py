"""`canarium undo`: a canary is aborted; a promoted version is gone back from by the spec, and git is not forgotten."""

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from tests.unit.cli.api_server import ApiServer, merged, run
from tests.unit.cli.films import situation

from canarium_cli.going_back import earlier, keeper, patch_to, way_back
from canarium_operator.core.revision import Revision, revision_of
from canarium_operator.testing.scenario import IMAGE, Scenario, make_spec

FLUX = {
    "labels": {
        "kustomize.toolkit.fluxcd.io/name": "models",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
    }
}


def after_a_rollout(*, kept: bool = True, **serving: Any) -> Scenario:
    """Version 2 has just replaced version 1, whose pods still drain, or are gone."""
    rollout = {"canary": {"steps": [{"weight": 100}]}, "analysis": {"metrics": []}}
    parts = {"rollout": rollout, **({"serving": serving} if serving else {})}
    world = Scenario().settle().change(make_spec("2", **parts))
    for _ in range(100):
        world = world.settle().later(10)
        if world.status.phase == "Promoting" and kept:
            return world
        if world.status.phase == "Promoted":
            return world
    raise AssertionError(world.status.message)


def test_a_canary_under_way_is_aborted(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by `canarium abort`, and git still names it."""
    server.meta = FLUX
    assert run("undo", "fraud", "--yes", "-m", "looks odd") == 0
    captured = capsys.readouterr()
    assert "an abort gives all the traffic back to v1@26cfa01c" in captured.out
    assert "aborted by alice@example.com" in captured.out
    assert "git still names 2, which is not tried again" in captured.err
    assert "flux suspend kustomization models -n flux-system" in captured.err
    assert list(server.patches[0][1]["metadata"]["annotations"]) == ["canarium.dev/abort"]


def test_nobody_to_ask_and_no_yes_changes_nothing(server: ApiServer) -> None:
    """A script says that it means it."""
    assert run("undo", "fraud") == 2
    assert server.patches == []


def test_without_apply_the_change_is_printed_and_nothing_is_done(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The part of the manifest for git, and the command for the cluster."""
    server.world = after_a_rollout()
    assert run("undo", "fraud") == 0
    captured = capsys.readouterr()
    assert "at once, without steps (rollout.rollbackWindow)" in captured.out
    part = captured.out.split("The change of the spec:\n\n")[1].split("\n\n")[0]
    assert yaml.safe_load(part)["spec"]["model"]["version"] == "1"
    assert "Nothing has been changed yet" in captured.out
    assert "is undone by the next sync" in captured.err
    assert server.patches == []


def test_applied_it_names_the_very_revision_that_was_stable(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """So the operator goes back at once: the engine says so itself."""
    server.world = after_a_rollout(queueSize=50)
    old = earlier(server.world.status)[0].revision
    assert run("undo", "fraud", "--apply", "--yes") == 0
    assert "put the same change into git now" in capsys.readouterr().err
    assert server.world.wanted.name == old
    back = server.world.settle().status
    assert back.stable is not None
    assert back.stable.revision == old, back.message


def test_after_a_rollback_the_spec_goes_back_to_what_serves(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not to the version before that: the bad one has been taken back already."""
    server.world = situation("08-failed-and-serving")
    assert run("undo", "fraud", "--apply", "--yes") == 0
    out = capsys.readouterr().out
    assert "1 (26cfa01c6c) serves, but the spec names another version" in out
    assert server.world.settle().status.phase == "Promoted"
    assert run("undo", "fraud") == 1
    assert "no other version was stable before" in capsys.readouterr().err


def test_a_spec_that_nobody_has_looked_at_is_waited_for(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is about the spec before: what is to be undone is not known yet."""
    server.operates = False
    server.meta = {"generation": 99}
    assert run("undo", "fraud", "--yes") == 1
    assert "has not seen the present spec yet" in capsys.readouterr().err
    assert server.patches == []


def test_what_the_cluster_no_longer_knows_is_not_guessed(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old version's objects are gone: git has it."""
    server.world = after_a_rollout(kept=False).later(600).settle()
    observed = server.world.observed
    stable = server.world.status.stable
    assert stable is not None
    left = {name: r for name, r in observed.revisions.items() if name == stable.revision}
    server.world = replace(server.world, observed=replace(observed, revisions=left))
    server.operates = False
    assert run("undo", "fraud", "--apply", "--yes") == 1
    err = capsys.readouterr().err
    assert "no longer knows what 1 (26cfa01c6c) was made from" in err
    assert "git log -p" in err
    assert server.patches == []


def test_no_earlier_version_is_said(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    """After the first deployment there is nothing to go back to."""
    server.world = Scenario().settle()
    assert run("undo", "fraud") == 1
    assert "no other version was stable before" in capsys.readouterr().err
    server.world = after_a_rollout()
    assert run("undo", "fraud", "--to", "9") == 1
    assert "no version 9 was stable before; there were 1" in capsys.readouterr().err


def test_a_version_can_be_chosen() -> None:
    """By its name or by the start of its revision; beyond the window it is a canary like any other."""
    world = after_a_rollout()
    revisions = dict(world.observed.revisions)
    spec = world.spec.to_manifest()
    by_version = way_back(world.status, revisions, spec, to="1", window=3)
    by_revision = way_back(world.status, revisions, spec, to="26cf", window=0)
    assert by_version is not None
    assert by_revision is not None
    assert by_version.entry == by_revision.entry
    assert (by_version.at_once, by_revision.at_once) == (True, False)


def test_a_patch_removes_what_the_old_version_had_not() -> None:
    """A merge patch removes by null."""
    old = revision_of(make_spec("1", serving={"queueSize": 50}), IMAGE)
    new = {
        "model": {"uri": "https://models/fraud/2.onnx", "version": "2", "sha256": "0" * 64},
        "serving": {"queueSize": 60, "maxBatchSize": 8},
    }
    patch = patch_to(old, new)
    assert patch["spec"]["serving"] == {"queueSize": 50, "maxBatchSize": None}
    assert patch["spec"]["model"]["sha256"] is None
    after = merged({"spec": new}, patch)["spec"]
    made = Revision.from_template(old.name, {**after, "image": IMAGE})
    assert revision_of(make_spec("1", **after), IMAGE).name == old.name
    assert made.model == old.model
    json.dumps(patch)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (FLUX, "Flux (kustomization flux-system/models)"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "shop:canarium.dev/X:ml/fraud"}}, "application shop"),
        ({"managedFields": [{"manager": "kustomize-controller"}]}, "Flux"),
        ({"managedFields": [{"manager": "argocd-controller"}]}, "Argo CD"),
        ({"managedFields": [{"manager": "kubectl"}]}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_who_writes_it_from_git_is_recognised(meta: dict[str, Any], words: str) -> None:
    """With the command that holds it."""
    assert keeper(meta).startswith(words) or words in keeper(meta)
    assert bool(keeper(meta)) == bool(words)

"""What Flux (kstatus), Argo CD (its Lua, in a real Lua 5.1) and `kubectl wait` make of each situation."""

import re
from typing import Any

import pytest
from tests.argocd import ArgoLua
from tests.docs.pages import ROOT
from tests.situations import KSTATUS, ROWS, SITUATIONS, Situation

from canarium_api import kstatus
from canarium_api.rollout import ReadyWhen
from canarium_api.status import Phase

EACH = pytest.mark.parametrize(
    ("situation", "mode"), ROWS, ids=[f"{row.name}-{mode}" for row, mode in ROWS]
)
LUA = ArgoLua()
WAITED_FOR = ("Ready", "Reconciling")


def conditions(manifest: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in manifest["status"].get("conditions", [])}


@EACH
def test_argo_cd_says_what_is_documented(situation: Situation, mode: ReadyWhen) -> None:
    """The phase is the one that the row tells of, and the health with it."""
    manifest = situation.manifest(mode)
    assert manifest["status"]["phase"] == situation.phase
    assert LUA.health(manifest)["status"] == situation.expected(mode), manifest["status"]


@EACH
def test_flux_and_argo_cd_agree(situation: Situation, mode: ReadyWhen) -> None:
    """Failed is Degraded and Current is Healthy, and neither is anything else."""
    manifest = situation.manifest(mode)
    assert kstatus.judge(manifest).health is KSTATUS[LUA.health(manifest)["status"]]


@EACH
def test_exactly_one_of_ready_reconciling_and_stalled_holds(
    situation: Situation, mode: ReadyWhen
) -> None:
    """And whoever is ready is available."""
    found = conditions(situation.manifest(mode))
    if not found:
        assert situation.name == "not seen yet"
        return
    held = [name for name in ("Ready", "Reconciling", "Stalled") if found.get(name) == "True"]
    assert len(held) == 1
    assert {found.get(name) for name in ("Reconciling", "Stalled")} <= {"True", None}
    if held == ["Ready"]:
        assert found["Available"] == "True"


@EACH
def test_the_message_says_why(situation: Situation, mode: ReadyWhen) -> None:
    """Argo CD shows the object's own words: of a failure, those of the condition; of an early Ready, why it counts."""
    manifest = situation.manifest(mode)
    health = LUA.health(manifest)
    if health["status"] == "Degraded":
        (stalled,) = (c for c in manifest["status"]["conditions"] if c["type"] == "Stalled")
        assert health["message"] == stalled["message"]
    elif manifest["status"]["observedGeneration"] == manifest["metadata"]["generation"]:
        assert manifest["status"]["message"] in health["message"]
    else:
        assert "seen" in health["message"]
    assert health["message"]


def test_every_phase_is_among_the_situations() -> None:
    """No phase has gone without a look."""
    assert {situation.phase for situation in SITUATIONS} == set(Phase)


def test_less_is_asked_for_from_promoted_to_admitted() -> None:
    """Who is ready by a stricter `readyWhen` is so by a laxer one; who has failed, has failed by any."""
    for situation in SITUATIONS:
        ready = [word == "Healthy" for word in situation.health]
        failed = {word == "Degraded" for word in situation.health}
        assert ready == sorted(ready), situation.name
        assert len(failed) == 1, situation.name


def test_ready_when_changes_what_is_waited_for_and_nothing_else() -> None:
    """Decisions, weights, phase and all other conditions are the same."""
    for situation in SITUATIONS:
        statuses = []
        for mode in situation.modes:
            status = situation.manifest(mode)["status"]
            others = [c for c in status.get("conditions", []) if c["type"] not in WAITED_FOR]
            statuses.append({**status, "conditions": others})
        assert all(status == statuses[0] for status in statuses), situation.name


@pytest.mark.parametrize("mode", ReadyWhen)
def test_an_abort_after_ready_is_stalled(mode: ReadyWhen) -> None:
    """Ready at the step, then taken back: never Ready again, and Failed for whoever looks next."""
    rows = {row.name: row for row in SITUATIONS}
    at_step, back, after = (
        conditions(rows[name].manifest(mode))
        for name in ("canary in readyStep, or past it", "rolling back", "taken back, stable serves")
    )
    assert at_step["Ready"] == ("False" if mode is ReadyWhen.PROMOTED else "True")
    assert (back["Ready"], back["Reconciling"]) == ("False", "True")
    assert (after["Ready"], after["Stalled"], after["Available"]) == ("False", "True", "True")


def test_an_object_without_a_status_is_current_to_kstatus_alone() -> None:
    """Argo CD waits; the CRD's default keeps kstatus from ever seeing such an object."""
    bare: dict[str, Any] = {"metadata": {"generation": 1}}
    assert kstatus.judge(bare).health is kstatus.Health.CURRENT
    assert LUA.health({**bare, "spec": {}})["status"] == "Progressing"


def test_the_page_has_the_table_of_situations() -> None:
    """docs/reference/status.md tells of each situation what these tests have seen."""
    page = (ROOT / "docs/reference/status.md").read_text(encoding="utf-8")
    rows = {
        cells[0]: tuple(cells[1:])
        for line in page.splitlines()
        if line.startswith("|")
        and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 4
    }
    for situation in SITUATIONS:
        told = tuple(re.sub(r"[^A-Za-z]", "", cell) for cell in rows.get(situation.name, ()))
        modes = list(ReadyWhen)
        seen = [situation.expected(mode) if mode in situation.modes else "" for mode in modes]
        assert told == tuple(seen), situation.name

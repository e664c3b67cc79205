"""What outlives a ModelDeployment, and what a cluster where nothing serves yet brings up first."""

from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import FailedRevision, Phase
from canarium_operator.core.memory import Memory, make_memory, read_memory
from canarium_operator.core.observation import LoadProblem, Observed
from canarium_operator.core.revision import revision_of
from canarium_operator.testing.scenario import IMAGE, REF, START, Scenario, Traffic, make_spec

V1, V2, V3 = (revision_of(make_spec(v), IMAGE).name for v in "123")
ROLLOUT = make_spec().to_manifest()["rollout"]
GONE = LoadProblem(reason="DigestMismatch", message="404 Not Found", permanent=True)


def after_a_rollback() -> Scenario:
    """Version 1 serves, version 2 has failed."""
    scenario = Scenario().settle().change(make_spec("2")).settle()
    bad = Traffic(error_rate=0.3)
    return scenario.serves(V2, bad).later(31).settle().later(31).settle()


def with_last_good(version: str, spec_version: str) -> Any:
    """A spec that says which version was good elsewhere."""
    good = {"uri": f"https://models/fraud/{version}.onnx", "version": version}
    return make_spec(spec_version, rollout={**ROLLOUT, "lastGood": good})


def stable(scenario: Scenario) -> str:
    assert scenario.status.stable is not None
    return scenario.status.stable.revision


def canary(scenario: Scenario) -> str | None:
    return scenario.status.canary.revision if scenario.status.canary is not None else None


def stalled(scenario: Scenario) -> str | None:
    found = [c for c in scenario.status.conditions if c.type == ConditionType.STALLED]
    return found[0].message if found else None


def test_a_recreated_object_serves_the_last_good_revision_and_does_not_try_the_failed_one() -> None:
    """Deleting and creating it changes nothing of the verdict; the evidence is still told."""
    scenario = after_a_rollback().recreated().settle()
    assert stable(scenario) == V1
    assert canary(scenario) is None
    assert scenario.status.phase is Phase.ABORTED
    assert [f.revision for f in scenario.status.failed_revisions] == [V2]
    assert "error-rate" in (stalled(scenario) or "")
    assert scenario.later(3600).settle().status.epoch == scenario.status.epoch


def test_the_failed_revision_gets_no_traffic_at_any_moment_of_a_recreation() -> None:
    """Not even while the last good one starts."""
    scenario = after_a_rollback().recreated()
    for _ in range(10):
        scenario = scenario.step().act()
        assert scenario.observed.weight(V2) == 0


def test_a_recreated_object_with_a_new_revision_serves_the_last_good_one_first() -> None:
    """What nobody knows yet is a canary, though the object is new."""
    scenario = after_a_rollback().recreated().change(make_spec("3")).settle()
    assert (stable(scenario), canary(scenario)) == (V1, V3)
    assert scenario.observed.weight(V3) == 10


def test_a_recreated_object_that_names_the_last_good_revision_comes_straight_up() -> None:
    """There is nothing to wait for."""
    scenario = after_a_rollback().recreated().change(make_spec("1")).settle()
    assert (stable(scenario), canary(scenario)) == (V1, None)
    assert scenario.status.phase is Phase.PROMOTED


def test_a_retry_after_a_recreation_forgets_the_failure() -> None:
    """The annotation works as ever, once the last good revision serves."""
    scenario = after_a_rollback().recreated().settle().serves(V2, Traffic())
    scenario = replace(scenario, commands={"retry": "alice again"}).settle()
    assert canary(scenario) == V2
    assert scenario.observed.memory is not None
    assert scenario.observed.memory.failed_revisions == ()


def test_an_old_retry_annotation_in_git_does_not_forget_a_failure() -> None:
    """It comes with the re-created object, but its time is over."""
    scenario = replace(after_a_rollback().recreated(), commands={"retry": "1"}).settle()
    assert [f.revision for f in scenario.status.failed_revisions] == [V2]
    assert canary(scenario) is None


def test_a_new_cluster_serves_the_last_good_revision_of_git_first() -> None:
    """Then the revision of the spec is a canary at step 1."""
    scenario = Scenario(spec=with_last_good("1", "2")).settle()
    assert (stable(scenario), canary(scenario)) == (V1, V2)
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.step == 1
    assert [h.outcome for h in scenario.status.history] == ["Deployed"]


def test_what_the_cluster_remembers_comes_before_what_git_says() -> None:
    """It has served here."""
    scenario = after_a_rollback().recreated().change(with_last_good("3", "2")).settle()
    assert stable(scenario) == V1


def test_a_last_good_revision_that_is_the_wanted_one_needs_no_canary() -> None:
    """Git names the same version twice after each promotion."""
    scenario = Scenario(spec=with_last_good("2", "2")).settle()
    assert (stable(scenario), canary(scenario)) == (V2, None)


@pytest.mark.parametrize("how", ["artefact gone", "deadline"])
def test_a_last_good_revision_that_cannot_come_up_is_given_up(how: str) -> None:
    """It is said, and the wanted revision comes up: better an unknown one than none."""
    scenario = Scenario(spec=with_last_good("1", "2")).step().act(ready=False)
    gone = how == "artefact gone"
    scenario = (scenario.pods(V1, 0, GONE) if gone else scenario.step().later(601)).step()
    assert scenario.status.last_transition is not None
    assert scenario.status.last_transition.reason == Reason.LAST_GOOD_UNAVAILABLE
    assert stable(scenario) == V2
    scenario = scenario.act().settle()
    assert scenario.status.phase is Phase.PROMOTED
    assert stable(scenario) == V2
    assert [f.revision for f in scenario.status.failed_revisions] == [V1]


def test_a_last_good_revision_stays_the_only_hope_where_the_wanted_one_is_known_to_be_bad() -> None:
    """Nothing is brought up that has failed; the object says that it stalls, and why."""
    scenario = after_a_rollback().recreated().step().act(ready=False).step()
    scenario = scenario.pods(V1, 0, GONE).later(1000).step().step()
    assert stable(scenario) == V1
    assert "404 Not Found" in (stalled(scenario) or "")
    scenario = scenario.pods(V1, 2).act().settle()
    assert scenario.status.phase is Phase.ABORTED


def test_a_known_failure_without_any_good_revision_brings_nothing_up_and_says_how_to_forget() -> (
    None
):
    """The template of the good one was lost; the user decides."""
    failure = FailedRevision(
        revision=V2, model_version="2", reason="AnalysisFailed", message="bad", failed_at=START
    )
    observed = Observed(memory=Memory(failed_revisions=(failure,)))
    scenario = Scenario(spec=make_spec("2"), observed=observed).settle()
    assert scenario.status.phase is Phase.PENDING
    assert scenario.status.stable is None
    assert "delete the ConfigMap fraud-memory" in (stalled(scenario) or "")
    assert scenario.change(make_spec("3")).settle().status.phase is Phase.PROMOTED


def test_a_spec_edit_while_the_last_good_revision_starts_changes_only_what_follows() -> None:
    """It goes on starting."""
    scenario = Scenario(spec=with_last_good("1", "2")).step().act(ready=False).step()
    epoch = scenario.status.epoch
    scenario = scenario.change(with_last_good("1", "3")).step()
    assert scenario.status.epoch == epoch
    assert canary(scenario.act().settle()) == V3


def test_a_promotion_is_remembered() -> None:
    """The last good revision is the one that serves."""
    scenario = Scenario().settle().change(make_spec("2")).settle()
    for _ in range(3):
        scenario = scenario.later(61).settle()
    scenario = scenario.recreated().change(make_spec("3")).settle()
    assert (stable(scenario), canary(scenario)) == (V2, V3)


def test_a_memory_comes_back_as_it_was_written() -> None:
    """Bounded, and without the checks, whose message is enough."""
    memory = after_a_rollback().observed.memory
    assert memory is not None
    assert memory.last_good is not None
    assert memory.last_good.name == V1
    assert memory.failed_revisions[0].checks == []
    manifest = make_memory(REF, memory)
    assert "ownerReferences" not in manifest["metadata"]
    assert read_memory(manifest) == memory


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"failedRevisions": 1}', "null"])
def test_a_damaged_memory_is_an_error_with_its_remedy(text: str) -> None:
    """Nothing of it is believed."""
    manifest = {**make_memory(REF, Memory()), "data": {"memory.json": text}}
    with pytest.raises(ValueError, match="delete the ConfigMap, it is written anew"):
        read_memory(manifest)

"""Golden data before any traffic: a canary waits for its Job, and one that misses a threshold gets none."""

from dataclasses import replace
from typing import Any

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.golden import Outcome, Thresholds
from canarium_api.status import Phase, ValidationVerdict
from canarium_operator.core import golden, validation
from canarium_operator.core.diff import Apply, Delete, diff
from canarium_operator.core.observing import observe
from canarium_operator.core.plan import make_plan
from canarium_operator.core.resources.desired import desired_children
from canarium_operator.core.revision import revision_of
from canarium_operator.testing.scenario import IMAGE, REF, Scenario, make_spec

V1, V2 = (revision_of(make_spec(v), IMAGE).name for v in "12")
ROLLOUT = make_spec().to_manifest()["rollout"]
ASKED: dict[str, Any] = {
    "data": {"uri": "configmap://golden/golden.csv"},
    "thresholds": {"metrics": {"accuracy": {"min": 0.9}}},
}
MET = Outcome(passed=True, message="3 of 3 checks met on 500 rows")
MISSED = Outcome(passed=False, message="accuracy is 0.7, and at least 0.9 is asked for")
UNREADABLE = Outcome(passed=None, message="golden.csv: cannot be read")


def spec_of(version: str, **changes: Any) -> Any:
    return make_spec(version, rollout={**ROLLOUT, "validation": {**ASKED, **changes}})


def started(outcome: Outcome | None = None, **changes: Any) -> Scenario:
    """Version 2 has just been asked for."""
    calm = Scenario(spec=spec_of("1")).settle().change(spec_of("2", **changes))
    return replace(calm, golden=outcome)


def stalled(scenario: Scenario) -> str:
    found = [c.reason for c in scenario.status.conditions if c.type == ConditionType.STALLED]
    return found[0] if found else ""


def test_the_first_revision_is_not_validated() -> None:
    """There is no canary to hold."""
    scenario = Scenario(spec=spec_of("1")).settle()
    assert scenario.status.phase is Phase.PROMOTED


def test_a_canary_waits_without_traffic_until_its_job_has_said_something() -> None:
    """Its pods are up meanwhile; the status says what is waited for, and where to look."""
    scenario = started().settle().later(3600).settle()
    assert scenario.observed.weight(V2) == 0
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.blocked_on == Reason.AWAITING_VALIDATION
    assert "kubectl logs job/fraud-val-" in scenario.status.message
    assert scenario.status.failed_revisions == []


def test_a_canary_that_meets_all_gets_its_first_weight_and_keeps_the_verdict() -> None:
    """Through the promotion, for those who ask later."""
    scenario = started(MET).settle()
    assert scenario.observed.weight(V2) == 10
    assert scenario.status.canary is not None
    assert scenario.status.canary.validation is not None
    assert scenario.status.canary.validation.verdict is ValidationVerdict.PASSED
    for _ in range(3):
        scenario = scenario.later(61).settle()
    assert scenario.status.stable is not None
    assert scenario.status.stable.revision == V2
    assert scenario.status.stable.validation is not None


@pytest.mark.parametrize("strategy", [None, {"blueGreen": {}}, {"shadow": {}}])
def test_a_canary_that_misses_a_threshold_is_taken_back_before_any_request(strategy: Any) -> None:
    """With any strategy: no weight, no preview, no copies."""
    scenario = started(MISSED)
    if strategy is not None:
        rest = {k: v for k, v in ROLLOUT.items() if k != "canary" or "shadow" in strategy}
        spec = make_spec("2", rollout={**rest, **strategy, "validation": ASKED})
        scenario = replace(scenario, spec=spec)
    for _ in range(10):
        scenario = scenario.step().act()
        assert scenario.observed.weight(V2) == 0
        assert (scenario.status.rollout is None) or scenario.status.rollout.prepared_step == 0
    scenario = scenario.later(60).settle()
    assert scenario.status.phase is Phase.ABORTED
    (failure,) = scenario.status.failed_revisions
    assert failure.reason == Reason.VALIDATION_FAILED
    assert "accuracy is 0.7, and at least 0.9 is asked for" in failure.message
    assert "kubectl logs job/fraud-val-" in failure.message
    assert stalled(scenario) == Reason.VALIDATION_FAILED


def test_golden_data_that_cannot_be_judged_hold_and_are_blamed_on_nobody() -> None:
    """The object is stalled; other thresholds are another Job, and it goes on."""
    scenario = started(UNREADABLE).settle()
    assert stalled(scenario) == Reason.AWAITING_VALIDATION
    assert scenario.status.failed_revisions == []
    assert scenario.observed.weight(V2) == 0
    mended = replace(
        scenario.change(spec_of("2", data={"uri": "configmap://golden/v2.csv"})), golden=None
    )
    mended = mended.settle()
    assert stalled(mended) == ""
    assert replace(mended, golden=MET).settle().observed.weight(V2) == 10


def test_a_paused_rollout_is_not_stalled_by_golden_data() -> None:
    """Somebody holds it already; when they let it go on, it is."""
    paused = replace(started().settle(), commands={"pause": "now"}).later(1).settle()
    paused = replace(paused, golden=UNREADABLE).settle()
    assert paused.status.phase is Phase.PAUSED
    assert stalled(paused) == ""
    resumed = replace(paused, commands={"pause": "now", "resume": "now"}).later(1).settle()
    assert stalled(resumed) == Reason.AWAITING_VALIDATION


def test_another_try_of_the_same_revision_is_another_job() -> None:
    """What the old one said counts for nothing."""
    scenario = started(MISSED).settle().later(60).settle()
    first = scenario.status.failed_revisions[0].message
    again = replace(scenario, commands={"retry": "now"}, golden=None).later(1).settle()
    job = golden.job_of(REF, again.spec, again.status)
    assert job is not None
    assert job not in first
    assert again.status.canary is not None
    assert again.status.canary.validation is None


def test_the_way_back_to_a_good_revision_waits_for_nobody() -> None:
    """It was validated, or served, before."""
    scenario = started(MET)
    for _ in range(4):
        scenario = scenario.settle().later(61)
    assert scenario.status.stable is not None
    assert scenario.status.stable.revision == V2
    back = replace(scenario.change(spec_of("1")), golden=None).settle()
    for _ in range(3):
        back = back.later(61).settle()
    assert back.status.stable is not None
    assert back.status.stable.revision == V1


def job_manifest(scenario: Scenario) -> dict[str, Any]:
    plan = make_plan(REF, scenario.spec, scenario.status, scenario.observed, scenario.wanted)
    (job,) = [child for child in desired_children(plan) if child["kind"] == "Job"]
    return job


def test_the_job_runs_the_canarys_image_settings_and_resources_once() -> None:
    """No server's selector finds its pods, nothing is retried that has said something, and its file is mounted."""
    scenario = started().settle()
    job = job_manifest(scenario)
    pod = job["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == IMAGE
    assert container["command"] == ["python3", "-m", "canarium_runtime.golden"]
    assert container["envFrom"] == [{"configMapRef": {"name": f"fraud-{V2}"}}]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["CANARIUM_GOLDEN_DATA_URI"] == "file:///models-101/golden.csv"
    assert (
        Thresholds.model_validate_json(env["CANARIUM_GOLDEN_THRESHOLDS"]).metrics.accuracy
        is not None
    )
    assert "CANARIUM_GOLDEN_AGAINST" not in env or env["CANARIUM_GOLDEN_AGAINST"] == ""
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "canarium-validation"
    assert "canarium.dev/revision" not in pod["metadata"]["labels"]
    assert len(job["metadata"]["name"]) <= 63
    assert job["spec"]["activeDeadlineSeconds"] == 1800


def test_a_threshold_against_the_old_version_brings_that_version_into_the_job() -> None:
    """By its own settings, from a volume of its own."""
    thresholds = {"metrics": {"accuracy": {"maxLoss": 0.01}}}
    scenario = started(thresholds=thresholds).settle()
    (container,) = job_manifest(scenario)["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert f'"CANARIUM_REVISION": "{V1}"' in env["CANARIUM_GOLDEN_AGAINST"]


def test_jobs_stay_for_their_logs_and_go_with_their_revision() -> None:
    """One that another replaced goes at once; that of a failed revision stays as long as it is remembered."""
    scenario = started(MISSED).settle()
    job = job_manifest(started().settle())
    plan = make_plan(REF, scenario.spec, scenario.status, scenario.observed, scenario.wanted)
    assert Delete(manifest=job) not in diff(plan, (), [job])
    forgotten = scenario.status.model_copy(update={"failed_revisions": []})
    plan = make_plan(REF, scenario.spec, forgotten, scenario.observed, scenario.wanted)
    assert Delete(manifest=job) in diff(plan, (), [job])
    held = started().settle()
    plan = make_plan(REF, held.spec, held.status, held.observed, held.wanted)
    other = {**job, "metadata": {**job["metadata"], "name": "fraud-val-0000000000"}}
    changes = diff(plan, desired_children(plan), [other])
    assert Delete(manifest=other) in changes
    assert any(isinstance(c, Apply) and c.manifest["kind"] == "Job" for c in changes)


def test_a_job_that_exists_is_never_applied_again() -> None:
    """Its template cannot be changed; its name says what it is made from."""
    held = started().settle()
    plan = make_plan(REF, held.spec, held.status, held.observed, held.wanted)
    job = job_manifest(held)
    changes = diff(plan, desired_children(plan), [job], full=True)
    assert not any(isinstance(c, Apply) and c.manifest["kind"] == "Job" for c in changes)


POD = {
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "ml", "labels": {"canarium.dev/validation": "j"}},
}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (MET.to_log(), MET),
        (MISSED.to_log(), MISSED),
        ("Killed", None),
        ("", None),
        (
            Outcome(passed=False, message="x" * 5000).to_log(),
            Outcome(passed=False, message="x" * 800),
        ),
    ],
)
def test_the_word_of_a_job_is_read_off_its_pod(said: str, expected: Outcome | None) -> None:
    """From where the kubelet puts the termination log; anything else is no word."""
    terminated = {"exitCode": 1, "message": said}
    status = {"containerStatuses": [{"name": "validate", "state": {"terminated": terminated}}]}
    found = observe([{**POD, "status": status}], None)
    assert found.validations.get("j") == expected
    assert found.workloads == {}
    assert found.strays == frozenset()


def test_a_job_that_ends_without_a_word_could_not_judge() -> None:
    """Its deadline, or too many lost pods."""
    condition = {
        "type": "Failed",
        "status": "True",
        "reason": "DeadlineExceeded",
        "message": "too long",
    }
    job = {**POD, "kind": "Job", "status": {"conditions": [condition]}}
    job["metadata"] = {**POD["metadata"], "name": "j"}  # type: ignore[dict-item]
    assert observe([job], None).validations == {
        "j": Outcome(passed=None, message="DeadlineExceeded: too long")
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"data": {"uri": "https://x.example.com/golden"}}, "spec.rollout.validation.data.uri"),
        (
            {"reference": {"uri": "https://x.example.com/r.xlsx"}},
            "spec.rollout.validation.reference.uri",
        ),
    ],
)
def test_a_file_that_says_not_how_to_read_it_is_refused(
    changes: dict[str, Any], field: str
) -> None:
    """By the ending of its name."""
    assert [p.field for p in validation.validate(spec_of("1", **changes))] == [field]
    signed = {"data": {"uri": "https://x.example.com/golden.csv?signature=a.b"}}
    assert validation.validate(spec_of("1", **signed)) == []

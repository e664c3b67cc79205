"""The rollout engine: a world goes in, one decision comes out."""

import math
from dataclasses import replace

import pytest

from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import Phase, Verdict
from canarium_operator.core.observation import LoadProblem
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.engine import advance
from canarium_operator.core.rollout.queries import QueryFailure
from canarium_operator.testing.scenario import IMAGE, Scenario, Traffic, make_spec

V1, V2, V3 = (revision_of(make_spec(v), IMAGE).name for v in "123")


def serving() -> Scenario:
    """Version 1 serves."""
    return Scenario().settle()


def canary(step: int = 1) -> Scenario:
    """Version 2 is a canary whose given step has just begun."""
    scenario = serving().change(make_spec("2")).settle()
    for _ in range(step - 1):
        scenario = scenario.later(61).settle()
    return scenario


def condition(scenario: Scenario, kind: ConditionType) -> str | None:
    found = next((c for c in scenario.status.conditions if c.type == kind), None)
    return None if found is None else f"{found.status}/{found.reason}"


def last(scenario: Scenario) -> str | None:
    """Reason of the latest transition."""
    latest = scenario.status.last_transition
    return None if latest is None else latest.reason


def test_first_deployment_goes_straight_to_stable() -> None:
    """The first revision gets all the traffic without a canary."""
    scenario = serving()
    assert scenario.status.phase is Phase.PROMOTED
    assert scenario.observed.route is not None
    assert scenario.observed.route.weights == {V1: 100}
    assert condition(scenario, ConditionType.READY) == "True/Serving"
    assert [h.outcome for h in scenario.status.history] == ["Deployed"]


def test_a_new_model_gets_no_traffic_before_its_pods_are_ready() -> None:
    """Weight moves only when enough pods of the canary are ready."""
    scenario = serving().change(make_spec("2")).step().step()
    assert scenario.status.phase is Phase.LOADING
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.weight == 0
    assert scenario.status.rollout.blocked_on == Reason.AWAITING_PODS


def test_the_clock_of_a_step_starts_when_the_gateway_carries_its_weight() -> None:
    """An unaccepted route holds the step, with the reason."""
    scenario = serving().change(make_spec("2")).step().act().step()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.weight == 10
    scenario = scenario.act(accepted=False).later(30).step()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.blocked_on == Reason.AWAITING_ROUTE
    assert scenario.status.rollout.step_started_at is None
    scenario = scenario.act().step()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.step_started_at == scenario.now


def test_a_step_lasts_its_pause_even_when_all_checks_pass() -> None:
    """Time and evidence are both needed."""
    scenario = canary().later(59).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.step == 1
    assert scenario.status.rollout.blocked_on == Reason.AWAITING_PAUSE
    assert scenario.later(1).settle().status.rollout.step == 2  # type: ignore[union-attr]


def test_the_next_step_gets_its_weight_with_the_end_of_the_last_where_its_pods_are_ready() -> None:
    """One transition, and one write, for what is decided at one moment."""
    scenario = canary().later(61).step()
    assert last(scenario) == Reason.STEP_PASSED
    assert scenario.status.rollout is not None
    assert (scenario.status.rollout.step, scenario.status.rollout.weight) == (2, 50)
    assert scenario.status.last_transition is not None
    assert scenario.status.last_transition.message.endswith(
        f"; step 2/3: v2@{V2[:8]} from 10% to 50%"
    )
    scenario = scenario.act().step()
    assert last(scenario) == Reason.STEP_STARTED


def test_the_next_step_waits_for_its_pods_with_the_weight_of_the_last() -> None:
    """Half of the traffic fits on one of two pods, all of it does not."""
    scenario = canary(2).later(61).step()
    assert last(scenario) == Reason.STEP_PASSED
    assert scenario.status.rollout is not None
    assert (scenario.status.rollout.step, scenario.status.rollout.weight) == (3, 50)
    scenario = scenario.step().act().step()
    assert last(scenario) == Reason.WEIGHT_CHANGED
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.weight == 100


@pytest.mark.parametrize(
    ("step", "metrics", "reason"),
    [
        ({"weight": 100, "pause": "0s"}, [], Reason.PROMOTED),
        ({"weight": 100, "pause": "1s"}, [], Reason.STEP_STARTED),
        ({"weight": 100, "pause": "0s", "approval": True}, [], Reason.STEP_STARTED),
        ({"weight": 100, "pause": "0s"}, [{"name": "error-rate"}], Reason.STEP_STARTED),
    ],
    ids=["nothing", "pause", "approval", "check"],
)
def test_a_last_step_that_waits_for_nothing_ends_as_it_begins(
    step: dict[str, object], metrics: list[dict[str, str]], reason: Reason
) -> None:
    """As soon as the gateway carries it, not before."""
    steps = [{"weight": 10, "pause": "1m"}, step]
    rollout = {"canary": {"steps": steps}, "analysis": {"interval": "30s", "metrics": metrics}}
    scenario = serving().change(make_spec("2", rollout=rollout)).settle().later(61)
    scenario = scenario.step().act().step()
    assert last(scenario) == Reason.WEIGHT_CHANGED
    assert last(scenario.act(accepted=False).step()) == Reason.WEIGHT_CHANGED
    assert last(scenario.act().step()) == reason


def test_a_good_canary_is_promoted_and_the_old_revision_drains_before_it_goes() -> None:
    """After the last step the canary is stable; the old pods stay for the delay."""
    scenario = canary(3).later(61).settle()
    assert scenario.status.phase is Phase.PROMOTING
    assert scenario.status.stable is not None
    assert scenario.status.stable.revision == V2
    assert V1 in scenario.observed.workloads
    scenario = scenario.later(31).settle()
    assert scenario.status.phase is Phase.PROMOTED
    assert V1 not in scenario.observed.workloads
    assert [h.outcome for h in scenario.status.history] == ["Deployed", "Promoted"]


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Traffic(error_rate=0.2), "error-rate: 20% against stable's 0.1%: worse by 19.9%"),
        (Traffic(invalid_rate=0.4), "invalid-rate: 40% against stable's 0%: worse by 40%"),
        (Traffic(latency=0.5), "latency-p95: 490ms against stable's 24.5ms: worse by 20 times"),
    ],
    ids=["errors", "refusals", "slow"],
)
def test_a_failed_check_takes_all_traffic_back_at_once_and_is_remembered(
    step: int, bad: Traffic, words: str
) -> None:
    """Rollback and its evidence are one decision, at every step."""
    scenario = canary(step).serves(V2, bad).later(31).step()
    assert scenario.status.canary is None
    assert scenario.status.phase is Phase.ROLLING_BACK
    scenario = scenario.act()
    assert scenario.observed.route is not None
    assert scenario.observed.route.weights == {V1: 100}
    [failure] = scenario.status.failed_revisions
    assert failure.revision == V2
    assert words in failure.message
    assert failure.step == step


def test_a_rolled_back_revision_is_not_tried_again() -> None:
    """The spec still names it, but it stays away: Stalled, while stable serves."""
    scenario = canary().serves(V2, Traffic(error_rate=0.2)).later(31).settle().later(31).settle()
    assert scenario.status.phase is Phase.ABORTED
    assert condition(scenario, ConditionType.STALLED) == "True/AnalysisFailed"
    assert condition(scenario, ConditionType.READY) == "False/AnalysisFailed"
    assert condition(scenario, ConditionType.AVAILABLE) == "True/Serving"
    epoch = scenario.status.epoch
    assert scenario.later(3600).settle().status.epoch == epoch


def test_a_retry_is_one_more_try() -> None:
    """A new value of the annotation forgets the failure once."""
    scenario = canary().serves(V2, Traffic(error_rate=0.2)).later(31).settle().later(31).settle()
    scenario = replace(scenario, commands={"retry": "again"}).serves(V2, Traffic()).settle()
    assert scenario.status.phase is Phase.CANARY
    assert condition(scenario, ConditionType.STALLED) is None
    scenario = scenario.serves(V2, Traffic(error_rate=0.2)).later(31).settle().later(31).settle()
    assert scenario.status.phase is Phase.ABORTED


def test_a_failed_revision_that_the_spec_names_anew_is_refused_with_its_reason() -> None:
    """Going back to the good version and naming the bad one again changes nothing."""
    scenario = canary().serves(V2, Traffic(error_rate=0.2)).later(31).settle().later(31).settle()
    scenario = scenario.change(make_spec("1")).settle()
    assert scenario.status.phase is Phase.PROMOTED
    assert condition(scenario, ConditionType.STALLED) is None
    scenario = scenario.change(make_spec("2")).settle()
    assert scenario.status.phase is Phase.ABORTED
    assert scenario.status.last_transition is not None
    assert scenario.status.last_transition.reason == Reason.REVISION_FAILED_BEFORE


@pytest.mark.parametrize(
    ("change", "verdict", "blocked"),
    [
        ({"traffic": {V2: Traffic(requests=None)}}, Verdict.NO_DATA, Reason.NO_DATA),
        ({"traffic": {V2: Traffic(requests=99)}}, Verdict.TOO_FEW_SAMPLES, Reason.AWAITING_SAMPLES),
        ({"traffic": {V1: Traffic(requests=99)}}, Verdict.TOO_FEW_SAMPLES, Reason.AWAITING_SAMPLES),
        ({"failure": QueryFailure(message="timed out")}, Verdict.ERROR, Reason.METRICS_UNAVAILABLE),
    ],
    ids=[
        "no requests",
        "few canary requests",
        "few stable requests",
        "prometheus down",
    ],
)
def test_missing_evidence_holds_the_step_and_says_what_is_missing(
    change: dict[str, object], verdict: Verdict, blocked: Reason
) -> None:
    """No data, too little data and a failing query are never a pass, and never a failure of the canary."""
    scenario = replace(canary(), **change).later(3600).settle()  # type: ignore[arg-type]
    rollout = scenario.status.rollout
    assert rollout is not None
    assert rollout.step == 1
    assert rollout.blocked_on == blocked
    assert rollout.checks[0].verdict is verdict
    assert "gives up at" in scenario.status.message
    assert condition(scenario, ConditionType.GATES_PASSING) == f"Unknown/{blocked}"


def test_evidence_that_stays_missing_ends_the_rollout() -> None:
    """The wait has a bound, and its end says why."""
    scenario = (
        replace(canary(), failure=QueryFailure(message="timed out")).later(25 * 3600).settle()
    )
    assert scenario.status.failed_revisions[0].reason == Reason.ANALYSIS_TIMED_OUT
    assert "timed out" in scenario.status.failed_revisions[0].message


def test_failures_within_the_limit_are_forgiven() -> None:
    """FailureLimit 1: the second failed measurement ends it, the first does not."""
    spec = make_spec("2", rollout={
        "canary": {"steps": [{"weight": 10, "pause": "1h"}]},
        "analysis": {
            "interval": "30s",
            "failureLimit": 1,
            "metrics": [{"name": "error-rate", "max": "5%"}],
        },
    })  # fmt: skip
    scenario = serving().change(spec).settle().serves(V2, Traffic(error_rate=0.2))
    scenario = scenario.later(31).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.checks[0].failures == 1
    assert scenario.later(31).settle().status.canary is None


def test_pods_that_never_get_ready_end_the_rollout_at_the_deadline() -> None:
    """The reason that the pods give is in the evidence."""
    scenario = serving().change(make_spec("2")).step().act(ready=False)
    scenario = scenario.pods(V2, 0, LoadProblem(reason="DownloadFailed", message="404")).step()
    assert "404" in scenario.status.message
    scenario = scenario.later(601).step()
    assert scenario.status.failed_revisions[0].reason == Reason.PROGRESS_DEADLINE_EXCEEDED
    assert "404" in scenario.status.failed_revisions[0].message


def test_a_model_that_can_never_load_ends_the_rollout_at_once() -> None:
    """A wrong digest need not wait for the deadline."""
    problem = LoadProblem(reason="DigestMismatch", message="expected a, got b", permanent=True)
    scenario = serving().change(make_spec("2")).step().act(ready=False).pods(V2, 0, problem).step()
    assert scenario.status.failed_revisions[0].reason == Reason.MODEL_LOAD_FAILED
    assert "expected a, got b" in scenario.status.failed_revisions[0].message


def test_a_first_model_that_can_never_load_stalls_and_a_mended_spec_recovers() -> None:
    """There is nothing to fall back to: Stalled says why, and the next spec is tried at once."""
    problem = LoadProblem(reason="DigestMismatch", message="expected a, got b", permanent=True)
    scenario = Scenario().step().act(ready=False).pods(V1, 0, problem).step().step()
    assert condition(scenario, ConditionType.STALLED) == "True/ModelLoadFailed"
    scenario = scenario.change(make_spec("2")).settle()
    assert scenario.status.phase is Phase.PROMOTED
    assert condition(scenario, ConditionType.STALLED) is None


def test_a_canary_without_ready_pods_loses_its_traffic_and_starts_its_step_over() -> None:
    """A lost node is not the model's fault, but no request may go where nobody answers."""
    scenario = canary(2).pods(V2, 0).step()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.weight == 0
    assert scenario.status.rollout.step == 2
    scenario = scenario.act().settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.weight == 50
    assert scenario.status.rollout.step_started_at == scenario.now


def test_reverting_the_spec_withdraws_the_canary_without_blaming_it() -> None:
    """A git revert in the middle of a rollout is back on stable at once."""
    scenario = canary(2).change(make_spec("1")).settle()
    assert scenario.observed.route is not None
    assert scenario.observed.route.weights == {V1: 100}
    assert scenario.status.failed_revisions == []
    assert scenario.later(31).settle().status.phase is Phase.PROMOTED


def test_a_third_version_in_mid_rollout_starts_over_at_the_first_step() -> None:
    """The canary of the second version goes, the third begins with the first weight."""
    scenario = canary(2).change(make_spec("3")).settle()
    assert scenario.status.canary is not None
    assert scenario.status.canary.revision == V3
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.step == 1
    assert scenario.observed.route is not None
    assert scenario.observed.route.weights == {V1: 90, V3: 10}
    assert V2 not in scenario.later(40).settle().observed.workloads


@pytest.mark.parametrize(
    ("weights", "step", "weight"),
    [
        ([5, 20, 100], 2, 20),
        ([60, 100], 1, 60),
        ([10, 50, 90], 2, 50),
        ([50, 100], 1, 50),
    ],
)
def test_edited_steps_go_on_from_the_weight_that_was_earned(
    weights: list[int], step: int, weight: int
) -> None:
    """At 50 %, the rollout goes on at the last new step that is not above it, or at the first."""
    steps = {"canary": {"steps": [{"weight": w, "pause": "1m"} for w in weights]}}
    scenario = canary(2).change(make_spec("2", rollout=steps)).step()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.step == step
    assert scenario.status.rollout.weight <= 50
    scenario = scenario.act().settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.weight == weight


def test_steps_that_are_edited_while_no_pod_is_ready_begin_without_traffic() -> None:
    """The place is kept; nobody is sent to pods that are gone, not even at a lower weight."""
    steps = {"canary": {"steps": [{"weight": w, "pause": "1m"} for w in (5, 20, 100)]}}
    world = canary(2).pods(V2, 0).change(make_spec("2", rollout=steps)).step()
    assert world.status.last_transition is not None
    assert world.status.last_transition.reason == Reason.ROLLOUT_REPLANNED
    assert world.status.rollout is not None
    assert (world.status.rollout.step, world.status.rollout.weight) == (2, 0)
    back = world.act(ready=False).settle().pods(V2, 2).settle()
    assert back.status.rollout is not None
    assert back.status.rollout.weight == 20


def test_steps_that_end_below_100_get_a_last_step_of_100() -> None:
    """Promotion never moves traffic onto pods that have not carried it."""
    rollout = {"canary": {"steps": [{"weight": 50, "pause": "1m"}]}, "analysis": {"metrics": []}}
    scenario = serving().change(make_spec("2", rollout=rollout)).settle().later(61).settle()
    assert scenario.status.phase is Phase.PROMOTING
    assert "passed all 2 steps" in scenario.status.history[-1].message


def test_an_invalid_spec_stalls_withdraws_the_canary_and_recovers_when_mended() -> None:
    """What cannot be carried out is not half carried out."""
    scenario = replace(canary(2), problem="spec.x: is wrong").settle()
    assert scenario.status.phase is Phase.INVALID
    assert condition(scenario, ConditionType.STALLED) == "True/InvalidSpec"
    assert scenario.observed.route is not None
    assert scenario.observed.route.weights == {V1: 100}
    scenario = replace(scenario, problem=None).settle()
    assert scenario.status.phase is Phase.CANARY
    assert condition(scenario, ConditionType.STALLED) is None


def test_the_same_input_gives_the_same_decision() -> None:
    """The engine has no memory, clock or chance of its own."""
    scenario = canary(2).later(10)
    assert scenario.step() == scenario.step()


def test_a_quantile_rests_on_ten_requests_beyond_it() -> None:
    """The p95 of 20 requests is their largest: chance. A limit on p95 waits for 200, on errors for what the user
    says.
    """
    limits = [{"name": "error-rate", "max": "5%"}, {"name": "latency-p95", "max": "1s"}]
    spec = make_spec("2", rollout={
        "canary": {"steps": [{"weight": 10, "pause": "1m"}]}, "analysis": {"metrics": limits},
    })  # fmt: skip
    scenario = serving().change(spec).settle().serves(V2, Traffic(requests=199)).later(61).settle()
    rollout = scenario.status.rollout
    assert rollout is not None
    assert {c.name: (c.verdict, c.needed) for c in rollout.checks} == {
        "error-rate": (Verdict.PASS, 100),
        "latency-p95": (Verdict.TOO_FEW_SAMPLES, 200),
    }


def test_at_100_percent_the_canary_is_compared_with_what_stable_did_before() -> None:
    """Stable gets no requests any more, so its last minutes are the baseline."""
    scenario = canary(3)
    given = scenario.later(30).given()
    baselines = [q for q in given.readings if q.revisions == (V1,)]
    assert baselines
    started = scenario.status.rollout.evidence_since  # type: ignore[union-attr]
    assert {q.at for q in baselines} == {started}


def test_kubectl_wait_and_kstatus_never_see_an_old_ready() -> None:
    """Every condition carries the generation that it was decided for; the first pass of a new one says not Ready."""
    scenario = serving().change(make_spec("2")).step()
    assert {c.observed_generation for c in scenario.status.conditions} == {2}
    assert scenario.status.observed_generation == 2
    assert condition(scenario, ConditionType.READY) == "False/RolloutStarted"
    assert condition(scenario, ConditionType.RECONCILING) == "True/RolloutStarted"


def test_a_check_that_was_edited_is_measured_anew_before_it_counts() -> None:
    """A result of other limits is no evidence, however fresh it is."""
    spec = make_spec("2", rollout={
        "canary": {"steps": [{"weight": 100, "pause": "1m"}]},
        "analysis": {"interval": "10m", "minSamples": 100, "metrics": [
            {"name": "error-rate", "max": "5%"},
            {"name": "agreement", "query": 'a{revision="{{revision}}"}', "min": 0.5},
        ]},
    })  # fmt: skip
    stricter = make_spec("2", rollout={
        "canary": {"steps": [{"weight": 100, "pause": "1m"}]},
        "analysis": {"interval": "10m", "minSamples": 100, "metrics": [
            {"name": "error-rate", "max": "0.01%"},
        ]},
    })  # fmt: skip
    scenario = serving().change(spec).settle().serves(V2, Traffic(custom=None))
    scenario = scenario.later(61).settle()
    assert scenario.status.rollout is not None
    assert [c.verdict for c in scenario.status.rollout.checks] == [Verdict.PASS, Verdict.NO_DATA]
    scenario = scenario.later(1).change(stricter).step()
    assert scenario.status.failed_revisions[0].revision == V2
    assert "above max 0.01%" in scenario.status.failed_revisions[0].message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_no_evidence(value: float) -> None:
    """Neither a pass nor a failure, and nothing that JSON cannot hold."""
    query = {"name": "agreement", "query": 'a{revision="{{revision}}"}', "min": 0.5}
    spec = make_spec("2", rollout={
        "canary": {"steps": [{"weight": 10, "pause": "1m"}]}, "analysis": {"metrics": [query]},
    })  # fmt: skip
    scenario = serving().change(spec).settle().serves(V2, Traffic(custom=value)).later(61).settle()
    assert scenario.status.rollout is not None
    assert scenario.status.rollout.step == 1
    expected = Verdict.NO_DATA if math.isnan(value) else Verdict.ERROR
    assert scenario.status.rollout.checks[0].verdict is expected
    assert scenario.status.rollout.checks[0].value is None


def test_a_canary_gets_no_traffic_before_its_service_exists() -> None:
    """Pods that nothing leads to cannot answer."""
    scenario = serving().change(make_spec("2")).step().act()
    without = replace(scenario, observed=replace(scenario.observed, services=frozenset({V1})))
    waiting = without.step()
    assert waiting.status.rollout is not None
    assert waiting.status.rollout.weight == 0
    assert "Service does not lead to all of them yet" in waiting.status.message
    assert scenario.step().status.rollout.weight == 10  # type: ignore[union-attr]


def test_ready_is_false_while_the_gateway_does_not_carry_the_route() -> None:
    """An edited gateway or host name is no rollout, yet nobody may be told too early that it serves."""
    scenario = serving()
    assert scenario.observed.route is not None
    refused = replace(scenario.observed.route, accepted=False, message="no such listener")
    scenario = replace(scenario, observed=replace(scenario.observed, route=refused)).step()
    assert condition(scenario, ConditionType.READY) == "False/AwaitingRoute"
    assert condition(scenario, ConditionType.RECONCILING) == "True/AwaitingRoute"
    assert "no such listener" in scenario.status.message
    assert scenario.decision is not None
    assert scenario.decision.requeue_after.total_seconds() < 60
    assert condition(scenario.act().step(), ConditionType.READY) == "True/Serving"


def test_ready_is_false_while_stable_has_too_few_pods() -> None:
    """And available while it has any."""
    few = serving().pods(V1, 1).step()
    assert condition(few, ConditionType.READY) == "False/AwaitingPods"
    assert condition(few, ConditionType.AVAILABLE) == "True/Serving"
    assert "1 of at least 2 pods" in few.status.message
    none = serving().pods(V1, 0).step()
    assert condition(none, ConditionType.READY) == "False/StableUnavailable"
    assert condition(none, ConditionType.AVAILABLE) == "False/StableUnavailable"


def test_a_first_spec_that_is_invalid_stalls_and_waits() -> None:
    """Nothing is made for it; a mended one begins."""
    scenario = replace(Scenario(), problem="spec.x: is wrong").settle()
    assert scenario.status.phase is Phase.INVALID
    assert scenario.status.stable is None
    assert condition(scenario, ConditionType.STALLED) == "True/InvalidSpec"
    assert replace(scenario, problem=None).settle().status.phase is Phase.PROMOTED


def test_a_pass_without_its_answers_keeps_what_is_known_and_moves_nothing() -> None:
    """Answers that did not come are missing evidence."""
    scenario = canary().later(61)
    silent = replace(scenario.given(), readings={})
    decision = advance(silent)
    assert decision.status.rollout is not None
    assert decision.status.rollout.step == 1
    assert decision.blocked_on is Reason.AWAITING_MEASUREMENT


def test_a_comparison_without_stables_value_is_no_data() -> None:
    """Stable answered requests, but the query says nothing of it."""
    query = {"name": "agreement", "query": 'a{revision="{{revision}}"}', "maxRatio": 1.1}
    spec = make_spec("2", rollout={
        "canary": {"steps": [{"weight": 10, "pause": "1m"}]},
        "analysis": {"metrics": [{"name": "error-rate"}, query]},
    })  # fmt: skip
    scenario = serving().change(spec).settle().serves(V1, Traffic(custom=None)).later(61).settle()
    assert scenario.status.rollout is not None
    verdicts = {check.name: check for check in scenario.status.rollout.checks}
    assert verdicts["error-rate"].verdict is Verdict.PASS
    assert verdicts["agreement"].verdict is Verdict.NO_DATA
    assert "stable revision to compare with" in verdicts["agreement"].message


@pytest.mark.parametrize(
    ("limits", "value", "words"),
    [
        ({"min": 0.98}, 0.97, "0.97 is below min 0.98"),
        ({"max": 0.5}, 0.51, "0.51 is above max 0.5"),
        ({"maxIncrease": 0.1}, 1.2, "1.2 is more than 0.1 above stable's 0.99"),
        ({"maxRatio": 1.1}, 1.2, "1.2 is more than 1.1 times stable's 0.99"),
        ({"maxRatio": 1.1, "tolerance": 0.5}, 1.2, None),
    ],
)
def test_each_limit_of_a_users_own_check_counts(
    limits: dict[str, float], value: float, words: str | None
) -> None:
    """Absolute and compared with stable, and differences within the tolerance do not."""
    metric = {"name": "agreement", "query": 'a{revision="{{revision}}"}', **limits}
    spec = make_spec("2", rollout={
        "canary": {"steps": [{"weight": 10, "pause": "1m"}]},
        "analysis": {"interval": "30s", "minSamples": 100, "metrics": [metric]},
    })  # fmt: skip
    scenario = serving().serves(V2, Traffic(custom=value)).change(spec).settle()
    if words is None:
        assert scenario.status.failed_revisions == []
    else:
        assert words in scenario.status.failed_revisions[0].message


def test_a_route_that_is_never_accepted_ends_the_rollout_at_the_deadline() -> None:
    """The gateway's words are in the evidence, and no step ever began."""
    scenario = serving().change(make_spec("2")).step().act().step().act(accepted=False)
    scenario = scenario.later(601).step()
    assert scenario.status.failed_revisions[0].reason == Reason.PROGRESS_DEADLINE_EXCEEDED
    assert "the route was not accepted in time" in scenario.status.failed_revisions[0].message

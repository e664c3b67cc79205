"""What the schema cannot say of a spec: each mistake with its field and a remedy."""

from typing import Any

import pytest

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.validation import parse_spec, validate
from canarium_operator.testing.objects import model_deployment


def spec(**changes: Any) -> ModelDeploymentSpec:
    """A valid spec with some parts replaced."""
    parsed = parse_spec(model_deployment(**changes)["spec"])
    assert isinstance(parsed, ModelDeploymentSpec), parsed
    return parsed


def metrics(**metric: Any) -> dict[str, Any]:
    return {"rollout": {"analysis": {"metrics": [{"name": "agreement", **metric}]}}}


def reached(step: int, **rollout: Any) -> dict[str, Any]:
    return {"rollout": {"readyWhen": "StepReached", "readyStep": step, **rollout}}


TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
MANY_FEATURES = [{"name": f"feature-{i}", "enum": ["0123456789" * 10, str(i)]} for i in range(1000)]


def test_a_short_spec_is_valid() -> None:
    """Every default can be carried out."""
    assert validate(spec()) == []


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        (
            {"serving": {"resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "1500m"}}}},
            "spec.serving.resources.requests.cpu",
            "2 is above the limit of 1500m",
        ),
        (
            {"serving": {"resources": {"requests": {"cpu": "1"}, "limits": {}}}},
            "spec.serving.resources.requests.memory",
            "autoscaling.memory is a percentage of it",
        ),
        (
            {"serving": {"resources": {"requests": {"memory": "1Gi"}, "limits": {}}}},
            "spec.serving.resources.requests.cpu",
            "or set autoscaling.cpu to 0",
        ),
        (
            {"serving": {"validation": {"inputs": [{"name": "x", "features": MANY_FEATURES}]}}},
            "spec.serving.validation",
            "bytes as JSON, of at most 100000: leave out features without rules",
        ),
        ({"model": {"uri": "pvc://models/../other.onnx"}}, "spec.model.uri", "'..' is not allowed"),
        ({"model": {"uri": "file:///models/../etc/passwd"}}, "spec.model.uri", "'..' is not allowed"),
        (
            {"model": {"uri": "file:///m.ts", "format": "torch", "inputs": [TENSOR, TENSOR]}},
            "spec.model.inputs[1].name",
            "'x' is there already: rename it",
        ),
        (
            {"model": {"uri": "file:///m", "warmup": {"samples": [{"instances": ["a" * 70_000]}]}}},
            "spec.model.warmup.samples",
            "put the requests into a file and name it in model.warmup.uri",
        ),
        ({"model": {"uri": "configmap://small/a/b"}}, "spec.model.uri", "configmap://NAME/KEY"),
        (
            metrics(query="a", min=2, max=1),
            "spec.rollout.analysis.metrics[0].min",
            "above max, so nothing could pass",
        ),
        (
            metrics(query='a{r="{{ revison }}"}', max=1),
            "spec.rollout.analysis.metrics[0].query",
            "unknown placeholder 'revison': use {{namespace}}",
        ),
        (
            metrics(query="a", maxIncrease="1%"),
            "spec.rollout.analysis.metrics[0].query",
            "needs {{revision}} in the query",
        ),
        (
            metrics(query="a", maxRatio=2),
            "spec.rollout.analysis.metrics[0].query",
            "needs {{revision}} in the query",
        ),
        (
            metrics(name="latency-p95", max="10h"),
            "spec.rollout.analysis.metrics[0].max",
            "above the server's largest bucket",
        ),
        (metrics(query="a"), "spec.rollout.analysis.metrics[0].query", "without a limit everything passes"),
        (metrics(query="a", max=1, minEffect=1), "spec.rollout.analysis.metrics[0].minEffect", "give counts"),
        (metrics(name="error-rate", minEffect=-1), "spec.rollout.analysis.metrics[0].minEffect", "positive number"),
        (
            metrics(mean={"sum": 'a{r="{{revision}}"}', "sumOfSquares": "b", "count": 'c{r="{{revision}}"}'}),
            "spec.rollout.analysis.metrics[0].mean.sumOfSquares",
            "needs {{revision}}",
        ),
        (
            metrics(proportion={"events": 'a{r="{{revision}}"}', "trials": "{{what}}"}),
            "spec.rollout.analysis.metrics[0].proportion.trials",
            "unknown placeholder 'what'",
        ),
        (
            {"rollout": {"canary": {"steps": [{"weight": 5, "metrics": ["speed"]}]}}},
            "spec.rollout.canary.steps[0].metrics",
            "no check 'speed': use one of error-rate, invalid-rate, latency-p95",
        ),
        (
            {"rollout": {"freezes": [{"from": "18:00", "to": "08:00", "timeZone": "Mars/Olympus"}]}},
            "spec.rollout.freezes[0].timeZone",
            "no time zone",
        ),
        (
            {"rollout": {"freezes": [{"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}]}},
            "spec.rollout.freezes[0].end",
            "not after start",
        ),
        (
            reached(7),
            "spec.rollout.readyStep",
            "is 7, and the rollout has 6 steps: set at most 6, or readyWhen: Promoted",
        ),
        (reached(4, canary={"steps": [{"weight": 5}, {"weight": 50}]}), "spec.rollout.readyStep", "has 3 steps"),
        (reached(3, canary={"steps": [{"weight": 5}, {"weight": 100}]}), "spec.rollout.readyStep", "has 2 steps"),
        (reached(3, blueGreen={}), "spec.rollout.readyStep", "has 2 steps"),
    ],
)  # fmt: skip
def test_a_spec_that_contradicts_itself_is_refused_with_the_field_and_a_remedy(
    changes: dict[str, Any], field: str, words: str
) -> None:
    """One problem for one mistake."""
    [problem] = validate(spec(**changes))
    assert problem.field == field
    assert words in problem.message
    assert str(problem).startswith(f"{field}: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"serving": {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {}}}},
        {
            "serving": {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1000m"}}},
            "autoscaling": {"memory": 0},
        },
        {"model": {"uri": "configmap://small/model.onnx"}},
        {"model": {"uri": "pvc://models/a..b/model.onnx"}},
        {"model": {"uri": "https://host/../model.onnx"}},
        metrics(query='a{r="{{revision}}"}[{{ window }}]', maxRatio=2),
        metrics(query="a", min=1, max=1),
        metrics(name="latency-p95", max="200ms"),
        {"rollout": {"analysis": {"metrics": []}}},
        metrics(query="a", dryRun=True),
        metrics(name="error-rate", max="5%", minEffect="1%"),
        reached(6),
        reached(7, shadow={"percent": 5}),
        reached(3, canary={"steps": [{"weight": 5}, {"weight": 50}]}),
        reached(2, blueGreen={}),
        {"rollout": {"readyWhen": "Admitted"}},
    ],
)
def test_what_can_be_carried_out_is_not_refused(changes: dict[str, Any]) -> None:
    """Also at the edges."""
    assert validate(spec(**changes)) == []


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (None, "spec.model"),
        ("text", "spec"),
        (
            {"model": {"uri": "https://h/m.onnx"}, "traffic": {"gateway": {}}},
            "spec.traffic.gateway.name",
        ),
        (
            {
                "model": {"uri": "https://h/m.onnx"},
                "traffic": {"gateway": {"name": "g"}, "hostnames": ["ok", "-x"]},
            },
            "spec.traffic.hostnames[1]",
        ),
        (
            {
                "model": {"uri": "https://h/m.onnx"},
                "traffic": {"gateway": {"name": "g"}},
                "rollout": {"canary": {"steps": [{"weight": 5, "pause": "1 hour"}]}},
            },
            "spec.rollout.canary.steps[0].pause",
        ),
    ],
)
def test_a_spec_that_cannot_be_read_gives_problems_instead_of_an_exception(
    raw: Any, field: str
) -> None:
    """The status says what is wrong, where a schema let it pass."""
    problems = parse_spec(raw)
    assert isinstance(problems, list)
    assert field in {problem.field for problem in problems}
    assert all(problem.message and "Value error" not in problem.message for problem in problems)


def test_a_spec_with_many_mistakes_is_not_drowned_in_them() -> None:
    """The first few are enough to begin with."""
    steps = [{"weight": 0, "pause": "never"}] * 10
    raw = {**model_deployment()["spec"], "rollout": {"canary": {"steps": steps}}}
    problems = parse_spec(raw)
    assert isinstance(problems, list)
    assert len(problems) == 5

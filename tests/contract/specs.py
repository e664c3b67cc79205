"""Specs that a ModelDeployment may have, and specs that are refused: the same rows for the real API server and for
`canarium check`.
"""

from typing import Any, Final

WITHIN: dict[str, Any] = {"traffic": {}}
"""Reached from inside the cluster alone."""


def steps(*weights: int) -> dict[str, Any]:
    return {"rollout": {"canary": {"steps": [{"weight": weight} for weight in weights]}}}


def versions(*named: tuple[str, int]) -> dict[str, Any]:
    found = [
        {"name": name, "weight": weight, "model": {"uri": f"https://m.example.com/{number}"}}
        for number, (name, weight) in enumerate(named)
    ]
    return {"rollout": {"fixed": {"versions": found}}}


def metrics(*found: dict[str, Any]) -> dict[str, Any]:
    return {"rollout": {"analysis": {"metrics": list(found)}}}


MODEL = {"uri": "https://models.example.com/m"}
MORE = {"name": "more", "uri": "https://models.example.com/more.onnx"}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}


def ab_test(**ways: Any) -> dict[str, Any]:
    return {"rollout": {"abTest": {"goals": ["error-rate"], **ways}}}


REFUSED: Final[list[tuple[str, dict[str, Any]]]] = [
    ("add the digest", {"model": {"uri": "http://models.example.com/a.onnx"}}),
    ("set model.allowCode to true", {"model": {**MODEL, "format": "python"}}),
    ("add the digest", {"model": {**MODEL, "format": "python", "allowCode": True}}),
    (
        "add the digest",
        {"model": {**MODEL, "warmup": {"uri": "http://models.example.com/w.jsonl"}}},
    ),
    (
        "add the digest or use https",
        {"rollout": {"validation": {"data": {"uri": "http://data.example.com/golden.csv"}}}},
    ),
    ("set uri, or remove sha256", {"model": {**MODEL, "warmup": {"sha256": "0" * 64}}}),
    ("give one another name or version", {"serving": {"models": [MORE, MORE]}}),
    ("list models, or remove it", {"serving": {"modelMemory": "1Gi"}}),
    ("list it there", {"serving": {"fallbacks": [{"model": "more"}]}}),
    ("exactly one of model, url and outputs", {"serving": {"fallbacks": [{}]}}),
    (
        "add the digest",
        {"serving": {"models": [{"name": "more", "uri": "http://models.example.com/a.onnx"}]}},
    ),
    (
        "set accelerator to auto or gpu",
        {"serving": {"execution": {"accelerator": "none", "provider": "cuda"}}},
    ),
    (
        "set accelerator to auto or none",
        {"serving": {"execution": {"accelerator": "gpu", "provider": "openvino"}}},
    ),
    (
        "set serving.processes to 1, or remove rollout.shadow",
        {"serving": {"processes": 2}, "rollout": {"shadow": {}}},
    ),
    (
        "set serving.processes to 1, or use audit.file",
        {"serving": {"processes": 0, "audit": {"kafka": {"bootstrapServers": ["kafka:9092"]}}}},
    ),
    ("lower the one or raise the other", {"autoscaling": {"minReplicas": 30}}),
    ("set cpu or memory above 0", {"autoscaling": {"cpu": 0, "memory": 0}}),
    ("name the file that holds this", {"gitops": {"url": "https://git.example.com/m.git"}}),
    (
        "keys identity and known_hosts",
        {"gitops": {"url": "ssh://git@git.example.com/m.git", "onRollback": "Nothing"}},
    ),
    (
        "it tells which commit is meant",
        {
            "gitops": {
                "url": "https://git.example.com/m.git",
                "onRollback": "Nothing",
                "forge": {
                    "kind": "GitHub",
                    "project": "ml/models",
                    "secret": "forge",
                    "commitStatuses": True,
                },
            }
        },
    ),
    (
        "and rollout.fixed has none",
        {
            "gitops": {"url": "https://git.example.com/m.git", "manifest": "fraud.yaml"},
            **versions(("main", 50), ("other", 50)),
        },
    ),
    ("reorder the steps", steps(5, 5)),
    ("reorder the steps", steps(*range(1, 20), 1)),
    ("unless the name is built in", metrics({"name": "fairness", "min": 1})),
    ("no ratio of .* pods gives 1% 2% : use 5, 6, 7, ", steps(1, 2, 50) | WITHIN),
    ("use 25, 40, 50, 100, raise", steps(30) | WITHIN | {"autoscaling": {"maxReplicas": 3}}),
    ("lower them, spec.model gets the rest", versions(("eu", 60), ("us", 40))),
    ("give each version a name of its own", versions(("eu", 20), ("eu", 10))),
    ("choose another name", versions(("main", 20))),
    ("splits by weight and by header: set traffic.gateway", versions(("eu", 20)) | WITHIN),
    (
        "nothing tells users apart: set traffic.gateway",
        ab_test(header={"name": "x-group", "value": "b"}) | WITHIN,
    ),
    (
        "rollout takes one of",
        {"rollout": {**versions(("eu", 20))["rollout"], "canary": {"steps": [{"weight": 50}]}}},
    ),
    ("set both, or neither", {"rollout": {"readyStep": 2}}),
    ("set both, or neither", {"rollout": {"readyStep": 2, "readyWhen": "Admitted"}}),
    ("set both, or neither", {"rollout": {"readyWhen": "StepReached"}}),
    (
        "use readyWhen: Promoted or Admitted",
        {
            "rollout": {
                **versions(("eu", 20))["rollout"],
                "readyWhen": "StepReached",
                "readyStep": 1,
            }
        },
    ),
    ("set traffic.gateway, or remove", {"traffic": {"hostnames": ["fraud.example.com"]}}),
    ("say who gets the new version in one way", ab_test()),
    (
        "say who gets the new version in one way",
        ab_test(header={"name": "a", "value": "b"}, sticky={"header": "x-user"}),
    ),
    (
        "name the one that carries the key",
        ab_test(sticky={"header": "x-user", "cookie": "uid"}),
    ),
    (
        "remove the others",
        {"rollout": {**ab_test(sticky={"header": "x"})["rollout"], "blueGreen": {}}},
    ),
    (
        "give the second check a name of its own",
        metrics({"name": "error-rate"}, {"name": "error-rate"}),
    ),
]
"""What CEL rules refuse: a part of the message (a pattern), and the parts of a spec."""

NAMES: Final = ["a" * 53, "7fraud", "fraud.v2"]
"""Names that no Service could have."""

GOOD: Final[list[dict[str, Any]]] = [
    {"model": {"uri": "http://models.example.com/a.onnx", "sha256": "0" * 64}},
    {"model": {"uri": "pvc://models/a/b.onnx"}},
    {"rollout": {"readyWhen": "StepReached", "readyStep": 6}},
    {"rollout": {"readyWhen": "Admitted", **versions(("eu", 20))["rollout"]}},
    {
        "serving": {
            "models": [MORE, {**MORE, "version": "2"}],
            "modelMemory": "512Mi",
            "fallbacks": [{"model": "more", "version": "2"}, {"outputs": {"y": [1]}}],
            "backendTimeout": "1s",
            "breakerFailures": 0,
        }
    },
    {"model": {"uri": "configmap://tiny/model.py", "format": "python", "allowCode": True}},
    {"model": {**MODEL, "format": "torch", "inputs": [TENSOR], "outputs": [TENSOR]}},
    {"model": {**MODEL, "warmup": {"samples": [{"instances": [[1, 2]]}]}}},
    {"serving": {"execution": {"accelerator": "gpu", "provider": "tensorrt", "precision": "fp16"}}},
    {"serving": {"execution": {"threads": 1}}},
    {"model": {"uri": "configmap://tiny/model.onnx"}},
    {
        "rollout": {
            "validation": {
                "data": {"uri": "pvc://data/golden.csv"},
                "reference": {"uri": "https://data.example.com/reference.jsonl"},
                "thresholds": {
                    "task": "classification",
                    "metrics": {
                        "accuracy": {"min": 0.9, "maxLoss": 0.01},
                        "failedRows": {"max": 3},
                    },
                    "latency": {"p95": "20ms"},
                    "maxSize": "50Mi",
                    "drift": {"score": 0.8},
                },
                "timeout": "1h",
            }
        }
    },
    {"model": {"uri": "file:///models/model.onnx"}},
    {"autoscaling": {"minReplicas": 20, "maxReplicas": 20, "memory": 0}},
    steps(*range(1, 21)),
    metrics(
        {"name": "error-rate", "max": "1%", "maxIncrease": 0.001},
        {"name": "latency-p99", "max": "200ms", "maxRatio": 2},
        {"name": "agreement", "query": "sum(agree)", "min": 0.98, "max": 1},
    ),
    metrics(),
    versions(("eu", 60), ("us", 39), ("lab", 0)),
    WITHIN,
    steps(1, 5, 10, 25, 50, 100) | WITHIN,
    steps(5, 87, 100) | WITHIN,
    steps(25, 40, 50) | WITHIN | {"autoscaling": {"maxReplicas": 3}},
    steps(1, 99) | WITHIN | {"autoscaling": {"maxReplicas": 1000}},
    {"serving": {"resources": {"limits": {"cpu": 2, "memory": "1.5Gi", "nvidia.com/gpu": 1}}}},
    {"serving": {"affinity": {"nodeAffinity": {"x": [1]}}, "tolerations": [{"key": "spot"}]}},
    {
        "traffic": {
            "gateway": {"name": "g", "namespace": "infra"},
            "hostnames": ["*.example.com"],
        }
    },
]
"""Parts of specs that are taken."""

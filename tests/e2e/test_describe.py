"""`kubectl describe` answers "why": golden files for eighteen situations, written by the real kubectl.

The statuses are the engine's own, of worlds in virtual time, so that every run shows the same. UPDATE_GOLDEN=1 writes
the files anew; read what changed before you commit it.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from canarium_operator.core.observation import GatewayClass, LoadProblem
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.queries import Query, QueryFailure, Reading, Series
from canarium_operator.testing.scenario import IMAGE, Scenario, Traffic, make_spec
from tests.e2e.conftest import World

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

GOLDEN = Path(__file__).parent / "golden"
V1, V2 = (revision_of(make_spec(v), IMAGE).name for v in "12")
STEPS: dict[str, Any] = {
    "steps": [{"weight": 10, "pause": "1m", "approval": True}, {"weight": 50, "pause": "1m"}]
}
CHECKED: dict[str, Any] = {
    "canary": {"steps": [{"weight": 10, "pause": "1m"}, {"weight": 50, "pause": "1m"}]},
    "analysis": {"interval": "30s", "metrics": [{"name": "error-rate"}, {"name": "latency-p95"}]},
}


def canary(**rollout: Any) -> Scenario:
    """The first step of version 2 has just begun."""
    spec = make_spec("2", rollout={**CHECKED, **rollout})
    return Scenario().settle().change(spec).settle()


B = {"name": "x-group", "value": "b"}
EU = {"uri": "https://models/fraud/eu.onnx", "version": "eu-3"}
FIXED: dict[str, Any] = {"versions": [{"name": "eu", "weight": 30, "model": EU}]}
HTTP_ALONE = frozenset({"HTTPRoute"})


def shadow(gateway: GatewayClass | None = None) -> Scenario:
    """Version 2 gets copies, and answers one request in fifty with another class."""
    told = {"trials": 1200.0, "events": 24.0, "query": 0.013}

    def answer(query: Query) -> Reading:
        if query.metric:
            return (Series(value=told[query.part]),)
        return replace(scenario, metrics=None)._answer(query)

    spec = make_spec("2", rollout={**CHECKED, "shadow": {"percent": 50, "pause": "5m"}})
    scenario = Scenario().settle().change(spec)
    observed = replace(scenario.observed, gateway_class=gateway)
    return replace(scenario, metrics=answer, observed=observed).settle()


def first_model_cannot_load() -> Scenario:
    problem = LoadProblem(
        reason="DigestMismatch", message="expected 9c1f, got 41aa", permanent=True
    )
    return Scenario().step().act(ready=False).pods(V1, 0, problem).step().step()


SITUATIONS: dict[str, Callable[[], Scenario]] = {
    "01-loading": lambda: Scenario().step().act(ready=False).step(),
    "02-serving": lambda: Scenario().settle(),
    "03-model-cannot-load": first_model_cannot_load,
    "04-pause": lambda: canary().later(31).settle(),
    "05-too-few-requests": lambda: canary().serves(V2, Traffic(requests=40)).later(61).settle(),
    "06-prometheus-down": lambda: (
        replace(canary(), failure=QueryFailure(message="Connection refused")).later(61).settle()
    ),
    "07-taken-back": lambda: canary().serves(V2, Traffic(error_rate=0.2)).later(31).settle(),
    "08-failed-and-serving": lambda: (
        canary().serves(V2, Traffic(error_rate=0.2)).later(31).settle().later(31).settle()
    ),
    "09-waits-for-approval": lambda: canary(canary=STEPS).later(61).settle(),
    "10-paused": lambda: replace(
        canary().later(20), commands={"pause": "alice@example.com 1"}
    ).settle(),
    "11-frozen": lambda: canary(freezes=[{"from": "00:00", "to": "00:00", "reason": "sale"}]),
    "12-invalid": lambda: replace(
        canary(), problem="spec.rollout.analysis.metrics[0].query: without a limit"
    ).settle(),
    "13-waits-for-a-gate": lambda: (
        canary(gates=[{"name": "board", "url": "https://changes.example.com/ask"}])
        .later(61)
        .answered("board", "Bob has not looked yet")
    ),
    "14-preview": lambda: (
        canary(canary=None, blueGreen={"beforeSwitch": {"pause": "5m"}}).later(10).settle()
    ),
    "15-shadow": lambda: shadow().later(31).settle(),
    "16-gateway-cannot-copy": lambda: shadow(GatewayClass(name="traefik", features=HTTP_ALONE)),
    "17-ab-test": lambda: (
        canary(canary=None, abTest={"header": B, "goals": ["error-rate"]}).later(31).settle()
    ),
    "18-fixed-versions": lambda: Scenario(spec=make_spec("1", rollout={"fixed": FIXED})).settle(),
}


@pytest.fixture
def quiet(world: World) -> World:
    """A world whose operator does not touch the object."""
    world.operator.stop()
    return world


@pytest.mark.parametrize("name", SITUATIONS)
def test_describe_says_what_it_does_and_why(quiet: World, name: str) -> None:
    """Phase, message, conditions, the checks with their numbers, and what is remembered."""
    scenario = SITUATIONS[name]()
    body = {
        "apiVersion": "canarium.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "fraud", "namespace": quiet.namespace},
    }
    quiet.kubectl.apply({**body, "spec": scenario.spec.to_manifest()})
    text = {**body, "status": scenario.status.to_manifest()}
    apply_status(quiet, text)
    shown = quiet.kubectl.run("describe", "mdep", "fraud", "-n", quiet.namespace)
    found = normalised(shown, quiet.namespace)
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


def apply_status(world: World, body: dict[str, Any]) -> None:
    """Write a status as the operator does."""
    options = ["--server-side", "--subresource=status", "--force-conflicts", "-f", "-"]
    world.kubectl.run("apply", *options, stdin=json.dumps(body))


def normalised(text: str, namespace: str) -> str:
    """Leave out what differs from run to run: the namespace's name, the server's own facts, and the spec."""
    text = text.replace(namespace, "NAMESPACE")
    text = re.sub(r"  (Creation Timestamp|Resource Version|UID|Generation):.*\n", "", text)
    text = re.sub(r"\nSpec:\n(?:  .*\n)*", "\n", text)
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)

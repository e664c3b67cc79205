"""The CRD on a real API server: the rules that only CEL can hold, the samples, and what `kubectl get` shows."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import validation
from canarium_operator.errors import RejectedError

from . import specs
from .world import COLLECTIONS, ROOT, RealWorld, call, object_of

pytestmark = pytest.mark.cluster
SAMPLES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "manifests/samples").glob("*.yaml"))
}


@pytest.mark.parametrize(
    ("remedy", "spec"),
    specs.REFUSED,
)
async def test_a_rule_names_its_remedy(real: RealWorld, remedy: str, spec: dict[str, Any]) -> None:
    """What the types cannot say, CEL rules refuse with a sentence that says what to do."""
    with pytest.raises(RejectedError, match=remedy):
        await real.put(object_of(real, **spec))


@pytest.mark.parametrize("name", specs.NAMES)
async def test_a_name_that_no_service_could_have_is_refused(real: RealWorld, name: str) -> None:
    """Services are named after the object, so its name is checked before anything exists."""
    with pytest.raises(RejectedError, match=r"metadata\.name must"):
        await real.put(object_of(real, name))


@pytest.mark.parametrize(
    "spec",
    specs.GOOD,
)
async def test_a_good_spec_is_stored_and_understood(real: RealWorld, spec: dict[str, Any]) -> None:
    """What the schema admits, the operator's own types read back; numbers and strings alike for limits and
    quantities.
    """
    ref = await real.put(object_of(real, **spec))
    body = await real.cluster.get(ref)
    assert body is not None
    assert isinstance(validation.parse_spec(body["spec"]), ModelDeploymentSpec)


@pytest.mark.parametrize("sample", SAMPLES)
async def test_a_sample_is_accepted(real: RealWorld, sample: str) -> None:
    """Every sample in manifests/ is valid, for the API server and for the operator."""
    manifest = copy.deepcopy(SAMPLES[sample])
    manifest["metadata"]["namespace"] = real.namespace
    ref = await real.put(manifest)
    body = await real.cluster.get(ref)
    assert body is not None
    spec = validation.parse_spec(body["spec"])
    assert isinstance(spec, ModelDeploymentSpec)
    assert validation.validate(spec) == []


async def test_kubectl_get_shows_what_a_rollout_does(real: RealWorld) -> None:
    """The printer columns find their cells in the status; the reason says what is done, also where that is Ready."""
    ref = await real.put(object_of(real))
    body = await real.cluster.get(ref)
    assert body is not None
    now = datetime.now(UTC).isoformat()
    ready, progressing = (
        {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": "m",
            "lastTransitionTime": now,
            "observedGeneration": 1,
        }
        for kind, reason in (("Ready", "Admitted"), ("Progressing", "AwaitingSamples"))
    )
    status = {
        "observedGeneration": 1,
        "phase": "Canary",
        "message": "step 2/6",
        "conditions": [ready, progressing],
        "rollout": {"steps": 6, "weights": [1, 5], "weight": 5, "startedAt": now},
        "summary": {"step": "2/6", "canary": "v7@9c1fab12", "stable": "v6@41aa0000"},
    }
    await real.cluster.apply_status({**body, "status": status})
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    path = COLLECTIONS["ModelDeployment"].format(ns=real.namespace)
    _, shown = await call(real.api, "GET", path, headers=table)
    names = [column["name"] for column in shown["columnDefinitions"]]
    row = dict(zip(names, shown["rows"][0]["cells"], strict=True))
    assert names == [
        "Name", "Ready", "Phase", "Step", "Weight", "Canary", "Stable", "Reason", "Age", "Message",
    ]  # fmt: skip
    assert row | {"Age": ""} == {
        "Name": "fraud",
        "Ready": "True",
        "Phase": "Canary",
        "Step": "2/6",
        "Weight": 5,
        "Canary": "v7@9c1fab12",
        "Stable": "v6@41aa0000",
        "Reason": "AwaitingSamples",
        "Age": "",
        "Message": "step 2/6",
    }

"""How a real API server refuses things, and what the adapter makes of it."""

import copy

import pytest

from canarium_operator.core.manifests import Manifest
from canarium_operator.core.observing import observe
from canarium_operator.errors import RejectedError, TransientClusterError

from .test_cluster import configmap, planned
from .world import RealWorld, call, object_of

pytestmark = pytest.mark.cluster


async def test_a_field_that_no_pod_has_is_rejected(real: RealWorld) -> None:
    """The API server answers 500 to it, but trying again could never help."""
    ref = await real.put(object_of(real, serving={"affinity": {"nodeAfinity": {}}}))
    _, children = await planned(real, ref)
    with pytest.raises(RejectedError, match="nodeAfinity"):
        await real.cluster.apply(children["Deployment"])


async def test_a_value_that_no_pod_may_have_is_rejected(real: RealWorld) -> None:
    """The message names the field."""
    ref = await real.put(object_of(real, serving={"podLabels": {"team": "no spaces allowed"}}))
    _, children = await planned(real, ref)
    with pytest.raises(RejectedError, match="no spaces allowed"):
        await real.cluster.apply(children["Deployment"])


async def quota(real: RealWorld, **hard: str) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": real.namespace},
        "spec": {"hard": {name.replace("_", "/"): value for name, value in hard.items()}},
    }
    path = f"/api/v1/namespaces/{real.namespace}/resourcequotas"
    status, body = await call(real.api, "POST", path, manifest)
    assert status == 201, body

    async def counted() -> bool:
        _, body = await call(real.api, "GET", f"{path}/q")
        return "hard" in body.get("status", {})

    await real.eventually("the quota is in force", counted)


async def test_an_exceeded_quota_is_rejected(real: RealWorld) -> None:
    """It is a refusal of this object (403), not a lack of permission."""
    await quota(real, services="0")
    ref = await real.put(object_of(real))
    _, children = await planned(real, ref)
    with pytest.raises(RejectedError, match="exceeded quota"):
        await real.cluster.apply(children["Service"])


async def test_a_quota_on_pods_reaches_the_observation(real: RealWorld) -> None:
    """The Deployment is accepted and its pods are refused: the reason is read from its condition."""
    await quota(real, pods="0")
    ref = await real.put(object_of(real))
    revision, children = await planned(real, ref)
    for child in children.values():
        await real.cluster.apply(child)

    async def problem() -> str:
        found = observe(await real.cluster.children(ref), None).workload(revision.name).problem
        return found.message if found is not None else ""

    assert "exceeded quota" in await real.eventually("the Deployment reports the quota", problem)


async def test_a_namespace_that_goes_is_waited_for(real: RealWorld) -> None:
    """Nothing can be made in it any more, and nothing is wrong with the spec."""
    ref = await real.put(object_of(real))
    held = copy.deepcopy(configmap(ref, a="1"))
    held["metadata"]["finalizers"] = ["canarium.dev/test"]
    held["metadata"]["name"] = "held"
    await real.cluster.apply(held)
    await call(real.api, "DELETE", f"/api/v1/namespaces/{real.namespace}")

    async def terminating() -> Manifest | None:
        _, body = await call(real.api, "GET", f"/api/v1/namespaces/{real.namespace}")
        return body if body.get("status", {}).get("phase") == "Terminating" else None

    await real.eventually("the namespace is terminating", terminating)
    try:
        with pytest.raises(TransientClusterError, match="terminated"):
            await real.cluster.apply(configmap(ref, a="1"))
    finally:
        await real.cluster.apply({**held, "metadata": {**held["metadata"], "finalizers": []}})

"""What the operator may do on a real cluster, as the API server itself lists it."""

from typing import Any

import pytest
import yaml
from kubernetes.aio.client import ApiClient

from canarium_operator.adapters.kubernetes_cluster import KubernetesCluster
from canarium_operator.core.naming import ObjectRef
from canarium_operator.errors import ForbiddenError

from .world import ROOT, RealWorld, call, object_of

pytestmark = pytest.mark.cluster
OPERATOR = "system:serviceaccount:canarium-system:canarium-operator"
NOBODY = "system:serviceaccount:canarium-system:nobody-in-particular"
CHILD = frozenset({"get", "list", "watch", "create", "patch", "delete"})
ALLOWED = {
    "canarium.dev/modeldeployments": {"get", "list", "watch"},
    "canarium.dev/modeldeployments/status": {"patch"},
    "canarium.dev/modeldeployments/finalizers": {"update"},
    "canarium.dev/analysistemplates": {"get"},
    "canarium.dev/clusteranalysistemplates": {"get"},
    "/configmaps": CHILD,
    "/services": CHILD,
    "/services/proxy": {"get"},
    "apps/deployments": CHILD,
    "apps/deployments/scale": {"get", "patch"},
    "autoscaling/horizontalpodautoscalers": CHILD,
    "policy/poddisruptionbudgets": CHILD,
    "batch/jobs": CHILD,
    "gateway.networking.k8s.io/httproutes": {
        "get",
        "list",
        "watch",
        "create",
        "patch",
        "delete",
    },
    "gateway.networking.k8s.io/gateways": {"get"},
    "gateway.networking.k8s.io/gatewayclasses": {"get"},
    "/pods": {"list", "watch"},
    "discovery.k8s.io/endpointslices": {"list", "watch"},
    "/events": {"create"},
}


@pytest.fixture
async def roles(real: RealWorld, api: ApiClient) -> ApiClient:
    """The operator's ClusterRole and its binding, installed."""
    for manifest in yaml.safe_load_all(
        (ROOT / "manifests/base/rbac.yaml").read_text(encoding="utf-8")
    ):
        if manifest["kind"] == "ServiceAccount":
            continue  # permissions go by its name; it need not exist
        plural = manifest["kind"].lower() + "s"
        path = f"/apis/rbac.authorization.k8s.io/v1/{plural}/{manifest['metadata']['name']}"
        status, body = await call(api, "PATCH", f"{path}?fieldManager=tests&force=true", manifest)
        assert status < 300, body

    async def known() -> bool:
        """Whether the API server, which learns of roles by a watch of its own, goes by them."""
        return "canarium.dev/modeldeployments" in await rules(api, OPERATOR)

    await real.eventually("the roles count", known)
    return api


async def rules(api: ApiClient, user: str) -> dict[str, set[str]]:
    """All that a user may do in any namespace, as `kubectl auth can-i --list` shows it: resource to verbs."""
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    status, body = await call(
        api,
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        {**kind, "spec": {"namespace": "default"}},
        headers=impersonate(user),
    )
    assert status == 201, body
    found: dict[str, set[str]] = {}
    for rule in body["status"]["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault(f"{group}/{resource}", set()).update(rule["verbs"])
    return found


def impersonate(user: str) -> dict[str, str]:
    return {
        "Impersonate-User": user,
        "Impersonate-Group": "system:serviceaccounts",
    }


async def test_the_operator_may_do_this_and_no_more(roles: ApiClient) -> None:
    """Compared with a service account that has no role of its own, so that nothing can hide in the difference."""
    everybody = await rules(roles, NOBODY)
    operator = await rules(roles, OPERATOR)
    granted = {
        resource: verbs - everybody.get(resource, set())
        for resource, verbs in operator.items()
        if verbs - everybody.get(resource, set())
    }
    assert granted == {resource: set(verbs) for resource, verbs in ALLOWED.items()}


@pytest.mark.parametrize(
    ("verb", "group", "resource"),
    [
        ("get", "", "secrets"),
        ("list", "", "secrets"),
        ("create", "", "pods"),
        ("delete", "", "pods"),
        ("create", "", "pods/exec"),
        ("update", "canarium.dev", "modeldeployments"),
        ("patch", "canarium.dev", "modeldeployments"),
        ("delete", "canarium.dev", "modeldeployments"),
        ("patch", "gateway.networking.k8s.io", "gateways"),
        ("get", "", "nodes"),
        ("list", "", "namespaces"),
        ("create", "rbac.authorization.k8s.io", "clusterrolebindings"),
        ("deletecollection", "apps", "deployments"),
        ("impersonate", "", "users"),
    ],
)
async def test_the_operator_may_not(roles: ApiClient, verb: str, group: str, resource: str) -> None:
    """Above all: no secrets, no specs of users, no pods, no routes taken away."""
    resource, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
    review: dict[str, Any] = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": OPERATOR,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {**attributes, "namespace": "default"},
        },
    }
    status, body = await call(
        roles, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review
    )
    assert status == 201, body
    assert body["status"].get("allowed", False) is False


async def test_the_permissions_suffice(real: RealWorld, roles: ApiClient) -> None:
    """The operator's port works with the operator's permissions, from the first look to the last deletion."""
    from .test_cluster import planned  # the same objects as in the contract

    ref = await real.put(object_of(real))
    _, children = await planned(real, ref)
    headers = dict(roles.default_headers)
    roles.default_headers.update(impersonate(OPERATOR))
    try:
        cluster = KubernetesCluster(roles)
        body = await cluster.get(ref)
        assert body is not None
        await cluster.apply_status({**body, "status": {"observedGeneration": 1}})
        stored = [await cluster.apply(child) for child in children.values()]
        await cluster.scale(children["Deployment"], 2)
        assert {child["kind"] for child in await cluster.children(ref)} >= children.keys()
        for child in stored:
            if child["kind"] != "HTTPRoute":
                await cluster.delete(child)
    finally:
        roles.default_headers.clear()
        roles.default_headers.update(headers)


async def test_a_missing_permission_is_named(real: RealWorld, roles: ApiClient) -> None:
    """RBAC's refusal is told from an admission plugin's: only an administrator can help."""
    roles.default_headers.update(impersonate(NOBODY))
    cluster = KubernetesCluster(roles)
    with pytest.raises(ForbiddenError, match="needs the ClusterRole of manifests/"):
        await cluster.get(ObjectRef(namespace=real.namespace, name="fraud"))
    for name in impersonate(NOBODY):
        del roles.default_headers[name]

"""`serving.security`, `rateLimit` and `audit`: a spec goes in, the server's settings and the pod's mounts come out."""

from typing import Any

import pytest

from canarium_api.runtime_config import RuntimeConfig
from canarium_api.security_config import ClientLimit
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.resources import configmap, service, workload
from canarium_operator.core.revision import revision_of
from canarium_operator.core.validation import validate
from canarium_operator.testing.objects import model_deployment

REF = ObjectRef(namespace="ml", name="fraud", uid="u-1")
EVERYTHING: dict[str, Any] = {
    "security": {
        "apiKeys": {"secretName": "clients"},
        "jwt": {
            "issuer": "https://id.example.com",
            "audiences": ["fraud"],
            "requiredScopes": ["predict"],
            "requiredClaims": {"team": "risk"},
            "caConfigMapName": "corporate-ca",
        },
        "tls": {"secretName": "fraud-tls", "clientCertificates": "Required"},
    },
    "rateLimit": {
        "requestsPerSecond": 100,
        "clients": [{"name": "key:batch", "requestsPerSecond": 500, "burst": 1000}],
        "redisSecret": {"name": "redis", "key": "url"},
    },
    "audit": {
        "file": {"claimName": "audit", "keep": 10},
        "keySecret": {"name": "audit-key", "key": "key"},
        "outputs": "Hash",
        "onFull": "Refuse",
    },
}


def spec_of(serving: dict[str, Any], **more: Any) -> ModelDeploymentSpec:
    return ModelDeploymentSpec.from_manifest(model_deployment(serving=serving, **more)["spec"])


def made(serving: dict[str, Any]) -> tuple[RuntimeConfig, Manifest, Manifest]:
    """Settings as the server reads them, the pod's spec, and the Service's port."""
    spec = spec_of(serving)
    revision = revision_of(spec, "runtime:1")
    data = configmap.make_configmap(REF, revision)["data"]
    template = workload.make_workload(REF, revision, spec.rollout)["spec"]["template"]
    port = service.make_service(REF, revision)["spec"]["ports"][0]
    return RuntimeConfig.from_env(data), template, port


def test_a_spec_without_them_changes_nothing() -> None:
    """The same revision, pods without a volume more, and settings that leave all off."""
    config, template, port = made({})
    assert not config.authenticates
    assert config.rate_limit is None
    assert config.audit_sink == "None"
    assert [v["name"] for v in template["spec"]["volumes"]] == ["tmp"]
    assert "env" not in template["spec"]["containers"][0]
    assert "fsGroup" not in template["spec"]["securityContext"]
    assert port["appProtocol"] == "http"
    assert "prometheus.io/scheme" not in template["metadata"]["annotations"]
    assert revision_of(spec_of({}), "r").name == revision_of(spec_of({"security": None}), "r").name


def test_the_server_reads_what_was_asked_for() -> None:
    config, _, _ = made(EVERYTHING)
    assert config.api_keys_path == "/etc/canarium/api-keys"
    assert config.jwt_issuer == "https://id.example.com"
    assert config.jwt_audiences == ("fraud",)
    assert config.jwt_required_scopes == ("predict",)
    assert config.jwt_required_claims == {"team": "risk"}
    assert config.jwt_ca_file == "/etc/canarium/issuer-ca/ca.crt"
    assert config.tls_certificate_file == "/etc/canarium/tls/tls.crt"
    assert config.tls_client_ca_file == "/etc/canarium/tls/ca.crt"
    assert config.tls_client_certificates == "Required"
    assert config.rate_limit == 100
    assert config.rate_limit_clients == {"key:batch": ClientLimit(rate=500, burst=1000)}
    assert (config.audit_sink, config.audit_outputs, config.audit_on_full) == (
        "File",
        "Hash",
        "Refuse",
    )
    assert config.audit_file == "/var/lib/canarium/audit/audit.jsonl"
    assert config.audit_key_file == "/etc/canarium/audit-key/audit-key"


def test_secrets_are_mounted_read_only_and_never_in_the_configmap() -> None:
    """Of all mounts only the audit volume can be written; the URL of the Redis comes by reference."""
    _, template, _ = made(EVERYTHING)
    spec, container = template["spec"], template["spec"]["containers"][0]
    sources = {v["name"]: v for v in spec["volumes"]}
    assert sources["api-keys"]["secret"] == {"secretName": "clients"}
    assert sources["tls"]["secret"] == {"secretName": "fraud-tls"}
    assert sources["issuer-ca"]["configMap"]["name"] == "corporate-ca"
    assert sources["audit-key"]["secret"]["items"] == [{"key": "key", "path": "audit-key"}]
    assert sources["audit"]["persistentVolumeClaim"] == {"claimName": "audit"}
    mounts = {m["name"]: m for m in container["volumeMounts"]}
    assert mounts.keys() == sources.keys()
    assert {n for n, m in mounts.items() if not m.get("readOnly")} == {"tmp", "audit"}
    assert mounts["audit"]["subPathExpr"] == "$(POD_NAME)"
    env = {e["name"]: e["valueFrom"] for e in container["env"]}
    assert env["CANARIUM_RATE_LIMIT_REDIS_URL"] == {"secretKeyRef": {"name": "redis", "key": "url"}}
    assert env["POD_NAME"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert spec["securityContext"]["fsGroup"] == 65532


def test_with_tls_probes_scrapes_and_services_say_so() -> None:
    _, template, port = made({"security": {"tls": {"secretName": "fraud-tls"}}})
    container = template["spec"]["containers"][0]
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["httpGet"]["scheme"] == "HTTPS"
    assert template["metadata"]["annotations"]["prometheus.io/scheme"] == "https"
    assert port["appProtocol"] == "https"


def test_another_secret_may_hold_the_clients_authority() -> None:
    tls = {"secretName": "t", "clientCertificates": "Optional", "clientCaSecretName": "clients-ca"}
    config, template, _ = made({"security": {"tls": tls}})
    assert config.tls_client_ca_file == "/etc/canarium/client-ca/ca.crt"
    sources = {v["name"]: v for v in template["spec"]["volumes"]}
    assert sources["client-ca"]["secret"]["secretName"] == "clients-ca"


@pytest.mark.parametrize(
    ("audit", "sink"),
    [
        pytest.param({}, "Stdout", id="nowhere named"),
        pytest.param({"file": {}}, "File", id="a file that goes with the pod"),
        pytest.param({"kafka": {"bootstrapServers": ["k:9092", "l:9092"]}}, "Kafka", id="Kafka"),
    ],
)
def test_records_go_where_the_spec_says(audit: dict[str, Any], sink: str) -> None:
    config, template, _ = made({"audit": audit})
    assert config.audit_sink == sink
    if sink == "Kafka":
        assert config.audit_kafka_servers == "k:9092,l:9092"
    if sink == "File":
        assert {"name": "audit", "emptyDir": {}} in template["spec"]["volumes"]
        assert "fsGroup" not in template["spec"]["securityContext"]


@pytest.mark.parametrize(
    ("serving", "more", "field", "says"),
    [
        pytest.param(
            {"security": {"openPaths": ["Metadata"]}}, {}, "openPaths", "probes have no credentials", id="health"
        ),
        pytest.param(
            {"security": {"openPaths": ["Health"]}}, {}, "openPaths", "cannot compare the inputs", id="metadata"
        ),
        pytest.param(
            {"security": {"openPaths": ["Health"]}},
            {"rollout": {"schemaChange": "Allow"}},
            None,
            "",
            id="metadata, where nothing is compared",
        ),
        pytest.param(
            {"security": {"jwt": {"issuer": "https://i", "audiences": ["a"], "leeway": "1h"}}},
            {},
            "jwt.leeway",
            "at most 10m",
            id="leeway",
        ),
        pytest.param(
            {"security": {"tls": {"secretName": "t"}}},
            {
                "rollout": {"abTest": {"sticky": {"header": "x-user"}, "goals": ["orders"]}},
                "traffic": {"gateway": {"name": "g"}},
            },
            "tls",
            "router of a sticky A/B test",
            id="tls and the router",
        ),
        pytest.param(EVERYTHING, {}, None, "", id="everything"),
    ],
)  # fmt: skip
def test_what_would_lock_the_cluster_out_is_refused(
    serving: dict[str, Any], more: dict[str, Any], field: str | None, says: str
) -> None:
    problems = [p for p in validate(spec_of(serving, **more)) if "security" in p.field]
    if field is None:
        assert problems == []
    else:
        assert [p.field for p in problems] == [f"spec.serving.security.{field}"]
        assert says in problems[0].message

"""From `serving.security`, `rateLimit` and `audit` to the server's settings, and to the Secrets that a pod mounts.

What is secret stays in Secrets: the ConfigMap has paths only, and the URL of a Redis comes as a variable that the
kubelet fills in. A changed Secret reaches the pods' files by itself, so it makes no new revision.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from canarium_api import quantity
from canarium_api.audit_config import AuditSettings, AuditSink
from canarium_api.runtime_config import PREFIX
from canarium_api.security import (
    AnonymousPolicy,
    AuditSpec,
    RateLimitSpec,
    SecretKeyRef,
    SecuritySpec,
)
from canarium_api.security_config import ClientCertificates, ClientLimit
from canarium_api.v1alpha1 import ServingSpec
from canarium_operator.core.manifests import Manifest

_ETC: Final = "/etc/canarium"
_AUDIT: Final = "/var/lib/canarium/audit"
_POD_NAME: Final = "POD_NAME"


@dataclass(kw_only=True)
class Securing:
    """What a pod needs for its security; empty for a spec that asks for none."""

    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of `RuntimeConfig`."""
    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    env: list[Manifest] = field(default_factory=list)
    """Variables whose values are Secrets' or the pod's own."""
    writes_volume: bool = False
    """A volume of the user's is written, which must belong to the server's group."""

    def mount(self, name: str, source: Manifest) -> str:
        """Mount a source read-only; gives its folder."""
        path = f"{_ETC}/{name}"
        self.volumes.append({"name": name, **source})
        self.mounts.append({"name": name, "mountPath": path, "readOnly": True})
        return path

    def mount_key(self, name: str, ref: SecretKeyRef) -> str:
        """Mount one value of a Secret; gives its file."""
        items = [{"key": ref.key, "path": name}]
        return f"{self.mount(name, {'secret': {'secretName': ref.name, 'items': items}})}/{name}"


def secure(serving: ServingSpec) -> Securing:
    """Translate what a spec says of security, limits and audit."""
    made = Securing()
    if serving.security is not None:
        _security(made, serving.security)
    if serving.rate_limit is not None:
        _limits(made, serving.rate_limit)
    if serving.audit is not None:
        _audit(made, serving.audit)
    return made


def _security(made: Securing, spec: SecuritySpec) -> None:
    made.settings |= {
        "anonymous": spec.anonymous is AnonymousPolicy.ALLOW,
        "open_paths": tuple(spec.open_paths),
    }
    if spec.api_keys is not None:
        keys: Manifest = {"secret": {"secretName": spec.api_keys.secret_name}}
        made.settings["api_keys_path"] = made.mount("api-keys", keys)
    if spec.jwt is not None:
        jwt = spec.jwt
        made.settings |= {
            "jwt_issuer": jwt.issuer,
            "jwt_audiences": tuple(jwt.audiences),
            "jwt_jwks_uri": jwt.jwks_uri,
            "jwt_algorithms": tuple(jwt.algorithms),
            "jwt_client_claim": jwt.client_claim,
            "jwt_required_scopes": tuple(jwt.required_scopes),
            "jwt_required_claims": dict(jwt.required_claims),
            "jwt_leeway": jwt.leeway,
        }
        if jwt.ca_config_map_name is not None:
            items = [{"key": "ca.crt", "path": "ca.crt"}]
            source: Manifest = {"configMap": {"name": jwt.ca_config_map_name, "items": items}}
            made.settings["jwt_ca_file"] = f"{made.mount('issuer-ca', source)}/ca.crt"
    if spec.tls is not None:
        tls = spec.tls
        folder = made.mount("tls", {"secret": {"secretName": tls.secret_name}})
        made.settings |= {
            "tls_certificate_file": f"{folder}/tls.crt",
            "tls_key_file": f"{folder}/tls.key",
            "tls_client_certificates": tls.client_certificates,
        }
        if tls.client_certificates is not ClientCertificates.NONE:
            if tls.client_ca_secret_name is not None:
                items = [{"key": "ca.crt", "path": "ca.crt"}]
                ca: Manifest = {"secret": {"secretName": tls.client_ca_secret_name, "items": items}}
                folder = made.mount("client-ca", ca)
            made.settings["tls_client_ca_file"] = f"{folder}/ca.crt"


def _limits(made: Securing, spec: RateLimitSpec) -> None:
    made.settings |= {
        "rate_limit": spec.requests_per_second,
        "rate_limit_burst": spec.burst,
        "rate_limit_clients": {
            client.name: ClientLimit(
                rate=client.requests_per_second, burst=client.burst or client.requests_per_second
            )
            for client in spec.clients
        },
    }
    if spec.redis_secret is not None:
        ref = {"name": spec.redis_secret.name, "key": spec.redis_secret.key}
        name = f"{PREFIX}RATE_LIMIT_REDIS_URL"
        made.env.append({"name": name, "valueFrom": {"secretKeyRef": ref}})


def _audit(made: Securing, spec: AuditSpec) -> None:
    made.settings |= {
        "audit_sink": AuditSink.STDOUT,
        "audit_outputs": spec.outputs,
        "audit_max_output_bytes": min(
            int(quantity.parse_quantity(spec.max_output_size)), 512 * 1024
        ),
        "audit_on_full": spec.on_full,
    }
    if spec.key_secret is not None:
        made.settings["audit_key_file"] = made.mount_key("audit-key", spec.key_secret)
    if spec.kafka is not None:
        made.settings |= {
            "audit_sink": AuditSink.KAFKA,
            "audit_kafka_servers": ",".join(spec.kafka.bootstrap_servers),
            "audit_kafka_topic": spec.kafka.topic,
        }
        if spec.kafka.properties_secret is not None:
            file = made.mount_key("kafka-properties", spec.kafka.properties_secret)
            made.settings["audit_kafka_config_file"] = file
    if spec.file is not None:
        size = int(quantity.parse_quantity(spec.file.max_size))
        made.settings |= {
            "audit_sink": AuditSink.FILE,
            "audit_file": f"{_AUDIT}/audit.jsonl",
            "audit_file_max_bytes": max(size, _least_file_bytes()),
            "audit_file_keep": spec.file.keep,
            "audit_fsync": spec.file.fsync,
        }
        source: Manifest = {"emptyDir": {}}
        if spec.file.claim_name is not None:
            source = {"persistentVolumeClaim": {"claimName": spec.file.claim_name}}
            made.writes_volume = True
        made.volumes.append({"name": "audit", **source})
        # A folder for each pod: two servers must not write one log, and host names can be cut off.
        path = {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        made.env.append({"name": _POD_NAME, **path})
        made.mounts.append({"name": "audit", "mountPath": _AUDIT, "subPathExpr": f"$({_POD_NAME})"})


def _least_file_bytes() -> int:
    bounds = AuditSettings.model_fields["audit_file_max_bytes"].metadata
    return next(int(b.ge) for b in bounds if hasattr(b, "ge"))

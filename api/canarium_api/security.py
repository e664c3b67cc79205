"""`serving.security`, `serving.rateLimit` and `serving.audit`: what a user writes. Secrets are only named."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from canarium_api.audit_config import AuditFsync, AuditOnFull, AuditOutputs
from canarium_api.base import ApiModel, rules
from canarium_api.duration import Duration
from canarium_api.quantity import Quantity
from canarium_api.security_config import ClientCertificates, JwtAlgorithm, OpenPath

SecretName = Annotated[str, Field(min_length=1, max_length=253)]
_Word = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^,\s]+$")]
_HTTPS = r"^https://[^/\s]+(/\S*)?$"


class AnonymousPolicy(StrEnum):
    """What becomes of predictions that are asked for without credentials, where authentication is on."""

    DENY = "Deny"
    """401."""
    ALLOW = "Allow"
    """They are answered, and limited by address. Wrong credentials are refused all the same."""


class ApiKeysSpec(ApiModel):
    """API keys, sent as `x-api-key` or as `authorization: Bearer`."""

    secret_name: SecretName
    """Secret of the same namespace. Each of its values is lines `name: sha256-of-the-key`, as `canarium keys new NAME`
    writes them. Changes are in force within about a minute and a half, without a restart."""


class JwtSpec(ApiModel):
    """Tokens (JWT) of one issuer, as OpenID Connect has them."""

    issuer: str = Field(min_length=1, max_length=2048, pattern=_HTTPS)
    """URL of the issuer, exactly as in the tokens' `iss`."""
    audiences: list[_Word] = Field(min_length=1, max_length=16)
    """Names of this model in `aud`; a token must have one of them."""
    jwks_uri: str | None = Field(default=None, min_length=1, max_length=2048, pattern=_HTTPS)
    """Where the issuer's signing keys are. Default: found by discovery (`/.well-known/openid-configuration`)."""
    algorithms: list[JwtAlgorithm] = Field(
        default=[JwtAlgorithm.RS256, JwtAlgorithm.ES256], min_length=1, max_length=10
    )
    """Signatures that are accepted."""
    client_claim: str = Field(default="sub", min_length=1, max_length=64)
    """Claim that names the client, for rate limits and the audit log."""
    required_scopes: list[_Word] = Field(default=[], max_length=16)
    """Scopes that a token must all have."""
    required_claims: dict[str, str] = Field(default={}, max_length=16)
    """Claims that a token must have, with these values."""
    leeway: Duration = timedelta(seconds=30)
    """How far clocks may differ; at most 10m."""
    ca_config_map_name: str | None = Field(default=None, min_length=1, max_length=253)
    """ConfigMap whose `ca.crt` the issuer's certificate is checked against. Default: the usual public authorities."""


class TlsSpec(ApiModel):
    """TLS of the pods themselves."""

    secret_name: SecretName
    """Secret of type `kubernetes.io/tls` (`tls.crt`, `tls.key`); a new certificate is taken without a restart."""
    client_certificates: ClientCertificates = ClientCertificates.NONE
    """Whether clients show certificates (mTLS). They are checked against `ca.crt` of the same Secret."""
    client_ca_secret_name: SecretName | None = None
    """Another Secret whose `ca.crt` clients' certificates are checked against."""


class SecuritySpec(ApiModel):
    """Who may ask for predictions, and over which transport."""

    api_keys: ApiKeysSpec | None = None
    """API keys."""
    jwt: JwtSpec | None = None
    """Tokens."""
    tls: TlsSpec | None = None
    """TLS of the pods. Gateways must be told to speak it, too."""
    anonymous: AnonymousPolicy = AnonymousPolicy.DENY
    """What becomes of requests without credentials."""
    open_paths: list[OpenPath] = Field(
        default=[OpenPath.HEALTH, OpenPath.METRICS, OpenPath.METADATA], max_length=3
    )
    """What may be read without credentials. Health must be among it, as probes have none."""


class ClientLimitSpec(ApiModel):
    """Another limit for one client."""

    name: str = Field(min_length=1, max_length=512)
    """The client: `key:NAME`, `jwt:SUBJECT`, `cert:SUBJECT` or `address:ADDRESS`, as in the audit log."""
    requests_per_second: int = Field(ge=1, le=1_000_000)
    """Requests a second, over time."""
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests at once, after a rest. Default: those of one second."""


class SecretKeyRef(ApiModel):
    """One value of a Secret of the same namespace."""

    name: SecretName
    """Name of the Secret."""
    key: str = Field(min_length=1, max_length=253)
    """Key in it."""


class RateLimitSpec(ApiModel):
    """How often each client may ask. Clients without credentials are told apart by their address."""

    model_config = rules(
        (
            "has(self.requestsPerSecond) || has(self.clients) && self.clients.size() > 0",
            "rateLimit limits nobody: set requestsPerSecond, or name clients",
        ),
        (
            "!has(self.burst) || has(self.requestsPerSecond)",
            "rateLimit.burst belongs to requestsPerSecond: set that, too",
        ),
    )

    requests_per_second: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests a second of each client, over time. Default: only the clients below are limited."""
    burst: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests of a client at once, after a rest. Default: those of one second."""
    clients: list[ClientLimitSpec] = Field(
        default=[],
        max_length=256,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """Other limits for some clients."""
    redis_secret: SecretKeyRef | None = None
    """Value with the URL of a Redis (`rediss://user:password@host:6379/0`), through which all pods share the limits.
    Default: each pod limits by itself, so a client gets up to its limit from each."""


class AuditFileSpec(ApiModel):
    """Records to files, one log for each pod."""

    claim_name: str | None = Field(default=None, min_length=1, max_length=253)
    """Claim of a volume that several pods can write (ReadWriteMany). Default: a volume that goes with the pod."""
    max_size: Quantity = "256Mi"
    """Size from which on a new file is begun."""
    keep: int = Field(default=0, ge=0, le=10_000)
    """Full files that are kept of each pod; 0: all."""
    fsync: AuditFsync = AuditFsync.EVERY_SECOND
    """When files are forced to the disk."""


class AuditKafkaSpec(ApiModel):
    """Records to a topic of Kafka, a message for each block."""

    bootstrap_servers: list[_Word] = Field(min_length=1, max_length=16)
    """Brokers, as `host:port`."""
    topic: str = Field(default="canarium-audit", pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    """Topic."""
    properties_secret: SecretKeyRef | None = None
    """Value with more properties of the client, such as `sasl.password=...`, a line each."""


class AuditSpec(ApiModel):
    """A record of each prediction, in a chain that shows changes. Without `file` and `kafka`: to standard output."""

    model_config = rules(
        (
            "!(has(self.file) && has(self.kafka))",
            "audit goes to one place: set audit.file or audit.kafka, or neither for standard output",
        ),
    )

    file: AuditFileSpec | None = None
    """Records go to files."""
    kafka: AuditKafkaSpec | None = None
    """Records go to Kafka."""
    outputs: AuditOutputs = AuditOutputs.WHOLE
    """What of an answer is recorded. Inputs are recorded as their SHA-256 in any case."""
    max_output_size: Quantity = "16Ki"
    """Largest answer that is recorded whole, at most 512Ki; of larger ones the SHA-256 is."""
    on_full: AuditOnFull = AuditOnFull.DROP
    """What happens while records come faster than they are written."""
    key_secret: SecretKeyRef | None = None
    """Value with a secret of at least 32 bytes: who lacks it cannot forge the chain."""

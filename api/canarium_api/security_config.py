"""Settings of the runtime's security: who may ask, how often, over which transport. A part of `RuntimeConfig`.

Nothing here is a secret: keys, certificates and the URL of a Redis with a password come from files and variables that
the operator fills from Secrets.
"""

import json
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    model_validator,
)

from canarium_api.duration import Duration
from canarium_api.environment import EnvironmentModel

URL_PATTERN: Final = r"^(https://[^/\s]+|http://(127\.0\.0\.1|localhost)(:\d+)?)(/\S*)?$"
"""https, or plain http to this very machine."""


class JwtAlgorithm(StrEnum):
    """Signatures of tokens that can be allowed: asymmetric ones alone, so that no server can make tokens."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"


class ClientCertificates(StrEnum):
    """Whether clients show a certificate of their own (mTLS)."""

    NONE = "None"
    """They are not asked for one."""
    OPTIONAL = "Optional"
    """One that is shown must be valid, and names the client."""
    REQUIRED = "Required"
    """Protected paths need one. The open ones do not: probes have none."""


class OpenPath(StrEnum):
    """What may be read without credentials."""

    HEALTH = "Health"
    """`/health` and all below it, `/v2/health/...`, `/v2/models/.../ready`: probes have no credentials."""
    METRICS = "Metrics"
    """`/metrics`."""
    METADATA = "Metadata"
    """`/v2`, `/v2/models/...`, the OpenAPI document. The operator reads the model's inputs and outputs there."""


class ClientLimit(BaseModel):
    """A rate of one client."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(gt=0, le=1e6)
    """Requests a second, over time."""
    burst: int = Field(ge=1, le=1_000_000)
    """Requests at once, after a rest."""


def _words(value: Any) -> Any:
    return (
        [word.strip() for word in value.split(",") if word.strip()]
        if isinstance(value, str)
        else value
    )


def _parsed(value: Any) -> Any:
    return json.loads(value or "{}") if isinstance(value, str) else value


def _joined(values: tuple[str, ...]) -> str:
    return ",".join(values)


def _json(value: Any) -> str:
    plain = {k: v.model_dump() if isinstance(v, BaseModel) else v for k, v in value.items()}
    return json.dumps(plain, sort_keys=True) if plain else ""


_Words = (BeforeValidator(_words), PlainSerializer(_joined, return_type=str))
_Mapping = (BeforeValidator(_parsed), PlainSerializer(_json, return_type=str))


class SecuritySettings(EnvironmentModel):
    """Authentication, rate limits and TLS. By default all are off."""

    api_keys_path: str | None = None
    """File of API keys, or folder of such files: lines `name: sha256-of-the-key`. Read again when it changes."""
    jwt_issuer: str | None = Field(default=None, pattern=URL_PATTERN, max_length=2048)
    """Issuer of tokens that are accepted; its signing keys are found by OpenID Connect discovery."""
    jwt_audiences: Annotated[tuple[str, ...], *_Words] = ()
    """Names of this server in `aud`, with commas between them: a token must have one. Required with an issuer."""
    jwt_jwks_uri: str | None = Field(default=None, pattern=URL_PATTERN, max_length=2048)
    """Where the issuer's signing keys are, where discovery is not wanted."""
    jwt_algorithms: Annotated[tuple[JwtAlgorithm, ...], *_Words] = (
        JwtAlgorithm.RS256,
        JwtAlgorithm.ES256,
    )
    """Signatures that are accepted, with commas between them."""
    jwt_client_claim: str = Field(default="sub", min_length=1, max_length=64)
    """Claim that names the client, for rate limits and the audit log."""
    jwt_required_scopes: Annotated[tuple[str, ...], *_Words] = ()
    """Scopes (`scope` or `scp`) that a token must all have, with commas between them; without one: 403."""
    jwt_required_claims: Annotated[dict[str, str], *_Mapping] = Field(default={})
    """JSON object of claims that a token must have, with these values; without one: 403."""
    jwt_leeway: Duration = Field(default=timedelta(seconds=30), le=timedelta(minutes=10))
    """How far clocks may differ."""
    jwt_refresh_interval: Duration = Field(default=timedelta(minutes=10), ge=timedelta(seconds=10))
    """How often the signing keys are fetched again. An unknown key is asked for at once, but not every time."""
    jwt_ca_file: str | None = None
    """Certificates that the issuer's own is checked against. Default: those of certifi."""
    anonymous: bool = False
    """With authentication on: let requests without credentials in, too. Wrong credentials are refused all the same."""
    open_paths: Annotated[tuple[OpenPath, ...], *_Words] = (
        OpenPath.HEALTH,
        OpenPath.METRICS,
        OpenPath.METADATA,
    )
    """What may be read without credentials, with commas between them."""
    tls_certificate_file: str | None = None
    """Certificate chain (PEM). With it the server speaks TLS; read again when it changes."""
    tls_key_file: str | None = None
    """Private key of the certificate (PEM)."""
    tls_client_ca_file: str | None = None
    """Certificates that clients' own are checked against (PEM); read again when it changes."""
    tls_client_certificates: ClientCertificates = ClientCertificates.NONE
    """Whether clients show certificates of their own: `None`, `Optional` or `Required`."""
    rate_limit: float | None = Field(default=None, gt=0, le=1e6)
    """Requests a second of each client, over time. Default: no limit."""
    rate_limit_burst: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests of a client at once, after a rest. Default: those of one second, and at least 1."""
    rate_limit_clients: Annotated[dict[str, ClientLimit], *_Mapping] = Field(default={})
    """JSON object of other limits for some clients: `{"key:batch": {"rate": 500, "burst": 1000}}`."""
    rate_limit_max_clients: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most clients whose rate is remembered; beyond it, those that have rested longest are forgotten."""
    rate_limit_redis_url: SecretStr | None = None
    """Redis by which all servers of a ModelDeployment share the limits. Default: each server limits by itself."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wrong = {
            "JWT_AUDIENCES is required with JWT_ISSUER: name this server as tokens do in `aud`": self.jwt_issuer
            and not self.jwt_audiences,
            "JWT_ALGORITHMS must name at least one signature": not self.jwt_algorithms,
            "JWT_ISSUER is required with JWT_JWKS_URI": self.jwt_jwks_uri and not self.jwt_issuer,
            "TLS_CERTIFICATE_FILE and TLS_KEY_FILE belong together: set both or none": bool(
                self.tls_certificate_file
            )
            != bool(self.tls_key_file),
            "TLS_CLIENT_CERTIFICATES needs TLS_CERTIFICATE_FILE and TLS_CLIENT_CA_FILE": self.asks_certificates
            and not (self.tls_certificate_file and self.tls_client_ca_file),
        }
        for text, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(f"{self.env_prefix}{text}")
        return self

    @property
    def asks_certificates(self) -> bool:
        """Whether clients may show certificates."""
        return self.tls_client_certificates is not ClientCertificates.NONE

    @property
    def authenticates(self) -> bool:
        """Whether any way of authentication is on."""
        return bool(self.api_keys_path or self.jwt_issuer or self.asks_certificates)

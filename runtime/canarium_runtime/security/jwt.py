"""Tokens: from the bytes of a JWT and the issuer's keys to a client's name, or a refusal. PyJWT does the checking.

Only asymmetric signatures can be allowed, and the keys say which of them they are for: a token cannot choose HMAC with
a public key as its secret, nor no signature at all. `exp`, `iss` and `aud` must be there and right.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.types import Options

from canarium_api.metric_names import AuthFailure
from canarium_api.security_config import SecuritySettings
from canarium_runtime.security.clients import bad_token, forbidden

MAX_TOKEN_BYTES: Final = 16 * 1024
MAX_KEYS: Final = 64
_MAX_NAME = 256
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})


class UnknownKeyError(Exception):
    """The token names a key that the issuer did not list when it was last asked."""


class JwksError(Exception):
    """What the issuer publishes cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A public key of the issuer."""

    kid: str | None
    algorithms: frozenset[str]
    """Signatures that it is for."""
    key: Any
    """As PyJWT takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """A token that was checked."""

    name: str
    expires_at: float
    """Seconds since 1970; leeway included."""


def parse_jwks(document: Any, allowed: Collection[str]) -> tuple[SigningKey, ...]:
    """Read a JSON Web Key Set; keys that are not for signatures, or for none that are allowed, are left out.

    Raises:
        JwksError: it is no key set, or no key of it can be used.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        msg = "not a JSON Web Key Set: it has no list `keys`"
        raise JwksError(msg)
    found = []
    for entry in entries[:MAX_KEYS]:
        if (
            not isinstance(entry, dict)
            or entry.get("use", "sig") != "sig"
            or entry.get("kty") == "oct"
        ):
            continue
        try:
            parsed = jwt.PyJWK(entry)
        except jwt.PyJWTError:
            continue
        named = entry.get("alg")
        fits = _RSA if named is None and entry.get("kty") == "RSA" else {parsed.algorithm_name}
        algorithms = frozenset(fits) & frozenset(allowed)
        if algorithms:
            kid = entry.get("kid")
            found.append(
                SigningKey(
                    kid=None if kid is None else str(kid), algorithms=algorithms, key=parsed.key
                )
            )
    if not found:
        msg = f"none of its {len(entries)} keys is for a signature that is allowed ({', '.join(sorted(allowed))})"
        raise JwksError(msg)
    return tuple(found)


class Verifier:
    """Checks tokens of one issuer.

    Args:
        settings: issuer, audiences and the rest.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self._issuer = settings.jwt_issuer or ""
        self._audiences = list(settings.jwt_audiences)
        self._algorithms = [a.value for a in settings.jwt_algorithms]
        self._leeway = settings.jwt_leeway.total_seconds()
        self._claim = settings.jwt_client_claim
        self._scopes = settings.jwt_required_scopes
        self._claims = settings.jwt_required_claims
        self._options: Options = {"require": ["exp", "iss", "aud"]}

    def verify(self, token: bytes, keys: Sequence[SigningKey]) -> Bearer:
        """Check a token now.

        Raises:
            RefusedError: it is no good, or does not suffice.
            UnknownKeyError: it may be good, by a key that is not among these.
        """
        if len(token) > MAX_TOKEN_BYTES:
            message = f"the token is longer than {MAX_TOKEN_BYTES} bytes"
            raise bad_token(AuthFailure.MALFORMED, message)
        claims = self._decoded(token, self._fitting(token, keys))
        self._check_rights(claims)
        name = claims.get(self._claim)
        if not isinstance(name, str) or not name:
            message = f"the token has no claim {self._claim} that names its client"
            raise bad_token(AuthFailure.CLAIMS, message)
        return Bearer(name=name[:_MAX_NAME], expires_at=float(claims["exp"]) + self._leeway)

    def _fitting(self, token: bytes, keys: Sequence[SigningKey]) -> list[tuple[SigningKey, str]]:
        """Find keys that may have signed a token. One without `kid` may be by any key of its algorithm."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, UnicodeDecodeError) as error:
            raise bad_token(AuthFailure.MALFORMED, "the token is no JWT") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms:
            message = f"tokens must be signed by one of {', '.join(self._algorithms)}"
            raise bad_token(AuthFailure.ALGORITHM, message)
        named = [k for k in keys if kid is None or k.kid == kid]
        fitting = [(k, algorithm) for k in named if algorithm in k.algorithms]
        if named and not fitting:
            message = "the token's key is not for the way in which it is signed"
            raise bad_token(AuthFailure.ALGORITHM, message)
        if not fitting:
            raise UnknownKeyError
        return fitting

    def _decoded(self, token: bytes, keys: Sequence[tuple[SigningKey, str]]) -> Mapping[str, Any]:
        refusal = bad_token(AuthFailure.SIGNATURE, "the token's signature is wrong")
        for key, algorithm in keys:
            try:
                return jwt.decode(
                    token,
                    key.key,
                    algorithms=[algorithm],
                    audience=self._audiences,
                    issuer=self._issuer,
                    leeway=self._leeway,
                    options=self._options,
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
                raise _refusal(error) from error
        raise refusal

    def _check_rights(self, claims: Mapping[str, Any]) -> None:
        granted = claims.get("scope", claims.get("scp", ()))
        scopes = set(granted.split() if isinstance(granted, str) else map(str, granted or ()))
        missing = [s for s in self._scopes if s not in scopes]
        if missing:
            raise forbidden(f"the token lacks the scope {missing[0]}", " ".join(self._scopes))
        for name, wanted in self._claims.items():
            value = claims.get(name)
            values = value if isinstance(value, list) else [value]
            if wanted not in values:
                raise forbidden(f"the token's claim {name} is not the one that is required")


def _refusal(error: Exception) -> Exception:
    match error:
        case jwt.ExpiredSignatureError():
            return bad_token(AuthFailure.EXPIRED, "the token has expired")
        case jwt.ImmatureSignatureError():
            return bad_token(AuthFailure.EXPIRED, "the token is not valid yet")
        case jwt.InvalidAudienceError():
            return bad_token(AuthFailure.CLAIMS, "the token is for another audience")
        case jwt.InvalidIssuerError():
            return bad_token(AuthFailure.CLAIMS, "the token is of another issuer")
        case jwt.MissingRequiredClaimError():
            return bad_token(AuthFailure.CLAIMS, f"the token has no claim {error.claim}")
        case _:
            return bad_token(AuthFailure.MALFORMED, "the token is no JWT")

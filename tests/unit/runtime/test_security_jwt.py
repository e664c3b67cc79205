"""Tokens: what is taken, what is refused and why, and when the issuer's keys are asked for."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from tests.unit.runtime.issuer import Issuer

from canarium_api.metric_names import AuthFailure
from canarium_api.runtime_config import RuntimeConfig
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.security import Credentials, Guard
from canarium_runtime.security.clients import RefusedError
from canarium_runtime.security.jwks import ASK_SECONDS
from canarium_runtime.security.jwt import JwksError, parse_jwks


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    made.add_key("one")
    async with made.serving():
        yield made


class World:
    """A guard for the tokens of an issuer, and a clock in the test's hand."""

    def __init__(self, issuer: Issuer, **settings: Any) -> None:
        self.now = 1000.0
        config = RuntimeConfig(
            model_uri="file:///m",
            jwt_issuer=issuer.url,
            **{"jwt_audiences": ("fraud", "other"), **settings},
        )
        self.guard = Guard(config, clock=lambda: self.now, wall=lambda: time.time())
        self.issuer = issuer

    async def __aenter__(self) -> "World":
        await self.guard.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.guard.close()

    async def name_of(self, token: bytes) -> str:
        """Whom a token makes; waits where it must."""
        given = Credentials(authorization=b"Bearer " + token)
        client = self.guard.admit(given) or await self.guard.admit_later(given)
        return client.name

    async def refused(self, token: bytes) -> RefusedError:
        with pytest.raises(RefusedError) as caught:
            await self.name_of(token)
        return caught.value


async def test_a_good_token_names_its_client(issuer: Issuer) -> None:
    """The first request waits for the keys; the next do not."""
    async with World(issuer) as world:
        given = Credentials(authorization=b"Bearer " + issuer.token())
        assert world.guard.admit(given) is None
        assert (await world.guard.admit_later(given)).name == "jwt:user-7"
        client = world.guard.admit(given)
        assert client is not None
        assert client.name == "jwt:user-7"
        assert issuer.requests == ["/.well-known/openid-configuration", "/keys"]


async def test_the_address_of_the_keys_can_be_given(issuer: Issuer) -> None:
    async with World(issuer, jwt_jwks_uri=f"{issuer.url}/keys") as world:
        assert await world.name_of(issuer.token()) == "jwt:user-7"
        assert issuer.requests == ["/keys"]


def forged(issuer: Issuer) -> bytes:
    """A token with the public key as the secret of an HMAC, the classic attack."""
    head = encoded({"alg": "HS256", "kid": "one"})
    claims = issuer.token().split(b".")[1]
    public = (
        issuer.keys["one"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    signature = hmac.digest(public, head + b"." + claims, "sha256")
    return b".".join((head, claims, base64.urlsafe_b64encode(signature).rstrip(b"=")))


def encoded(part: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")


def without_signature(issuer: Issuer) -> bytes:
    head = encoded({"alg": "none", "kid": "one"})
    return head + b"." + issuer.token().split(b".")[1] + b"."


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        pytest.param({"exp": int(time.time()) - 120}, AuthFailure.EXPIRED, "has expired", id="old"),
        pytest.param(
            {"nbf": int(time.time()) + 600}, AuthFailure.EXPIRED, "not valid yet", id="early"
        ),
        pytest.param({"exp": None}, AuthFailure.CLAIMS, "no claim exp", id="for ever"),
        pytest.param({"iss": "https://evil"}, AuthFailure.CLAIMS, "another issuer", id="issuer"),
        pytest.param({"iss": None}, AuthFailure.CLAIMS, "no claim iss", id="no issuer"),
        pytest.param({"aud": "x"}, AuthFailure.CLAIMS, "another audience", id="audience"),
        pytest.param({"aud": None}, AuthFailure.CLAIMS, "no claim aud", id="no audience"),
        pytest.param({"sub": None}, AuthFailure.CLAIMS, "no claim sub", id="no name"),
        pytest.param({"sub": ""}, AuthFailure.CLAIMS, "no claim sub", id="an empty name"),
    ],
)
async def test_tokens_with_wrong_claims_are_refused(
    issuer: Issuer, change: dict[str, Any], reason: AuthFailure, says: str
) -> None:
    """Each is counted by its reason, and the client is told what is wrong."""
    async with World(issuer) as world:
        error = await world.refused(issuer.token(**change))
        assert error.kind is ErrorKind.UNAUTHENTICATED
        assert error.reason is reason
        assert says in error.message
        assert error.challenge is not None
        assert 'error="invalid_token"' in error.challenge
        assert world.guard.counts.failures[reason] == 1


async def test_a_token_within_the_leeway_is_taken(issuer: Issuer) -> None:
    async with World(issuer) as world:
        assert await world.name_of(issuer.token(exp=int(time.time()) - 10)) == "jwt:user-7"


async def test_forged_tokens_are_refused(issuer: Issuer) -> None:
    """The public key as a secret, no signature at all, another's signature, rubbish."""
    other = Issuer()
    other.add_key("one")
    other.url = issuer.url
    cases = [
        (forged(issuer), AuthFailure.ALGORITHM),
        (without_signature(issuer), AuthFailure.ALGORITHM),
        (other.token(), AuthFailure.SIGNATURE),
        (issuer.token(algorithm="PS256"), AuthFailure.ALGORITHM),
        (b"a.b.c", AuthFailure.MALFORMED),
        (b"no-jwt", AuthFailure.MALFORMED),
        (b"\xff.\xfe.\xfd", AuthFailure.MALFORMED),
        (b"x" * 20_000, AuthFailure.MALFORMED),
    ]
    async with World(issuer) as world:
        await world.name_of(issuer.token())
        for token, reason in cases:
            assert (await world.refused(token)).reason is reason, token[:40]


async def test_an_rsa_key_without_algorithm_serves_all_that_are_allowed(issuer: Issuer) -> None:
    async with World(issuer, jwt_algorithms=("RS512", "PS256")) as world:
        assert await world.name_of(issuer.token(algorithm="PS256")) == "jwt:user-7"
        assert await world.name_of(issuer.token(algorithm="RS512")) == "jwt:user-7"
        assert (await world.refused(issuer.token())).reason is AuthFailure.ALGORITHM


async def test_a_key_is_for_the_algorithm_that_it_names(issuer: Issuer) -> None:
    issuer.add_key("two", alg="RS256")
    issuer.add_key("three", kind="EC")
    async with World(issuer, jwt_algorithms=("RS256", "PS256", "ES256")) as world:
        assert await world.name_of(issuer.token("two")) == "jwt:user-7"
        assert await world.name_of(issuer.token("three", "ES256")) == "jwt:user-7"
        assert (await world.refused(issuer.token("two", "PS256"))).reason is AuthFailure.ALGORITHM


@pytest.mark.parametrize(
    ("settings", "claims", "kind"),
    [
        pytest.param({"jwt_required_scopes": ("predict",)}, {"scope": "read predict"}, None, id="scope"),
        pytest.param({"jwt_required_scopes": ("predict",)}, {"scp": ["predict"]}, None, id="scp"),
        pytest.param(
            {"jwt_required_scopes": ("predict",)}, {"scope": "predicted"}, ErrorKind.FORBIDDEN, id="like it"
        ),
        pytest.param({"jwt_required_scopes": ("predict",)}, {}, ErrorKind.FORBIDDEN, id="no scope"),
        pytest.param({"jwt_required_claims": {"team": "a"}}, {"team": "a"}, None, id="claim"),
        pytest.param({"jwt_required_claims": {"team": "a"}}, {"team": ["b", "a"]}, None, id="one of a list"),
        pytest.param({"jwt_required_claims": {"team": "a"}}, {"team": "b"}, ErrorKind.FORBIDDEN, id="other"),
    ],
)  # fmt: skip
async def test_rights_are_required(
    issuer: Issuer, settings: dict[str, Any], claims: dict[str, Any], kind: ErrorKind | None
) -> None:
    """A good token that does not suffice is 403."""
    async with World(issuer, **settings) as world:
        token = issuer.token(**claims)
        if kind is None:
            assert await world.name_of(token) == "jwt:user-7"
        else:
            error = await world.refused(token)
            assert (error.kind, error.reason) == (kind, AuthFailure.FORBIDDEN)
            assert 'error="insufficient_scope"' in (error.challenge or "")


async def test_a_token_is_remembered_until_it_expires(issuer: Issuer) -> None:
    """World: a token for 300 seconds, 30 of leeway; event: time passes; only then is it looked at again."""
    async with World(issuer) as world:
        token = issuer.token()
        given = Credentials(authorization=b"Bearer " + token)
        await world.name_of(token)
        first = world.guard.admit(given)
        world.now += 320
        assert world.guard.admit(given) is first
        world.now += 20
        assert world.guard.admit(given) is not first


async def test_a_new_key_is_asked_for_once_it_is_seen(issuer: Issuer) -> None:
    """World: the issuer begins to sign with a new key; event: a token by it."""
    async with World(issuer) as world:
        await world.name_of(issuer.token())
        world.now += ASK_SECONDS
        issuer.add_key("two")
        assert await world.name_of(issuer.token("two")) == "jwt:user-7"


async def test_made_up_keys_do_not_become_requests_to_the_issuer(issuer: Issuer) -> None:
    """World: a hundred tokens by keys that nobody knows; the issuer is asked once in ten seconds."""
    async with World(issuer) as world:
        await world.name_of(issuer.token())
        world.now += ASK_SECONDS
        other = Issuer()
        other.add_key("made-up")
        for _ in range(100):
            error = await world.refused(other.token("made-up"))
            assert error.reason is AuthFailure.SIGNING_KEY
        assert issuer.requests.count("/keys") == 2


async def test_requests_that_wait_for_keys_share_one_fetch(issuer: Issuer) -> None:
    issuer.gate.clear()
    async with World(issuer) as world:
        given = Credentials(authorization=b"Bearer " + issuer.token())
        waiting = [asyncio.create_task(world.guard.admit_later(given)) for _ in range(20)]
        await issuer.asked.wait()
        issuer.gate.set()
        assert {c.name for c in await asyncio.gather(*waiting)} == {"jwt:user-7"}
        assert issuer.requests.count("/keys") == 1


async def test_without_keys_tokens_cannot_be_checked_yet(issuer: Issuer) -> None:
    """World: the issuer is down from the start; 503 rather than 401, as the token may be good."""
    issuer.status = 500
    async with World(issuer) as world:
        with pytest.raises(ServingError) as caught:
            await world.name_of(issuer.token())
        assert caught.value.kind is ErrorKind.AUTHENTICATION_UNAVAILABLE
        assert caught.value.retry_after_seconds == 1
        assert "answered 500" in world.guard.problems()["signing_keys"]


async def test_older_keys_stay_while_the_issuer_is_down(issuer: Issuer) -> None:
    async with World(issuer) as world:
        await world.name_of(issuer.token())
        issuer.status = 503
        world.now += ASK_SECONDS
        other = Issuer()
        other.add_key("made-up")
        await world.refused(other.token("made-up"))
        assert "answered 503" in world.guard.problems()["signing_keys"]
        assert await world.name_of(issuer.token(sub="user-8")) == "jwt:user-8"


async def test_tokens_of_a_withdrawn_key_are_forgotten(issuer: Issuer) -> None:
    """World: a remembered token; events: its key is withdrawn, and the keys are fetched again."""
    issuer.add_key("two")
    async with World(issuer) as world:
        token = issuer.token("one")
        await world.name_of(token)
        del issuer.published[0]
        world.now += ASK_SECONDS
        other = Issuer()
        other.add_key("made-up")
        await world.refused(other.token("made-up"))
        assert (await world.refused(token)).reason is AuthFailure.SIGNING_KEY


async def test_an_issuer_that_names_another_is_not_believed(issuer: Issuer) -> None:
    issuer.names_itself = "https://evil.example.com"
    async with World(issuer) as world:
        with pytest.raises(ServingError):
            await world.name_of(issuer.token())
        assert "another issuer" in world.guard.problems()["signing_keys"]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="a list"),
        pytest.param({"keys": 5}, id="no list of keys"),
        pytest.param({"keys": []}, id="no keys"),
        pytest.param({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, id="a symmetric key"),
        pytest.param({"keys": ["x", {"kty": "RSA"}, {"kty": "EC", "crv": "none"}]}, id="rubbish"),
    ],
)
def test_what_is_no_key_set_is_refused(document: Any) -> None:
    with pytest.raises(JwksError):
        parse_jwks(document, ["RS256", "ES256", "HS256"])

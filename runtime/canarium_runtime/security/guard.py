"""`Guard`: who asks, and may they now? On the way of each request.

`admit` never waits. Known credentials are one look-up: what a header proved is remembered until it expires, or until
keys change. The memory's key is the header itself, so it is never shown: neither logged nor part of a repr. What must
wait (a token by a key that is not known yet, a lease of a shared limit) is None, and then `admit_later`.

One limitation: checking a token that is not remembered costs some hundred microseconds of this thread, so a flood of
forged tokens is a load. Nothing of them is remembered.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from canarium_api.metric_names import AuthFailure
from canarium_api.security_config import ClientCertificates, SecuritySettings
from canarium_runtime.errors import ErrorKind, LoadError, ServingError
from canarium_runtime.security import paths
from canarium_runtime.security.clients import (
    BEARER,
    Client,
    Credentials,
    RefusedError,
    bad_token,
    network_of,
)
from canarium_runtime.security.counts import GuardCounts
from canarium_runtime.security.keys import ApiKeys
from canarium_runtime.security.limits import UNDECIDED
from canarium_runtime.security.rates import limits_anyone, make_buckets
from canarium_runtime.security.watching import POLL_SECONDS, Watch

if TYPE_CHECKING:
    from canarium_runtime.security.jwks import Jwks
    from canarium_runtime.security.jwt import Verifier
    from canarium_runtime.security.shared import SharedLimits

_MOST_REMEMBERED: Final = 10_000
_LATER_SECONDS: Final = 6.0
"""Longest time that a request waits to be decided."""
_UNAVAILABLE: Final = "the issuer's signing keys cannot be had at the moment: try again"


class Guard:
    """Authenticates and limits.

    Args:
        settings: what is on.
        counts: where refusals are counted.
        deployment: `NAMESPACE/NAME`: servers of one ModelDeployment share limits.
        clock: seconds, monotonic.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        settings: SecuritySettings,
        counts: GuardCounts | None = None,
        *,
        deployment: str = "local/model",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.counts = counts or GuardCounts()
        self._settings = settings
        self._clock = clock
        self._wall = wall
        self._known: dict[bytes | str, Client] = {}
        self._addresses: dict[str, Client] = {}
        self._authenticates = settings.authenticates
        self._needs_certificate = settings.tls_client_certificates is ClientCertificates.REQUIRED
        self._keys = ApiKeys(Path(settings.api_keys_path)) if settings.api_keys_path else None
        self._verifier: Verifier | None = None
        self._jwks: Jwks | None = None
        if settings.jwt_issuer:
            from canarium_runtime.security import jwks, jwt

            self._verifier = jwt.Verifier(settings)
            self._jwks = jwks.Jwks(settings, self._known.clear, clock)
        self._shared: SharedLimits | None = None
        if settings.rate_limit_redis_url is not None and limits_anyone(settings):
            from canarium_runtime.security import shared

            url = settings.rate_limit_redis_url.get_secret_value()
            self._shared = shared.SharedLimits(url, deployment, self.counts, clock)
        self._buckets = make_buckets(settings, self._shared)
        self._rates = {} if self._buckets is None else self._buckets.by_name
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Guard {len(self._known)} clients known>"

    def admit(self, credentials: Credentials) -> Client | None:
        """Let a request in, without waiting.

        Returns:
            Who it is; None where that cannot be said without waiting: then `admit_later`.

        Raises:
            ServingError: UNAUTHENTICATED, FORBIDDEN, RATE_LIMITED or AUTHENTICATION_UNAVAILABLE.
        """
        now = self._clock()
        proof = credentials.api_key or credentials.authorization or credentials.certificate
        known = self._known.get(proof) if proof else self._addresses.get(credentials.address)
        if (
            known is None
            or known.expires_at <= now
            or (self._needs_certificate and not credentials.certificate)
        ):
            known = self._identify(credentials, now)
            if known is None:
                return None
        if self._buckets is None:
            return known
        bucket = self._rates.get(known.name) or self._buckets.of(known.name, now)
        if bucket is None:
            return known
        wait = bucket.take(now)
        if wait == 0.0:
            return known
        if wait == UNDECIDED:
            return None
        raise self._too_often(wait)

    async def admit_later(self, credentials: Credentials) -> Client:
        """Let a request in, waiting for what `admit` could not know.

        Raises:
            ServingError: as `admit`.
        """
        ends = self._clock() + _LATER_SECONDS
        while (client := self.admit(credentials)) is None:
            remaining = ends - self._clock()
            if remaining <= 0.0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(remaining):
                    await self._what_is_missing(credentials)
        if client is None:
            raise self._undecidable(credentials)
        return client

    async def _what_is_missing(self, credentials: Credentials) -> None:
        """Wait for keys where the client is not known, else for its lease."""
        client = self._identify(credentials, self._clock())
        if client is not None and self._shared is not None:
            await self._shared.answered(client.name)
        elif self._jwks is not None:
            await self._jwks.ask()

    def _undecidable(self, credentials: Credentials) -> ServingError:
        if self._identify(credentials, self._clock()) is None:
            return _unavailable()
        return self._too_often(1.0)

    def is_open(self, method: str, path: str) -> bool:
        """Whether a request may go on without `admit`, as what it reads is open to all."""
        return not self._authenticates or paths.is_open(method, path, self._settings.open_paths)

    def _identify(self, credentials: Credentials, now: float) -> Client | None:
        try:
            return self._client(credentials, now)
        except RefusedError as refusal:
            self.counts.failures[refusal.reason] += 1
            raise

    def _client(self, credentials: Credentials, now: float) -> Client | None:
        if not self._authenticates:
            return self._at_address(credentials.address)
        if self._needs_certificate and not credentials.certificate:
            message = "a client certificate is required"
            raise RefusedError(AuthFailure.CERTIFICATE, message, BEARER)
        if credentials.api_key:
            return self._by_key(credentials.api_key, credentials.api_key)
        if credentials.authorization:
            return self._by_bearer(credentials.authorization, now)
        if credentials.certificate and self._settings.asks_certificates:
            return self._remember(
                credentials.certificate, Client(f"cert:{credentials.certificate}")
            )
        if self._settings.anonymous:
            return self._at_address(credentials.address)
        raise RefusedError(AuthFailure.MISSING, self._asks_for, BEARER)

    @property
    def _asks_for(self) -> str:
        ways = []
        if self._keys is not None:
            ways.append("an API key in the header x-api-key")
        if self._keys is not None or self._verifier is not None:
            ways.append("`authorization: Bearer ...`")
        if self._settings.asks_certificates:
            ways.append("a client certificate")
        return f"credentials are missing: send {' or '.join(ways)}"

    def _by_bearer(self, header: bytes, now: float) -> Client | None:
        scheme, _, value = header.partition(b" ")
        secret = value.strip()
        if scheme.lower() != b"bearer" or not secret:
            message = "the header authorization must be `Bearer` and a key or token"
            raise RefusedError(AuthFailure.MALFORMED, message, BEARER)
        # A JWT has two dots, and a key of ours has none.
        if self._verifier is not None and (self._keys is None or secret.count(b".") == 2):
            return self._by_token(header, secret, now)
        return self._by_key(header, secret)

    def _by_key(self, header: bytes, key: bytes) -> Client:
        if self._keys is None:
            raise RefusedError(AuthFailure.KEY, "API keys are not accepted here", BEARER)
        name = self._keys.name_of(key)
        if name is None:
            raise bad_token(AuthFailure.KEY, "the API key is not known")
        return self._remember(header, Client(f"key:{name}"))

    def _by_token(self, header: bytes, token: bytes, now: float) -> Client | None:
        assert self._verifier is not None  # noqa: S101
        assert self._jwks is not None  # noqa: S101 - both are made together
        from canarium_runtime.security.jwt import UnknownKeyError

        jwks = self._jwks
        if not jwks.keys:
            if jwks.can_be_asked:
                return None
            raise _unavailable()
        try:
            bearer = self._verifier.verify(token, jwks.keys)
        except UnknownKeyError:
            if jwks.can_be_asked:
                return None
            message = "the token is signed by a key that its issuer does not list"
            raise bad_token(AuthFailure.SIGNING_KEY, message) from None
        expires_at = now + bearer.expires_at - self._wall()
        return self._remember(header, Client(f"jwt:{bearer.name}", expires_at))

    def _at_address(self, address: str) -> Client:
        known = self._addresses.get(address)
        if known is None:
            known = Client(f"address:{network_of(address)}")
            _keep(self._addresses, address, known)
        return known

    def _remember(self, proof: bytes | str, client: Client) -> Client:
        _keep(self._known, proof, client)
        return client

    def _too_often(self, wait: float) -> ServingError:
        self.counts.limited += 1
        seconds = max(1, math.ceil(wait))
        message = f"too many requests from this client: try again in {seconds} s"
        return ServingError(ErrorKind.RATE_LIMITED, message, retry_after_seconds=seconds)

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the keys, and begin to look after them.

        Raises:
            LoadError: the API keys cannot be read; with none that were in force before, nobody could come in.
        """
        if self._keys is not None:
            watch = self._keys.watch
            await asyncio.to_thread(watch.check)
            if watch.problem:
                message = f"the API keys cannot be read: {watch.problem}"
                raise LoadError("InvalidConfig", message)
            self._begin(self._watch(watch))
        if self._jwks is not None:
            self._begin(self._jwks.run())
        if self._shared is not None:
            self._begin(self._shared.run())

    async def close(self) -> None:
        """End what runs in the background."""
        if self._shared is not None:
            self._shared.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._jwks is not None:
            await self._jwks.close()
        if self._shared is not None:
            await self._shared.close()

    def problems(self) -> dict[str, str]:
        """Say what is wrong, by part, for /health: none of it stops the server."""
        found = {}
        if self._keys is not None and self._keys.watch.problem:
            found["api_keys"] = f"older keys are in force: {self._keys.watch.problem}"
        if self._jwks is not None and self._jwks.problem:
            found["signing_keys"] = self._jwks.problem
        if self._shared is not None and self._shared.problem:
            found["rate_limits"] = self._shared.problem
        return found

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _watch(self, watch: Watch) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            # In a thread, as there may be very many keys.
            if await asyncio.to_thread(watch.check):
                self._known.clear()


Proof = TypeVar("Proof", bytes | str, str)


def _keep(known: dict[Proof, Client], proof: Proof, client: Client) -> None:
    """Remember, within the bound; the oldest are forgotten, which costs them one check more."""
    if len(known) >= _MOST_REMEMBERED and proof not in known:
        del known[next(iter(known))]
    known[proof] = client


def _unavailable() -> ServingError:
    return ServingError(ErrorKind.AUTHENTICATION_UNAVAILABLE, _UNAVAILABLE, retry_after_seconds=1)

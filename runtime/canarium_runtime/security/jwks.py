"""The signing keys of an issuer: found by OpenID Connect discovery, kept, fetched again in the background.

A failure keeps the keys that were there. An unknown key is a reason to ask at once, since issuers begin to sign with a
new key when they like; at most every `ASK_SECONDS`, so that made-up keys do not become requests to the issuer.
"""

import asyncio
import json
import logging
import re
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

import httpx

from canarium_api.security_config import URL_PATTERN, SecuritySettings
from canarium_runtime.security.jwt import JwksError, SigningKey, parse_jwks

_log = logging.getLogger(__name__)
ASK_SECONDS: Final = 10.0
"""Least time between two fetches that unknown keys cause."""
MAX_BYTES: Final = 1024 * 1024
_TIMEOUT_SECONDS: Final = 5.0
_FIRST_RETRY_SECONDS: Final = 1.0
_URL = re.compile(URL_PATTERN)


class Jwks:
    """Keys of one issuer.

    Args:
        settings: issuer, address of the keys, interval.
        on_change: called when the keys are others than before: what they proved is to be proved anew.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        settings: SecuritySettings,
        on_change: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys: tuple[SigningKey, ...] = ()
        self.problem = "the signing keys have not been fetched yet"
        """Why the last fetch failed; "": it did not."""
        self._issuer = (settings.jwt_issuer or "").rstrip("/")
        self._named_issuer = settings.jwt_issuer
        self._uri = settings.jwt_jwks_uri
        self._allowed = [a.value for a in settings.jwt_algorithms]
        self._ca_file = settings.jwt_ca_file
        self._interval = settings.jwt_refresh_interval.total_seconds()
        self._on_change = on_change
        self._clock = clock
        self._document: Any = None
        self._client: httpx.AsyncClient | None = None
        self._asked_at = -ASK_SECONDS
        self._fetching: asyncio.Task[None] | None = None

    @property
    def can_be_asked(self) -> bool:
        """Whether waiting for keys makes sense: they are being fetched, or may be fetched now."""
        return self._fetching is not None or self._clock() - self._asked_at >= ASK_SECONDS

    async def ask(self) -> None:
        """Fetch the keys, or wait for the fetch that is under way. Never raises but when cancelled."""
        if self._fetching is None:
            self._asked_at = self._clock()
            self._fetching = asyncio.create_task(self._refresh())
            self._fetching.add_done_callback(self._fetched)
        # Who waits may give up; the fetch goes on for the others.
        await asyncio.shield(self._fetching)

    async def run(self) -> None:
        """Fetch now, and again and again until cancelled; sooner after a failure."""
        pause = _FIRST_RETRY_SECONDS
        while True:
            await self.ask()
            if not self.problem:
                pause = _FIRST_RETRY_SECONDS
                await asyncio.sleep(self._interval)
                continue
            await asyncio.sleep(pause)
            pause = min(2 * pause, 60.0, self._interval)

    async def close(self) -> None:
        """Give a fetch up that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        await self._hang_up()

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                document = await self._fetch()
            if document != self._document:
                self.keys = parse_jwks(document, self._allowed)
                self._document = document
                self._on_change()
                _log.info(
                    "signing keys changed", extra={"issuer": self._issuer, "keys": len(self.keys)}
                )
            self.problem = ""
        except (httpx.HTTPError, httpx.InvalidURL, OSError, JwksError, TimeoutError) as error:
            await self._hang_up()
            text = str(error) if isinstance(error, JwksError) else type(error).__name__
            problem = f"the signing keys of {self._issuer} were not fetched: {text}"
            if problem != self.problem:
                _log.error("%s; %d older ones stay in force", problem, len(self.keys))
            self.problem = problem

    async def _fetch(self) -> Any:
        if self._client is None:
            # In a thread: reading all public authorities takes tens of milliseconds.
            self._client = await asyncio.to_thread(self._make_client)
        return await _get(self._client, self._uri or await self._discovered(self._client))

    def _make_client(self) -> httpx.AsyncClient:
        loopback = self._issuer.startswith("http://")
        verify = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True
        return httpx.AsyncClient(
            verify=verify, timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=not loopback
        )

    async def _hang_up(self) -> None:
        """Begin with a new client next time: the CA file may be another by then."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _discovered(self, client: httpx.AsyncClient) -> str:
        document = await _get(client, f"{self._issuer}/.well-known/openid-configuration")
        if not isinstance(document, dict) or document.get("issuer") != self._named_issuer:
            msg = "its OpenID configuration names another issuer"
            raise JwksError(msg)
        uri = document.get("jwks_uri")
        if not isinstance(uri, str) or not _URL.match(uri):
            msg = "its OpenID configuration has no jwks_uri with https"
            raise JwksError(msg)
        return uri


async def _get(client: httpx.AsyncClient, url: str) -> Any:
    async with client.stream("GET", url, headers={"accept": "application/json"}) as response:
        if response.status_code != 200:
            msg = f"{url} answered {response.status_code}"
            raise JwksError(msg)
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_BYTES:
                msg = f"{url} answered more than {MAX_BYTES >> 10} KiB"
                raise JwksError(msg)
    try:
        return json.loads(content)
    except ValueError as error:
        msg = f"{url} did not answer JSON"
        raise JwksError(msg) from error

"""Fetches answers from pods, and remembers how far it has got with each.

A pod that does not answer costs one timeout, in parallel with all others, and is asked again in the next round. What a
pod says is bounded before it is read and checked before it is used.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from canarium_api.metric_names import ShadowDropped
from canarium_runtime.shadow import wire
from canarium_runtime.shadow.endpoint import PATH
from canarium_runtime.shadow.records import Answer, Counts, Page

TIMEOUT_SECONDS = 2.0
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_PAGES = 8
"""Pages of one pod in one round."""


class PullError(Exception):
    """A pod did not answer as it should; the message says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What one pod handed over in one round."""

    answers: list[Answer] = field(default_factory=list)
    offered: int = 0
    """Requests with an id that it saw since the round before, sampled or not."""
    dropped: dict[ShadowDropped, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Cursor:
    incarnation: str = ""
    next: int | None = None
    counts: Counts = field(default_factory=Counts)


class Puller:
    """See the module.

    Args:
        client: HTTP client; the caller closes it.
        token_file: file with the bearer token; None: none is sent.
    """

    def __init__(self, client: httpx.AsyncClient, token_file: str | None) -> None:
        self._client = client
        self._token_file = token_file
        self._cursors: dict[str, _Cursor] = {}

    def keep(self, urls: set[str]) -> None:
        """Forget pods that are not among these."""
        self._cursors = {url: c for url, c in self._cursors.items() if url in urls}

    async def pull(self, url: str, share: float) -> Pulled:
        """Fetch what a pod has recorded since the last time; the first time only what it records from then on.

        Args:
            url: base URL of the pod.
            share: of the requests that it shall record.

        Raises:
            PullError: it did not answer, or not as it should.
        """
        cursor = self._cursors.setdefault(url, _Cursor())
        answers: list[Answer] = []
        dropped: dict[ShadowDropped, int] = {}
        offered = 0
        for _ in range(MAX_PAGES):
            page = await self._fetch(url, cursor, share)
            began = cursor.next is not None
            same = page.incarnation == cursor.incarnation
            before = cursor.counts if same else Counts()
            if began:
                offered += page.counts.offered - before.offered
                for reason, count in (
                    (ShadowDropped.OVERWRITTEN, page.missed),
                    (ShadowDropped.LIMITED, page.counts.limited - before.limited),
                    (ShadowDropped.UNIDENTIFIED, page.counts.unidentified - before.unidentified),
                    (ShadowDropped.BROKEN, page.counts.broken - before.broken),
                ):
                    dropped[reason] = dropped.get(reason, 0) + max(0, count)
            answers += page.answers
            cursor.incarnation, cursor.next = page.incarnation, page.next
            cursor.counts = page.counts
            if not page.more:
                break
        return Pulled(answers=answers, offered=max(0, offered), dropped=dropped)

    async def _fetch(self, url: str, cursor: _Cursor, share: float) -> Page:
        query = {"share": f"{share:.6g}"}
        if cursor.next is not None:
            query |= {"since": str(cursor.next), "incarnation": cursor.incarnation}
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                content = await self._get(url, query)
            return wire.decode(content)
        except (httpx.HTTPError, TimeoutError) as error:
            msg = f"{url}: {type(error).__name__}"
            raise PullError(msg) from error
        except wire.WireError as error:
            msg = f"{url} sent no page of answers: {error}"
            raise PullError(msg) from error

    async def _get(self, url: str, query: dict[str, str]) -> bytes:
        async with self._client.stream(
            "GET", url + PATH, params=query, headers=self._headers(), timeout=TIMEOUT_SECONDS
        ) as response:
            if response.status_code != 200:
                msg = f"{url} answered {response.status_code}"
                raise PullError(msg)
            content = bytearray()
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > MAX_PAGE_BYTES:
                    msg = f"{url} sent more than {MAX_PAGE_BYTES} bytes"
                    raise PullError(msg)
        return bytes(content)

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            return {"authorization": f"Bearer {Path(self._token_file).read_text().strip()}"}
        except OSError as error:
            msg = f"the token file cannot be read: {error.strerror}"
            raise PullError(msg) from error

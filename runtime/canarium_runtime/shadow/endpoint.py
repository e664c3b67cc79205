"""Where the comparer fetches a server's answers: `GET /canarium/v1/answers` on a port of its own.

Not among the server's other routes, because answers belong to those who asked: the gateway sends clients to the port of
the Service, and this one is in none of theirs. A bearer token may be asked for besides.

Query: `share` (of the requests, above 0 up to 1), and for all but the first fetch `since` and `incarnation` of the page
before. The answer is a page (`wire.py`); 401 without the token, 400 for a query that makes no sense.
"""

import asyncio
import contextlib
import hmac
import logging
import time
from pathlib import Path
from urllib.parse import parse_qs

import orjson
from starlette.types import Receive, Scope, Send

from canarium_runtime.listening import listening
from canarium_runtime.rest import http
from canarium_runtime.shadow import wire
from canarium_runtime.shadow.answers import AnswerLog

_log = logging.getLogger(__name__)

PATH = "/canarium/v1/answers"
PAGE_ANSWERS = 256
PAGE_BYTES = 512 * 1024
"""A page is written between two requests of clients, so it is small; there is another at once when `more` is true."""
_MAX_NUMBER = 2**53


class AnswersEndpoint:
    """ASGI application; see the module.

    Args:
        log: the record.
        token_file: file with the token; None: no token is asked for. It is read at each fetch, so that it can change.
    """

    def __init__(self, log: AnswerLog, token_file: str | None) -> None:
        self._log = log
        self._token_file = token_file
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        await http.send_answer(send, self._answer(scope))

    def close(self) -> None:
        """Stop recording."""
        if self._timer is not None:
            self._timer.cancel()
        self._log.expire(float("inf"))

    def _answer(self, scope: Scope) -> http.Answer:
        if scope["path"] != PATH:
            return _refusal(404, f"there is only {PATH}")
        if scope["method"] != "GET":
            return _refusal(405, "only GET is possible")
        if not self._allowed(scope):
            return _refusal(401, "the bearer token is missing or wrong")
        try:
            share, since, incarnation = _parse(scope["query_string"])
        except ValueError as error:
            return _refusal(400, str(error))
        self._renew(share)
        page = self._log.page(since, incarnation, max_answers=PAGE_ANSWERS, max_bytes=PAGE_BYTES)
        media = (b"content-type", wire.MEDIA_TYPE.encode())
        return http.Answer(200, wire.encode(page), media=media)

    def _allowed(self, scope: Scope) -> bool:
        if self._token_file is None:
            return True
        try:
            token = Path(self._token_file).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return False
        sent = dict(scope["headers"]).get(b"authorization", b"")
        return bool(token) and hmac.compare_digest(sent, f"Bearer {token}".encode())

    def _renew(self, share: float) -> None:
        if not self._log.recording:
            _log.info("answers are recorded for a comparer")
        self._log.renew(time.monotonic(), share)
        if self._timer is None:
            self._tick()

    def _tick(self) -> None:
        """Stop recording when nobody fetches any more."""
        left = self._log.expire(time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(left, self._tick) if left else None
        if not left:
            _log.info("answers are not recorded any more: no comparer fetched them")


def _parse(query: bytes) -> tuple[float, int | None, str]:
    """Read share, since and incarnation; raises ValueError."""
    fields = parse_qs(query.decode("latin-1"), max_num_fields=10)
    share = float(fields.get("share", ["1"])[0])
    if not 0 < share <= 1:
        msg = "share: expected a number above 0, at most 1"
        raise ValueError(msg)
    if "since" not in fields:
        return share, None, ""
    since = int(fields["since"][0])
    if not 0 <= since <= _MAX_NUMBER:
        msg = "since: expected the number of an answer"
        raise ValueError(msg)
    return share, since, fields.get("incarnation", [""])[0]


def _refusal(status: int, message: str) -> http.Answer:
    return http.Answer(status, orjson.dumps({"error": message}))


async def offer(log: AnswerLog, host: str, port: int | None, token_file: str | None) -> None:
    """Offer a server's answers until cancelled. A port that cannot be had is logged: predictions go on without.

    Args:
        log: the record.
        host: address to listen on.
        port: port; None: nothing is offered.
        token_file: see `AnswersEndpoint`.
    """
    if port is None:
        return
    endpoint = AnswersEndpoint(log, token_file)
    try:
        async with listening(endpoint, host, port):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
    except OSError as error:
        _log.warning("answers cannot be offered", extra={"port": port, "cause": str(error)})
    finally:
        endpoint.close()

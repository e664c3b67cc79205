"""The record of a server's latest answers, for the comparer of a shadow rollout.

Theory of operation. Nobody tells a server that a shadow rollout begins: pods of the stable revision run already, and
must neither restart nor get another template. So the comparer fetches, and its fetching is what turns recording on, for
`LEASE_SECONDS`. Without it `recording` is False, which is all that a request ever looks at.

Both sides must record the same requests, or their answers would not pair. So a share of the requests is chosen by a
hash of the request's id, which is the same on both sides, and the comparer says how large the share is.

Nothing here waits, and everything is bounded: what is too much is left out and counted. Limitation: one comparer at a
time; two would see the same answers and set each other's share.
"""

import hashlib
import logging
import time
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from secrets import token_hex

import orjson

from canarium_api.metric_names import PredictionStatus
from canarium_runtime.backends.base import Array
from canarium_runtime.shadow.records import Answer, Counts, Page, Tensor

_log = logging.getLogger(__name__)

LEASE_SECONDS = 10.0
"""How long a fetch keeps recording on."""
CAPACITY = 4096
"""Most answers that are kept."""
CAPACITY_BYTES = 8 * 1024 * 1024
"""Most bytes of outputs that are kept."""
ANSWERS_PER_SECOND = 1000
"""Most answers that are recorded a second, whatever share the comparer asks for."""
WHOLE_BYTES = 64 * 1024
"""An output up to this size is recorded as it is, a larger one as its digest."""
DIGEST_BYTES = 1024 * 1024
"""An output above this size is not even read: a digest of it would hold up other requests."""
_DIGEST_STRINGS = 8192
"""The same for strings, in elements, whose size in bytes is not known beforehand."""
_HASHES = 2**32


class AnswerLog:
    """See the module. Call from the event loop's thread only."""

    def __init__(self) -> None:
        self.recording = False
        """The one thing that a request looks at."""
        self.counts = Counts()
        self.incarnation = token_hex(8)
        self._answers: deque[Answer] = deque()
        self._bytes = 0
        self._next = 0
        self._lease_ends = 0.0
        self._threshold = _HASHES
        self._second = 0
        self._in_second = 0

    def renew(self, now: float, share: float) -> None:
        """Begin or go on recording.

        Args:
            now: instant of `time.monotonic()`.
            share: of the requests that are recorded; above 0, at most 1.
        """
        self.recording = True
        self._lease_ends = now + LEASE_SECONDS
        self._threshold = round(share * _HASHES)

    def expire(self, now: float) -> float:
        """Stop recording when the lease is over, and free what was kept; else give the seconds that it still lasts."""
        if now < self._lease_ends:
            return self._lease_ends - now
        self.recording = False
        self._answers.clear()
        self._bytes = 0
        return 0.0

    def wants(self, request_id: str) -> bool:
        """Choose whether a request is recorded, and count it. The first question, as most requests end here.

        Args:
            request_id: id that both sides got with the request; empty: it had none.
        """
        if not request_id:
            self.counts.unidentified += 1
            return False
        self.counts.offered += 1
        if zlib.crc32(request_id.encode("utf-8", "replace")) >= self._threshold:
            return False
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > ANSWERS_PER_SECOND:
            self.counts.limited += 1
            return False
        return True

    def record(
        self,
        request_id: str,
        body: bytes | None,
        status: PredictionStatus,
        seconds: float,
        outputs: Iterable[tuple[str, Array]] = (),
        datatypes: Mapping[str, str] | None = None,
    ) -> None:
        """Note how a wanted request ended. Never raises: what goes wrong here is no business of the client's.

        Args:
            request_id: as in `wants`.
            body: the request's body; None: it was not read.
            status: how it ended.
            seconds: from arrival to answer.
            outputs: name and array of each output.
            datatypes: datatype by name of output.
        """
        try:
            tensors = [tensor_of(name, (datatypes or {})[name], a) for name, a in outputs]
            crc = None if body is None else zlib.crc32(body)
            answer = Answer(request_id, crc, status, seconds, tensors)
        except Exception:  # noqa: BLE001 - see above
            self.counts.broken += 1
            if self.counts.broken == 1:
                _log.exception("an answer could not be recorded; later ones are only counted")
            return
        self._answers.append(answer)
        self._next += 1
        self._bytes += answer.size_bytes
        while len(self._answers) > CAPACITY or self._bytes > CAPACITY_BYTES:
            self._bytes -= self._answers.popleft().size_bytes

    def page(
        self, since: int | None, incarnation: str, *, max_answers: int, max_bytes: int
    ) -> Page:
        """Give the answers from a number on.

        Args:
            since: `next` of the page before; None: none yet, so that only later answers are wanted.
            incarnation: of the page before. Another process numbered anew, so everything here is news.
            max_answers: most answers in the page.
            max_bytes: most bytes in the page; one answer is given whatever its size.
        """
        oldest = self._next - len(self._answers)
        if since is None:
            start = self._next
        elif incarnation != self.incarnation:
            start = since = oldest
        else:
            start = min(max(since, oldest), self._next)
        answers: list[Answer] = []
        size = 0
        for index in range(start - oldest, min(len(self._answers), start - oldest + max_answers)):
            size += self._answers[index].size_bytes
            if answers and size > max_bytes:
                break
            answers.append(self._answers[index])
        following = start + len(answers)
        return Page(
            incarnation=self.incarnation,
            next=following,
            missed=0 if since is None else max(0, oldest - since),
            more=following < self._next,
            counts=self.counts,
            answers=answers,
        )


def tensor_of(name: str, datatype: str, array: Array) -> Tensor:
    """Record one output: whole, as a digest, or as its shape alone, by its size."""
    if datatype == "BYTES":
        small = array.size <= _DIGEST_STRINGS
        data = orjson.dumps(array.ravel().tolist()) if small else None
    else:
        data = array.tobytes() if array.nbytes <= DIGEST_BYTES else None
    if data is None or len(data) <= WHOLE_BYTES:
        return Tensor(name, datatype, array.shape, data)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return Tensor(name, datatype, array.shape, None, digest)

"""What the client saw: every answer counted, by the revision that gave it. Pure; time is an argument.

Two questions are answered from it: how each revision does right now (the live view), and whose fault each failure was
(the report). The second is judged strictly: a failure is the bad canary's own only if its answer says so.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

OK: Final = 200
UNANSWERED: Final = 0
"""Status of a request that got no HTTP answer at all."""
OWN_FAILURES: Final = frozenset({500, 504})
"""What a revision's model can do wrong: fail on the input, or be too slow. All else (a gateway's 502, a refusal by a
server that starts, stops or is full) is the platform's, whoever's header is on it."""
WINDOW_SECONDS: Final = 5.0
MAX_RECENT: Final = 5_000
MAX_NOTES: Final = 20


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one request ended."""

    at: float
    """When, on the client's monotonic clock."""
    seconds: float
    """From sending to the whole answer."""
    status: int
    """HTTP status, or UNANSWERED."""
    revision: str = ""
    """Who answered; empty where no server of ours did."""
    correct: bool | None = None
    """Whether the digit was read right; None where none was read."""
    note: str = ""
    """What a failure said."""


@dataclass(frozen=True, kw_only=True)
class Recent:
    """The last seconds of one revision."""

    requests: int
    share: float
    """Of all requests of these seconds."""
    per_second: float
    error_rate: float
    p50: float | None
    """Seconds."""
    p95: float | None


@dataclass(kw_only=True)
class Tally:
    """All answers of a run."""

    by_status: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(revision, status) to count."""
    correct: Counter[str] = field(default_factory=Counter)
    """Digits read right, by revision."""
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_NOTES))
    """The latest failures that no revision's model explains, in words."""
    _recent: deque[Answer] = field(default_factory=lambda: deque(maxlen=MAX_RECENT))

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.by_status[answer.revision, answer.status] += 1
        if answer.correct:
            self.correct[answer.revision] += 1
        if answer.status != OK and answer.status not in OWN_FAILURES:
            self.notes.append(f"{answer.status} {answer.revision or 'gateway'}: {answer.note}")
        self._recent.append(answer)

    @property
    def requests(self) -> int:
        """All requests."""
        return self.by_status.total()

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(n for (_, status), n in self.by_status.items() if status != OK)

    def failed_by(self, revisions: Iterable[str]) -> int:
        """Count failures that these revisions caused themselves."""
        known = set(revisions)
        return sum(
            n
            for (revision, status), n in self.by_status.items()
            if revision in known and status in OWN_FAILURES
        )

    def requests_of(self, revision: str) -> int:
        """Requests that a revision answered, well or not."""
        return sum(n for (who, _), n in self.by_status.items() if who == revision)

    def failed_of(self, revision: str) -> int:
        """Requests that a revision answered with a failure of any kind."""
        return self.requests_of(revision) - self.by_status[revision, OK]

    def accuracy(self, revision: str) -> float | None:
        """Share of a revision's good answers that are right."""
        answered = self.by_status[revision, OK]
        return self.correct[revision] / answered if answered else None

    def recent(self, revision: str, now: float) -> Recent:
        """Look at the last WINDOW_SECONDS of a revision."""
        latest = [a for a in self._recent if a.at > now - WINDOW_SECONDS]
        own = [a for a in latest if a.revision == revision]
        seconds = sorted(a.seconds for a in own)
        failed = sum(1 for a in own if a.status != OK)
        return Recent(
            requests=len(own),
            share=len(own) / len(latest) if latest else 0.0,
            per_second=len(own) / WINDOW_SECONDS,
            error_rate=failed / len(own) if own else 0.0,
            p50=quantile(seconds, 0.50),
            p95=quantile(seconds, 0.95),
        )


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """Give the smallest value that at least a share q of all does not exceed.

    Of 1, 2, 3, 4 the 0.5 quantile is 2 and the 0.95 quantile is 4.
    """
    if not ordered:
        return None
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]

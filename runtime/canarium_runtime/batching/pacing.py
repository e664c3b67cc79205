"""What runs have cost and what comes back after them: whether a fuller batch is worth a short wait. No clock.

Theory of operation. Clients that keep a fixed number of requests under way send the next one as soon as they are
answered. A server that starts its next run at the very moment of an answer then leaves those out, and its clients fall
into two groups that take turns: twice the runs, each with half of the rows. A short wait brings the groups together,
where a larger run costs less for each row; where it does not, or where nobody comes back at once, waiting only costs.

So two things are measured, both as moving averages: the seconds of a run by its number of rows (in buckets of powers
of two), and the share of just answered rows that come back within a short window after an answer. A wait is worth it
when the rows for each second, the wait included, are no fewer with it than without: n/r(n) <= N/(wait + r(N)), N rows
then. The window is a part of the run's own time, so the wait is always small beside it.
"""

_WEIGHT = 0.15
_WINDOW = 0.4
"""Length of the window after an answer, as a part of the run's time."""
_MOST_GROWTH = 4.0
"""A run counts as at most so many times what was expected: one that was held up, by a machine that was paused, says
nothing about the next, and must not make the queue refuse those who have time enough."""
_LEAST_SHARE = 0.25
"""Below this share of answered rows that come back, nobody is waited for."""


class Pace:
    """See the module.

    Args:
        max_delay_seconds: longest window.
    """

    __slots__ = ("_answered", "_max_delay", "_runs", "_share", "ends", "seen")

    def __init__(self, max_delay_seconds: float) -> None:
        self._max_delay = max_delay_seconds
        self._runs: dict[int, tuple[float, float]] = {}
        """Mean rows and mean seconds of runs, by bucket."""
        self._share = 0.0
        self._answered = 0
        self.ends = 0.0
        """End of the window after the last answer."""
        self.seen = 0
        """Rows that came within that window. The queue counts them: a call for each would cost as much as the rest."""

    def finished(self, rows: int, seconds: float, now: float) -> None:
        """Note a run, whose requests were just answered."""
        if self._answered:
            share = min(1.0, self.seen / self._answered)
            self._share += _WEIGHT * (share - self._share)
        self._answered = rows
        self.seen = 0
        self.ends = now + min(self._max_delay, _WINDOW * seconds)
        self.ran(rows, seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """Note what a run cost."""
        bucket = rows.bit_length()
        known = self._runs.get(bucket)
        if known is None:
            self._runs[bucket] = (float(rows), seconds)
        else:
            seconds = min(seconds, _MOST_GROWTH * known[1])
            self._runs[bucket] = (
                known[0] + _WEIGHT * (rows - known[0]),
                known[1] + _WEIGHT * (seconds - known[1]),
            )

    def seconds_of_run(self, rows: int) -> float | None:
        """Expected seconds of a run, between those of the sizes that were seen; None: no size that large was."""
        below = (0.0, 0.0)
        for bucket in sorted(self._runs):
            above = self._runs[bucket]
            if above[0] >= rows:
                if not below[0]:
                    return above[1]
                part = (rows - below[0]) / (above[0] - below[0])
                return below[1] + part * (above[1] - below[1])
            below = above
        return None

    def seconds_for(self, rows: int, max_rows: int) -> float:
        """Expected seconds until so many rows have been run, in full batches one after the other; 0: not known."""
        run = self._runs.get(max_rows.bit_length())
        return 0.0 if run is None else rows / run[0] * run[1]

    def worth_waiting_until(self, rows: int, max_rows: int, now: float) -> float:
        """Instant until which to wait for more than these rows; the past: not worth it."""
        wait = self.ends - now
        coming = round(self._answered * self._share) - self.seen
        if wait <= 0 or coming < 1 or self._share < _LEAST_SHARE:
            return 0.0
        more = min(max_rows, rows + coming)
        run, fuller = self.seconds_of_run(rows), self.seconds_of_run(more)
        if run is None or fuller is None or more <= rows:
            return 0.0
        return self.ends if rows / run <= more / (wait + fuller) else 0.0

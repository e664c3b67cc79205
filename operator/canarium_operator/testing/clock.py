"""Time that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


class FakeClock:
    """`ports.Clock` in a test's hands."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        """Give the present instant."""
        return self._now

    def advance(self, by: timedelta) -> datetime:
        """Let time pass, or jump back with a negative difference, as a corrected clock does."""
        self._now += by
        return self._now

"""Where a batch runs: on the event loop or in a worker thread.

Handing a batch to a thread costs about 10 microseconds and two waits for the interpreter lock, which is more than a
small model takes; a long run on the loop keeps every other connection waiting. A moving average with two bounds
decides, so that a model near one bound does not flip.

What counts is how long the loop would be blocked. For a model that computes on the calling thread that is the thread's
CPU time: the clock on the wall also counts waits for the interpreter lock and for the processor, which say how busy the
machine is, and would keep a small model in its thread just because it is there.
"""

ENTER_SECONDS = 0.001
"""Below this mean run time batches move to the loop."""
LEAVE_SECONDS = 0.0025
"""Above this mean run time they move to a thread. One run of 25 ms is enough to get there from zero."""
_WEIGHT = 0.1


class Placement:
    """Remembers how long runs take. Starts in a thread, the safe place."""

    def __init__(self) -> None:
        self.inline = False
        self._mean_seconds: float | None = None

    def observe(self, seconds: float) -> None:
        """Take the run time of one batch into the mean and decide anew.

        Args:
            seconds: of CPU where the model computes on the calling thread, else by the clock.
        """
        mean = self._mean_seconds
        mean = seconds if mean is None else mean + _WEIGHT * (seconds - mean)
        self._mean_seconds = mean
        if mean > LEAVE_SECONDS:
            self.inline = False
        elif mean < ENTER_SECONDS:
            self.inline = True

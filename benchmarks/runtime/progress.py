"""What a long run says while it works."""

import sys
import time

_began = time.monotonic()


def say(text: str) -> None:
    """Print a line with the minutes and seconds since the start, on standard error."""
    minutes, seconds = divmod(int(time.monotonic() - _began), 60)
    print(f"{minutes:3d}:{seconds:02d}  {text}", file=sys.stderr, flush=True)

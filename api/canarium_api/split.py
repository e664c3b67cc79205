"""`Split`: what the operator tells the router of a sticky A/B test, as a header that the route sets on every request.

The route carries it, and not the router's own settings, so that a change takes effect for all of the router's pods at
once, and only together with the route. It holds nothing secret and no address: who could send a header to the router
could otherwise send requests anywhere through it.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

HEADER: Final = "x-canarium-split"
_REVISION: Final = re.compile(r"^[0-9a-f]{6,64}$")
_NAME: Final = re.compile(r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}$")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Who gets which revision."""

    stable: str
    canary: str
    share: int
    """Percent of the keys that get the canary, 0 to 100."""
    key: str
    """Name of the header or cookie that holds the key."""
    is_cookie: bool = False

    def render(self) -> str:
        """Write it as the header's value: `stable=1a2b3c canary=4d5e6f share=50 header=x-user-id`."""
        kind = "cookie" if self.is_cookie else "header"
        return f"stable={self.stable} canary={self.canary} share={self.share} {kind}={self.key}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a header's value.

        Raises:
            ValueError: it is not what `render` writes.
        """
        parts = dict(word.split("=", 1) for word in text.split(" ") if "=" in word)
        stable, canary, share = (parts.get(name, "") for name in ("stable", "canary", "share"))
        is_cookie = "cookie" in parts
        key = parts.get("cookie") or parts.get("header") or ""
        good = _REVISION.match(stable) and _REVISION.match(canary) and _NAME.match(key)
        if not good or not (share.isdecimal() and len(share) <= 3 and int(share) <= 100):
            msg = f"not a split: {text[:200]!r}"
            raise ValueError(msg)
        return cls(stable=stable, canary=canary, share=int(share), key=key, is_cookie=is_cookie)

"""Who gets which version: a hash of the user's key, and nothing else.

The hash puts each key at a fixed place between 0 and 10,000. Below the share (in hundredths of a percent) it gets B. So
a key stays where it is while the share does, and raising the share moves keys from A to B only. Worked example: a key
at 3,120 gets A at 31 %, and B from 32 % on.

The salt is the object and the tested revision, so that the same users are not the ones who get B in every test.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from canarium_api.split import Split

PLACES: Final = 10_000
"""Hundredths of a percent."""
MAX_KEY_BYTES: Final = 1024
"""Of a longer key, so many bytes count."""


def place(salt: str, key: bytes) -> int:
    """Give a key its place, 0 to 9,999, evenly: 2^64 is no multiple of 10,000, which shifts shares by 1e-15.

    Args:
        salt: names the test.
        key: of the user.
    """
    digest = blake2b(key[:MAX_KEY_BYTES], digest_size=8, key=_short(salt)).digest()
    return int.from_bytes(digest) % PLACES


def _short(salt: str) -> bytes:
    return blake2b(salt.encode(), digest_size=32).digest()


def gets_canary(deployment: str, split: Split, key: bytes | None) -> bool:
    """Tell whether a user gets B; without a key it is A.

    Args:
        deployment: `namespace/name`.
        split: share, and the revision that is tested.
        key: of the user; None: the request has none.
    """
    if not key:
        return False
    return place(f"{deployment} {split.canary}", key) < split.share * (PLACES // 100)


def key_of(headers: Iterable[tuple[bytes, bytes]], split: Split) -> bytes | None:
    """Find the key of a request: the value of a header, or of a cookie.

    Args:
        headers: names in lower case.
        split: says where it is.
    """
    if not split.is_cookie:
        wanted = split.key.lower().encode()
        return next((value.strip() for name, value in headers if name == wanted), None) or None
    prefix = split.key.encode() + b"="
    for name, value in headers:
        if name != b"cookie":
            continue
        for pair in value.split(b";"):
            if pair.strip().startswith(prefix):
                return pair.strip()[len(prefix) :].strip(b'"') or None
    return None

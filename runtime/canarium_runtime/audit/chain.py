"""The chain of hashes over an audit log. No IO, no clock.

Lines come in blocks. A block ends with a line that seals it:

    {"audit":"seal","chain":"7f3a...","block":3,"first":65,"last":128,"dropped":0,"at":"...","seal":"9b1c..."}

`seal` is the SHA-256, or with a key the HMAC-SHA-256, of: the seal before (32 bytes), all lines of the block with their
line ends, and this line up to its field `seal`. So whoever changes, removes, adds or moves a byte changes every seal
from there on. Sealing blocks instead of records costs one hash for some hundred records; what it gives up is that a
broken block is known to be broken, but not always which of its lines.

The first seal of a log follows 32 zero bytes. What a chain cannot show is that its end was cut off: for that, somebody
elsewhere must know the newest seal, the head. And who may write the file and holds the key can write another log.
"""

import hashlib
import hmac
import re
from typing import Final, Protocol

GENESIS: Final = bytes(32)
"""What the first block follows."""
MIN_KEY_BYTES: Final = 32
_SEAL: Final = re.compile(
    rb'(?P<head>\{"audit":"seal","chain":"(?P<chain>[0-9a-f]{16})","block":(?P<block>[1-9]\d{0,17}),'
    rb'"first":(?P<first>\d{1,18}),"last":(?P<last>\d{1,18}),"dropped":(?P<dropped>\d{1,18}),"at":"[0-9TZ:.-]{20,32}")'
    rb',"seal":"(?P<seal>[0-9a-f]{64})"\}\n'
)
MARK: Final = b'{"audit":"seal"'


class Hash(Protocol):
    """What `hashlib` and `hmac` give."""

    def update(self, data: bytes, /) -> None:
        """Take more."""

    def digest(self) -> bytes:
        """Give the hash."""


def new_hash(key: bytes, previous: bytes) -> Hash:
    """Begin a seal: the lines of the block follow, and then its sealing line up to the field `seal`.

    Args:
        key: of the chain; empty: none.
        previous: the seal before.
    """
    return hmac.new(key, previous, hashlib.sha256) if key else hashlib.sha256(previous)


def parse(line: bytes) -> re.Match[bytes] | None:
    """Read a sealing line; None where it is none, to the letter."""
    return _SEAL.fullmatch(line)


class Chain:
    """The end of a chain, to which blocks are added.

    Args:
        name: 16 hex digits that tell this chain from others.
        key: secret of the chain; empty: none.
        block: number of the last block; 0: none yet.
        head: the last seal.
        number: of the last record.
    """

    def __init__(
        self, name: str, key: bytes = b"", *, block: int = 0, head: bytes = GENESIS, number: int = 0
    ) -> None:
        self.name = name
        self.block = block
        self.head = head
        self.number = number
        self._key = key
        self._hash = new_hash(key, head)

    def add(self, lines: bytes) -> None:
        """Add lines, with their line ends, to the block that is under way."""
        self._hash.update(lines)

    def seal(self, records: int, dropped: int, at: str) -> bytes:
        """Give the sealing line of the block, and move on to the next.

        Args:
            records: how many of its lines are records; the caller has numbered them from `number + 1`.
            dropped: records that were left out since the last block.
            at: when, as it shall be written.
        """
        self.block += 1
        first = self.number + 1
        self.number += records
        head = (
            f'{{"audit":"seal","chain":"{self.name}","block":{self.block},"first":{first},"last":{self.number},'
            f'"dropped":{dropped},"at":"{at}"'
        ).encode()
        self._hash.update(head)
        self.head = self._hash.digest()
        self._hash = new_hash(self._key, self.head)
        return b'%b,"seal":"%b"}\n' % (head, self.head.hex().encode())

"""What is recorded of a request, and what one fetch gets: the values that servers and comparer share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from canarium_api.metric_names import PredictionStatus

_OVERHEAD_BYTES = 512
"""About what an answer takes beside its outputs."""


@dataclass(slots=True)
class Tensor:
    """One output as it was recorded."""

    name: str
    datatype: str
    """Key of `backends.base.DTYPES`."""
    shape: tuple[int, ...]
    data: bytes | None
    """Elements in row-major order, little-endian; of BYTES: a JSON array of strings. None: too large."""
    digest: str | None = None
    """BLAKE2b of what `data` would hold, where that is too large; None beside `data`, and for the largest."""


@dataclass(slots=True)
class Answer:
    """How one request ended."""

    id: str
    body: int | None
    """CRC-32 of the request's body, by which two requests under one id are told apart; None: it was not read."""
    status: PredictionStatus
    seconds: float
    """From arrival to answer."""
    outputs: list[Tensor] = field(default_factory=list)
    """Empty unless the status is SUCCESS."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return _OVERHEAD_BYTES + sum(len(t.data) for t in self.outputs if t.data is not None)


@dataclass(slots=True)
class Counts:
    """What happened to requests while recording, since the process began."""

    offered: int = 0
    """Requests with an id, sampled or not."""
    limited: int = 0
    """Left out because of ANSWERS_PER_SECOND."""
    unidentified: int = 0
    """Left out because they had no id."""
    broken: int = 0
    """Left out because recording failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one fetch gets."""

    incarnation: str
    """Changes when the process does."""
    next: int
    """Number of the first answer that the next fetch wants."""
    missed: int
    """Answers that were overwritten before this fetch asked for them."""
    more: bool
    """There is more already."""
    counts: Counts
    answers: Sequence[Answer]

"""How a dashboard is run, and the bounds of all that grows in it."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

DEFAULT_PORT: Final = 8765
MAX_STREAMS: Final = 64
"""Pages that are kept up to date at the same time, of all users together."""
MAX_STREAMS_OF_ONE: Final = 12
"""Of one user."""
MAX_WATCHERS: Final = 32
"""Watches of the API server, of all users together."""
MAX_OBJECTS: Final = 1000
"""ModelDeployments in one list; of more, the first are shown and the number is told."""
MAX_OBJECT_BYTES: Final = 4 << 20
"""Of one object in a watch; etcd itself takes 1.5 MiB."""
MAX_WEIGHT_POINTS: Final = 240
"""Changes of weight remembered of one ModelDeployment."""
MAX_CHECK_POINTS: Final = 2000
"""Measurements remembered of one ModelDeployment, of all its checks together."""
MAX_POINTS: Final = 200_000
"""Points remembered by one watch; what has changed least recently goes first."""
MAX_DRAWN: Final = 240
"""Points of one curve that a page gets."""
MAX_EVENTS: Final = 100
"""Kubernetes Events of one ModelDeployment that are shown."""
MAX_BODY_BYTES: Final = 4096
"""Of a request."""
IDLE: Final = timedelta(minutes=5)
"""How long a watch outlives the last page that it is for."""
HEARTBEAT: Final = timedelta(seconds=15)
"""A stream says something at least so often; also how old Events, rights and curves may be."""
CALM: Final = timedelta(milliseconds=200)
"""Least time between two messages of a stream."""
BYTES_PER_SECOND: Final = 500_000
"""Of one stream: a page of a thousand objects is sent at most about once a second, however often they change."""
ECHO: Final = timedelta(seconds=2.5)
"""After news, a stream looks once more so soon: Events are written after the status that they tell of."""
ANSWER: Final = timedelta(seconds=20)
"""How long a command waits for the operator's answer."""


class SignIn(StrEnum):
    """Whose rights a page has."""

    KUBECONFIG = "kubeconfig"
    """Those of the kubeconfig of whoever started it; pages show a secret that was told at the start."""
    TOKEN = "token"  # noqa: S105 - a word
    """Those of the bearer token that each page sends; the dashboard has none of its own."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one dashboard is run."""

    sign_in: SignIn = SignIn.KUBECONFIG
    secret: str = ""
    """What pages must show where `sign_in` is KUBECONFIG."""
    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "[::1]"})
    """Names by which it may be called, without ports; others are refused, since a foreign page may have had its own
    name lead here (DNS rebinding)."""
    namespace: str | None = None
    """What pages show at first; None: all, where that is allowed."""

    def __repr__(self) -> str:
        """Keep the secret to itself."""
        return f"Settings(sign_in={self.sign_in}, hosts={sorted(self.hosts)})"

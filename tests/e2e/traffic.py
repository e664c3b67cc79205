"""Requests through the gateway, in a thread, each counted with who answered it."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

REVISION_HEADER = "x-canarium-revision"


@dataclass
class Traffic:
    """A closed loop of clients at a bounded rate. Use as a context manager."""

    gateway: str
    """`host:port`."""
    hostname: str
    bad_share: float = 0.0
    """Share of requests whose first feature is 5 instead of 0: valid input that the failing model breaks on."""
    rate: float = 80.0
    """Requests a second, all clients together."""
    clients: int = 4
    keep_alive: bool = True
    """False: a connection for each request, which is what kube-proxy spreads."""
    users: int = 0
    """When above 0, each request is of one of so many users, and says so in `x-user-id`."""
    served: dict[str, list[str]] = field(default_factory=dict)
    """Revisions that have answered each user, in order, without repetitions."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(revision, status) to count; revision is empty where no server answered, status 0 where nothing did."""
    last_errors: list[str] = field(default_factory=list)

    def __enter__(self) -> "Traffic":
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._await_gateway()
        self._threads = [
            threading.Thread(target=self._loop, args=(n,), daemon=True) for n in range(self.clients)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=15)

    @property
    def total(self) -> int:
        """Requests so far."""
        return sum(self.answers.values())

    def failures(self, *, besides: str = "") -> dict[tuple[str, int], int]:
        """Give all answers but 200s; those of one revision may be left out."""
        return {
            key: count
            for key, count in self.answers.items()
            if key[1] != 200 and (not besides or key[0] != besides)
        }

    def _await_gateway(self) -> None:
        """Wait until the gateway has heard of the first pods: it says that it accepted a route before it knows them.

        What fails from then on is counted.
        """
        connection = http.client.HTTPConnection(self.gateway, timeout=10)
        deadline = time.monotonic() + 20
        key = ("", 0)
        while key[1] != 200 and time.monotonic() < deadline:
            key = self._ask(connection, json.dumps({"inputs": {"input": [[0.0, 0.5, 0.5, 0.5]]}}))
            time.sleep(0.05)
        connection.close()
        self.last_errors = []

    def _loop(self, number: int) -> None:
        chance = random.Random(number)
        connection = http.client.HTTPConnection(self.gateway, timeout=10)
        pause = self.clients / self.rate
        while not self._stop.is_set():
            first = 5.0 if chance.random() < self.bad_share else 0.0
            row = [first, chance.random(), chance.random(), chance.random()]
            body = json.dumps({"inputs": {"input": [row]}})
            began = time.monotonic()
            # A client has users of its own: of two requests at once, the earlier may be answered later.
            own = range(number, self.users, self.clients)
            user = f"user-{chance.choice(own)}" if own else ""
            key = self._ask(connection, body, user)
            with self._lock:
                self.answers[key] += 1
                revisions = self.served.setdefault(user, [])
                if user and key[0] and revisions[-1:] != [key[0]]:
                    revisions.append(key[0])
            self._stop.wait(max(0.0, pause - (time.monotonic() - began)))
        connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, body: str, user: str = ""
    ) -> tuple[str, int]:
        headers = {"Host": self.hostname, "Content-Type": "application/json"}
        if user:
            headers["x-user-id"] = user
        try:
            connection.request("POST", "/predict", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if not self.keep_alive:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._note(f"{type(error).__name__}: {error}")
            return "", 0
        if answer.status != 200:
            self._note(f"{answer.status}: {text[:200]!r}")
        return answer.headers.get(REVISION_HEADER, ""), answer.status

    def _note(self, text: str) -> None:
        with self._lock:
            self.last_errors = [*self.last_errors, text][-20:]

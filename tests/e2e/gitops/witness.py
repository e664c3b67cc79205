"""A record of every version of one object that a watch told of, with the moment at which it came."""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.kube import Kubectl, Manifest, wait_for

MAX_SEEN = 5000
"""Versions; a rollout has some dozens."""


@dataclass(frozen=True)
class Seen:
    """One version of the object."""

    at: float
    """Seconds of the monotonic clock."""
    body: Manifest

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body.get("status") or {}
        return found

    def condition(self, kind: str) -> dict[str, str]:
        """Give a condition; an empty one where there is none."""
        conditions = self.status.get("conditions") or []
        return next((c for c in conditions if c["type"] == kind), {})


class Witness:
    """A watch of the objects of one kind and name in a namespace. Use as a context manager."""

    def __init__(self, kubectl: Kubectl, kind: str, name: str, namespace: str) -> None:
        self._kubectl = kubectl
        self._words = (kind, "-n", namespace, f"--field-selector=metadata.name={name}")
        self.seen: list[Seen] = []

    def __enter__(self) -> "Witness":
        self._process = subprocess.Popen(
            [self._kubectl.binary, "get", *self._words, "--watch", "-o", "json"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KUBECONFIG": self._kubectl.kubeconfig},
        )
        self._thread = threading.Thread(target=self._read, name="witness")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        self._thread.join(timeout=20)

    def _read(self) -> None:
        assert self._process.stdout is not None
        decoder, text = json.JSONDecoder(), ""
        with self._process.stdout as lines:
            for line in lines:
                text += line
                if line != "}\n":
                    continue
                body, _ = decoder.raw_decode(text)
                text = ""
                if len(self.seen) < MAX_SEEN:
                    self.seen.append(Seen(time.monotonic(), body))

    def first(
        self, what: str, test: Callable[[Seen], object], *, since: float, seconds: float = 90
    ) -> Seen:
        """Wait for the first version after a moment that is as wanted."""

        def look() -> Seen | None:
            return next((s for s in list(self.seen) if s.at >= since and test(s)), None)

        try:
            return wait_for(what, look, seconds, every=0.05)
        except AssertionError as error:
            last = json.dumps(self.seen[-1].status if self.seen else None, indent=1)
            msg = f"{error}; at last: {last[:3000]}"
            raise AssertionError(msg) from error

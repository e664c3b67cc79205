"""A test's hands on a real cluster: kubectl with JSON, and waits that wait for the thing itself."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Manifest = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Kubectl:
    """kubectl bound to one cluster."""

    kubeconfig: str
    binary: str

    def run(
        self, *arguments: str, stdin: str | None = None, timeout: float = 60, check: bool = True
    ) -> str:
        """Run kubectl and give its output; a failure shows what it wrote."""
        done = subprocess.run(
            [self.binary, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "KUBECONFIG": self.kubeconfig},
            check=False,
        )
        if check and done.returncode != 0:
            msg = f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
            raise AssertionError(msg)
        return done.stdout if check else done.stdout + done.stderr

    def apply(self, *manifests: Manifest) -> None:
        """Apply objects server-side, as a GitOps tool does."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def get(self, kind: str, name: str, namespace: str) -> Manifest | None:
        """Read one object; None where there is none."""
        text = self.run("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def wait_established(self, name: str) -> None:
        """Wait until the API server serves the kind of a CRD.

        Not by `kubectl wait`: it fails on an object that has no conditions yet, as one that was made a moment ago.
        """

        def established() -> bool:
            status = json.loads(self.run("get", "crd", name, "-o", "json")).get("status") or {}
            conditions = status.get("conditions") or []
            return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

        wait_for(f"the kind of {name}", established, 30)

    def list(self, kinds: str, namespace: str, selector: str = "") -> list[Manifest]:
        """List objects of one or more kinds."""
        options = ["-l", selector] if selector else []
        text = self.run("get", kinds, "-n", namespace, *options, "-o", "json")
        items: list[Manifest] = json.loads(text)["items"]
        return items


def wait_for(what: str, look: Callable[[], T | None], seconds: float, every: float = 0.25) -> T:
    """Look until there is something (not None and not False), and give it; else fail saying what was awaited."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            msg = f"waited {seconds:.0f} s in vain for: {what}"
            raise AssertionError(msg)
        time.sleep(every)

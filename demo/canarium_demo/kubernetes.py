"""The cluster as a user has it: kubectl for what is done, and watches for what is seen.

Watches rather than polls, because every weight that the route ever had must be seen, however briefly.
"""

import asyncio
import base64
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from canarium_demo.errors import DemoError

Manifest = dict[str, Any]
FIELD_MANAGER: Final = "canarium-demo"
_RECONNECT_SECONDS: Final = 0.5
_WATCH_SECONDS: Final = 300
_SLOWEST_COMMAND_SECONDS: Final = 180.0


class Kubectl:
    """kubectl, bound to one cluster.

    Args:
        binary: the program.
        kubeconfig: the cluster's.
    """

    def __init__(self, binary: Path, kubeconfig: Path) -> None:
        self.binary = binary
        self.kubeconfig = kubeconfig

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl and give what it wrote; `check` makes a failure a DemoError."""
        done = subprocess.run(
            [str(self.binary), *arguments],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=_SLOWEST_COMMAND_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            raise DemoError(f"`kubectl {' '.join(arguments)}` failed.", done.stderr)
        return done.stdout

    def apply(self, folder: Path) -> str:
        """Apply a folder with a kustomization, as a GitOps tool does: server-side."""
        return self.run(
            *("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}"),
            *("-k", str(folder)),
        )

    async def run_async(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl beside the traffic."""
        return await asyncio.to_thread(self.run, *arguments, check=check)

    async def apply_async(self, folder: Path) -> str:
        """Apply beside the traffic."""
        return await asyncio.to_thread(self.apply, folder)


class Watcher:
    """Follows objects of the API server; use as an async context manager.

    Args:
        kubeconfig: with the certificates inside, as the development cluster writes it.
    """

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        tls = ssl.create_default_context(cadata=authority)
        with (
            tempfile.NamedTemporaryFile() as chain
        ):  # ssl reads client certificates from files only
            for name in ("client-certificate-data", "client-key-data"):
                chain.write(base64.b64decode(user[name]))
            chain.flush()
            tls.load_cert_chain(chain.name)
        self._client = httpx.AsyncClient(
            base_url=cluster["server"], verify=tls, trust_env=False, timeout=10
        )

    async def __aenter__(self) -> "Watcher":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def objects(self, path: str, **selector: str) -> AsyncIterator[Manifest]:
        """Give every object of a collection, then each again whenever it changes, without end.

        A lost connection is taken up again with a new list, so that what is given may repeat itself.

        Args:
            path: of the collection, such as `/api/v1/namespaces/demo/pods`.
            selector: `fieldSelector` or `labelSelector`.
        """
        while True:
            try:
                answer = (await self._client.get(path, params=selector)).raise_for_status().json()
                for item in answer["items"]:
                    yield item
                version = answer["metadata"]["resourceVersion"]
                async for changed in self._changes(path, {**selector, "resourceVersion": version}):
                    yield changed
            except (httpx.HTTPError, json.JSONDecodeError):
                pass  # the API server is busy or restarts; whoever waits has a deadline
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _changes(self, path: str, params: dict[str, str]) -> AsyncIterator[Manifest]:
        params = {**params, "watch": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
        timeout = httpx.Timeout(10, read=_WATCH_SECONDS + 10)
        async with self._client.stream("GET", path, params=params, timeout=timeout) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return  # the version is too old: begin with a list again
                if event["type"] != "DELETED":
                    yield event["object"]

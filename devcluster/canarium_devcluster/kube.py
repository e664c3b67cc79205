"""A small client for the API server: read, server-side apply, wait.

It exists because the launcher needs four verbs and starts often: starting kubectl for each
question would cost more CPU time than the answer, and the full client library is not needed on a
machine that only runs a cluster.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from canarium_devcluster.errors import DevclusterError

FIELD_MANAGER = "canarium-devcluster"
_REQUEST_SECONDS = 15.0
_POLL_SECONDS = 0.25


class ApiError(Exception):
    """An answer that is not 2xx, or none at all (status 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status


class Api:
    """The API server that a kubeconfig names."""

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        url = urllib.parse.urlsplit(cluster["server"])
        self._host, self._port = url.hostname or "", url.port or 443
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        with (
            tempfile.NamedTemporaryFile() as chain
        ):  # ssl reads client certificates from files only
            for field in ("client-certificate-data", "client-key-data"):
                chain.write(base64.b64decode(user[field]))
            chain.flush()
            self._tls.load_cert_chain(chain.name)
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    def get(self, path: str) -> Any:
        """A JSON document."""
        return self._request("GET", path)

    def find(self, path: str) -> Any:
        """A JSON document, or None when there is no such thing."""
        try:
            return self.get(path)
        except ApiError as problem:
            if problem.status == http.HTTPStatus.NOT_FOUND:
                return None
            raise

    def ready(self) -> bool:
        """Whether the API server takes requests."""
        try:
            self._request("GET", "/readyz", parse=False)
        except ApiError:
            return False
        return True

    def apply(self, manifest: dict[str, Any]) -> None:
        """Server-side apply under our own field manager."""
        metadata = manifest["metadata"]
        plural, namespaced = self._plural(manifest["apiVersion"], manifest["kind"])
        root = _group_path(manifest["apiVersion"])
        if namespaced:
            root = f"{root}/namespaces/{metadata.get('namespace', 'default')}"
        self._request(
            "PATCH",
            f"{root}/{plural}/{metadata['name']}?fieldManager={FIELD_MANAGER}&force=true",
            body=json.dumps(manifest).encode(),
            content_type="application/apply-patch+yaml",
        )

    def merge_status(self, path: str, status: dict[str, Any]) -> None:
        """Merge something into the status of the object at a path (RFC 7386)."""
        self._request(
            "PATCH",
            f"{path}/status?fieldManager={FIELD_MANAGER}",
            body=json.dumps({"status": status}).encode(),
            content_type="application/merge-patch+json",
        )

    def _plural(self, api_version: str, kind: str) -> tuple[str, bool]:
        """The resource's name in URLs, and whether it lives in a namespace."""
        if (api_version, kind) not in self._plurals:
            for resource in self.get(_group_path(api_version))["resources"]:
                if "/" not in resource["name"]:
                    key = (api_version, resource["kind"])
                    self._plurals[key] = (resource["name"], resource["namespaced"])
        if (api_version, kind) not in self._plurals:
            raise ApiError(404, f"the API server does not know {kind} of {api_version} yet")
        return self._plurals[(api_version, kind)]

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        parse: bool = True,
    ) -> Any:
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=_REQUEST_SECONDS, context=self._tls
        )
        try:
            connection.request(method, path, body=body, headers={"Content-Type": content_type})
            response = connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as problem:
            raise ApiError(0, f"the API server does not answer: {problem}") from problem
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.MULTIPLE_CHOICES:
            raise ApiError(response.status, _message(data))
        return json.loads(data) if parse else None


def apply_all(api: Api, manifests: Iterable[dict[str, Any]], seconds: float = 60) -> None:
    """Apply in order; what the API server does not know or allow yet is tried again.

    A new CRD takes a moment until its resources exist, a new namespace until it has its service
    account.
    """
    deadline = time.monotonic() + seconds
    for manifest in manifests:
        while True:
            try:
                api.apply(manifest)
                break
            except ApiError as problem:
                retry = problem.status in {0, 403, 404, 409, 429} or problem.status >= 500
                if not retry or time.monotonic() > deadline:
                    name = f"{manifest['kind']} {manifest['metadata']['name']}"
                    raise DevclusterError(f"{name} was refused: {problem}") from problem
                time.sleep(_POLL_SECONDS)


def wait_for(
    what: str, check: Callable[[], str | None], *, seconds: float, remedy: str = ""
) -> None:
    """Poll until ``check`` says None; its last words become part of the error."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            lacking = check()
        except ApiError as problem:
            lacking = str(problem)
        if lacking is None:
            return
        if time.monotonic() > deadline:
            raise DevclusterError(f"{what} was not ready after {seconds:.0f} s ({lacking})", remedy)
        time.sleep(_POLL_SECONDS)


def condition(document: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of the object's status, empty when it is not there."""
    conditions = document.get("status", {}).get("conditions") or []
    return next((dict(c) for c in conditions if c["type"] == kind), {})


def _group_path(api_version: str) -> str:
    return f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace")[:500]

"""The Kubernetes API as one user may use it; the only module that talks to it.

All requests of a page are made with its user's own credentials: the API server decides what may be seen and done.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import OpenApiException
from kubernetes.aio.config import ConfigException

from canarium_api import GROUP, PLURAL, VERSION
from canarium_dashboard import settings
from canarium_dashboard.errors import (
    BadRequestError,
    DashboardError,
    ForbiddenError,
    MissingError,
    SignedOutError,
    UnreachableError,
)

Manifest = dict[str, Any]
MERGE_PATCH: Final = "application/merge-patch+json"
_PREFIX: Final = f"/apis/{GROUP}/{VERSION}"
_PAGE: Final = 250
"""Objects in one page of a list."""
_WATCH_SECONDS: Final = 300
_SILENCE_SECONDS: Final = 90.0
"""A watch that says nothing for so long is given up: the API server sends a bookmark every minute."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_MAX_MESSAGE: Final = 500
"""Characters of the API server's own words."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Which ModelDeployments are meant: all, those of a namespace, or one."""

    namespace: str | None = None
    name: str | None = None

    def covers(self, namespace: str, name: str) -> bool:
        """Tell whether an object is among them."""
        return self.namespace in (None, namespace) and self.name in (None, name)

    def __str__(self) -> str:
        if self.name is not None:
            return f"ModelDeployment {self.namespace}/{self.name}"
        where = f"namespace {self.namespace}" if self.namespace else "all namespaces"
        return f"ModelDeployments in {where}"


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a list found."""

    items: list[Manifest]
    version: str
    truncated: bool = False
    """There are more than MAX_OBJECTS."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a watch told."""

    kind: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    body: Manifest


class StaleError(DashboardError):
    """A watch cannot go on from its version: everything is listed anew."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """The API with one user's credentials."""

    api: ApiClient
    token: str | None = field(default=None, repr=False)
    """Sent as a bearer token; None: the client has credentials of its own."""

    async def find(self, scope: Scope) -> Listing:
        """List ModelDeployments, in pages, up to a bound."""
        items: list[Manifest] = []
        query = {"limit": str(_PAGE), **_selected(scope)}
        while True:
            found = await self._ask("GET", _path(scope), f"list {scope}", query)
            items += found.get("items") or []
            follow = found["metadata"].get("continue")
            full = len(items) >= settings.MAX_OBJECTS
            if not follow or full:
                version = str(found["metadata"]["resourceVersion"])
                kept = items[: settings.MAX_OBJECTS]
                more = bool(follow) or len(items) > len(kept)
                return Listing(items=kept, version=version, truncated=more)
            query["continue"] = follow

    async def watch(self, scope: Scope, version: str) -> AsyncIterator[Change]:
        """Follow changes from a version until the API server ends the watch.

        Raises:
            StaleError: the version is too old.
            DashboardError: anything else.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_WATCH_SECONDS),
            **_selected(scope),
        }
        action = f"watch {scope}"
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=_SILENCE_SECONDS)
        with _translated(action):
            response = await self._send("GET", _path(scope), query, None, {}, timeout)
            try:
                if response.status == 410:
                    raise StaleError(action)
                if response.status >= 300:
                    raise _error_of(action, response.status, await response.read())
                async for line in _lines(response.content):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise StaleError(str(event["object"].get("message", action)))
                    yield Change(kind=event["type"], body=event["object"])
            finally:
                response.close()

    async def read(self, namespace: str, name: str) -> Manifest:
        """Read one ModelDeployment."""
        scope = Scope(namespace=namespace, name=name)
        return await self._ask("GET", f"{_path(scope)}/{name}", f"read {scope}")

    async def events(self, namespace: str, name: str) -> list[Manifest]:
        """List the Events of one ModelDeployment, as many as fit one page."""
        of_it = f"involvedObject.kind=ModelDeployment,involvedObject.name={name}"
        found = await self._ask(
            "GET",
            f"/api/v1/namespaces/{namespace}/events",
            f"list Events in namespace {namespace}",
            {"fieldSelector": of_it, "limit": str(settings.MAX_EVENTS)},
        )
        items: list[Manifest] = found.get("items") or []
        return items

    async def annotate(self, namespace: str, name: str, key: str, value: str) -> None:
        """Set one annotation of a ModelDeployment, and nothing else."""
        scope = Scope(namespace=namespace, name=name)
        await self._ask(
            "PATCH",
            f"{_path(scope)}/{name}",
            f"patch {scope}",
            body={"metadata": {"annotations": {key: value}}},
            headers={"Content-Type": MERGE_PATCH},
        )

    async def may(self, verb: str, namespace: str | None, name: str | None = None) -> bool:
        """Ask whether the user may do something to ModelDeployments (SelfSubjectAccessReview)."""
        asked = {"verb": verb, "group": GROUP, "resource": PLURAL}
        if namespace is not None:
            asked["namespace"] = namespace
        if name is not None:
            asked["name"] = name
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        found = await self._ask("POST", path, "ask for your rights", body=review)
        return bool(found.get("status", {}).get("allowed"))

    async def user(self) -> str:
        """Give the name that the API server knows the user by (SelfSubjectReview)."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        found = await self._ask("POST", path, "ask for your name", body=review)
        return str(found.get("status", {}).get("userInfo", {}).get("username") or "")

    async def _ask(
        self,
        method: str,
        path: str,
        action: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Manifest:
        with _translated(action):
            response = await self._send(method, path, query or {}, body, headers or {}, _TIMEOUT)
            content = await response.read()
            if response.status >= 300:
                raise _error_of(action, response.status, content)
            answer: Manifest = json.loads(content)
            return answer

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Manifest | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        sent = {"Accept": "application/json", "Content-Type": "application/json", **headers}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        serialized = await self.api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=sent,
            body=body,
            auth_settings=[] if self.token is not None else ["BearerToken"],
        )
        answer = await self.api.call_api(*serialized, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response


def _path(scope: Scope) -> str:
    within = f"/namespaces/{scope.namespace}" if scope.namespace else ""
    return f"{_PREFIX}{within}/{PLURAL}"


def _selected(scope: Scope) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={scope.name}"} if scope.name is not None else {}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Split a stream at newlines; aiohttp's own reader of lines gives up at 128 KiB."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > settings.MAX_OBJECT_BYTES:
            msg = f"an object of more than {settings.MAX_OBJECT_BYTES} bytes"
            raise UnreachableError(msg)


def _error_of(action: str, status: int, content: bytes) -> DashboardError:
    """Translate an answer that is not a success."""
    try:
        words = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        words = content.decode(errors="replace")
    words = " ".join(words.split())[:_MAX_MESSAGE]
    if status == 401:
        return SignedOutError("the API server does not accept these credentials: sign in anew")
    if status == 403:
        return ForbiddenError(f"not allowed: {words}")
    if status == 404:
        return MissingError(f"{action}: {words or 'not found'}")
    if 400 <= status < 500 and status not in (408, 429):
        return BadRequestError(f"{action}: {status} {words}")
    return UnreachableError(f"{action}: the API server answers {status} {words}")


@contextmanager
def _translated(action: str) -> Iterator[None]:
    """Turn every way in which a call can fail to get an answer into an UnreachableError."""
    try:
        yield
    except TimeoutError as error:
        msg = f"{action}: the API server did not answer in time"
        raise UnreachableError(msg) from error
    except (aiohttp.ClientError, OpenApiException, ConfigException, OSError, ValueError) as error:
        msg = f"{action}: the API server cannot be reached: {type(error).__name__}: {error}"
        raise UnreachableError(msg[:_MAX_MESSAGE]) from error
    except KeyError as error:
        msg = f"{action}: what answers is no Kubernetes API server ({error} is missing)"
        raise UnreachableError(msg) from error

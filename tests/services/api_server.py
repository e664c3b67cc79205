"""A Kubernetes API server on loopback: as much of one as the dashboard asks for.

ModelDeployments with lists, watches, merge patches of annotations, Events, and reviews of rights and names. Users are
known by their tokens. The contract suite (tests/contract/test_dashboard_access.py) holds it to a real one.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from canarium_api import API_VERSION, GROUP, KIND, PLURAL, VERSION

Manifest = dict[str, Any]
Key = tuple[str, str]
_MINE = f"/apis/{GROUP}/{VERSION}"


@dataclass(frozen=True)
class Rights:
    """Who a token belongs to, and what they may do: verbs by namespace, `""` for all of them."""

    name: str
    verbs: dict[str, frozenset[str]] = field(default_factory=dict)

    def may(self, verb: str, namespace: str) -> bool:
        """Tell whether a verb is allowed."""
        return any(verb in self.verbs.get(where, ()) for where in {"", namespace})


LOOKS = frozenset({"get", "list", "watch"})
ACTS = LOOKS | {"patch"}


class ApiServer:
    """Objects, their versions, and who may see them."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.events: dict[Key, list[Manifest]] = {}
        self.users: dict[str, Rights] = {}
        self.requests: list[tuple[str, str]] = []
        """(Method, path) of all requests."""
        self.on_patch: Callable[[Key, dict[str, str]], None] = lambda _key, _annotations: None
        """Plays the operator: told of each patch, after it."""
        self.outage: int | None = None
        """When set, every request is answered with this status."""
        self._changes: list[tuple[int, str, Manifest]] = []
        self._version = 100
        self._oldest = 100
        """Watches cannot go on from before this version."""
        self._changed = threading.Condition()
        self.closed = False
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def kubeconfig(self, token: str, namespace: str = "default") -> Manifest:
        """Make a kubeconfig of one user."""
        context = {"cluster": "c", "user": "u", "namespace": namespace}
        return {
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": context}],
            "current-context": "x",
        }

    # --- the world's side

    def put(self, body: Manifest) -> str:
        """Store an object, tell the watches, and give its version."""
        key = (body["metadata"]["namespace"], body["metadata"]["name"])
        with self._changed:
            self._version += 1
            version = str(self._version)
            meta = {**body["metadata"], "resourceVersion": version}
            stored = {**body, "apiVersion": API_VERSION, "kind": KIND, "metadata": meta}
            kind = "MODIFIED" if key in self.objects else "ADDED"
            self.objects[key] = stored
            self._tell(kind, stored)
        return version

    def remove(self, key: Key) -> None:
        """Delete an object."""
        with self._changed:
            self._version += 1
            gone = self.objects.pop(key)
            meta = {**gone["metadata"], "resourceVersion": str(self._version)}
            self._tell("DELETED", {**gone, "metadata": meta})

    def forget_changes(self) -> None:
        """Compact: watches that are under way must list anew."""
        with self._changed:
            self._version += 1
            self._oldest = self._version
            self._changes.clear()
            self._changed.notify_all()

    def _tell(self, kind: str, body: Manifest) -> None:
        self._changes.append((self._version, kind, body))
        self._changed.notify_all()

    def close(self) -> None:
        """End it, with its watches."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self.http.shutdown()
        self.http.server_close()

    # --- the API

    def listed(self, namespace: str, name: str) -> Manifest:
        """List what a scope holds."""
        with self._changed:
            items = [b for k, b in sorted(self.objects.items()) if _within(k, namespace, name)]
            return {"items": items, "metadata": {"resourceVersion": str(self._version)}}

    def watched(self, namespace: str, name: str, since: int) -> Iterator[Manifest]:
        """Tell the changes of a scope since a version, as they come."""
        while not self.closed:
            with self._changed:
                if since < self._oldest:
                    status = {
                        "code": 410,
                        "message": "too old resource version",
                        "reason": "Expired",
                    }
                    yield {"type": "ERROR", "object": status}
                    return
                news = [c for c in self._changes if c[0] > since]
                if not news:
                    self._changed.wait(0.5)
                    continue
            for version, kind, body in news:
                since = version
                meta = body["metadata"]
                if _within((meta["namespace"], meta["name"]), namespace, name):
                    yield {"type": kind, "object": body}

    def patched(self, key: Key, patch: Manifest) -> Manifest:
        """Merge annotations into an object."""
        body = self.objects[key]
        notes = {**body["metadata"].get("annotations", {}), **patch["metadata"]["annotations"]}
        self.put({**body, "metadata": {**body["metadata"], "annotations": notes}})
        self.on_patch(key, notes)
        return self.objects[key]


def _within(key: Key, namespace: str, name: str) -> bool:
    return namespace in ("", key[0]) and name in ("", key[1])


class _RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def _handler(outer: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version: ClassVar[str] = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve(self._get)

        def do_PATCH(self) -> None:
            self._serve(self._patch)

        def do_POST(self) -> None:
            self._serve(self._post)

        def _serve(self, answer: Callable[[Rights, str, dict[str, str]], Manifest | None]) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            outer.requests.append((self.command, self.path))
            try:
                if outer.outage is not None:
                    raise _RefusedError(outer.outage, "the server is out of order")
                _, _, token = self.headers.get("Authorization", "").partition("Bearer ")
                user = outer.users.get(token)
                if user is None:
                    raise _RefusedError(401, "Unauthorized")
                found = answer(user, parts.path, query)
            except _RefusedError as refusal:
                self._send(
                    refusal.code, {"kind": "Status", "message": str(refusal), "code": refusal.code}
                )
                return
            except (BrokenPipeError, ConnectionResetError):
                return
            if found is not None:
                self._send(200, found)

        def _get(self, user: Rights, path: str, query: dict[str, str]) -> Manifest | None:
            words = path.removeprefix(_MINE).strip("/").split("/")
            if path.startswith("/api/v1/namespaces/") and path.endswith("/events"):
                return self._events(user, path.split("/")[4], query)
            namespace = words[1] if words[0] == "namespaces" else ""
            chosen = query.get("fieldSelector", "").removeprefix("metadata.name=")
            if len(words) == 4:
                _require(user, "get", namespace)
                if (namespace, words[3]) not in outer.objects:
                    raise _RefusedError(404, f'{PLURAL}.{GROUP} "{words[3]}" not found')
                return outer.objects[namespace, words[3]]
            watching = query.get("watch") == "true"
            _require(user, "watch" if watching else "list", namespace)
            if not watching:
                return outer.listed(namespace, chosen)
            self._stream(outer.watched(namespace, chosen, int(query["resourceVersion"])))
            return None

        def _events(self, user: Rights, namespace: str, query: dict[str, str]) -> Manifest:
            _require(user, "list", namespace, "events")
            name = query.get("fieldSelector", "").rpartition("involvedObject.name=")[2]
            return {"items": outer.events.get((namespace, name), []), "metadata": {}}

        def _patch(self, user: Rights, path: str, _query: dict[str, str]) -> Manifest:
            body = self._body()
            words = path.removeprefix(_MINE).strip("/").split("/")
            _require(user, "patch", words[1])
            if self.headers["Content-Type"] != "application/merge-patch+json":
                raise _RefusedError(415, "the body of the request was in an unknown format")
            if (words[1], words[3]) not in outer.objects:
                raise _RefusedError(404, f'{PLURAL}.{GROUP} "{words[3]}" not found')
            return outer.patched((words[1], words[3]), body)

        def _post(self, user: Rights, path: str, _query: dict[str, str]) -> Manifest:
            body = self._body()
            if path.endswith("/selfsubjectreviews"):
                return {"status": {"userInfo": {"username": user.name}}}
            if path.endswith("/selfsubjectaccessreviews"):
                asked = body["spec"]["resourceAttributes"]
                return {"status": {"allowed": user.may(asked["verb"], asked.get("namespace", ""))}}
            raise _RefusedError(404, "the server could not find the requested resource")

        def _body(self) -> Manifest:
            found: Manifest = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            return found

        def _send(self, code: int, body: Manifest) -> None:
            data = json.dumps(body).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        def _stream(self, lines: Iterator[Manifest]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            self.wfile.flush()
            for line in lines:
                self.wfile.write(json.dumps(line).encode() + b"\n")
                self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler


def _require(user: Rights, verb: str, namespace: str, what: str = f"{PLURAL}.{GROUP}") -> None:
    if not user.may(verb, namespace):
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        resource, _, group = what.partition(".")
        who = (
            f'User "{user.name}" cannot {verb} resource "{resource}" in API group "{group}" {where}'
        )
        msg = f"{what} is forbidden: {who}"
        raise _RefusedError(403, msg)


@contextlib.contextmanager
def running_api_server() -> Iterator[ApiServer]:
    """Run one for the time of a test."""
    server = ApiServer()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()

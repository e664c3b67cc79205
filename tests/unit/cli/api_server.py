"""An API server on loopback for the command line: the real engine behind one ModelDeployment, and what belongs to it.

It answers what the commands ask, in the API server's own form: objects, lists with selectors, watches, logs, and
refusals. Nothing that it serves is written by hand: the status is the engine's, the ConfigMaps are the operator's.
"""

import json
import queue
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme
import yaml

from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.__main__ import main
from canarium_operator.core import naming
from canarium_operator.core.memory import make_memory, memory_of
from canarium_operator.core.resources.configmap import make_configmap
from canarium_operator.testing.scenario import REF, Scenario

GROUP = "/apis/canarium.dev/v1alpha1"
Answer = tuple[int, Any]
Body = dict[str, Any]


def body_of(world: Scenario, **meta: Any) -> Body:
    """Give the ModelDeployment of a world as the API server does."""
    return {
        "apiVersion": "canarium.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {
            "name": REF.name,
            "namespace": REF.namespace,
            "generation": world.generation,
            "resourceVersion": str(100 + world.status.epoch),
            "creationTimestamp": "2026-01-01T11:00:00Z",
            **meta,
        },
        "spec": world.spec.to_manifest(),
        "status": world.status.to_manifest(),
    }


def pods_of(world: Scenario) -> list[Body]:
    """Give the pods of a world, as a kubelet tells of them."""
    found = []
    for revision, workload in sorted(world.observed.workloads.items()):
        for number in range(workload.spec_replicas):
            ready = "True" if number < workload.ready_replicas else "False"
            found.append(
                {
                    "metadata": {
                        "name": f"{REF.name}-{revision}-7d9f-{'abcdefghij'[number]}{revision[:4]}",
                        "namespace": REF.namespace,
                        "labels": naming.revision_selector(REF, revision),
                        "creationTimestamp": "2026-01-01T12:00:00Z",
                    },
                    "spec": {"nodeName": "node-1"},
                    "status": {
                        "phase": "Running",
                        "conditions": [{"type": "Ready", "status": ready}],
                        "containerStatuses": [{"name": "runtime", "restartCount": 0}],
                    },
                }
            )
    return found


def event(reason: str, message: str, second: int, kind: str = "Normal") -> Body:
    """Make an Event of the ModelDeployment."""
    return {
        "metadata": {"name": f"{REF.name}.{second}", "namespace": REF.namespace},
        "reason": reason,
        "message": message,
        "type": kind,
        "count": 1,
        "lastTimestamp": f"2026-01-01T12:00:{second:02}Z",
    }


class ApiServer:
    """One ModelDeployment, `ml/fraud`, and others without a status.

    `world` is what it serves. While `operates`, each read of the object lets the engine look at commands that were
    given. What is put into `changes` comes through a watch: a world, or None, which says that the object was deleted.
    """

    def __init__(self, world: Scenario) -> None:
        self.world = world
        self.meta: Body = {}
        self.others: list[Body] = []
        self.events: list[Body] = []
        self.logs: dict[str, str] = {}
        self.annotations: dict[str, str] = {}
        self.operates = True
        self.installed = True
        self.forbidden: set[tuple[str, str]] = set()
        """Verb and resource that the user may not."""
        self.broken = 0
        """HTTP status of all answers about ModelDeployments; 0: what it should be."""
        self.too_old = False
        """Watches are told that their version is."""
        self.breaks = False
        """Watches break off in the middle of a line."""
        self.user = "alice@example.com"
        self.patches: list[tuple[str, Body]] = []
        self.asked: list[str] = []
        self.changes: queue.Queue[Scenario | None] = queue.Queue()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        """Where it listens."""
        scheme = "https" if isinstance(self.http.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.http.server_address[1]}"

    def speak_tls(self) -> bytes:
        """Speak TLS, as API servers do; gives the certificate of who vouches for it."""
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        return authority.cert_pem.bytes()

    def body(self) -> Body:
        """The object as it is now, after the operator has looked at it."""
        if self.operates:
            commands = naming.commands_of(self.annotations)
            self.world = replace(self.world, commands=commands).settle()
        return body_of(self.world, annotations=self.annotations, **self.meta)

    def get(self, path: str, query: dict[str, str]) -> Answer:
        """Answer a read that is not a watch."""
        parts = path.strip("/").split("/")
        if path.startswith(GROUP):
            return self._model_deployments(parts[3:], query)
        if path == "/api/v1/namespaces":
            return self._listed("namespaces", [{"metadata": {"name": n}} for n in ("ml", "shop")])
        resource = parts[4]
        if resource == "pods" and parts[-1] == "log":
            return self._log(parts[5])
        lists: dict[str, Any] = {
            "pods": lambda: pods_of(self.world),
            "events": lambda: self.events,
            "configmaps": self._configmaps,
        }
        return self._listed(resource, lists[resource]())

    def _log(self, pod: str) -> Answer:
        if ("get", "pods/log") in self.forbidden:
            return self._refused("get", "pods/log")
        if pod not in self.logs:
            return 400, {"kind": "Status", "message": f"container of {pod} is waiting to start"}
        return 200, self.logs[pod].encode()

    def _model_deployments(self, parts: list[str], query: dict[str, str]) -> Answer:
        if not self.installed:
            return 404, b"404 page not found\n"
        if self.broken:
            return self.broken, {"kind": "Status", "message": "etcd is on fire"}
        space = parts[1] if parts[0] == "namespaces" else ""
        name = parts[3] if space and len(parts) > 3 else ""
        verb = "get" if name else "list"
        if (verb, "modeldeployments") in self.forbidden:
            return self._refused(verb, "modeldeployments")
        everything = [self.body(), *self.others]
        if name:
            key = (space, name)
            found = [b for b in everything if _key(b) == key]
            missing = f'modeldeployments.canarium.dev "{name}" not found'
            return (200, found[0]) if found else (404, {"kind": "Status", "message": missing})
        here = [b for b in everything if not space or b["metadata"]["namespace"] == space]
        if label := query.get("labelSelector"):
            wanted = tuple(label.split("=", 1))
            here = [b for b in here if wanted in (b["metadata"].get("labels") or {}).items()]
        return 200, {"items": here, "metadata": {"resourceVersion": "100"}}

    def _configmaps(self) -> list[Body]:
        revisions = self.world.observed.revisions
        made = [make_configmap(REF, revision) for revision in revisions.values()]
        memory = memory_of(self.world.status, revisions, self.world.observed.memory)
        return made + ([make_memory(REF, memory)] if memory is not None else [])

    def _listed(self, resource: str, items: list[Body]) -> Answer:
        if ("list", resource) in self.forbidden:
            return self._refused("list", resource)
        return 200, {"items": items, "metadata": {}}

    def _refused(self, verb: str, resource: str) -> Answer:
        words = f'{resource} is forbidden: User "bob" cannot {verb} resource "{resource}"'
        return 403, {"kind": "Status", "reason": "Forbidden", "message": words}

    def patched(self, kind: str, body: Body) -> Answer:
        """Take a merge patch."""
        if self.broken or ("patch", "modeldeployments") in self.forbidden:
            return self._refused("patch", "modeldeployments")
        self.patches.append((kind, body))
        self.annotations.update(body.get("metadata", {}).get("annotations", {}))
        if "spec" in body:
            spec = merged({"spec": self.world.spec.to_manifest()}, body)["spec"]
            self.world = self.world.change(ModelDeploymentSpec.from_manifest(spec))
        return 200, self.body()

    def watched(self) -> Iterator[Body]:
        """Give what a watch tells: each change that was put in, until an object is deleted."""
        if self.too_old:
            status = {"kind": "Status", "code": 410, "message": "too old resource version"}
            yield {"type": "ERROR", "object": status}
            return
        if self.breaks:
            raise BrokenPipeError
        while True:
            world = self.changes.get(timeout=10)
            if world is None:
                yield {"type": "DELETED", "object": body_of(self.world)}
                return
            self.world = world
            yield {"type": "MODIFIED", "object": body_of(world)}


def merged(now: Any, patch: Any) -> Any:
    """Apply a merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    found = dict(now) if isinstance(now, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def _key(body: Body) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            server.asked.append(f"{parts.path}?{parts.query}")
            if query.get("watch") in ("true", "True"):
                self._watch()
            else:
                self._answer(server.get(parts.path, query))

        def do_PATCH(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(server.patched(self.headers["Content-Type"], body))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path.endswith("/selfsubjectreviews")
            self._answer((201, {"status": {"userInfo": {"username": server.user}}}))

        def _watch(self) -> None:
            if ("watch", "modeldeployments") in server.forbidden:
                self._answer(server._refused("watch", "modeldeployments"))
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for told in server.watched():
                    data = json.dumps(told).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")
            except (OSError, queue.Empty):
                self.close_connection = True

        def _answer(self, given: Answer) -> None:
            code, body = given
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            plain = isinstance(body, bytes)
            self.send_header("Content-Type", "text/plain" if plain else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler


@contextmanager
def serving(server: ApiServer) -> Iterator[ApiServer]:
    """Run a server for the time of a test."""
    server.http.daemon_threads = True
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        thread.join()
        server.http.server_close()


def write_kubeconfig(path: Path, url: str, authority: bytes = b"") -> Path:
    """Write a kubeconfig that leads to a server, with `ml` as its namespace."""
    trusted = {"certificate-authority-data": b64encode(authority).decode()} if authority else {}
    config = {
        "clusters": [{"name": "c", "cluster": {"server": url, **trusted}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "ml"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def run(*words: str) -> int:
    """Run `canarium WORDS` in this process."""
    try:
        return main(words)
    except SystemExit as exit_:
        return int(exit_.code or 0)


def now() -> datetime:
    """The instant at which the worlds of scenarios begin."""
    return datetime(2026, 1, 1, 12, tzinfo=UTC)

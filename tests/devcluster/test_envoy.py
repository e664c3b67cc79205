"""The Gateway `envoy`, which `--also envoy` adds: weights, matches, rewrites, mirrors, request ids."""

import http.client
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from canarium_devcluster import gateways, launcher, workshop
from canarium_devcluster.errors import DevclusterError

from . import machine
from .served import NAMESPACE, Running, start, until

CLUSTER = "test-envoy"
HOST = "envoy.example.com"
MIRROR_SECONDS = 1.5
PROGRAM = f"""
import http.server, json, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body at once: apart, the second waits for a delayed ACK
    seen = []

    def do_GET(self):
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length).decode()
        version = os.environ["VERSION"]
        if self.path == "/seen":
            answer = json.dumps(Handler.seen)
        elif self.path == "/forget":
            Handler.seen.clear()
            answer = "forgotten"
        else:
            answer = version
            if self.headers.get("x-request-id"):
                Handler.seen.append({{
                    "path": self.path,
                    "host": self.headers["Host"],
                    "id": self.headers["x-request-id"],
                    "body": body,
                }})
            if version == "two" and self.path == "/slow":
                time.sleep({MIRROR_SECONDS})
        status = 500 if version == "two" and self.path == "/broken" else 200
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    do_POST = do_GET

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def backend(name: str, weight: int = 1) -> dict[str, Any]:
    return {"name": name, "port": 80, "weight": weight}


def mirror(**fraction: object) -> dict[str, Any]:
    to = {"backendRef": {"name": "two", "port": 80}, **fraction}
    return {
        "backendRefs": [backend("one")],
        "filters": [{"type": "RequestMirror", "requestMirror": to}],
    }


def route(*rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "envoy", "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"name": "envoy", "namespace": "canarium-gateway"}],
            "hostnames": [HOST],
            "rules": list(rules),
        },
    }


class World:
    """Requests through the Gateway `envoy`, and what the two versions saw of them."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._connection = http.client.HTTPConnection(
            running.mine.addresses.gateway_beside_ip, timeout=5
        )

    def route(self, *rules: dict[str, Any]) -> None:
        """Apply the rules, wait until Envoy follows them, and forget what the versions saw.

        A path of this change alone is answered with a header when Envoy has all of the change.
        """
        mark = f"/mark-{time.monotonic_ns()}"
        marked = {
            "matches": [{"path": {"type": "Exact", "value": mark}}],
            "backendRefs": [backend("one")],
        }
        marked["filters"] = [
            {
                "type": "ResponseHeaderModifier",
                "responseHeaderModifier": {"set": [{"name": "x-mark", "value": mark}]},
            }
        ]
        self.running.apply(route(*rules, marked))
        until("the route is followed", lambda: self.ask(path=mark)[2].get("x-mark") == mark)
        for version in ("one", "two"):
            self._direct(version, "/forget")

    def ask(
        self, path: str = "/", body: str = "", **headers: str
    ) -> tuple[int, str, http.client.HTTPMessage]:
        """Status, answer and headers of one request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("POST", path, body=body, headers={"Host": HOST, **named})
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers

    def seen(self, version: str) -> list[dict[str, str]]:
        return list(json.loads(self._direct(version, "/seen")))

    def both_saw(self, count: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """What each saw, by request id, when both saw so many: mirrors come without being awaited."""
        until(f"both saw {count}", lambda: len(self.seen("two")) >= count <= len(self.seen("one")))
        one, two = (sorted(self.seen(v), key=lambda r: r["id"]) for v in ("one", "two"))
        return one, two

    def close(self) -> None:
        self._connection.close()

    def _direct(self, version: str, path: str) -> str:
        ip = self.running.kubectl(
            "get", "service", version, "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}"
        )
        with urllib.request.urlopen(f"http://{ip}{path}", timeout=5) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    shop = workshop.open_workshop()
    before = machine.snapshot((CLUSTER,))
    try:
        mine = launcher.up(shop, CLUSTER, also=["envoy"])
        found = World(start(mine, PROGRAM, tmp_path_factory.mktemp("source")))
        yield found
        found.close()
    finally:
        launcher.down(shop, CLUSTER, purge=True)
    # The kernel frees namespaces a moment after their last process.
    until(
        "nothing is left behind",
        lambda: not machine.left_behind(before, machine.snapshot((CLUSTER,))),
        seconds=15,
    )


def test_envoy_does_not_serve_the_public_gateway() -> None:
    """The error says how to have it."""
    with pytest.raises(DevclusterError, match="--also envoy"):
        gateways.get("envoy")


def test_an_unknown_gateway_beside_is_refused() -> None:
    """With the names that there are."""
    with pytest.raises(DevclusterError, match="use one of envoy"):
        gateways.beside("nginx")


@pytest.mark.cluster
@pytest.mark.timeout(600)
class TestOnACluster:
    """One cluster for all."""

    def test_both_gateways_are_programmed(self, world: World) -> None:
        """Each at its own address."""
        answer = world.running.kubectl("get", "gateway", "-n", "canarium-gateway", "-o", "json")
        seen = {}
        for gateway in json.loads(answer)["items"]:
            conditions = {c["type"]: c["status"] for c in gateway["status"]["conditions"]}
            assert conditions["Programmed"] == "True"
            seen[gateway["metadata"]["name"]] = gateway["status"]["addresses"][0]["value"]
        where = world.running.mine.addresses
        assert seen == {"public": where.gateway_ip, "envoy": where.gateway_beside_ip}

    @pytest.mark.parametrize(("name", "mirrors"), [("traefik", False), ("envoy", None)])
    def test_what_the_classes_say_of_mirrors(
        self, world: World, name: str, mirrors: bool | None
    ) -> None:
        """Traefik lists its features, without mirrors; Envoy Gateway 1.9 lists none at all."""
        found = json.loads(world.running.kubectl("get", "gatewayclass", name, "-o", "json"))
        features = found["status"].get("supportedFeatures")
        said = None if features is None else {"name": "HTTPRouteRequestMirror"} in features
        assert said is mirrors

    @pytest.mark.parametrize("weight", [10, 50, 100])
    def test_weights_are_followed(self, world: World, weight: int) -> None:
        """Of 300 requests, within four standard deviations; none fails."""
        world.route({"backendRefs": [backend("one", 100 - weight), backend("two", weight)]})
        answers = Counter(world.ask()[:2] for _ in range(300))
        slack = 4 * (300 * weight / 100 * (1 - weight / 100)) ** 0.5
        assert abs(answers[(200, "two")] - 3 * weight) <= slack
        assert answers[(200, "one")] + answers[(200, "two")] == 300

    def test_a_header_decides(self, world: World) -> None:
        """All with it go to one side, all without to the other."""
        matched = {"headers": [{"name": "x-group", "value": "b"}]}
        world.route(
            {"matches": [matched], "backendRefs": [backend("two")]},
            {"backendRefs": [backend("one")]},
        )
        assert {world.ask(x_group="b")[1] for _ in range(50)} == {"two"}
        assert {world.ask(x_group="a")[1] for _ in range(50)} == {"one"}

    def test_path_and_host_are_rewritten(self, world: World) -> None:
        """A prefix becomes another, and the name another."""
        rewrite = {
            "hostname": "inner.example.com",
            "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"},
        }
        world.route(
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/models/m"}}],
                "filters": [{"type": "URLRewrite", "urlRewrite": rewrite}],
                "backendRefs": [backend("one")],
            }
        )
        world.ask("/models/m/infer")
        (seen,) = world.seen("one")
        assert (seen["path"], seen["host"]) == ("/v2/infer", "inner.example.com")

    def test_each_request_is_mirrored_with_its_body_and_id(self, world: World) -> None:
        """The primary answers; the mirror gets the same id, made by Envoy, and the same body."""
        world.route(mirror())
        answers = Counter(world.ask("/predict", body=f"body {n}")[1] for n in range(50))
        assert Counter(one=50) == answers
        one, two = world.both_saw(50)
        assert [(r["id"], r["body"], r["path"]) for r in one] == [
            (r["id"], r["body"], r["path"]) for r in two
        ]
        assert len({r["id"] for r in one}) == 50

    def test_a_mirror_has_the_host_of_the_request(self, world: World) -> None:
        """Envoy alone would add `-shadow` to it; Envoy Gateway has that off."""
        world.route(mirror())
        world.ask()
        (one,), (two,) = world.both_saw(1)
        assert (one["host"], two["host"]) == (HOST, HOST)

    @pytest.mark.parametrize("name", ["order-4711/a", "7c9e6679-7425-40de-944b-e07fc1f90ae7"])
    def test_an_id_of_the_clients_own_is_kept(self, world: World, name: str) -> None:
        """At the primary and at the mirror, whatever its form."""
        world.route(mirror())
        world.ask(x_request_id=name)
        (one,), (two,) = world.both_saw(1)
        assert (name, name) == (one["id"], two["id"])

    def test_nobody_waits_for_a_slow_mirror(self, world: World) -> None:
        """The primary's answer comes at once."""
        world.route(mirror())
        began = time.monotonic()
        assert world.ask("/slow")[:2] == (200, "one")
        assert time.monotonic() - began < MIRROR_SECONDS / 2

    def test_nobody_notices_a_mirror_that_fails(self, world: World) -> None:
        """Errors of the mirror are nobody's errors."""
        world.route(mirror())
        assert {(200, "one")} == {world.ask("/broken")[:2] for _ in range(20)}
        world.both_saw(20)

    def test_a_share_can_be_mirrored(self, world: World) -> None:
        """30 % of 300, within four standard deviations."""
        world.route(mirror(percent=30))
        for _ in range(300):
            assert world.ask()[0] == 200
        slack = int(4 * (300 * 0.3 * 0.7) ** 0.5)
        until("the mirror has its share", lambda: len(world.seen("two")) >= 90 - slack)
        assert len(world.seen("two")) <= 90 + slack

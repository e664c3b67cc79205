"""Bad requests from a seed: valid ones, spoilt in their JSON, in their bytes, or in their HTTP.

A door is one way into the server with a valid request; `bad_requests` spoils it in endless ways. The same seed gives
the same requests, so a failure can be repeated.
"""

import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Door:
    """One way into the server."""

    name: str
    path: str
    document: dict[str, Any]
    """A valid request."""
    data: bytes = b""
    """Binary tensors behind the document."""

    def request(self, document: Any = None, **changes: Any) -> bytes:
        """Make a request as HTTP, with these parts changed: `body`, `method`, `path`, `version`, `headers`."""
        head = dumps(self.document if document is None else document)
        body = changes.get("body", head + self.data)
        headers = [("host", "fuzz"), ("content-type", "application/json")]
        if self.data:
            headers.append(("inference-header-content-length", str(len(head))))
        headers.append(("content-length", str(len(body))))
        headers = changes.get("headers", lambda given: given)(headers)
        line = f"{changes.get('method', 'POST')} {changes.get('path', self.path)} {changes.get('version', 'HTTP/1.1')}"
        lines = [line, *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body


DOORS = (
    Door(
        name="V2",
        path="/v2/models/model/infer",
        document={
            "id": "a",
            "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [3, 4]}],
            "outputs": [{"name": "y"}],
        },
    ),
    Door(name="predict with rows", path="/predict", document={"instances": [[3, 4]], "id": "a"}),
    Door(name="predict with columns", path="/predict", document={"inputs": {"x": [[3, 4]]}}),
    Door(
        name="V2 with binary tensors",
        path="/v2/models/model/infer",
        document={
            "inputs": [
                {
                    "name": "x",
                    "shape": [1, 2],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": 8},
                }
            ],
        },
        data=b"\x00\x00\x40\x40\x00\x00\x80\x40",
    ),
)

_STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308, 5e-324, float("nan"),
    float("inf"), float("-inf"), "", "x", "y", "3", "FP32", "INT64", "BYTES", "BOOL", "\x00", "\u202e", "\ud800",
    "é" * 300, "a" * 100_000, "../../etc/passwd", "{{7*7}}", "%s%n", [], [[]], [[[]]], {}, {"": {}}, [None],
    [[1], [1, 2]], [[3, 4]] * 40, [[3, 4, 5]], {"x": 1}, [{"x": [3, 4]}], list(range(5000)), [[1e39, 1]],
    "AAAA", [["3", "4"]],
)  # fmt: skip


def bad_requests(door: Door, seed: int) -> Iterator[bytes]:
    """Spoil the door's request again and again."""
    chance = random.Random(f"{door.name} {seed}")
    ways: tuple[Callable[[Door, random.Random], bytes], ...] = (
        _spoil_json,
        _spoil_json,
        _spoil_body,
        _spoil_framing,
        _spoil_head,
        _spoil_bytes,
    )
    while True:
        yield chance.choice(ways)(door, chance)


def dumps(document: Any) -> bytes:
    """Write JSON that may have lone surrogates and NaN in it."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a document: a container and a key of it."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


def _spoil_json(door: Door, chance: random.Random) -> bytes:
    """Put something strange somewhere, or take something away; once or a few times."""
    document = json.loads(json.dumps(door.document))
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(document))
        if not places:
            break
        container, key = chance.choice(places)
        what = chance.random()
        if what < 0.7:
            container[key] = deepcopy(chance.choice(_STRANGE))
        elif what < 0.85:
            del container[key]
        elif isinstance(container, dict):
            container[str(chance.choice(_STRANGE))[:200]] = deepcopy(container[key])
        else:
            container.insert(key, deepcopy(container[key]))
    if chance.random() < 0.1:
        document = chance.choice(_STRANGE)
    return door.request(document)


def _spoil_body(door: Door, chance: random.Random) -> bytes:
    """Spoil the body's bytes; HTTP stays right."""
    body = dumps(door.document) + door.data
    at = chance.randrange(len(body))
    noise = chance.randbytes(chance.choice((1, 1, 3, 50)))
    depth = chance.choice((100, 2000, 100_000))
    bodies = (
        b"",
        body[:at],
        body[:at] + noise + body[at:],
        body[:at] + noise + body[at + len(noise) :],
        body + body,
        b"\xef\xbb\xbf" + body,
        b"[" * depth,
        b'{"inputs":' * depth + b"1" + b"}" * depth,
        b'{"instances":' + b"[" * depth + b"]" * depth + b"}",
        b'{"instances":[[' + b"1" * depth + b",2]]}",
        body.decode("latin-1").encode("utf-16"),
        chance.randbytes(200),
    )
    return door.request(body=chance.choice(bodies))


def _spoil_framing(door: Door, chance: random.Random) -> bytes:
    """Say something wrong about the body: its length, its encoding, its chunks."""
    length = chance.choice(
        ("-1", "0", "1", "+9", "0x10", "1e3", "9" * 30, "", " ", "12, 12", "12;", "৩", "16777217")
    )
    chunks = chance.choice(
        (b"0\r\n\r\n", b"zz\r\n", b"-1\r\n", b"ffffffffffffffff\r\nx", b"5\r\nab", b"1\r\nab\r\n0\r\n\r\n",
         b"2;" + b"e" * 20_000, b"0\r\nx-t: 1\r\n\r\n")
    )  # fmt: skip
    binary = chance.choice(("-1", "0", "7", "99999999", "x", "", "9" * 30, "1.5"))

    def without(name: str, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(n, v) for n, v in headers if n != name]

    chunked = [("transfer-encoding", "chunked")]
    way = chance.randrange(8)
    if way == 0:
        return door.request(
            headers=lambda h: [*without("content-length", h), ("content-length", length)]
        )
    if way == 1:
        return door.request(headers=lambda h: [*h, ("content-length", length)])
    if way == 2:
        return door.request(headers=lambda h: without("content-length", h) + chunked, body=chunks)
    if way == 3:
        return door.request(headers=lambda h: h + chunked)
    if way == 4:
        encoding = chance.choice(("gzip", "br", "deflate, gzip", "identity, identity", "\x7f", ""))
        return door.request(headers=lambda h: [*h, ("content-encoding", encoding)])
    if way == 5:
        return door.request(headers=lambda h: [*h, ("inference-header-content-length", binary)])
    if way == 6:
        return door.request(
            headers=lambda h: [*h, ("expect", chance.choice(("100-continue", "x")))]
        )
    return door.request(headers=lambda h: [*h, ("transfer-encoding", chance.choice(("gzip", "x")))])


def _spoil_head(door: Door, chance: random.Random) -> bytes:
    """Spoil the first line, or add headers that nobody should send."""
    paths = (
        "", "*", "/", "//", "/predict/../predict", "/v2/models/%00/infer", "/v2/models/model/versions//infer", "/%ff",
        "/" + "a" * 70_000, "http://other/predict", "/predict?" + "q" * 9000, "/v2/models/../../x/infer", "/predict#f",
    )  # fmt: skip
    extra = (
        ("x-request-id", "a" * 100_000), ("x-request-id", "\x01"), ("x", "a" * 70_000), ("", "x"), ("a b", "x"),
        ("authorization", "Bearer " + "e" * 9000), ("authorization", "Basic \xff"), ("x-api-key", "\x00"),
        ("upgrade", "websocket"), ("connection", "upgrade, close, keep-alive"), ("content-type", "\xff/\xfe"),
        ("host", "other"), ("sec-websocket-key", "x"), ("accept", "*" * 5000), ("traceparent", "00-zz-zz-zz"),
    )  # fmt: skip
    way = chance.randrange(4)
    if way == 0:
        return door.request(path=chance.choice(paths))
    if way == 1:
        methods = (
            "GET",
            "PUT",
            "post",
            "HEAD",
            "OPTIONS",
            "TRACE",
            "CONNECT",
            "P" * 9000,
            "",
            "PRI",
        )
        return door.request(method=chance.choice(methods))
    if way == 2:
        versions = (
            "HTTP/1.0",
            "HTTP/0.9",
            "HTTP/2.0",
            "HTTP/9.9",
            "HTTP/1.1 x",
            "",
            "ICY",
            "RTSP/1.0",
        )
        return door.request(version=chance.choice(versions))
    added = [chance.choice(extra) for _ in range(chance.choice((1, 1, 2, 200)))]
    return door.request(headers=lambda h: [*added, *h] if chance.random() < 0.5 else h + added)


def _spoil_bytes(door: Door, chance: random.Random) -> bytes:
    """Change any bytes of the request at all."""
    data = bytearray(door.request())
    for _ in range(chance.choice((1, 1, 2, 5, 30))):
        at = chance.randrange(len(data))
        way = chance.randrange(4)
        if way == 0:
            data[at] = chance.randrange(256)
        elif way == 1:
            data[at:at] = chance.choice((b"\r\n", b"\x00", b"\r", b"\n", b"\xff\xfe", b": ", b" "))
        elif way == 2:
            del data[at : at + chance.randrange(1, 8)]
        else:
            data[at:at] = data[at : at + 20]
        if not data:
            break
    return bytes(data)

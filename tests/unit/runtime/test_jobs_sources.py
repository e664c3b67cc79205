"""Sources of rows: formats, columns, and what may be read."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from canarium_api.jobs_config import JobsConfig
from canarium_runtime.backends.base import ModelSpec
from canarium_runtime.jobs.chunks import Failure
from canarium_runtime.jobs.errors import SourceError
from canarium_runtime.jobs.network import AddressRules
from canarium_runtime.jobs.record import Format, Source
from canarium_runtime.jobs.sources import Opener, format_of, read_rows
from canarium_runtime.testing import model_spec, tensor

SPEC = model_spec(
    [
        tensor("age", "FP32", None, 1),
        tensor("count", "INT64", None),
        tensor("name", "BYTES", None),
        tensor("ok", "BOOL", None),
    ]
)
VECTOR = model_spec([tensor("x", "FP32", None, 2)])


def rows_of(path: Path, spec: ModelSpec = SPEC, **source: Any) -> list[Any]:
    found = read_rows(path, Source(uri=path.as_uri(), **source), spec)
    return [row if isinstance(row, Failure) else orjson.loads(row) for row in found]


def test_json_lines_are_rows_and_a_broken_line_is_one_bad_row(tmp_path: Path) -> None:
    """Empty lines are none."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": [1, 2]}\n\n[3, 4]\n{oops}\n5')
    one, two, bad, last = rows_of(path)
    assert (one, two, last) == ({"x": [1, 2]}, [3, 4], 5)
    assert bad.code == "malformed_request"


def test_cells_of_a_csv_become_what_the_inputs_are(tmp_path: Path) -> None:
    """What a cell is not stays as it is, so that validation can name it."""
    path = tmp_path / "a.csv"
    path.write_text('\ufeffname,age,count,ok,more\n"a, b",1.5,7,true,x\n12,,1.5,maybe,\n')
    assert rows_of(path) == [
        {"age": [1.5], "count": 7, "name": "a, b", "ok": True},
        {"age": [None], "count": "1.5", "name": "12", "ok": "maybe"},
    ]


def test_columns_can_be_joined_to_one_input(tmp_path: Path) -> None:
    """In the order that is given."""
    path = tmp_path / "a.csv"
    path.write_text("b,a\n1,2\n3,4,5\n")
    found = rows_of(path, VECTOR, columns={"x": ["a", "b"]})
    assert found[0] == {"x": [2.0, 1.0]}
    assert found[1].message == "the row has more cells than the header"


def test_parquet_is_read_by_its_columns(tmp_path: Path) -> None:
    """Other columns are not read at all."""
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"a": [1.0, None], "b": [2.0, 3.0], "c": [b"x", b"y"]}), path)
    assert rows_of(path, VECTOR, columns={"x": ["a", "b"]}) == [
        {"x": [1.0, 2.0]},
        {"x": [None, 3.0]},
    ]
    bad = rows_of(path, VECTOR, columns={"x": "c"})
    assert [b.code for b in bad] == ["malformed_request"] * 2


@pytest.mark.parametrize(
    ("name", "content", "fields", "message"),
    [
        ("a.csv", b"a,b\n1,2\n", {}, "no column 'x'"),
        ("a.csv", b"a,b\n1,2\n", {"columns": {"y": "a"}}, r"expected the model's inputs \['x'\]"),
        ("a.csv", b"x\n\xff\xfe\n", {}, "cannot be read as csv"),
        ("a.csv", b'x\n"a"b\n', {}, "not CSV, near line 2"),
        ("a.parquet", b"no", {}, "not Parquet"),
        ("a.txt", b"1", {}, "expected jsonl, csv or parquet"),
    ],
)
def test_a_file_that_is_not_of_its_format_is_refused(
    tmp_path: Path, name: str, content: bytes, fields: dict[str, Any], message: str
) -> None:
    """With what is wrong."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        rows_of(tmp_path / name, VECTOR, **fields)


def test_the_format_is_what_was_said_or_what_the_path_ends_with() -> None:
    """A query is no part of the path."""
    assert format_of(Source(uri="https://h/a.CSV?sig=x.jsonl")) is Format.CSV
    assert format_of(Source(uri="https://h/a.txt", format=Format.JSONL)) is Format.JSONL


def opener(tmp_path: Path, **settings: Any) -> Opener:
    config = JobsConfig(download_dir=str(tmp_path / "get"), **settings)
    return Opener(config=config, rules=AddressRules(private_networks=config.networks))


def test_files_are_read_below_the_allowed_directory_only(tmp_path: Path) -> None:
    """Neither `..` nor a link leads out of it, and without the setting none are."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    secret = tmp_path / "secret.csv"
    secret.write_text("x\n")
    (allowed / "link.csv").symlink_to(secret)
    (allowed / "a.csv").write_text("x\n")
    reading = opener(tmp_path, file_directory=str(allowed))
    path, is_copy = reading.open(Source(uri=(allowed / "a.csv").as_uri()))
    assert (path.name, is_copy) == ("a.csv", False)
    for uri in (
        secret.as_uri(),
        f"file://{allowed}/../secret.csv",
        f"file://{allowed}/%2e%2e/secret.csv",
        (allowed / "link.csv").as_uri(),
    ):
        with pytest.raises(SourceError, match="is not in"):
            reading.open(Source(uri=uri))
    with pytest.raises(SourceError, match="names no directory"):
        opener(tmp_path).open(Source(uri=(allowed / "a.csv").as_uri()))
    with pytest.raises(SourceError, match="cannot be read"):
        reading.open(Source(uri=(allowed / "missing.csv").as_uri()))


class Handler(BaseHTTPRequestHandler):
    """Serves rows, and a redirect to wherever the path says."""

    hosts: list[str] = []  # noqa: RUF012 - of the test's own class

    def do_GET(self) -> None:
        self.hosts.append(self.headers["host"])
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[1,2]\n")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


DIGEST = hashlib.sha256(b"[1,2]\n").hexdigest()


def test_a_file_is_fetched_and_its_digest_checked(tmp_path: Path, port: int) -> None:
    """From a network that is allowed; the server sees the name that was asked for."""
    rules = AddressRules(
        private_networks=JobsConfig(private_networks="127.0.0.0/8").networks,
        resolve=lambda host, port: ["127.0.0.1"],
    )
    config = JobsConfig(download_dir=str(tmp_path))
    reading = Opener(config=config, rules=rules)
    source = Source(uri=f"http://data.example:{port}/a.jsonl", sha256=DIGEST)
    path, is_copy = reading.open(source)
    assert (path.read_bytes(), is_copy) == (b"[1,2]\n", True)
    assert Handler.hosts[-1] == f"data.example:{port}"
    with pytest.raises(SourceError, match=r"source\.sha256"):
        reading.open(source.model_copy(update={"sha256": "0" * 64}))


@pytest.mark.parametrize("path", ["a.jsonl", "to/http://127.0.0.1:{port}/a.jsonl"])
def test_nothing_is_fetched_from_addresses_that_are_not_public(
    tmp_path: Path, port: int, path: str
) -> None:
    """Not by a redirect either: the first host is allowed, what it points at is not."""
    rules = AddressRules(resolve=lambda host, port: ["127.0.0.1"])
    if path.startswith("to/"):
        networks = JobsConfig(private_networks="127.0.0.2/32").networks
        rules = AddressRules(private_networks=networks, resolve=lambda host, port: ["127.0.0.2"])
        server = ThreadingHTTPServer(("127.0.0.2", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        uri = f"http://data.example:{server.server_port}/{path.format(port=port)}"
    else:
        server = thread = None  # type: ignore[assignment]
        uri = f"http://data.example:{port}/{path}"
    Handler.hosts.clear()
    reading = Opener(config=JobsConfig(download_dir=str(tmp_path)), rules=rules)
    try:
        with pytest.raises(SourceError, match="not public"):
            reading.open(Source(uri=uri, sha256=DIGEST))
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()
            thread.join()
    assert f"127.0.0.1:{port}" not in Handler.hosts
    assert json.dumps(Handler.hosts).count(str(port)) == 0

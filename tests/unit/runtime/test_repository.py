"""Fetching and proving an artefact, over a network that is a function."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event

import httpx
import pytest

from canarium_runtime.errors import LoadError
from canarium_runtime.repository import Repository, Stopped, redact

CONTENT = b"model" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
URI = "https://models.test/m/model.onnx"
Answer = httpx.Response | Exception


class BrokenStream(httpx.SyncByteStream):
    """A body that breaks off."""

    def __iter__(self) -> Iterator[bytes]:
        yield CONTENT[:10]
        raise httpx.ReadError("connection reset")


def network(*answers: Answer) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """Answers in turn, the last one for ever; and the requests that came."""
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = answers[min(len(seen), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.MockTransport(handle), seen


def ok() -> httpx.Response:
    return httpx.Response(200, content=CONTENT)


@pytest.fixture
def make_repository(tmp_path: Path) -> Callable[..., Repository]:
    def make(transport: httpx.BaseTransport | None = None, **settings: object) -> Repository:
        values = {
            "timeout": timedelta(minutes=1),
            "max_bytes": 10_000,
            "pause": lambda _: None,
            **settings,
        }
        return Repository(directory=tmp_path / "models", transport=transport, **values)  # type: ignore[arg-type]

    return make


MakeRepository = Callable[..., Repository]


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([ok()], id="at once"),
        pytest.param(
            [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), ok()],
            id="after network errors",
        ),
        pytest.param(
            [httpx.Response(503), httpx.Response(429), ok()], id="after refusals that pass"
        ),
        pytest.param(
            [httpx.Response(200, stream=BrokenStream()), ok()], id="after a broken download"
        ),
        pytest.param(
            [httpx.Response(302, headers={"location": "/other"}), ok()], id="after a redirect"
        ),
    ],
)
def test_a_download_ends_in_a_verified_file(
    make_repository: MakeRepository, answers: list[Answer]
) -> None:
    """World: what the network does; world: the file with the right digest, and nothing half done beside it."""
    transport, _ = network(*answers)
    artefact = make_repository(transport).fetch(URI, DIGEST)
    assert artefact.path.read_bytes() == CONTENT
    assert (artefact.sha256, artefact.size_bytes) == (DIGEST, len(CONTENT))
    assert list(artefact.path.parent.iterdir()) == [artefact.path]


@pytest.mark.parametrize(
    ("uri", "sha256", "answers", "reason", "permanent", "message"),
    [
        pytest.param(
            URI, "0" * 64, [ok()], "DigestMismatch", True, f"has sha256 {DIGEST}", id="wrong digest"
        ),
        pytest.param(
            URI, None, [httpx.Response(404)], "DownloadFailed", False, "status 404", id="not there"
        ),
        pytest.param(
            URI,
            None,
            [httpx.Response(503)],
            "DownloadFailed",
            False,
            "status 503",
            id="never there",
        ),
        pytest.param(
            URI,
            None,
            [httpx.ConnectError("no")],
            "DownloadFailed",
            False,
            "ConnectError",
            id="no network",
        ),
        pytest.param(
            URI,
            None,
            [httpx.Response(200, content=b"x" * 10_001)],
            "ModelUnreadable",
            True,
            "larger",
            id="too large",
        ),
        pytest.param(
            URI,
            None,
            [httpx.Response(200, content=iter([b"x" * 6000, b"x" * 6000]))],
            "ModelUnreadable",
            True,
            "larger",
            id="too large without saying so",
        ),
        pytest.param(
            URI,
            None,
            [httpx.Response(302, headers={"location": "http://plain.test/m"})],
            "DownloadFailed",
            True,
            "redirected to http://plain.test/m",
            id="redirected to plain http",
        ),
        pytest.param(
            URI,
            None,
            [httpx.Response(302, headers={"location": URI})],
            "DownloadFailed",
            False,
            "redirects",
            id="loop",
        ),
        pytest.param(
            "http://h/m",
            None,
            [ok()],
            "InvalidConfig",
            True,
            "set model.sha256",
            id="http without digest",
        ),
        pytest.param(
            "s3://b/m",
            None,
            [ok()],
            "InvalidConfig",
            True,
            "cannot be fetched",
            id="unknown scheme",
        ),
        pytest.param(
            "file:///no/such",
            None,
            [ok()],
            "ModelUnreadable",
            True,
            "No such file",
            id="no such file",
        ),
    ],
)
def test_what_cannot_be_proved_is_refused(
    make_repository: MakeRepository,
    uri: str,
    sha256: str | None,
    answers: list[Answer],
    reason: str,
    permanent: bool,
    message: str,
) -> None:
    """World: a source; world: a reason for the operator, and whether trying again can help."""
    transport, _ = network(*answers)
    repository = make_repository(transport)
    with pytest.raises(LoadError) as caught:
        repository.fetch(uri, sha256)
    failure = caught.value.failure
    assert (failure.reason, failure.permanent) == (reason, permanent)
    assert message in failure.message
    assert not repository.directory.exists() or not list(repository.directory.iterdir())


def test_plain_http_is_fine_with_a_digest(make_repository: MakeRepository) -> None:
    """The digest proves what the transport does not."""
    transport, _ = network(ok())
    assert make_repository(transport).fetch("http://models.test/m.onnx", DIGEST).sha256 == DIGEST


def test_a_file_is_read_where_it_lies(make_repository: MakeRepository, tmp_path: Path) -> None:
    """A mounted volume is not copied; escaped characters in the URI are."""
    path = tmp_path / "a model.onnx"
    path.write_bytes(CONTENT)
    artefact = make_repository().fetch(f"file://{tmp_path}/a%20model.onnx", DIGEST)
    assert artefact.path == path


def test_a_wrong_file_is_left_alone(make_repository: MakeRepository, tmp_path: Path) -> None:
    """The server deletes only what it has downloaded."""
    path = tmp_path / "m.onnx"
    path.write_bytes(CONTENT)
    with pytest.raises(LoadError, match=r"set model\.sha256"):
        make_repository().fetch(path.as_uri(), "0" * 64)
    assert path.exists()


def test_waits_grow_between_attempts_and_end(make_repository: MakeRepository) -> None:
    """Six attempts, each wait about twice the last, random by a half."""
    waits: list[float] = []
    transport, seen = network(httpx.Response(503))
    with pytest.raises(LoadError):
        make_repository(transport, pause=waits.append).fetch(URI, None)
    assert len(seen) == 6
    for wait, mean in zip(waits, (0.5, 1, 2, 4, 8), strict=True):
        assert mean / 2 <= wait <= mean * 1.5


def test_no_attempt_is_made_after_the_timeout(make_repository: MakeRepository) -> None:
    """The timeout is for all attempts together."""
    transport, seen = network(ok())
    with pytest.raises(LoadError, match="no time left"):
        make_repository(transport, timeout=timedelta(0)).fetch(URI, None)
    assert seen == []


def test_a_server_that_stops_gives_up(make_repository: MakeRepository) -> None:
    """SIGTERM in mid-download must not wait for it."""
    stop = Event()
    transport, _ = network(httpx.Response(503))
    repository = make_repository(transport, stop=stop, pause=lambda _: stop.set())
    with pytest.raises(Stopped):
        repository.fetch(URI, None)


def test_a_full_or_read_only_directory_is_named(
    make_repository: MakeRepository, tmp_path: Path
) -> None:
    """The remedy is a volume, not another attempt."""
    (tmp_path / "models").write_text("a file where the directory should be")
    transport, seen = network(ok())
    with pytest.raises(LoadError, match="cannot be written"):
        make_repository(transport).fetch(URI, None)
    assert len(seen) <= 1


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://user:secret@h:8443/m.onnx?sig=secret#secret", "https://***@h:8443/m.onnx?***"),
        ("https://h/m.onnx", "https://h/m.onnx"),
        ("file:///m.onnx", "file:///m.onnx"),
    ],
)
def test_secrets_of_a_uri_are_never_shown(uri: str, expected: str) -> None:
    """User, password, query and fragment are taken out."""
    assert redact(uri) == expected


def test_logs_and_errors_hold_no_secrets(
    make_repository: MakeRepository, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong, the signature in the URI stays here."""
    caplog.set_level(logging.DEBUG, logger="canarium_runtime")
    transport, _ = network(httpx.Response(503), httpx.Response(404))
    with pytest.raises(LoadError) as caught:
        make_repository(transport).fetch("https://user:secret@h/m?sig=secret", None)
    shown = caught.value.failure.message + "".join(str(vars(r)) for r in caplog.records)
    assert "secret" not in shown

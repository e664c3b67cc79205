"""Get a model's artefact and prove that it is the right one.

`file:///path` is read where it lies (volumes are mounted by the operator); `https://` and, with a digest only,
`http://` are fetched. Everything here blocks: call it in a thread. One file is one model: weights beside it in other
files are not covered by the digest.
"""

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from canarium_runtime.errors import LoadError
from canarium_runtime.processes import sharing

if TYPE_CHECKING:
    import httpx  # loaded where something is fetched: a file needs none of it

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_ATTEMPTS = 6
_FIRST_DELAY_SECONDS = 0.5
_MAX_DELAY_SECONDS = 15.0
_MAX_REDIRECTS = 5
_SOCKET_TIMEOUT_SECONDS = 20.0
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class _TransientError(Exception):
    """Worth another attempt."""


class Stopped(Exception):  # noqa: N818 - not an error: the server was told to stop
    """Fetching was given up because the server stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A verified file."""

    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Repository:
    """How artefacts are fetched.

    Args:
        directory: where downloads go.
        timeout: for all attempts together.
        max_bytes: largest artefact.
        stop: when set, fetching ends with `Stopped`.
        transport: replaces the network in tests.
        pause: waits between attempts, at most so many seconds.
    """

    directory: Path
    timeout: timedelta
    max_bytes: int
    stop: Event = field(default_factory=Event)
    transport: "httpx.BaseTransport | None" = None
    pause: Callable[[float], object] | None = None

    def fetch(self, uri: str, sha256: str | None) -> Artefact:
        """Get the artefact and verify it.

        Args:
            uri: `file:///...`, `https://...` or `http://...`.
            sha256: expected digest in lower-case hexadecimal; None only where the transport can be trusted.

        Raises:
            LoadError: DownloadFailed, ModelUnreadable, DigestMismatch or InvalidConfig.
            Stopped: the server stops.
        """
        scheme = urlsplit(uri).scheme
        shown = redact(uri)
        if scheme == "file":
            artefact = self._read_file(Path(unquote(urlsplit(uri).path)))
        elif scheme == "https" or (scheme == "http" and sha256):
            artefact = (
                self._download_once(uri, sha256) if sharing.run() else self._download(uri, sha256)
            )
        elif scheme == "http":
            msg = (
                f"{shown} proves nothing about what it delivers: set model.sha256, or use https://"
            )
            raise LoadError("InvalidConfig", msg, permanent=True)
        else:
            msg = f"{shown} cannot be fetched: use file:///, https:// or http:// with a digest"
            raise LoadError("InvalidConfig", msg, permanent=True)
        _log.info(
            "artefact fetched",
            extra={"uri": shown, "sha256": artefact.sha256, "size_bytes": artefact.size_bytes},
        )
        if sha256 is not None and artefact.sha256 != sha256:
            if scheme != "file":
                artefact.path.unlink(missing_ok=True)
            msg = (
                f"{shown} has sha256 {artefact.sha256}, expected {sha256}: "
                "set model.sha256 to the digest of the file that you mean"
            )
            raise LoadError("DigestMismatch", msg, permanent=True)
        return artefact

    def _read_file(self, path: Path) -> Artefact:
        digest = hashlib.sha256()
        size = 0
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    self._check_stop()
                    digest.update(chunk)
                    size += len(chunk)
                    self._check_size(size, str(path))
        except OSError as error:
            msg = f"{path} cannot be read ({error.strerror}): check the path and the volume"
            raise LoadError("ModelUnreadable", msg, permanent=True) from error
        return Artefact(path=path, sha256=digest.hexdigest(), size_bytes=size)

    def _download_once(self, uri: str, sha256: str | None) -> Artefact:
        """Download, or take what another process of this server has downloaded."""
        target = self._target(uri)
        try:
            with sharing.turn(target, self._wait):
                if (known := sharing.find(target)) is not None:
                    return Artefact(path=target, **asdict(known))
                made = self._download(uri, sha256)
                sharing.note(
                    target, sharing.Fetched(sha256=made.sha256, size_bytes=made.size_bytes)
                )
                return made
        except OSError as error:
            raise self._unwritable(error) from error

    def _target(self, uri: str) -> Path:
        name = hashlib.sha256(uri.encode()).hexdigest()[:16]
        return self.directory / f"{name}{Path(urlsplit(uri).path).suffix}"

    def _unwritable(self, error: OSError) -> LoadError:
        msg = f"{self.directory} cannot be written ({error.strerror}): give it a volume with enough space"
        return LoadError("DownloadFailed", msg)

    def _download(self, uri: str, sha256: str | None) -> Artefact:
        deadline = time.monotonic() + self.timeout.total_seconds()
        shown = redact(uri)
        last = "no attempt was made"
        for delay in (0.0, *_delays()):
            self._wait(min(delay, max(0.0, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                last = f"no time left of {self.timeout}; before that: {last}"
                break
            try:
                return self._attempt(uri, sha256, deadline)
            except _TransientError as error:
                last = str(error)
                _log.warning("download attempt failed", extra={"uri": shown, "cause": last})
        msg = f"{shown} could not be downloaded: {last}. Check that the pods can reach the host."
        raise LoadError("DownloadFailed", msg)

    def _attempt(self, uri: str, sha256: str | None, deadline: float) -> Artefact:
        import httpx

        target = self._target(uri)
        partial = target.with_suffix(".partial")
        with httpx.Client(transport=self.transport, timeout=_SOCKET_TIMEOUT_SECONDS) as client:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                with closing(self._open(client, uri, sha256)) as response:
                    artefact = self._save(response, target, partial, deadline)
                partial.replace(target)
            except httpx.TransportError as error:
                raise _TransientError(f"{type(error).__name__}: {error}") from error
            except OSError as error:
                raise self._unwritable(error) from error
            finally:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
        return artefact

    def _open(self, client: "httpx.Client", uri: str, sha256: str | None) -> "httpx.Response":
        """Send the request and follow redirects; the caller reads and closes the response."""
        for _ in range(_MAX_REDIRECTS + 1):
            self._check_stop()
            response = client.send(client.build_request("GET", uri), stream=True)
            if response.status_code == HTTPStatus.OK:
                return response
            location = response.headers.get("location", "")
            response.close()
            if response.status_code not in _REDIRECTS:
                break
            uri = urljoin(uri, location)
            scheme = urlsplit(uri).scheme
            if scheme != "https" and not (scheme == "http" and sha256):
                msg = f"redirected to {redact(uri)}, which is not allowed without a digest: set model.sha256"
                raise LoadError("DownloadFailed", msg, permanent=True)
        else:
            raise LoadError(
                "DownloadFailed", f"more than {_MAX_REDIRECTS} redirects, the last to {redact(uri)}"
            )
        if response.status_code in _TRANSIENT_STATUS:
            raise _TransientError(f"HTTP status {response.status_code}")
        msg = f"{redact(uri)} answered HTTP status {response.status_code}: check the URI and who may read it"
        raise LoadError("DownloadFailed", msg)

    def _save(
        self, response: "httpx.Response", target: Path, partial: Path, deadline: float
    ) -> Artefact:
        """Stream to a file beside the target, so that no half file is ever taken for a model."""
        shown = redact(str(response.url))
        declared = response.headers.get("content-length", "")
        if declared.isdigit():
            self._check_size(int(declared), shown)
        digest = hashlib.sha256()
        size = 0
        with partial.open("wb") as file:
            for chunk in response.iter_bytes(_CHUNK_BYTES):
                self._check_stop()
                size += len(chunk)
                self._check_size(size, shown)
                if time.monotonic() >= deadline:
                    raise _TransientError(f"{size} bytes came within the timeout of {self.timeout}")
                digest.update(chunk)
                file.write(chunk)
        return Artefact(path=target, sha256=digest.hexdigest(), size_bytes=size)

    def _check_size(self, size: int, shown: str) -> None:
        if size > self.max_bytes:
            msg = f"{shown} is larger than the limit of {self.max_bytes} bytes"
            raise LoadError("ModelUnreadable", msg, permanent=True)

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            (self.pause or self.stop.wait)(seconds)
        self._check_stop()


def _delays() -> Iterator[float]:
    """Waits between attempts: doubled each time, and random, so that a fleet of pods does not come in step."""
    delay = _FIRST_DELAY_SECONDS
    for _ in range(_ATTEMPTS - 1):
        yield delay * random.uniform(0.5, 1.5)  # noqa: S311 - not for secrets
        delay = min(delay * 2, _MAX_DELAY_SECONDS)


def redact(uri: str) -> str:
    """Take out what may be secret: user, password, query and fragment."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"***@{host}" if "@" in parts.netloc else host
    return urlunsplit((parts.scheme, netloc, parts.path, "***" if parts.query else "", ""))

"""A git repository elsewhere: its refs, a part of its history in memory, and a push that changes one ref or nothing.

dulwich's errors end here; what the rest sees is `RemoteError` with a reason of `conditions.Reason`.
"""

import contextlib
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3
from dulwich.client import (
    GitClient,
    HTTPUnauthorized,
    SSHGitClient,
    SubprocessGitClient,
    Urllib3HttpGitClient,
)
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository, SendPackError
from dulwich.objects import Commit, ObjectID, ShaFile
from dulwich.pack import pack_objects_to_data
from dulwich.protocol import ZERO_SHA
from dulwich.repo import MemoryRepo

from canarium_operator.adapters.git.problems import MovedError, RemoteError
from canarium_operator.core.outcomes.jobs import GitAccess

MAX_PACK_BYTES: Final = 32 * 1024 * 1024
"""Most that is fetched of a repository: the newest commits with their files."""
SILENCE_SECONDS: Final = 30.0
"""Longest silence of a server on an open connection, and longest wait for one."""
_USER_AGENT: Final = "git/canarium"  # some servers look at the first word


class Remote:
    """One repository."""

    def __init__(self, url: str, access: GitAccess) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            RemoteError: the credentials cannot be used.
        """
        self._host = urlsplit(url).hostname or "the repository"
        self._said: list[bytes] = []
        with self._translated():
            self._client, self._path = _connect(url, access)
        self.repo = MemoryRepo()

    def refs(self) -> dict[bytes, ObjectID]:
        """Ask where branches are."""
        with self._translated():
            found = self._client.get_refs(self._path.encode(), ref_prefix=[b"refs/heads/"])
        return {name: sha for name, sha in found.refs.items() if sha is not None}

    def fetch(self, heads: list[ObjectID], depth: int) -> None:
        """Get so many generations of commits with their files."""
        store = self.repo.object_store
        file, commit, abort = store.add_pack()
        size = 0

        def take(data: bytes) -> int:
            nonlocal size
            size += len(data)
            if size > MAX_PACK_BYTES:
                msg = f"the newest commits are more than {MAX_PACK_BYTES >> 20} MiB"
                raise RemoteError("GitFileUnusable", msg)
            return file.write(data)

        try:
            with self._translated():
                result = self._client.fetch_pack(
                    self._path,
                    lambda _refs, depth=None: heads,
                    self.repo.get_graph_walker(),
                    take,
                    depth=depth,
                    ref_prefix=[b"refs/heads/"],
                )
        except BaseException:
            abort()
            raise
        commit()
        self.repo.update_shallow(result.new_shallow, result.new_unshallow)

    def commit(self, sha: ObjectID) -> Commit | None:
        """Give a commit that was fetched."""
        if sha not in self.repo.object_store:
            return None
        found = self.repo.object_store[sha]
        return found if isinstance(found, Commit) else None

    def push(
        self, ref: bytes, expected: ObjectID | None, sha: ObjectID, objects: list[ShaFile]
    ) -> None:
        """Move one ref from where it is expected to be.

        The server is told the old place together with the new one, and moves the ref only if it is still there.

        Raises:
            MovedError: the ref is elsewhere; nothing was changed.
            RemoteError: the server refused, or it is not known what it did.
        """
        self._said.clear()

        def update(refs: dict[bytes, ObjectID]) -> dict[bytes, ObjectID]:
            if refs.get(ref) != expected and not (expected is None and refs.get(ref) == ZERO_SHA):
                raise MovedError
            return {ref: sha}

        def pack(*_: Any, **__: Any) -> Any:
            return pack_objects_to_data([(each, None) for each in objects])

        with self._translated():
            result = self._client.send_pack(self._path, update, pack, progress=self._said.append)  # type: ignore[arg-type]
        refusal = (result.ref_status or {}).get(ref)
        if refusal is not None:
            raise RemoteError("GitRefused", self._refusal(refusal))

    def _refusal(self, status: str | bytes) -> str:
        words = status.decode("utf-8", "replace") if isinstance(status, bytes) else status
        said = b"".join(self._said).decode("utf-8", "replace")
        hints = [line.strip() for line in said.splitlines() if line.strip()]
        return f"{self._host} refused the push: {'; '.join([words, *hints])[:400]}"

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of libraries into ours. None of them holds a credential: these are in no URL."""
        host = self._host
        try:
            yield
        except (RemoteError, MovedError):
            raise
        except HTTPUnauthorized as error:
            msg = f"{host} does not take the user and password of the Secret (401)"
            raise RemoteError("GitAccessDenied", msg) from error
        except NotGitRepository as error:
            msg = f"{host} has no such repository, or does not show it (404): correct spec.gitops.url, or the rights"
            raise RemoteError("GitAccessDenied", msg) from error
        except HangupException as error:
            said = b" ".join(error.stderr_lines or []).decode("utf-8", "replace")
            msg = f"{host} ended the connection{': ' + said[:300] if said else ''}"
            raise RemoteError(_reason(said), msg) from error
        except (GitProtocolError, SendPackError) as error:
            words = str(error) or type(error).__name__
            if "resp 403" in words:
                msg = f"{host} does not allow it (403): the user needs the right to read and push"
                raise RemoteError("GitAccessDenied", msg) from error
            reason = _reason(words)
            verb = "cannot be reached" if reason == "GitUnreachable" else "refuses"
            raise RemoteError(reason, f"{host} {verb}: {_short(error)}") from error
        except (urllib3.exceptions.HTTPError, OSError, EOFError) as error:
            msg = f"{host} cannot be reached: {_short(error)}"
            raise RemoteError("GitUnreachable", msg) from error


def _reason(said: str) -> str:
    """Tell lost access from a lost connection by what a server says before it hangs up."""
    words = ("denied", "not found", "could not be found", "does not appear", "not allowed")
    return "GitAccessDenied" if any(word in said.lower() for word in words) else "GitUnreachable"


def _connect(url: str, access: GitAccess) -> tuple[GitClient, str]:
    parts = urlsplit(url)
    if parts.scheme == "ssh":
        from canarium_operator.adapters.git.ssh import KnownHostsVendor

        vendor = KnownHostsVendor(access.identity, access.password, access.known_hosts)
        client = SSHGitClient(
            parts.hostname or "",
            port=parts.port,
            username=parts.username or access.username or "git",
            vendor=vendor,
            thin_packs=False,
        )
        return client, parts.path
    if parts.scheme == "file":  # tests alone: the API's types refuse such a URL
        return SubprocessGitClient(thin_packs=False), parts.path
    base = f"{parts.scheme}://{parts.netloc}"
    http = Urllib3HttpGitClient(
        base,
        pool_manager=_pool(url, access),
        username=access.username or None,
        password=access.password or None,
        timeout=SILENCE_SECONDS,
        thin_packs=False,
    )
    return http, parts.path


def _pool(url: str, access: GitAccess) -> urllib3.PoolManager | urllib3.ProxyManager:
    try:
        context = ssl.create_default_context(cadata=access.authority or None)
    except ssl.SSLError as error:
        msg = "the key 'ca.crt' of the Secret is no certificate in PEM"
        raise RemoteError("GitSecretUnusable", msg) from error
    if access.authority:
        context.load_default_certs()
    options: dict[str, Any] = {
        "ssl_context": context,
        # Tries are counted elsewhere; a repository that was renamed is followed, without credentials to other hosts.
        "retries": urllib3.Retry(total=3, redirect=3, connect=0, read=0, status=0, other=0),
        "headers": {"User-Agent": _USER_AGENT},
    }
    host = urlsplit(url).hostname or ""
    proxy = urllib.request.getproxies().get("https")
    if proxy is not None and not urllib.request.proxy_bypass(host):
        return urllib3.ProxyManager(proxy, **options)
    return urllib3.PoolManager(**options)


def _short(error: BaseException) -> str:
    """Write the innermost cause: urllib3 wraps it several times."""
    while error.__cause__ is not None or getattr(error, "reason", None) is not None:
        inner = error.__cause__ or error.reason  # type: ignore[attr-defined]
        if not isinstance(inner, BaseException):
            break
        error = inner
    words = str(error) or type(error).__name__
    return words.split(">: ")[-1][:300]

"""API keys: kept as hashes, by name of the client.

Plain SHA-256 without salt or stretching is enough, because keys are made of 32 random bytes (`canarium keys new`):
there is nothing to guess. It would not be for passwords, so do not hash those. A presented key is hashed and looked up
by its hash; time tells at most something of hashes, which nobody can choose, and the last comparison takes the same
time whatever differs.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from canarium_runtime.security.watching import ReloadError, Watch, files_of

MAX_FILE_BYTES: Final = 8 * 1024 * 1024
MAX_KEYS: Final = 100_000
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/+-]{0,127}")
_LINE = re.compile(r"""(["']?)(?P<name>[^"':\s]+)\1\s*:\s*(["']?)(?P<hash>[^"'\s]+)\3""")


def hash_of(key: bytes) -> str:
    """Hash a key, as its entry has it."""
    return hashlib.sha256(key).hexdigest()


def parse(text: str, source: str) -> list[tuple[str, str]]:
    """Read entries (name, hash) of one file: lines `name: hash`, which is YAML too, or one JSON object.

    A name may come several times, with another hash each: that is how a key is replaced without a gap.

    Args:
        text: what the file holds.
        source: its name, for errors.

    Raises:
        ReloadError: an entry is wrong; the message names its place, never its value, which might be a plain key.
    """
    if text.lstrip().startswith("{"):
        return _checked(_of_json(text, source), source)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.split(" #", 1)[0].strip()
        if not entry or entry.startswith("#") or entry == "---":
            continue
        match = _LINE.fullmatch(entry)
        if match is None:
            msg = f"{source}, line {number}: expected `name: sha256`, as `canarium keys new NAME` writes it"
            raise ReloadError(msg)
        found.append((f"line {number}", match["name"], match["hash"]))
    return _checked(found, source)


def _of_json(text: str, source: str) -> list[tuple[str, str, Any]]:
    try:
        document = json.loads(text)
    except ValueError as error:
        msg = f"{source}: not JSON, though it begins with a brace"
        raise ReloadError(msg) from error
    return [
        (f"entry {name[:64]!r}", name, value)
        for name, values in document.items()
        for value in (values if isinstance(values, list) else [values])
    ]


def _checked(entries: Iterable[tuple[str, str, Any]], source: str) -> list[tuple[str, str]]:
    found = []
    for place, name, value in entries:
        if not _NAME.fullmatch(name):
            msg = (
                f"{source}, {place}: a name has letters, digits and ._@/+- and at most 128 of them"
            )
            raise ReloadError(msg)
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            msg = (
                f"{source}, {place}: expected the SHA-256 of the key, 64 hex digits; never write the key itself here "
                "(canarium keys hash makes the hash)"
            )
            raise ReloadError(msg)
        found.append((name, value))
    return found


class ApiKeys:
    """The keys of a file or of a folder of files.

    Args:
        path: file or folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: Mapping[bytes, tuple[bytes, str]] = {}
        self.watch = Watch("api keys", [path], self._load)

    def __len__(self) -> int:
        return len(self._names)

    def name_of(self, key: bytes) -> str | None:
        """Give the client whose key this is."""
        presented = hashlib.sha256(key).digest()
        entry = self._names.get(presented)
        if entry is None or not hmac.compare_digest(entry[0], presented):
            return None
        return entry[1]

    def _load(self) -> None:
        names: dict[bytes, tuple[bytes, str]] = {}
        for file in files_of(self._path):
            if file.stat().st_size > MAX_FILE_BYTES:
                msg = f"{file.name}: larger than {MAX_FILE_BYTES >> 20} MiB"
                raise ReloadError(msg)
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                msg = f"{file.name}: not text"
                raise ReloadError(msg) from error
            for name, value in parse(text, file.name):
                digest = bytes.fromhex(value)
                other = names.setdefault(digest, (digest, name))[1]
                if other != name:
                    msg = f"{file.name}: {name} and {other} have the same key; give each client its own"
                    raise ReloadError(msg)
        if len(names) > MAX_KEYS:
            msg = f"{len(names)} keys, and at most {MAX_KEYS} are read"
            raise ReloadError(msg)
        if not names:
            msg = f"{self._path.name}: no entry in it; to let nobody in, remove the clients' keys one by one"
            raise ReloadError(msg)
        self._names = names

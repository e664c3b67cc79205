"""What a torch file is, and whether loading it could run code; read without torch.

    .pt2          torch.export: a zip of JSON and raw weights. torch's own loader falls back to full unpickling for some
                  parts, evaluates the expressions of sizes and guards, and calls any function whose name it finds in
                  the graph: here all are held to what an export writes.
    TorchScript   a zip with code/ that torch's own interpreter runs, which knows tensors and nothing of the machine.
    anything else pickles (torch.save of a module or of weights): refused, since loading them runs code.

Limitation: this makes a file no safer than its source is trusted to be about the model itself. Set a digest.
"""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Final

from canarium_runtime.backends import archives
from canarium_runtime.errors import LoadError

_PICKLE_MAGIC: Final = b"\x80"
_MAX_MEMBERS: Final = 100_000
_MAX_JSON_BYTES: Final = 256 * 1024**2
_OPAQUE: Final = ("custom_obj_", "opaque_obj_", "opaque_")
_OPERATOR: Final = re.compile(
    r"torch\.ops\.(?!load_library|import_module|loaded_libraries)\w+\.(?!from_file)\w+(\.\w+)?"
    r"|_operator\.\w+|math\.\w+|torch\.(sym_|_sym_)\w+"
)
"""What a node of a graph may call: operators, never another function of torch or of what it imports."""
_GUARD: Final = re.compile(
    r"(?:L\['\w+'\](?:\['\w+'\]|\[\d+\])*|\.size\(\)\[\d+\]|torch\.sym_\w+|\b(?:and|or|not)\b|[\d\s()+\-*/%<>=!,]|\.\d)*"
)
_EXPRESSION: Final = re.compile(r"(?:'[a-z]+\d+'|[\d\s()+\-*/%<>=!&|,]|[A-Za-z_]\w*|\.\d)*")
_WORD: Final = re.compile(r"'[^']*'|[A-Za-z_]\w*(?:\s*=(?!=))?")
_ALLOWED_WORD: Final = re.compile(r"'[a-z]+\d+'|[a-z]+\d+|[A-Z]\w*|[a-z_]+\s*=")


class TorchKind(StrEnum):
    """Kinds of files that are served."""

    EXPORTED = "exported"
    SCRIPT = "script"


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchFile:
    """A file that may be loaded."""

    kind: TorchKind
    pickled: tuple[str, ...] = ()
    """Members that the loader unpickles: each must hold tensors and containers alone (torch.load, weights_only)."""


def inspect(path: Path) -> TorchFile:
    """Say what a file is.

    Raises:
        LoadError: ModelUnsupported, when loading it could run code; ModelUnreadable, when it is no torch file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _inspect(archive)
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            if file.read(1) == _PICKLE_MAGIC:
                raise _pickle("a pickle") from error
        raise _unreadable("it is no zip archive") from error
    except RecursionError as error:
        raise _unreadable("its JSON is nested too deep") from error
    except archives.DAMAGED as error:
        raise _unreadable(f"the archive is damaged ({error})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(f"{type(error).__name__} in its JSON") from error


def _inspect(archive: zipfile.ZipFile) -> TorchFile:
    names = archive.namelist()
    if len(names) > _MAX_MEMBERS:
        raise _unreadable(f"it has more than {_MAX_MEMBERS} members")
    if len({name.lower() for name in names}) != len(names):
        # Which of the two torch would read is not for this to guess.
        raise _unreadable("it has two members of one name")
    # Old exports keep everything at the top, newer archives all in one folder.
    inner = {name: name.partition("/")[2] or name for name in names}
    parts = set(inner.values()) | set(names)
    if "archive_format" in parts or "serialized_exported_program.json" in parts:
        return TorchFile(kind=TorchKind.EXPORTED, pickled=tuple(_pickled(archive, inner)))
    if "constants.pkl" in parts and any(p.startswith("code/") for p in parts):
        return TorchFile(kind=TorchKind.SCRIPT)
    if any(PurePosixPath(name).name == "data.pkl" for name in names):
        raise _pickle("torch.save of a module or of its weights, which is a pickle")
    raise _unreadable("it is a zip archive of something else")


def _pickled(archive: zipfile.ZipFile, inner: dict[str, str]) -> Iterator[str]:
    """Members of an export that its loader unpickles; what it would unpickle without limits is refused."""
    for name, part in inner.items():
        base = PurePosixPath(part).name.lower()
        if base.startswith(_OPAQUE) or "aotinductor/" in part.lower():
            raise _pickle(f"an export with objects that are no tensors ({part})")
        if base.endswith(".json"):
            document = json.loads(_read(archive, name))
            _check_strings(document)
            folder = PurePosixPath(name).parent
            yield from (str(folder / member) for member in _marked(document))
        elif base.endswith(".pt"):
            yield name


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _MAX_JSON_BYTES:
        raise _unreadable(f"{name} is larger than {_MAX_JSON_BYTES} bytes")
    return archive.read(name)


def _marked(document: Any) -> Iterator[str]:
    """Payloads that a configuration marks as pickles."""
    config = document.get("config") if isinstance(document, dict) else None
    for entry in config.values() if isinstance(config, dict) else ():
        if isinstance(entry, dict) and entry.get("use_pickle"):
            yield str(entry["path_name"])


def _check_strings(document: Any) -> None:
    """Hold what the loader would evaluate or call to what an export writes."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
            if "expr_str" in value and not _is_arithmetic(str(value["expr_str"])):
                raise _pickle("an export whose sizes are no arithmetic")
            if any(not _GUARD.fullmatch(str(guard)) for guard in value.get("guards_code") or ()):
                raise _pickle("an export whose guards are no arithmetic")
            if "target" in value and "inputs" in value and not _is_operator(str(value["target"])):
                raise _pickle(
                    f"an export that calls {str(value['target'])[:80]!r}, which is no operator of torch's"
                )


def _is_operator(target: str) -> bool:
    return "__" not in target and _OPERATOR.fullmatch(target) is not None


def _is_arithmetic(text: str) -> bool:
    """`Symbol('s77', positive=True)` and `2*s0 + 1` are; whatever could name a function of Python's is not."""
    if _EXPRESSION.fullmatch(text) is None:
        return False
    return all(_ALLOWED_WORD.fullmatch(word) for word in _WORD.findall(text))


def _pickle(what: str) -> LoadError:
    msg = (
        f"this is {what}, and loading it could run code: save the model with "
        "torch.export.save(torch.export.export(...)), which this server runs without any code of yours"
    )
    return LoadError("ModelUnsupported", msg, permanent=True)


def _unreadable(why: str) -> LoadError:
    msg = (
        f"torch cannot open the model: {why}. Save it with torch.export.save (a .pt2 file), or as TorchScript with "
        "torch.jit.save."
    )
    return LoadError("ModelUnreadable", msg, permanent=True)

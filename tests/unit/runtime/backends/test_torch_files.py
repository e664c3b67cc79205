"""What torch files are, and that none is loaded that could run code. The attacks are real: each would leave a file."""

import contextlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.runtime.backends import worlds

from canarium_runtime.backends import torch_files
from canarium_runtime.backends.options import Options
from canarium_runtime.backends.torch import open_torch
from canarium_runtime.backends.torch_files import TorchKind, inspect
from canarium_runtime.errors import LoadError


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_each_kind_is_known(tmp_path: Path) -> None:
    """By what is in the archive, not by the file's name."""
    assert inspect(worlds.write_export(tmp_path / "a")).kind is TorchKind.EXPORTED
    assert inspect(worlds.write_script(tmp_path / "b")).kind is TorchKind.SCRIPT


def _old_pickle(path: Path, trap: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(trap)))


def _new_pickle(path: Path, trap: Path) -> None:
    torch.save(Bomb(trap), path)


def _weights(path: Path, trap: Path) -> None:
    torch.save(worlds.Linear().state_dict(), path)


@pytest.mark.parametrize("write", [_old_pickle, _new_pickle, _weights])
def test_a_pickle_is_refused_with_the_remedy(
    tmp_path: Path, write: Callable[[Path, Path], None]
) -> None:
    """Modules and weights alike: torch.save writes pickles."""
    write(tmp_path / "m.pt", tmp_path / "trap")
    with pytest.raises(LoadError, match=r"torch\.export\.save") as caught:
        open_torch(tmp_path / "m.pt", Options())
    assert (caught.value.failure.reason, caught.value.failure.permanent) == (
        "ModelUnsupported",
        True,
    )
    assert not (tmp_path / "trap").exists()


def _changed(path: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """Write an export anew, with some members changed."""
    original = worlds.write_export(path.with_suffix(".original"))
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return path


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _sample_inputs(name: str, content: bytes, trap: Path) -> bytes:
    return _pickled(Bomb(trap)) if "sample_inputs" in name else content


def _marked_weight(name: str, content: bytes, trap: Path) -> bytes:
    if name.endswith("weight_0"):
        return _pickled(Bomb(trap))
    return content.replace(b'"use_pickle": false', b'"use_pickle": true')


def _opaque(name: str, content: bytes, trap: Path) -> bytes:
    if not name.endswith("constants_config.json"):
        return content
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True}
    return json.dumps({"config": {"c": {**entry, "tensor_meta": None}}}).encode()


def _expression(name: str, content: bytes, trap: Path) -> bytes:
    code = f"__import__(chr(111)+chr(115)).mknod({str(trap)!r})"
    return content.replace(b"Symbol(", f"{code} or Symbol(".encode().replace(b'"', b'\\"'))


def _guard(name: str, content: bytes, trap: Path) -> bytes:
    if "/models/" not in name:
        return content
    document = json.loads(content)
    document["guards_code"] = [f"open({str(trap)!r}, 'w')"]
    return json.dumps(document).encode()


def _target(name: str, content: bytes, trap: Path) -> bytes:
    return content.replace(b"torch.ops.aten.linear.default", b"torch.os.system")


@pytest.mark.parametrize(
    "attack", [_sample_inputs, _marked_weight, _opaque, _expression, _guard, _target]
)
def test_an_export_that_would_run_code_is_refused(
    tmp_path: Path, attack: Callable[[str, bytes, Path], bytes]
) -> None:
    """World: an export with one part exchanged; world: it is refused, and nothing ran."""
    trap = tmp_path / "trap"
    path = _changed(tmp_path / "m.pt2", lambda name, content: attack(name, content, trap))
    with pytest.raises(LoadError, match="code") as caught:
        open_torch(path, Options())
    assert (caught.value.failure.reason, caught.value.failure.permanent) == (
        "ModelUnsupported",
        True,
    )
    assert not trap.exists()


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """A harmless one to be looked at, and another for torch to read."""
    path = worlds.write_export(tmp_path / "m.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        name = next(n for n in archive.namelist() if "sample_inputs" in n)
        archive.writestr(name.upper(), _pickled(()))
    with pytest.raises(LoadError, match="two members of one name"):
        open_torch(path, Options())


def test_the_attack_on_sample_inputs_is_real(tmp_path: Path) -> None:
    """Without the check, torch's own loader runs it; when that is mended, the check may go."""
    trap = tmp_path / "trap"
    path = _changed(tmp_path / "m.pt2", lambda name, content: _sample_inputs(name, content, trap))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):  # what it makes of the rest does not matter
            torch.export.load(path)
    assert trap.exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no zip archive"), (b"not a model", "no zip archive"), ("zip", "something else")],
)
def test_an_unreadable_file_says_so(tmp_path: Path, content: bytes | str, why: str) -> None:
    """Neither a program nor a pickle."""
    path = tmp_path / "m.pt2"
    if isinstance(content, str):
        worlds.write_zip(path, {"a.txt": "a"})
    else:
        path.write_bytes(content)
    with pytest.raises(LoadError, match=why) as caught:
        open_torch(path, Options())
    assert caught.value.failure.reason == "ModelUnreadable"


def test_a_damaged_export_says_so(tmp_path: Path) -> None:
    """World: JSON that is none, and a program without its weights; world: permanent, with a remedy."""
    broken = _changed(tmp_path / "a.pt2", lambda n, c: b"{" if "/models/" in n else c)
    lacking = _changed(tmp_path / "b.pt2", lambda n, c: None if n.endswith("weight_0") else c)
    for path in (broken, lacking):
        with pytest.raises(LoadError, match="cannot open the model") as caught:
            open_torch(path, Options())
        assert (caught.value.failure.reason, caught.value.failure.permanent) == (
            "ModelUnreadable",
            True,
        )


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(2), Symbol('s0', integer=True))",
        "2*s0 + 1",
        "Max(1, u0)",
        "FloorDiv(s0, 2)",
    ],
)
def test_sizes_are_arithmetic(text: str) -> None:
    """What exports write."""
    assert torch_files._is_arithmetic(text)


@pytest.mark.parametrize(
    "text",
    [
        "open('a')",
        "Symbol('a b')",
        "eval(chr(1))",
        "s0.real",
        'S("1")',
        "[s0]",
        "Symbol('__x1')",
        "exit()",
    ],
)
def test_other_expressions_are_not(text: str) -> None:
    """Whatever could name a function of Python's."""
    assert not torch_files._is_arithmetic(text)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("torch.ops.aten.linear.default", True),
        ("torch.ops.aten._softmax.default", True),
        ("torch.ops.higher_order.cond", True),
        ("_operator.add", True),
        ("torch.sym_max", True),
        ("torch.ops.load_library", False),
        ("torch.ops.load_library.__call__", False),
        ("torch.ops.aten.from_file.default", False),
        ("torch.load", False),
        ("torch.hub.load", False),
        ("torch.os.system", False),
        ("builtins.eval", False),
    ],
)
def test_a_graph_calls_operators_alone(target: str, allowed: bool) -> None:
    """World: what a node names; world: whether it may."""
    assert torch_files._is_operator(target) == allowed

"""Modules that are put together before they are built."""

from pathlib import Path

import pytest

from canarium_devcluster import go_modules


def module(path: str) -> go_modules.Module:
    return go_modules.Module(path=path, version="v1.0.0", sum="h1:x")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two modules as Go keeps them, read-only: `outer` and `inner`."""
    for name in ("outer", "inner"):
        (tmp_path / name / "deep").mkdir(parents=True)
        for file in (tmp_path / name / "go.mod", tmp_path / name / "deep" / "code.go"):
            file.write_text(name)
            file.chmod(0o444)
        (tmp_path / name / "deep").chmod(0o555)
        (tmp_path / name).chmod(0o555)

    def fetch(wanted: go_modules.Module) -> go_modules.Fetched:
        return go_modules.Fetched(zip=tmp_path / "none", folder=tmp_path / wanted.path)

    monkeypatch.setattr(go_modules, "fetch", fetch)
    return tmp_path


def test_a_module_that_needs_no_other_is_used_where_it_is(folders: Path) -> None:
    """Nothing is copied."""
    with go_modules.assembled(module("outer"), {}) as folder:
        assert folder == folders / "outer"


def test_another_module_lies_inside_the_copy_of_the_first(folders: Path) -> None:
    """In the folder that go.mod names; the copy is gone afterwards, and the originals are as they were."""
    with go_modules.assembled(module("outer"), {"api": module("inner")}) as folder:
        read = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert read == {
        "go.mod": "outer",
        "deep/code.go": "outer",
        "api/go.mod": "inner",
        "api/deep/code.go": "inner",
    }
    assert not folder.exists()
    assert not (folders / "outer" / "api").exists()
    assert (folders / "inner" / "go.mod").read_text() == "inner"


def test_only_a_module_that_needs_a_newer_go_names_one() -> None:
    """Else the user's own setting counts, and a machine without a network builds with what it has."""
    plain = module("outer")
    newer = go_modules.Module(path="outer", version="v1.0.0", sum="h1:x", go="go1.27.3")
    assert "GOTOOLCHAIN" not in plain.environment
    assert {**plain.environment, "GOTOOLCHAIN": "go1.27.3"} == newer.environment

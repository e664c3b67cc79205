"""Files that are made from code: written where they differ, or compared."""

from pathlib import Path

import pytest

from canarium_api.generated import write_or_compare


def files_in(folder: Path) -> dict[Path, str]:
    """What is to be there: one file as it is, one with other words, one that is missing, in a folder that is, too."""
    (folder / "same.md").write_text("same", encoding="utf-8")
    (folder / "other.md").write_text("old", encoding="utf-8")
    wanted = {"same.md": "same", "other.md": "new", "deep/missing.md": "é"}
    return {folder / name: content for name, content in wanted.items()}


def test_files_that_differ_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders are made for them, and those that are right are not touched."""
    wanted = files_in(tmp_path)
    before = (tmp_path / "same.md").stat().st_mtime_ns
    assert write_or_compare(wanted, root=tmp_path, source="the code says", check=False) == 0
    assert capsys.readouterr().out == "wrote other.md\nwrote deep/missing.md\n"
    assert {path: path.read_text(encoding="utf-8") for path in wanted} == wanted
    assert (tmp_path / "same.md").stat().st_mtime_ns == before


def test_a_check_names_what_differs_and_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It changes nothing, and passes once the files are written."""
    wanted = files_in(tmp_path)
    assert write_or_compare(wanted, root=tmp_path, source="the code says", check=True) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"{name} is not what the code says: run make generate and commit the result"
        for name in ("other.md", "deep/missing.md")
    ]
    assert (tmp_path / "other.md").read_text(encoding="utf-8") == "old"
    assert not (tmp_path / "deep").exists()
    write_or_compare(wanted, root=tmp_path, source="the code says", check=False)
    assert write_or_compare(wanted, root=tmp_path, source="the code says", check=True) == 0

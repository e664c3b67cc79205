"""Archives: nothing is written outside the folder, and never more than was allowed."""

import stat
import zipfile
from pathlib import Path

import pytest
from tests.unit.runtime.backends.worlds import write_zip

from canarium_runtime.backends import archives
from canarium_runtime.errors import LoadError


def test_files_come_out_in_their_folders(tmp_path: Path) -> None:
    """Each time in a fresh folder."""
    path = write_zip(tmp_path / "a.zip", {"a.txt": "1", "b/c.txt": "2"})
    first, second = (archives.unpack(path, tmp_path / "work", 100) for _ in range(2))
    assert first != second
    assert (first / "b" / "c.txt").read_text() == "2"
    archives.remove(first)
    assert not first.exists()
    assert second.exists()


@pytest.mark.parametrize("name", ["../a", "/a", "b/../../a", "..\\a", "C:a", "c:\\a"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    """World: a member's name; world: refused, and nothing written."""
    path = write_zip(tmp_path / "a.zip", {"good.txt": "1", name: "2"})
    with pytest.raises(LoadError, match="leads out") as caught:
        archives.unpack(path, tmp_path / "work", 100)
    assert (caught.value.failure.reason, caught.value.failure.permanent) == (
        "ModelUnreadable",
        True,
    )
    assert list((tmp_path / "work").iterdir()) == []
    assert not (tmp_path / "a").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    """It could lead anywhere."""
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(LoadError, match="'link' is a link"):
        archives.unpack(path, tmp_path / "work", 100)


def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path) -> None:
    """A megabyte of zeros in a thousand bytes: what counts is what comes out."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1 << 20))
    assert path.stat().st_size < 5000
    with pytest.raises(LoadError, match="more than 100000 bytes"):
        archives.unpack(path, tmp_path / "work", 100_000)
    assert list((tmp_path / "work").iterdir()) == []


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost more than their bytes."""
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    path = write_zip(tmp_path / "a.zip", dict.fromkeys("abc", "1"))
    with pytest.raises(LoadError, match="3 files, more than 2"):
        archives.unpack(path, tmp_path / "work", 100)


@pytest.mark.parametrize("content", [b"", b"no archive", "damaged", "packed", "twice"])
def test_what_is_no_sound_archive_is_refused(tmp_path: Path, content: bytes | str) -> None:
    """Not a zip, a wrong checksum, or one name twice."""
    path = tmp_path / "a.zip"
    if content == "twice":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "1")
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("a", "2")
    elif content == "packed":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a", "a" * 1000)
        packed = bytearray(path.read_bytes())
        packed[31:35] = b"\xff\xff\xff\xff"
        path.write_bytes(packed)
    elif content == "damaged":
        sound = write_zip(path, {"a.txt": "1" * 100}).read_bytes()
        path.write_bytes(sound.replace(b"1" * 100, b"2" * 100))
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    with pytest.raises(LoadError, match="plain zip archive"):
        archives.unpack(path, tmp_path / "work", 1000)

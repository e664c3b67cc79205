"""API keys: what their file may hold, and when it is read again."""

import hashlib
from pathlib import Path

import pytest

from canarium_runtime.security.keys import ApiKeys, hash_of, parse
from canarium_runtime.security.watching import ReloadError

A, B = hash_of(b"a" * 43), hash_of(b"b" * 43)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        pytest.param(f"bob: {A}", [("bob", A)], id="a line"),
        pytest.param(
            f"---\n# clients\nbob: {A}  # since May\n\nann: '{B}'\n",
            [("bob", A), ("ann", B)],
            id="YAML with comments and quotes",
        ),
        pytest.param(f"bob: {A}\nbob: {B}", [("bob", A), ("bob", B)], id="two keys of one client"),
        pytest.param(f'{{"bob": "{A}"}}', [("bob", A)], id="JSON"),
        pytest.param(f'{{"bob": ["{A}", "{B}"]}}', [("bob", A), ("bob", B)], id="JSON, two keys"),
        pytest.param(f"team/a@x.org: {A}", [("team/a@x.org", A)], id="a name with signs"),
    ],
)
def test_entries_are_read(text: str, entries: list[tuple[str, str]]) -> None:
    """World: a file; world: its entries."""
    assert parse(text, "keys") == entries


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("bob", "keys, line 1: expected `name: sha256`", id="no value"),
        pytest.param(
            f"bob: {A}\nann: s3cret-key", "keys, line 2: expected the SHA-256", id="a plain key"
        ),
        pytest.param(f"bob: {A.upper()}", "expected the SHA-256", id="capitals"),
        pytest.param(f"bo b: {A}", "line 1", id="a space in a name"),
        pytest.param("{", "not JSON", id="half JSON"),
        pytest.param('{"bob": 5}', "entry 'bob': expected the SHA-256", id="a number"),
    ],
)
def test_wrong_entries_are_named_without_their_value(text: str, says: str) -> None:
    """Who mistakes the key for its hash does not find it in the logs."""
    with pytest.raises(ReloadError, match=says) as caught:
        parse(text, "keys")
    assert "s3cret" not in str(caught.value)


def test_keys_are_known_by_their_hash(tmp_path: Path) -> None:
    """World: a file with one entry; events: its key, and others."""
    file = tmp_path / "keys"
    file.write_text(f"bob: {hashlib.sha256(b'k' * 43).hexdigest()}")
    keys = ApiKeys(file)
    assert keys.watch.check()
    assert keys.name_of(b"k" * 43) == "bob"
    assert keys.name_of(b"k" * 42) is None
    assert keys.name_of(b"") is None


def test_a_mounted_secret_is_read_again_when_its_link_is_swapped(tmp_path: Path) -> None:
    """The kubelet writes a folder beside the old one and swaps the link `..data`."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for number, name in enumerate(("bob", "ann"), 1):
        (mounted / f"..{number}").mkdir()
        (mounted / f"..{number}" / "keys").write_text(f"{name}: {A}")
    (mounted / "..data").symlink_to("..1")
    (mounted / "keys").symlink_to("..data/keys")
    keys = ApiKeys(mounted)
    assert keys.watch.check()
    assert keys.name_of(b"a" * 43) == "bob"
    assert not keys.watch.check()
    (mounted / "..new").symlink_to("..2")
    (mounted / "..new").rename(mounted / "..data")
    assert keys.watch.check()
    assert keys.name_of(b"a" * 43) == "ann"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        pytest.param("bob: nonsense", "expected the SHA-256", id="a wrong entry"),
        pytest.param("", "no entry in it", id="an empty file"),
        pytest.param(f"bob: {A}\nann: {A}", "ann and bob have the same key", id="a key twice"),
        pytest.param(None, "No such file", id="no file"),
    ],
)
def test_a_broken_file_leaves_the_old_keys_in_force(
    tmp_path: Path, broken: str | None, says: str
) -> None:
    """And says so, until it is mended."""
    file = tmp_path / "keys"
    file.write_text(f"bob: {A}")
    keys = ApiKeys(file)
    keys.watch.check()
    if broken is None:
        file.unlink()
    else:
        file.write_text(broken)
    assert not keys.watch.check()
    assert says in keys.watch.problem
    assert keys.name_of(b"a" * 43) == "bob"
    file.write_text(f"ann: {B}")
    assert keys.watch.check()
    assert keys.watch.problem == ""
    assert keys.name_of(b"a" * 43) is None
    assert keys.name_of(b"b" * 43) == "ann"


def test_all_files_of_a_folder_are_read(tmp_path: Path) -> None:
    """Each value of a Secret is a file; hidden ones are the kubelet's."""
    (tmp_path / "one").write_text(f"bob: {A}")
    (tmp_path / "two").write_text(f"ann: {B}")
    (tmp_path / ".hidden").write_text("nonsense")
    keys = ApiKeys(tmp_path)
    assert keys.watch.check()
    assert len(keys) == 2

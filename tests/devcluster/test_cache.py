"""The cache: complete entries only, keyed by content, bounded."""

import os
from pathlib import Path

import pytest

from canarium_devcluster import cache


def make(store: cache.Cache, key: str, text: str = "x") -> Path:
    return store.get_or_make("kind", key, lambda target: (target / "f").write_text(text) and None)


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    """The second request finds the first one's result."""
    store = cache.Cache(tmp_path)
    assert make(store, "a", "first") == make(store, "a", "second")
    assert (tmp_path / "kind/a/f").read_text() == "first"


def test_an_interrupted_build_leaves_no_entry(tmp_path: Path) -> None:
    """What is in the cache is complete."""
    store = cache.Cache(tmp_path)

    def interrupted(target: Path) -> None:
        (target / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_or_make("kind", "a", interrupted)
    assert store.get("kind", "a") is None
    assert (make(store, "a") / "f").exists()


def test_only_the_latest_used_entries_stay(tmp_path: Path) -> None:
    """An old entry that is still in use outlives a newer one that is not."""
    store = cache.Cache(tmp_path)
    for age, key in ((300, "old"), (200, "older-branch")):
        path = make(store, key)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert store.get("kind", "old") is not None  # used just now
    make(store, "new")
    assert store.get("kind", "older-branch") is None
    assert store.get("kind", "old") is not None


def test_a_clone_elsewhere_has_the_same_key(tmp_path: Path) -> None:
    """Names and contents count; places and times do not."""
    keys = []
    for clone in ("one", "two"):
        base = tmp_path / clone
        (base / "src/__pycache__").mkdir(parents=True)
        (base / "src/a.go").write_text("package a")
        (base / "src/a_test.go").write_text(clone)
        (base / "src/__pycache__/x.pyc").write_text(clone)
        os.utime(base / "src/a.go", (len(clone), 0))
        keys.append(cache.key_of(cache.tree_parts([base / "src"], base, ignore=("_test.go",))))
    assert keys[0] == keys[1]
    (tmp_path / "two/src/a.go").write_text("package b")
    changed = cache.tree_parts([tmp_path / "two/src"], tmp_path / "two", ignore=("_test.go",))
    assert cache.key_of(changed) != keys[0]


def test_keys_keep_parts_apart() -> None:
    """Moving a character from one part to the next is a change."""
    assert cache.key_of(["ab", "c"]) != cache.key_of(["a", "bc"])


def test_durations_are_remembered(tmp_path: Path) -> None:
    """The next build can say how long this one took."""
    cache.Cache(tmp_path).remember_seconds("x", 12.34)
    assert cache.Cache(tmp_path).last_seconds("x") == 12.3
    assert cache.Cache(tmp_path).last_seconds("y") is None


def test_what_nobody_used_for_long_is_forgotten(tmp_path: Path) -> None:
    """Even of kinds that are not made any more."""
    store = cache.Cache(tmp_path)
    path = store.get_or_make("old-kind", "a", lambda _target: None)
    os.utime(path, (path.stat().st_mtime - cache.UNUSED_SECONDS - 1,) * 2)
    make(store, "b")
    assert store.get("old-kind", "a") is None

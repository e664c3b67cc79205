"""`canarium keys`: a key for the client, an entry for the Secret."""

import io
import re

import pytest

from canarium_cli.__main__ import main
from canarium_runtime.security.keys import hash_of, parse


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["keys", *words])
    return int(caught.value.code or 0)


def test_a_new_key_fits_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """What the command writes, the server reads; two keys are never the same."""
    keys = set()
    for _ in range(2):
        assert run("new", "bob") == 0
        key, entry = re.fullmatch(r"key:   (\S+)\nentry: (.+)\n", capsys.readouterr().out).groups()  # type: ignore[union-attr]
        assert parse(entry, "keys") == [("bob", hash_of(key.encode()))]
        assert key.startswith("cnr_")
        assert "." not in key
        keys.add(key)
    assert len(keys) == 2


def test_a_key_that_there_is_gets_its_entry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("k" * 40 + "\n"))
    assert run("hash", "bob") == 0
    assert capsys.readouterr().out == f"bob: {hash_of(b'k' * 40)}\n"


@pytest.mark.parametrize(
    ("words", "given", "says"),
    [
        pytest.param(("new", "bob smith"), "", "a name has letters", id="a space"),
        pytest.param(("hash", "bob"), "hunter2\n", "can be guessed", id="a password"),
    ],
)
def test_what_cannot_serve_is_refused(
    words: tuple[str, ...],
    given: str,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not repeated."""
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    assert run(*words) == 2
    assert says in capsys.readouterr().err

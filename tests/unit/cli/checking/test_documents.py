"""YAML with places, read as Kubernetes reads it."""

from typing import Any

import pytest

from canarium_cli.checking import documents
from canarium_cli.checking.documents import DocumentError

from .objects import read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18:00", "18:00"),
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("12", 12),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ('"12"', "12"),
        ("1.5Gi", "1.5Gi"),
    ],
)
def test_scalars_are_what_kubernetes_takes_them_for(text: str, value: Any) -> None:
    """Times and dates stay text, as fields such as `rollout.freezes[].from` need them."""
    assert read(f"a: {text}").value == {"a": value}


def test_each_field_has_the_place_of_its_key() -> None:
    """Items of lists have their own; what is not there has that of the nearest thing around it."""
    document = read("a:\n  b:\n  - c: 1\n  -   d: 2\n")
    assert (document.place("a.b[1].d").line, document.place("a.b[1].d").column) == (4, 7)
    assert document.place("a.b[0].x.y").line == 3
    assert document.place("nowhere").line == 1


def test_a_key_that_stands_twice_is_noted_unless_it_came_by_merging() -> None:
    """The second `a` hides the first; a key beside `<<` is what merging is for."""
    twice = read("a: 1\nb: 2\na: 3\n")
    assert [(path, place.line) for path, place in twice.repeated] == [("a", 3)]
    merged = read("base: &b {a: 1}\nmore:\n  <<: *b\n  a: 2\n")
    assert merged.repeated == ()
    assert merged.value["more"] == {"a": 2}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: [", 2, "is not YAML"),
        ("a: {{ .Values.uri }}", 1, "is not YAML"),
        ("a: !!python/object:os.system x", 1, "is not YAML"),
        ("a: &a [*a]", 1, "nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_place(text: str, line: int, words: str) -> None:
    """The error says where."""
    with pytest.raises(DocumentError, match=words) as caught:
        documents.read(text, "x.yaml")
    assert caught.value.line == line


def test_aliases_cannot_fill_the_memory() -> None:
    """Ten levels of ten aliases each would be 10 billion fields."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11)]
    with pytest.raises(DocumentError, match="aliases written out"):
        documents.read("\n".join(lines), "x.yaml")

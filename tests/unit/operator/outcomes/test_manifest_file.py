"""Manifests that people own, changed in single values: everything else stays as it was written."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_operator.core.outcomes.jobs import GitEdit
from canarium_operator.core.outcomes.manifest_file import (
    ManifestFile,
    MovedOnError,
    UnusableFileError,
)

TEXT = """\
# Ours. Ask before you change it.
apiVersion: canarium.dev/v1alpha1
kind: ModelDeployment
metadata:
  name: fraud   # not fraud-v2
spec:
  model:
    # built nightly
    uri: "https://models.example.com/fraud/3/model.onnx"
    version: '3'

  serving:
    maxDelay: 0.05s
    resources:
      requests: {cpu: 0.5, memory: 1Gi}
  rollout:
    canary:
      steps:
        - weight: 10   # a few
        - {weight: 100, pause: 1h}
---
kind: ConfigMap
apiVersion: v1
metadata: {name: other}
data:
  a: |
    b
"""


def edit(path: str, before: Any, after: Any) -> GitEdit:
    words = [json.dumps(value) if value is not None else None for value in (before, after)]
    return GitEdit(path=tuple(path.split(".")), before=words[0], after=words[1])


def changed(*edits: GitEdit, text: str = TEXT) -> str:
    file = ManifestFile(text, "fraud")
    assert file.change(edits)
    return file.text()


def lines_that_differ(before: str, after: str) -> list[tuple[str, str]]:
    return [
        (old.strip(), new.strip())
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True)
        if old != new
    ]


def test_a_file_that_nothing_is_changed_in_is_written_as_it_was() -> None:
    """Comments, quotes, flow style, indentation of lists, blank lines and other documents."""
    assert ManifestFile(TEXT, "fraud").text() == TEXT


def test_single_lines_change() -> None:
    """Quotes stay as they were, and the comments around."""
    after = changed(
        edit("model.uri", "https://models.example.com/fraud/3/model.onnx", "https://b/2.onnx"),
        edit("model.version", "3", "2"),
    )
    assert lines_that_differ(TEXT, after) == [
        (
            'uri: "https://models.example.com/fraud/3/model.onnx"',
            'uri: "https://b/2.onnx"',
        ),
        ("version: '3'", "version: '2'"),
    ]


def test_a_value_is_compared_by_its_meaning() -> None:
    """The revision says 50ms and 500m where the file says 0.05s and 0.5."""
    after = changed(
        edit("serving.maxDelay", "50ms", "100ms"),
        edit("serving.resources.requests.cpu", "500m", "1"),
    )
    assert [new for _, new in lines_that_differ(TEXT, after)] == [
        "maxDelay: 100ms",
        "requests: {cpu: '1', memory: 1Gi}",
    ]


def test_values_come_and_go_with_their_parents() -> None:
    """What the stable revision did not set is removed; what it did is set, wherever that is."""
    after = changed(
        edit("serving.maxDelay", "50ms", None),
        edit("serving.resources.requests.cpu", "500m", None),
        edit("serving.resources.requests.memory", "1Gi", None),
        edit("serving.cache.memory.size", None, "64Mi"),
        edit("model.inputs", None, [{"name": "x"}]),
    )
    assert "resources" not in after
    assert "maxDelay" not in after
    assert "  serving:\n    cache:\n      memory:\n        size: 64Mi\n" in after
    assert "    inputs:\n      - name: x\n" in after


def test_what_is_done_already_is_no_change() -> None:
    """All values are the stable revision's."""
    file = ManifestFile(TEXT, "fraud")
    assert not file.change([edit("model.version", "4", "3"), edit("model.sha256", "ab", None)])


def test_a_value_that_somebody_has_changed_since_is_left_alone() -> None:
    """And so are all others: half a rollback would be a third version."""
    file = ManifestFile(TEXT, "fraud")
    edits = [edit("model.version", "3", "2"), edit("model.uri", "https://x/4", "https://x/2")]
    with pytest.raises(MovedOnError, match=r"spec\.model\.uri"):
        file.change(edits)
    assert file.text() == TEXT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML at line"),
        ("", "has 0 ModelDeployments"),
        ("- 1\n", "has 0 ModelDeployments"),
        (TEXT.replace("ModelDeployment", "Deployment"), "has 0 ModelDeployments"),
        (
            "kind: ModelDeployment\nmetadata: {name: a}\n---\nkind: ModelDeployment\nmetadata: {name: b}\n",
            "has 2 ModelDeployments, and none named fraud",
        ),
    ],
)
def test_a_file_without_the_object_is_refused(text: str, words: str) -> None:
    """The message says what is in it instead."""
    with pytest.raises(UnusableFileError, match=words):
        ManifestFile(text, "fraud")


def test_a_field_that_another_file_sets_is_said() -> None:
    """A kustomize patch that has only a part of the model."""
    file = ManifestFile("kind: ModelDeployment\nspec: {model: {version: '3'}}\n", "fraud")
    with pytest.raises(UnusableFileError, match=r"does not set spec\.model\.uri"):
        file.change([edit("model.version", "3", "2"), edit("model.uri", "a", "b")])


def test_the_only_object_counts_whatever_its_name() -> None:
    """Kustomize may rename it; a record uses the name that the file has, and its namespace."""
    assert ManifestFile(TEXT, "production-fraud").metadata == {"name": "fraud"}
    placed = TEXT.replace("  name: fraud", '  namespace: "ml"\n  name: fraud')
    assert ManifestFile(placed, "fraud").metadata == {"name": "fraud", "namespace": "ml"}


KEYS = st.sampled_from(("uri", "version", "sha256", "serving", "x.y/z"))
VALUES = st.one_of(
    st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=30),
    st.integers(-5, 10**6),
    st.booleans(),
    st.lists(st.integers(), max_size=3),
)


@given(st.dictionaries(KEYS, VALUES, min_size=1), st.dictionaries(KEYS, VALUES, min_size=1))
def test_edits_lead_from_one_map_to_the_other(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Whatever the values are, the file is valid YAML and says what the stable revision said."""
    import yaml

    document = {
        "kind": "ModelDeployment",
        "metadata": {"name": "fraud"},
        "spec": {"model": before, "traffic": {}},
    }
    file = ManifestFile(yaml.safe_dump(document), "fraud")
    edits = [
        GitEdit(
            path=("model", key),
            before=json.dumps(before[key]) if key in before else None,
            after=json.dumps(after[key]) if key in after else None,
        )
        for key in {**before, **after}
        if before.get(key) != after.get(key) or (key in before) != (key in after)
    ]
    file.change(edits)
    assert after == yaml.safe_load(file.text())["spec"]["model"]

"""The CRD generator: types in, structural schema out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from pydantic import Field

from canarium_api import crdgen
from canarium_api.base import ApiModel
from canarium_api.duration import Duration
from canarium_api.quantity import Limit, Quantity

ROOT = Path(__file__).parents[3]
OPEN_API_FLAGS = ("exclusiveMinimum", "exclusiveMaximum")
SCHEMA = crdgen.make_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk a schema: only what is a schema, never a property's name."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[]")


class Inner(ApiModel):
    """An inner part."""

    size: int = Field(default=3, ge=1, le=9)
    """How large."""


class Outer(ApiModel):
    """Has one field of each sort."""

    inner: Inner = Inner()
    note: str | None = None
    limit: Limit | None = None
    """A limit."""
    amount: Quantity = "1Gi"
    pause: Duration
    kind: Literal["only"] = "only"
    tags: list[str] = Field(default=[], max_length=2)


def test_a_type_becomes_a_structural_schema() -> None:
    """References are written out, optionals are plain, `const` is an enum, and empty defaults are left out."""
    schema = crdgen.structural_schema(Outer)
    assert schema["required"] == ["pause"]
    fields = schema["properties"]
    assert fields["inner"] == {
        "type": "object",
        "description": "An inner part.",
        "default": {"size": 3},
        "properties": {
            "size": {
                "type": "integer",
                "minimum": 1,
                "maximum": 9,
                "default": 3,
                "description": "How large.",
            }
        },
    }
    assert fields["note"] == {"type": "string"}
    assert fields["limit"]["x-kubernetes-preserve-unknown-fields"] is True
    assert "type" not in fields["limit"]
    assert fields["amount"]["x-kubernetes-int-or-string"] is True
    assert fields["kind"] == {"type": "string", "enum": ["only"], "default": "only"}
    assert fields["tags"] == {"type": "array", "items": {"type": "string"}, "maxItems": 2}


def test_a_status_has_no_defaults() -> None:
    """What the operator did not write is absent."""
    schema = crdgen.structural_schema(Outer, defaults=False)
    assert not [path for path, node in nodes(schema) if "default" in node]


def test_a_union_is_refused() -> None:
    """A structural schema has none, so the generator says so instead of writing something that looks right."""

    class Union(ApiModel):
        value: int | str

    with pytest.raises(ValueError, match="no unions"):
        crdgen.structural_schema(Union)


def test_every_node_is_structural() -> None:
    """Each node has a type or one of the two markers that stand for one, and nothing that the API server refuses."""
    refused = {"$ref", "anyOf", "oneOf", "allOf", "title", "const", "$defs", "nullable"}
    stand_for_a_type = {"x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"}
    for path, node in nodes(SCHEMA):
        assert "type" in node or node.keys() & stand_for_a_type, path
        assert not node.keys() & refused, path
        assert not {"properties", "additionalProperties"} <= node.keys(), path


def test_everything_that_grows_is_bounded() -> None:
    """The cost of CEL rules is estimated from the bounds of lists and maps, and etcd holds no endless objects."""
    unbounded = [
        path
        for path, node in nodes(SCHEMA["properties"]["spec"], "spec")
        if (node.get("type") == "array" and "maxItems" not in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


def test_a_fresh_object_is_not_taken_for_ready() -> None:
    """Kstatus compares observedGeneration; the default is one that no object has."""
    assert SCHEMA["properties"]["status"]["default"] == {"observedGeneration": -1}


def test_conditions_merge_by_type() -> None:
    """So that others may add conditions of their own with server-side apply."""
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_parts_of_the_status_have_one_owner() -> None:
    """Fields of a part are not tracked one by one; conditions are."""
    parts = SCHEMA["properties"]["status"]["properties"]
    atomic = {name for name, part in parts.items() if part.get("x-kubernetes-map-type") == "atomic"}
    assert {"rollout", "stable", "canary", "lastTransition", "summary"} <= atomic


def test_every_rule_has_a_message() -> None:
    """A refusal by CEL says what to do, not which expression was false."""
    rules = [rule for _, node in nodes(SCHEMA) for rule in node.get("x-kubernetes-validations", [])]
    assert len(rules) >= 8
    assert all(len(rule["message"]) > 30 for rule in rules)


@pytest.mark.parametrize("path", list(crdgen.generate()))
def test_the_committed_files_are_fresh(path: str) -> None:
    """`make generate` was run after the last change of the types."""
    assert (ROOT / path).read_text(encoding="utf-8") == crdgen.generate()[path]


def test_the_file_says_where_it_comes_from_and_is_plain_yaml() -> None:
    """No anchors, and the first line names the generator."""
    text = crdgen.generate()[crdgen.CRD_PATH]
    assert text.startswith("# generated by python -m canarium_api.crdgen; run make generate\n")
    assert "&id" not in text
    assert yaml.safe_load(text) == crdgen.make_crd()


def test_check_tells_stale_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails naming the files and the remedy, and passes on what was just written."""
    assert crdgen.main(["--check", str(tmp_path)]) == 1
    assert "run make generate" in capsys.readouterr().err
    for path, content in crdgen.generate().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8")
    assert crdgen.main(["--check", str(tmp_path)]) == 0


def test_the_reference_names_every_field() -> None:
    """Each path of spec and status has its row."""
    page = crdgen.generate()[crdgen.REFERENCE_PATH]
    for part in ("spec", "status"):
        for path, node in nodes(SCHEMA["properties"][part]):
            if path and not path.endswith("[]") and "properties" not in node:
                assert f"`{path.removeprefix('.')}`" in page


def test_open_bounds_are_flags_beside_their_limits() -> None:
    """OpenAPI 3.0, which CRDs speak, has no number in exclusiveMinimum: the API server refuses one."""

    def parts(schema: Any) -> Iterator[dict[str, Any]]:
        if isinstance(schema, dict):
            yield schema
            for value in schema.values():
                yield from parts(value)

    found = [part for part in parts(SCHEMA) if any(flag in part for flag in OPEN_API_FLAGS)]
    assert found
    for part in found:
        assert all(part.get(flag, True) is True for flag in OPEN_API_FLAGS)
        assert "minimum" in part or "maximum" in part

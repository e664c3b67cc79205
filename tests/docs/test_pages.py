"""The pages hang together: links lead somewhere, generated pages are current, tables agree with what they describe."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from tests.docs.pages import ROOT, anchors, links, pages

from canarium_api import crdgen
from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import Phase, Verdict


def load_generator() -> ModuleType:
    """Import docs/generate.py, which is a script and no package's module."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each link to a file of the repository names one that exists, and a heading in it."""
    broken = []
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    assert broken == []


def test_the_index_names_every_page() -> None:
    """docs/index.md leads to every page of docs/; decisions are listed by their own index."""
    docs = ROOT / "docs"
    for index, folder in ((docs / "index.md", docs), (docs / "adr" / "README.md", docs / "adr")):
        named = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
        there = {
            page
            for page in folder.rglob("*.md")
            if page.parent.name != "adr" or folder == page.parent
        }
        assert there - named - {index} == set()


@pytest.mark.parametrize("path", load_generator().generate(), ids=lambda path: path.name)
def test_generated_pages_are_current(path: Path) -> None:
    """What `make generate` would write is what is there."""
    assert load_generator().generate()[path] == path.read_text(encoding="utf-8")


def test_the_generated_crd_and_its_page_are_current() -> None:
    """The same for what canarium_api.crdgen writes."""
    for path, content in crdgen.generate().items():
        assert content == (ROOT / path).read_text(encoding="utf-8"), path


def test_everything_generated_has_a_description() -> None:
    """No row of a generated table is left without words."""
    generator = load_generator()
    for kind in (Phase, ConditionType, Verdict, Reason):
        assert set(kind.__members__) == set(generator.docstrings(kind)), kind


def test_the_table_of_permissions_is_that_of_the_role() -> None:
    """The table in docs/explanation/safety.md says what manifests/base/rbac.yaml grants the operator."""
    text = (ROOT / "manifests/base/rbac.yaml").read_text(encoding="utf-8")
    (role,) = [d for d in yaml.safe_load_all(text) if d["kind"] == "ClusterRole"]
    granted: dict[str, set[str]] = {}
    for rule in role["rules"]:
        for resource in rule["resources"]:
            granted.setdefault(resource, set()).update(rule["verbs"])
    page = (ROOT / "docs/explanation/safety.md").read_text(encoding="utf-8")
    section = page.split("## What the operator may do")[1].split("\n## ")[0]
    head, _, *rows = [
        line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")
    ]
    verbs = [cell.strip() for cell in head[1:]]
    told = {
        resource.strip(): {
            verb for verb, cell in zip(verbs, cells, strict=True) if cell.strip() == "x"
        }
        for name, *cells in rows
        for resource in name.split(",")
    }
    assert granted == told

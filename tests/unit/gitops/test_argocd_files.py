"""What Argo CD is given besides scripts: ConfigMaps, rights, applications. Each is held against what it goes with."""

import importlib.util
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.argocd import SCRIPTS, VERBS
from tests.docs.pages import ROOT

ARGOCD = ROOT / "manifests" / "argocd"
EXAMPLE = ROOT / "examples" / "gitops" / "argocd"
ACTION = "action/canarium.dev/ModelDeployment"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def load_generator() -> ModuleType:
    """Import manifests/argocd/generate.py, which is a script and no package's module."""
    spec = importlib.util.spec_from_file_location("argocd_generate", ARGOCD / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_config_map_holds_the_scripts_to_the_letter() -> None:
    """What Argo CD reads out of the ConfigMap is what the tests have run."""
    data = load(ARGOCD / "argocd-cm.yaml")["data"]
    key = "resource.customizations.{}.canarium.dev_ModelDeployment"
    assert set(data) == {key.format("health"), key.format("actions")}
    assert data[key.format("health")] == (SCRIPTS / "health.lua").read_text(encoding="utf-8")
    actions = yaml.safe_load(data[key.format("actions")])
    assert actions == {
        "discovery.lua": (SCRIPTS / "actions" / "discovery.lua").read_text(encoding="utf-8"),
        "definitions": [
            {
                "name": verb,
                "action.lua": (SCRIPTS / "actions" / verb / "action.lua").read_text("utf-8"),
            }
            for verb in VERBS
        ],
    }


def test_the_generated_config_map_is_current(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` passes on what is there, and says so when it is stale."""
    generator = load_generator()
    monkeypatch.setattr("sys.argv", ["generate.py", "--check"])
    assert generator.main() == 0
    stale = generator.HERE / "stale.yaml"
    monkeypatch.setattr(generator, "TARGET", stale)
    assert generator.main() == 1
    assert "make generate" in capsys.readouterr().err


def policy() -> list[list[str]]:
    text = load(ARGOCD / "argocd-rbac-cm.yaml")["data"]["policy.canarium.csv"]
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [[cell.strip() for cell in line.split(",")] for line in lines]


def roles_of(subject: str) -> set[str]:
    """Who a subject is, by the lines that begin with g."""
    found = {subject}
    for _ in policy():
        found |= {line[2] for line in policy() if line[0] == "g" and line[1] in found}
    return found


def may(subject: str, action: str) -> bool:
    """Judge as Argo CD's model does: some line allows, and none denies."""
    effects = [
        line[5]
        for line in policy()
        if line[0] == "p"
        and line[1] in roles_of(subject)
        and fnmatchcase("applications", line[2])
        and fnmatchcase(action, line[3])
        and fnmatchcase("fraud/fraud-production", line[4])
    ]
    return "allow" in effects and "deny" not in effects


@pytest.mark.parametrize(
    ("subject", "verbs"),
    [
        ("canarium-approvers", {"approve", "abort"}),
        ("canarium-oncall", set(VERBS)),
        ("somebody", set()),
    ],
)
def test_each_role_may_click_what_it_is_for(subject: str, verbs: set[str]) -> None:
    """And look at the application, but not sync, change or delete it."""
    assert {verb for verb in VERBS if may(subject, f"{ACTION}/{verb}")} == verbs
    assert may(subject, "get") == bool(verbs)
    for action in ("sync", "update", "delete", "override", "action/apps/Deployment/restart"):
        assert not may(subject, action)


def test_every_line_of_the_policy_is_of_one_of_the_two_forms() -> None:
    """Argo CD drops a line that it cannot read, without a word to whoever waits for the right."""
    for line in policy():
        assert (line[0], len(line)) in {("p", 6), ("g", 3)}, line


def granted(path: Path) -> dict[tuple[str, str], set[str]]:
    """Rights of the one ClusterRole in a file, by group and resource."""
    text = path.read_text(encoding="utf-8")
    (role,) = [d for d in yaml.safe_load_all(text) if d["kind"] == "ClusterRole"]
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def test_a_restricted_argo_cd_sees_all_that_the_operator_makes_and_changes_none_of_it() -> None:
    """It changes what is in git, and no status."""
    rights = granted(ARGOCD / "clusterrole.yaml")
    made = {
        resource
        for resource, verbs in granted(ROOT / "manifests/base/rbac.yaml").items()
        if "create" in verbs and resource != ("", "events")
    }
    for resource in made:
        assert rights[resource] == {"get", "list", "watch"}, resource
    changed = {resource for resource, verbs in rights.items() if verbs - {"get", "list", "watch"}}
    assert changed == {
        ("canarium.dev", "modeldeployments"),
        ("canarium.dev", "analysistemplates"),
    }


def test_the_project_shows_what_the_operator_makes() -> None:
    """Argo CD leaves out of the tree what a project may not have."""
    project = load(EXAMPLE / "project.yaml")["spec"]
    shown = {(e["group"], e["kind"].lower() + "s") for e in project["namespaceResourceWhitelist"]}
    made = {
        resource
        for resource, verbs in granted(ROOT / "manifests/base/rbac.yaml").items()
        if "create" in verbs and resource != ("", "events")
    }
    assert made <= shown
    assert ("canarium.dev", "modeldeployments") in shown


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_application_set_makes_the_applications_of_the_files(environment: str) -> None:
    """Either way gives the same."""
    text = (EXAMPLE / "applicationset.yaml").read_text(encoding="utf-8")
    template = yaml.safe_load(
        text.replace("{{.path.basename}}", environment).replace(
            "{{.path.path}}", f"environments/{environment}"
        )
    )["spec"]["template"]
    made = load(EXAMPLE / "applications" / f"{environment}.yaml")
    assert made["spec"] == template["spec"]
    assert made["metadata"] == {**template["metadata"], "namespace": "argocd"}


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_an_application_is_one_that_its_project_allows(environment: str) -> None:
    """Repository, destination and namespace."""
    project = load(EXAMPLE / "project.yaml")
    application = load(EXAMPLE / "applications" / f"{environment}.yaml")["spec"]
    assert application["project"] == project["metadata"]["name"]
    assert application["source"]["repoURL"] in project["spec"]["sourceRepos"]
    (destination,) = project["spec"]["destinations"]
    assert application["destination"]["server"] == destination["server"]
    assert fnmatchcase(application["destination"]["namespace"], destination["namespace"])

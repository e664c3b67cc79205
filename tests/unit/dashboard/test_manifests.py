"""The dashboard in the cluster, as files: it has no rights, and runs restricted."""

import re
from pathlib import Path
from typing import Any

import pytest
import trustme
import typer
import yaml

from canarium_dashboard import __main__ as program
from canarium_dashboard import connecting

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "manifests" / "dashboard"


def documents() -> dict[str, dict[str, Any]]:
    """All documents, by kind."""
    found = [
        document
        for name in ("dashboard.yaml", "networkpolicy.yaml")
        for document in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
    ]
    return {document["kind"]: document for document in found}


def pod() -> dict[str, Any]:
    """The pod."""
    found: dict[str, Any] = documents()["Deployment"]["spec"]["template"]["spec"]
    return found


def test_it_has_no_rights_and_no_token() -> None:
    """No role is there to be bound, and no token to be stolen."""
    assert set(documents()) == {"ServiceAccount", "Deployment", "Service", "NetworkPolicy"}
    assert documents()["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod()["automountServiceAccountToken"] is False
    assert not [v for v in pod()["volumes"] if "projected" in v or "secret" in v]


def test_it_runs_restricted() -> None:
    """As the operator does."""
    (container,) = pod()["containers"]
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_its_arguments_are_options_of_the_program() -> None:
    """And each user brings a token."""
    (container,) = pod()["containers"]
    application = typer.Typer()
    application.command()(program.dashboard)
    command = typer.main.get_command(application)
    context = command.make_context("dashboard", list(container["args"]))
    assert context.params["sign_in"] == "token"
    assert context.params["port"] == container["ports"][0]["containerPort"]


def test_all_parts_name_the_same_pods() -> None:
    """Service, NetworkPolicy and Deployment."""
    found = documents()
    labels = {"app.kubernetes.io/name": "canarium-dashboard"}
    assert found["Service"]["spec"]["selector"] == labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert found["Deployment"]["spec"]["template"]["metadata"]["labels"] == labels


def test_the_image_copies_only_its_own_parts() -> None:
    """Of the operator the pure core, and what that imports."""
    text = (ROOT / "dashboard/Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert copied == [
        "pyproject.toml constraints.txt",
        "api/canarium_api",
        "operator/canarium_operator/core",
        "operator/canarium_operator/__init__.py operator/canarium_operator/errors.py",
        "dashboard/canarium_dashboard",
    ]
    assert re.findall(r"--extra (\w+)", text) == ["dashboard"]
    assert "USER 65532:65532" in text


@pytest.mark.parametrize(
    ("host", "url"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
async def test_a_pod_takes_the_address_and_no_credentials(
    host: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate authority comes from where the manifest mounts it."""
    ca = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(ca)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("CANARIUM_DASHBOARD_CA_FILE", str(ca))
    async with connecting.connect(None, None, anonymous=True) as api:
        assert api.configuration.host == url
        assert api.configuration.api_key == {}
        assert api.configuration.cert_file is None
    (mount,) = pod()["containers"][0]["volumeMounts"]
    assert Path(mount["mountPath"]) == connecting._CA_FILE.parent


async def test_of_a_kubeconfig_no_credentials_are_taken_where_users_bring_theirs(
    tmp_path: Path,
) -> None:
    """A client certificate would lend its owner's rights to everybody."""
    authority = trustme.CA()
    issued = authority.issue_cert("admin@example.com")
    files = {"ca": tmp_path / "ca.pem", "cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    authority.cert_pem.write_to_path(files["ca"])
    issued.cert_chain_pems[0].write_to_path(files["cert"])
    issued.private_key_pem.write_to_path(files["key"])
    user = {"client-certificate": str(files["cert"]), "client-key": str(files["key"]), "token": "t"}
    server = {"server": "https://api.example.com:6443", "certificate-authority": str(files["ca"])}
    config = {
        "clusters": [{"name": "c", "cluster": server}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    async with connecting.connect(str(path), None, anonymous=False) as mine:
        assert mine.configuration.api_key or mine.configuration.cert_file
    async with connecting.connect(str(path), None, anonymous=True) as theirs:
        assert theirs.configuration.host == "https://api.example.com:6443"
        assert theirs.configuration.ssl_ca_cert == str(files["ca"])
        assert theirs.configuration.api_key == {}
        assert theirs.configuration.cert_file is None
        assert theirs.configuration.refresh_api_key_hook is None

"""A repository with version 3 in it, and its servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.git.worlds import MANIFEST, manifest
from tests.services.git import HttpsServer, Repository, SshServer, https_server, ssh_server


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Version 2 was deployed, then version 3."""
    made = Repository(tmp_path)
    made.push({MANIFEST: manifest("2"), "README.md": "models\n"}, "version 2")
    made.push({MANIFEST: manifest("3")}, "version 3")
    return made


@pytest.fixture
def https(tmp_path: Path) -> Iterator[HttpsServer]:
    with https_server(tmp_path) as server:
        yield server


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[SshServer]:
    with ssh_server(tmp_path / "ssh") as server:
        yield server

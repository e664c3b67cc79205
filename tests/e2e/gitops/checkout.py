"""A person's clone of a repository on the git server."""

from pathlib import Path

from canarium_devcluster.gitops.git_server import git, make_repository

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Alice",
    "GIT_AUTHOR_EMAIL": "alice@example.com",
    "GIT_COMMITTER_NAME": "Alice",
    "GIT_COMMITTER_EMAIL": "alice@example.com",
}


class Checkout:
    """A person's clone of a new repository on a server."""

    def __init__(self, root: Path, server: str, name: str, folder: Path) -> None:
        """Make a bare repository and clone it.

        Args:
            root: the server's folder.
            server: its URL.
            name: of the repository.
            folder: for the clone.
        """
        self.url = f"{server}/{name}.git"
        self.folder = folder
        make_repository(root, name)
        folder.mkdir(parents=True)
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("remote", "add", "origin", self.url)

    def push(self, message: str) -> str:
        """Commit all that changed, push it, and give the commit's id."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", message)
        return self._pushed()

    def revert(self, commit: str) -> str:
        """Revert a commit, push that, and give the new commit's id."""
        self._git("revert", "--no-edit", commit)
        return self._pushed()

    def _pushed(self) -> str:
        self._git("push", "--quiet", "origin", "main")
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        return git(*arguments, cwd=self.folder, env=_IDENTITY).decode()

"""GitHub's and GitLab's APIs, as a local server speaks them: statuses of commits, pull requests, and refusals."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from canarium_api.gitops import ForgeKind
from canarium_operator.adapters.forges import MAX_WORDS, HttpForge
from canarium_operator.errors import ForgeError
from canarium_operator.ports import CommitState, ForgeAccess

TOKEN = "s3cret-token"


class ForgeServer:
    """What the two APIs have of commits, statuses and requests, as far as it is used."""

    def __init__(self) -> None:
        self.commits: list[tuple[str, str]] = [("aaaa", "version 3"), ("bbbb", "version 2")]
        """(name, message), newest first."""
        self.statuses: dict[str, list[dict[str, str]]] = {}
        self.requests: list[dict[str, Any]] = []
        self.heads: dict[str, str] = {"canarium/ml/fraud/rev3": "cccc"}
        self.refuse: tuple[int, str] | None = None
        owner = self

        class Handler(_Handler):
            forge = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    # --- GitHub

    def github(
        self, method: str, parts: list[str], query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        """Answer as GitHub does."""
        match method, parts:
            case "GET", ["repos", "ml", "models", "commits"]:
                assert (query["sha"], query["path"]) == ("main", "production/fraud.yaml")
                return 200, [{"sha": s, "commit": {"message": m}} for s, m in self.commits]
            case "POST", ["repos", "ml", "models", "statuses", sha]:
                if body["state"] not in ("error", "failure", "pending", "success"):
                    return 422, {"message": "Validation Failed"}
                if len(body["description"]) > 140:
                    return 422, {"message": "description is too long"}
                self.statuses.setdefault(sha, []).append(body)
                return 201, {"id": 1}
            case "GET", ["repos", "ml", "models", "pulls"]:
                owner, _, branch = query["head"].partition(":")
                assert (owner, query["state"]) == ("ml", "all")
                return 200, [r for r in self.requests if r["source"] == branch]
            case "POST", ["repos", "ml", "models", "pulls"]:
                if any(r["source"] == body["head"] and r["state"] == "open" for r in self.requests):
                    return 422, {"message": "A pull request already exists"}
                made = {
                    "source": body["head"],
                    "state": "open",
                    "head": {"sha": self.heads[body["head"]]},
                    "html_url": f"https://github.example.com/ml/models/pull/{len(self.requests) + 1}",
                    "title": body["title"],
                }
                self.requests.append(made)
                return 201, made
        return 404, {"message": "Not Found"}

    # --- GitLab

    def gitlab(
        self, method: str, parts: list[str], query: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        """Answer as GitLab does."""
        match method, parts:
            case "GET", ["projects", "ml/models", "repository", "commits"]:
                assert (query["ref_name"], query["path"]) == ("main", "production/fraud.yaml")
                return 200, [{"id": s, "message": m} for s, m in self.commits]
            case "POST", ["projects", "ml/models", "statuses", sha]:
                if body["state"] not in ("pending", "running", "success", "failed", "canceled"):
                    return 400, {"error": "state does not have a valid value"}
                known = self.statuses.setdefault(sha, [])
                if known and known[-1]["state"] == body["state"]:
                    message = f"Cannot transition status via :run from :{body['state']}"
                    return 400, {"message": message}
                known.append(body)
                return 201, {"id": 1}
            case "GET", ["projects", "ml/models", "merge_requests"]:
                assert query["state"] == "all"
                return 200, [r for r in self.requests if r["source"] == query["source_branch"]]
            case "POST", ["projects", "ml/models", "merge_requests"]:
                made = {
                    "source": body["source_branch"],
                    "state": "opened",
                    "sha": self.heads[body["source_branch"]],
                    "web_url": f"https://gitlab.example.com/ml/models/-/merge_requests/{len(self.requests) + 1}",
                    "title": body["title"],
                }
                self.requests.append(made)
                return 201, made
        return 404, {"message": "404 Project Not Found"}


class _Handler(BaseHTTPRequestHandler):
    forge: ForgeServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: Any) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.split("/") if part]
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.forge.refuse is not None:
            status, text = self.forge.refuse
            self._answer(status, text)
            return
        if parts[0] == "repos":
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            answer = self.forge.github
        else:
            known = self.headers.get("PRIVATE-TOKEN") == TOKEN
            answer = self.forge.gitlab
        status, found = (
            answer(self.command, parts, query, body)
            if known
            else (401, {"message": "Bad credentials"})
        )
        self._answer(status, json.dumps(found))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        if status in (301, 302):
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def server() -> Iterator[ForgeServer]:
    made = ForgeServer()
    yield made
    made.close()


@pytest.fixture(params=list(ForgeKind))
def access(server: ForgeServer, request: pytest.FixtureRequest) -> ForgeAccess:
    return ForgeAccess(kind=request.param, url=server.url, project="ml/models", token=TOKEN)


async def test_the_commit_that_asked_is_the_newest_that_is_not_our_own(
    server: ForgeServer, access: ForgeAccess
) -> None:
    """A revert by the operator changed the file, too."""
    ours = ("eeee", "fraud: take v3 back\n\nCanarium-Outcome: ml/fraud/uid/7\n")
    server.commits.insert(0, ours)
    assert await HttpForge().commit_of(access, "main", "production/fraud.yaml") == "aaaa"
    server.commits = [ours]
    assert await HttpForge().commit_of(access, "main", "production/fraud.yaml") is None


async def test_a_commit_is_marked_and_saying_it_again_is_fine(
    server: ForgeServer, access: ForgeAccess
) -> None:
    """Pending, then failed, twice, with words that fit."""
    forge = HttpForge()
    await forge.mark(access, "aaaa", "canarium/ml/fraud", CommitState.PENDING, "begun")
    for _ in range(2):
        await forge.mark(access, "aaaa", "canarium/ml/fraud", CommitState.FAILURE, "x" * 500)
    states = [status["state"] for status in server.statuses["aaaa"]]
    expected = {
        ForgeKind.GITHUB: ["pending", "failure", "failure"],
        ForgeKind.GITLAB: ["running", "failed"],
    }
    assert expected[access.kind] == states
    assert len(server.statuses["aaaa"][-1]["description"]) == MAX_WORDS


async def test_one_request_is_opened_for_a_branch(server: ForgeServer, access: ForgeAccess) -> None:
    """The second time gives the first one's address, also when somebody has closed it; a new commit opens another."""
    forge = HttpForge()

    async def ask(commit: str) -> str:
        return await forge.request(
            access,
            source="canarium/ml/fraud/rev3",
            target="main",
            commit=commit,
            title="fraud: take v3 back to v2",
            body="| Check |",
        )

    first = await ask("cccc")
    assert await ask("cccc") == first
    server.requests[0]["state"] = "closed"
    assert await ask("cccc") == first
    server.heads["canarium/ml/fraud/rev3"] = "dddd"
    assert await ask("dddd") != first
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((401, '{"message": "Bad credentials"}'), "401.*Bad credentials.*gitops.forge.secret"),
        ((403, '{"message": "Resource not accessible"}'), "403.*not accessible"),
        ((404, "{}"), "404.*gitops.forge.project"),
        ((500, "<html>oops</html>"), "500.*oops"),
        ((302, ""), "302"),
        ((200, "no json"), "no JSON"),
        ((200, "{}"), "no list"),
        ((200, '[{"x": 1}]'), "no field"),
    ],
)
async def test_refusals_are_said_without_the_token(
    server: ForgeServer, access: ForgeAccess, refusal: tuple[int, str], words: str
) -> None:
    """Each in its own words; a redirect is not followed."""
    server.refuse = refusal
    with pytest.raises(ForgeError, match=words) as caught:
        await HttpForge().commit_of(access, "main", "production/fraud.yaml")
    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(access)


async def test_a_wrong_token_and_a_dead_server_are_said(
    server: ForgeServer, access: ForgeAccess
) -> None:
    """The server itself refuses the one; the other is not there."""
    wrong = ForgeAccess(kind=access.kind, url=access.url, project=access.project, token="wrong")
    with pytest.raises(ForgeError, match="401"):
        await HttpForge().mark(wrong, "aaaa", "c", CommitState.SUCCESS, "")
    gone = ForgeAccess(
        kind=access.kind, url="http://127.0.0.1:9", project=access.project, token="x"
    )
    with pytest.raises(ForgeError, match=r"127\.0\.0\.1 cannot be reached"):
        await HttpForge().mark(gone, "aaaa", "c", CommitState.SUCCESS, "")

"""`ports.Forge` over HTTP, by way of httpx: the few calls of GitHub's and GitLab's APIs that outcomes need.

No redirect is followed, since a token must not travel on; no token is in an error.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from canarium_api.gitops import ForgeKind
from canarium_operator.core.outcomes.jobs import TRAILER
from canarium_operator.errors import ForgeError
from canarium_operator.ports import CommitState, ForgeAccess

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS: Final = 15.0
"""For one call."""
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
MAX_WORDS: Final = 140
"""Characters of a commit's state, as GitHub takes them."""
MAX_BODY: Final = 60_000
"""Characters of a pull request's text."""
_COMMITS: Final = 10
"""How many commits are looked through for one that is not the operator's own."""


class HttpForge:
    """Talks to the API."""

    def __init__(self, transport: "httpx.AsyncBaseTransport | None" = None) -> None:
        """Prepare.

        Args:
            transport: of httpx; default: the network.
        """
        self._transport = transport

    async def commit_of(self, access: ForgeAccess, branch: str, path: str) -> str | None:
        """Find the newest commit of a branch that changed a file, and that is not the operator's own."""
        if access.kind is ForgeKind.GITHUB:
            query = {"sha": branch, "path": path, "per_page": str(_COMMITS)}
            found = await self._call(access, "GET", f"{_github(access)}/commits", query=query)
            commits = [(entry["sha"], entry["commit"]["message"]) for entry in _list(found)]
        else:
            query = {"ref_name": branch, "path": path, "per_page": str(_COMMITS)}
            where = f"{_gitlab(access)}/repository/commits"
            found = await self._call(access, "GET", where, query=query)
            commits = [(entry["id"], entry["message"]) for entry in _list(found)]
        return next((sha for sha, message in commits if f"{TRAILER}:" not in message), None)

    async def mark(
        self, access: ForgeAccess, commit: str, context: str, state: CommitState, words: str
    ) -> None:
        """Say on a commit how its rollout stands."""
        words = words[:MAX_WORDS]
        if access.kind is ForgeKind.GITHUB:
            body = {"state": state.value, "context": context, "description": words}
            await self._call(access, "POST", f"{_github(access)}/statuses/{commit}", body=body)
            return
        names = {CommitState.FAILURE: "failed", CommitState.PENDING: "running"}
        body = {"state": names.get(state, state.value), "name": context, "description": words}
        # GitLab refuses to say the same again, which is as good as having said it.
        await self._call(
            access, "POST", f"{_gitlab(access)}/statuses/{commit}", body=body, fine="transition"
        )

    async def request(
        self, access: ForgeAccess, *, source: str, target: str, commit: str, title: str, body: str
    ) -> str:
        """Open a pull request for a branch, unless there is one."""
        body = body[:MAX_BODY]
        if access.kind is ForgeKind.GITHUB:
            where, owner = f"{_github(access)}/pulls", access.project.split("/")[0]
            query = {"head": f"{owner}:{source}", "base": target, "state": "all"}
            new = {"title": title, "head": source, "base": target, "body": body}
            link, opened = "html_url", "open"
        else:
            where = f"{_gitlab(access)}/merge_requests"
            query = {"source_branch": source, "target_branch": target, "state": "all"}
            new = {"title": title, "source_branch": source, "target_branch": target,
                   "description": body, "remove_source_branch": "true"}  # fmt: skip
            link, opened = "web_url", "opened"
        for entry in _list(await self._call(access, "GET", where, query=query)):
            head = entry["head"]["sha"] if access.kind is ForgeKind.GITHUB else entry["sha"]
            if entry["state"] == opened or head == commit:
                return str(entry[link])
        made = await self._call(access, "POST", where, body=new)
        return str(made[link])

    async def _call(
        self,
        access: ForgeAccess,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
        fine: str = "",
    ) -> Any:
        """Make one call; a refusal that has the word `fine` in it is none."""
        import httpx  # only where the feature is used

        host = urlsplit(access.url).hostname or "the API"
        try:
            async with (
                httpx.AsyncClient(
                    timeout=TIMEOUT_SECONDS, follow_redirects=False, transport=self._transport
                ) as client,
                client.stream(
                    method, access.url + path, params=query, json=body, headers=_headers(access)
                ) as answer,
            ):
                raw = b""
                async for part in answer.aiter_bytes():
                    raw += part
                    if len(raw) > MAX_ANSWER_BYTES:
                        msg = f"{host} answered with more than {MAX_ANSWER_BYTES >> 20} MiB"
                        raise ForgeError(msg)
                status = answer.status_code
        except httpx.TimeoutException:
            msg = f"{host} did not answer within {TIMEOUT_SECONDS:g} s"
            raise ForgeError(msg) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            msg = f"{host} cannot be reached ({type(error).__name__})"
            raise ForgeError(msg) from None
        if 200 <= status < 300:
            return _Answer.read(host, raw)
        words = raw.decode("utf-8", "replace")
        if fine and fine in words:
            return {}
        msg = f"{host} answered {status} to {method} {path}: {_said(words)}{_remedy(status)}"
        raise ForgeError(msg)


class _Answer(dict[str, Any]):
    """An object of an answer: a missing field is an error of the API, not of ours."""

    def __missing__(self, key: str) -> Any:
        msg = f"the API's answer has no field {key}"
        raise ForgeError(msg)

    @classmethod
    def read(cls, host: str, raw: bytes) -> Any:
        """Read an answer."""
        try:
            return json.loads(raw, object_hook=cls)
        except ValueError as error:
            msg = f"{host} answered something that is no JSON"
            raise ForgeError(msg) from error


def _list(found: Any) -> Sequence[Any]:
    if not isinstance(found, list):
        msg = "the API's answer is no list"
        raise ForgeError(msg)
    return found


def _headers(access: ForgeAccess) -> dict[str, str]:
    headers = {"User-Agent": "canarium-operator", "Accept": "application/json"}
    if access.kind is ForgeKind.GITLAB:
        return {**headers, "PRIVATE-TOKEN": access.token}
    return {
        **headers,
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
        "Authorization": f"Bearer {access.token}",
    }


def _github(access: ForgeAccess) -> str:
    return f"/repos/{access.project}"


def _gitlab(access: ForgeAccess) -> str:
    return f"/projects/{quote(access.project, safe='')}"


def _said(text: str) -> str:
    """Find what an API says of its refusal."""
    try:
        document = json.loads(text)
    except ValueError:
        return text[:200]
    message = document.get("message") or document.get("error") if isinstance(document, dict) else ""
    return str(message)[:200]


def _remedy(status: int) -> str:
    if status in (401, 403):
        return ": the token of spec.gitops.forge.secret needs the right to it"
    return ": correct spec.gitops.forge.project, or the token's rights" if status == 404 else ""

"""What the API server and the network say, in words that name what was asked for, and the remedy."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from canarium_api import GROUP, PLURAL

_MAX_NAMES: Final = 5
"""Names that an error offers."""
_KIND: Final = f"{PLURAL}.{GROUP}"
_ROLES: Final = {
    "patch": "the roles edit and admin have it, or give a Role of its own (docs/reference/cli.md#rights)",
    "get": "the role view has it",
    "list": "the role view has it",
    "watch": "the role view has it",
}


class AccessError(Exception):
    """The cluster could not be asked, or said no; the message says what to do."""


class GoneError(AccessError):
    """What was asked for is not there, or no more."""


class ForbiddenError(AccessError):
    """The user may not do that."""


@dataclass(frozen=True)
class Asked:
    """One request, in the words of RBAC."""

    verb: str
    resource: str
    namespace: str
    """Empty: all of them, or the resource has none."""
    name: str
    """Empty: many."""

    def __str__(self) -> str:
        if self.resource == _KIND:
            where = f"{self.namespace}/{self.name}" if self.name else ""
            return f"ModelDeployment {where}" if where else "ModelDeployments"
        return f"{self.resource} {self.name}".strip()


def explained(error: Any, asked: Asked) -> AccessError:
    """Put a refusal of the API server into words."""
    words, of_server = _words(error)
    if error.status == 404 and not of_server and asked.resource == _KIND:
        return AccessError(
            f"this cluster does not know ModelDeployments ({_KIND}): Canarium is not installed in it, or this is "
            "another cluster than you meant (kubectl config current-context). To install it, see "
            "docs/howto/install.md: kubectl apply --server-side -k crds, then an overlay of manifests/base"
        )
    if error.status == 404:
        return GoneError(f"{asked} does not exist: check the name, and the namespace (-n)")
    if error.status == 410:
        return GoneError(f"{asked}: {words}")
    if error.status == 401:
        return ForbiddenError(
            f"{asked}: not allowed: the API server does not know these credentials ({words}): log in again, or "
            "choose another --context"
        )
    if error.status == 403:
        return ForbiddenError(f"{asked}: not allowed: {words}{_remedy(asked, words)}")
    return AccessError(f"{asked}: {error.status}: {words}")


def _remedy(asked: Asked, words: str) -> str:
    """Say which right is missing; nothing where a policy refuses what RBAC allows."""
    if "admission" in words.lower() or "ValidatingAdmissionPolicy" in words:
        return ""
    where = f"-n {asked.namespace}" if asked.namespace else "in all namespaces (--all-namespaces)"
    role = _ROLES.get(asked.verb, "") if asked.resource == _KIND else "the role view has it"
    return (
        f"\n  missing: the verb {asked.verb} on {asked.resource} {where}; {role}."
        f"\n  to ask what you may: kubectl auth can-i --list {where if asked.namespace else ''}".rstrip()
    )


def unreachable(api: Any, error: BaseException) -> str:
    """Say that the API server does not answer, and why."""
    host = api.configuration.host
    reason = str(getattr(error, "reason", None) or error)
    words = reason.rsplit(": ", 1)[-1].strip("()' ")
    if "certificate" in reason.lower():
        remedy = (
            "the kubeconfig's certificate-authority is not that server's: fetch the kubeconfig anew"
        )
    elif "timed out" in reason.lower():
        remedy = "is there a network to it, such as a VPN?"
    else:
        remedy = (
            "does it run, and is it the one you meant (kubectl config current-context, --context)?"
        )
    return f"the API server at {host} cannot be reached ({words}): {remedy}"


def near(name: str, here: Sequence[str], others: Sequence[str], context: str) -> str:
    """Name what the user may have meant.

    Args:
        name: what was asked for.
        here: names in the same namespace.
        others: other namespaces that have such a name.
        context: of the kubeconfig.
    """
    words = []
    if alike := difflib.get_close_matches(name, here, 3):
        words.append(f"did you mean {' or '.join(alike)}?")
    elif here:
        more = f" and {len(here) - _MAX_NAMES} more" if len(here) > _MAX_NAMES else ""
        words.append(f"there are {', '.join(here[:_MAX_NAMES])}{more}.")
    elif not others:
        words.append(f"there is none in that namespace of context {context!r}.")
    if others:
        words.append(f"there is one in {', '.join(others[:_MAX_NAMES])}.")
    return "\n  " + " ".join(words)


def _words(error: Any) -> tuple[str, bool]:
    """Give the words of a refusal, and whether they are a Status: else it is the path that is unknown."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body
    try:
        return str(json.loads(body)["message"]), True
    except (ValueError, KeyError, TypeError):
        return str(error.reason), False

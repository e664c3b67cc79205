"""Why a pod cannot serve: read from its status, where the server and the kubelet say so in different places."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from pydantic import ValidationError

from canarium_api.runtime_config import LoadFailure
from canarium_operator.core import manifests
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.observation import LoadProblem

_WAITING: Final[dict[str, tuple[str, bool]]] = {
    "ImagePullBackOff": ("the image cannot be pulled: check its name and the pull secrets", False),
    "ErrImagePull": ("the image cannot be pulled: check its name and the pull secrets", False),
    "InvalidImageName": ("serving.image is not the name of an image", True),
    "ErrImageNeverPull": (
        "the image is not on the node, and its pull policy forbids to fetch it",
        False,
    ),
    "CreateContainerConfigError": ("the container cannot be set up", False),
    "CreateContainerError": ("the container cannot be created", False),
    "RunContainerError": ("the container cannot be started", False),
}
"""Reasons for which a container waits that are problems: what they mean, and whether no retry of the revision can
help."""
_MAX_MESSAGE: Final = 600
"""Characters kept of what the kubelet says: it quotes whole replies of registries."""


def is_ready(pod: Manifest) -> bool:
    """Tell whether a pod gets requests."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def is_live(pod: Manifest) -> bool:
    """Tell whether a pod runs or will: it has neither ended nor been told to end."""
    return not manifests.is_being_deleted(pod) and pod.get("status", {}).get("phase") not in (
        "Succeeded",
        "Failed",
    )


def problem_of(pods: Iterable[Manifest]) -> LoadProblem | None:
    """Give the most telling problem of the pods that are not ready; None where they only take their time.

    What the server itself says of its model comes first, and of that what is permanent; the kubelet's reasons come
    after it, and that no node had room comes last.
    """
    waiting = [pod for pod in pods if is_live(pod) and not is_ready(pod)]
    waiting.sort(key=lambda pod: str(pod["metadata"]["name"]))
    found: list[LoadProblem] = []
    for read in _READERS:
        found += [problem for pod in waiting for problem in read(pod)]
    return next((problem for problem in found if problem.permanent), found[0] if found else None)


def _containers(pod: Manifest) -> list[dict[str, Any]]:
    return pod.get("status", {}).get("containerStatuses") or []


def _terminations(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the end of the present run and of the one before: after a restart the reason stands in `lastState`."""
    for state in ("state", "lastState"):
        terminated = (container.get(state) or {}).get("terminated")
        if terminated:
            yield terminated


def _load_failures(pod: Manifest) -> Iterator[LoadProblem]:
    for container in _containers(pod):
        for terminated in _terminations(container):
            try:
                failure = LoadFailure.model_validate_json(terminated.get("message") or "")
            except ValidationError:
                continue  # something else was written there, or nothing
            yield LoadProblem(
                reason=failure.reason, message=failure.message, permanent=failure.permanent
            )


def _waiting_containers(pod: Manifest) -> Iterator[LoadProblem]:
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        meaning = _WAITING.get(waiting.get("reason", ""))
        if meaning is not None:
            text, permanent = meaning
            yield LoadProblem(
                reason=waiting["reason"],
                message=_joined(text, waiting.get("message")),
                permanent=permanent,
            )


def _crashes(pod: Manifest) -> Iterator[LoadProblem]:
    for container in _containers(pod):
        for terminated in _terminations(container):
            if terminated.get("reason") == "OOMKilled":
                yield LoadProblem(
                    reason="OOMKilled",
                    message="the server needed more memory than its limit: raise serving.resources.limits.memory",
                )
            elif terminated.get("exitCode", 0) != 0:
                text = f"the server ended with exit code {terminated['exitCode']}; its log says why"
                yield LoadProblem(
                    reason="CrashLoop", message=_joined(text, terminated.get("message"))
                )


def _unschedulable(pod: Manifest) -> Iterator[LoadProblem]:
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            yield LoadProblem(
                reason="Unschedulable",
                message=_joined("no node can take the pod", condition.get("message")),
            )


_READERS: Final[tuple[Callable[[Manifest], Iterator[LoadProblem]], ...]] = (
    _load_failures,
    _waiting_containers,
    _crashes,
    _unschedulable,
)


def _joined(text: str, detail: str | None) -> str:
    detail = " ".join((detail or "").split())[:_MAX_MESSAGE]
    return f"{text}: {detail}" if detail else text

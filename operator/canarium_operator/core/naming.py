"""Names, labels and annotations of everything that the operator makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from canarium_api import API_VERSION, GROUP, KIND

FIELD_MANAGER: Final = "canarium"
DEPLOYMENT_LABEL: Final = f"{GROUP}/model-deployment"
REVISION_LABEL: Final = f"{GROUP}/revision"
MODEL_VERSION_LABEL: Final = f"{GROUP}/model-version"
TEMPLATE_ANNOTATION: Final = f"{GROUP}/template"
MEMORY_LABEL: Final = f"{GROUP}/memory"
"""On the ConfigMap that outlives its ModelDeployment."""
COPY_NAMESPACE_LABEL: Final = f"{GROUP}/memory-of-namespace"
COPY_NAME_LABEL: Final = f"{GROUP}/memory-of"
"""On the copy of that ConfigMap: whose it is."""
WRITTEN_ANNOTATION: Final = f"{GROUP}/written"
"""On the copy: when it was written."""
HASH_ANNOTATION: Final = f"{GROUP}/applied-hash"
COMMANDS: Final = ("approve", "pause", "resume", "skip", "abort", "retry", "promote")
"""Verbs that people may ask for by the annotation `canarium.dev/VERB`."""
PREVIEW_LABEL: Final = f"{GROUP}/preview"
"""On the Service that leads to a canary before it has traffic."""
ROUTER_LABEL: Final = f"{GROUP}/router"
"""On the objects of the router of a sticky A/B test."""
SHADOW_LABEL: Final = f"{GROUP}/shadow"
"""On the objects of the comparer of a shadow."""
JOBS_LABEL: Final = f"{GROUP}/jobs"
"""On the workers of batch jobs, and on what they read."""
JOBS_REVISION_LABEL: Final = f"{GROUP}/jobs-revision"
"""On workers: whose model they run. Not REVISION_LABEL, by which traffic finds pods."""
VALIDATION_LABEL: Final = f"{GROUP}/validation"
"""On the Job that runs a model over golden data, and on its pods: the Job's name."""
VALIDATION_REVISION_LABEL: Final = f"{GROUP}/validation-revision"
"""On such a Job: whose model it runs. Not REVISION_LABEL, by which traffic finds pods."""
WORKERS_ANNOTATION: Final = f"{GROUP}/workers"
"""On a Deployment of workers: its bounds, for `core.workers`."""
MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "canarium"}


def command_annotation(verb: str) -> str:
    """Name of the annotation that asks for a verb; each new value is one command."""
    return f"{GROUP}/{verb}"


def commands_of(annotations: Mapping[str, str]) -> dict[str, str]:
    """Read the command annotations: verb to value, at most 200 characters of it."""
    asked = {verb: annotations.get(command_annotation(verb)) for verb in COMMANDS}
    return {verb: value[:200] for verb, value in asked.items() if value}


@dataclass(frozen=True, kw_only=True)
class ObjectRef:
    """A ModelDeployment: `str()` gives `namespace/name`."""

    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def child_name(name: str, revision: str) -> str:
    """Name of all objects of one revision: at most 63 characters, since it is also a Service's name and a label.

    The API server refuses names of ModelDeployments above 52 characters (CEL rule), so nothing is ever cut.
    """
    return f"{name}-{revision}"


def memory_name(name: str) -> str:
    """Name of the ConfigMap that outlives a ModelDeployment; no revision is called `memory`, since that is not hex."""
    return f"{name}-memory"


def preview_name(name: str) -> str:
    """Name of the Service that leads to a canary before it has traffic."""
    return f"{name}-preview"


def router_name(name: str) -> str:
    """Name of the router of a sticky A/B test; no revision is called `router`, since that is not hex."""
    return f"{name}-router"


def comparer_name(name: str) -> str:
    """Name of the comparer of a shadow; no revision is called `comparer`, since that is not hex."""
    return f"{name}-comparer"


def jobs_name(name: str) -> str:
    """Name of the ConfigMap that tells workers which revision begins jobs; no revision is called `jobs`."""
    return f"{name}-jobs"


def workers_name(name: str, revision: str) -> str:
    """Name of the workers of a revision: up to 68 characters, which a Deployment may have."""
    return f"{name}-jobs-{revision}"


def validation_name(name: str, key: str) -> str:
    """Name of a Job that runs a model over golden data: at most 63 characters, as it becomes a label.

    Args:
        name: of the ModelDeployment; its end is cut, since the key is made from all of it.
        key: ten characters, different for each validation.
    """
    return f"{name[:47]}-val-{key}"


def answers_name(name: str, side: str) -> str:
    """Name of the Service that stands for the pods of one side of a shadow, `stable` or `shadow`."""
    return f"{name}-{side}-ans"


def event_name(ref: ObjectRef, epoch: int, about: str = "") -> str:
    """Name of the Event of a transition, or of something more about it: posting it twice leaves one."""
    parts = [ref.name, ref.uid[:8], *([about.lower()] if about else []), f"{epoch:06d}"]
    return ".".join(parts)


def object_labels(ref: ObjectRef) -> dict[str, str]:
    """Labels of every child; also the selector for all of them."""
    return {
        **MANAGED_BY,
        "app.kubernetes.io/name": "canarium-model",
        "app.kubernetes.io/instance": ref.name,
        DEPLOYMENT_LABEL: ref.name,
    }


def revision_selector(ref: ObjectRef, revision: str) -> dict[str, str]:
    """Labels that select the pods of one revision."""
    return {DEPLOYMENT_LABEL: ref.name, REVISION_LABEL: revision}


def any_revision_selector(ref: ObjectRef) -> dict[str, str]:
    """Labels that select the pods of all revisions."""
    return {"app.kubernetes.io/name": "canarium-model", DEPLOYMENT_LABEL: ref.name}


def owner_reference(ref: ObjectRef) -> dict[str, object]:
    """Makes a child owned by its ModelDeployment, so that deleting the one deletes the other."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": ref.name,
        "uid": ref.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }

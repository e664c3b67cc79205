"""Access to a cluster by a kubeconfig, and errors in words that help."""

import getpass
import json
from dataclasses import dataclass
from typing import Any, Final

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from canarium_api import GROUP, PLURAL, VERSION
from canarium_api.status import ModelDeploymentStatus

_TIMEOUT: Final = 10
"""Seconds for one request."""


class AccessError(Exception):
    """The cluster could not be asked, or said no; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Access:
    """A cluster, and the namespace that is meant where none is given."""

    api: client.ApiClient
    namespace: str

    def read(self, namespace: str, name: str) -> dict[str, Any]:
        """Read a ModelDeployment."""
        return self._call("get_namespaced_custom_object", namespace, name)

    def annotate(self, namespace: str, name: str, key: str, value: str) -> None:
        """Set one annotation of a ModelDeployment, and nothing else."""
        body = {"metadata": {"annotations": {key: value}}}
        self._call("patch_namespaced_custom_object", namespace, name, body)

    def user(self) -> str:
        """Give the name that the API server knows the user by, else that of the local account."""
        try:
            review = client.AuthenticationV1Api(self.api).create_self_subject_review(
                {}, _request_timeout=_TIMEOUT
            )
            return str(review.status.user_info.username or getpass.getuser())
        except (ApiException, HTTPError):
            return getpass.getuser()

    def _call(self, verb: str, namespace: str, name: str, *body: Any) -> dict[str, Any]:
        ask = getattr(client.CustomObjectsApi(self.api), verb)
        try:
            found: dict[str, Any] = ask(
                GROUP, VERSION, namespace, PLURAL, name, *body, _request_timeout=_TIMEOUT
            )
        except ApiException as error:
            raise AccessError(_explained(error, namespace, name)) from error
        except HTTPError as error:
            msg = f"the API server at {self.api.configuration.host} cannot be reached"
            raise AccessError(msg) from error
        return found


def connect(kubeconfig: str | None, context: str | None) -> Access:
    """Open access by a kubeconfig.

    Args:
        kubeconfig: its file; None: $KUBECONFIG, or ~/.kube/config.
        context: one of its contexts; None: the current one.

    Raises:
        AccessError: there is none, or it cannot be read.
    """
    settings = client.Configuration()
    try:
        config.load_kube_config(kubeconfig, context, settings, persist_config=False)
        contexts, active = config.list_kube_config_contexts(kubeconfig)
    except (config.ConfigException, OSError, TypeError, ValueError) as error:
        msg = f"no usable kubeconfig: {error}. Name one with --kubeconfig FILE."
        raise AccessError(msg) from error
    chosen = next((c for c in contexts if c["name"] == context), active)
    return Access(
        api=client.ApiClient(settings),
        namespace=chosen.get("context", {}).get("namespace") or "default",
    )


def status_of(body: dict[str, Any]) -> ModelDeploymentStatus:
    """Read the status of a ModelDeployment."""
    return ModelDeploymentStatus.from_manifest(body.get("status") or {})


def _explained(error: ApiException, namespace: str, name: str) -> str:
    what = f"ModelDeployment {namespace}/{name}"
    if error.status == 404:
        return f"{what} does not exist: check the name, and the namespace (-n)"
    if error.status in (401, 403):
        return f"{what}: not allowed: {_words(error)}"
    return f"{what}: {error.status}: {_words(error)}"


def _words(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)

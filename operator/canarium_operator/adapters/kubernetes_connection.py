"""How the operator finds its cluster: as a pod by its service account, elsewhere by a kubeconfig."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from kubernetes.aio import client, config

from canarium_operator.errors import ClusterError

USER_AGENT = "canarium-operator"
OnRequest = Callable[[str, str], None]
"""Told of each request: its verb as Kubernetes names it, and the resource (`deployments/scale`)."""


class _Client(client.ApiClient):  # type: ignore[misc]  # the package has no types
    """A client that tells of its requests."""

    on_request: OnRequest | None = None

    async def call_api(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        if self.on_request is not None:
            self.on_request(*request_of(method, url))
        return await super().call_api(method, url, *args, **options)


def request_of(method: str, url: str) -> tuple[str, str]:
    """Name the verb and the resource of a request."""
    parts = urlsplit(url)
    path = parts.path.strip("/").split("/")
    path = path[2:] if path[0] == "api" else path[3:]
    if len(path) > 2 and path[0] == "namespaces":
        path = path[2:]
    plural, name, sub = (*path, "", "", "")[:3]
    verb = {"GET": "get", "POST": "create", "PUT": "update"}.get(method, method.lower())
    if verb == "get" and not name:
        verb = "watch" if parse_qs(parts.query).get("watch") == ["true"] else "list"
    return verb, f"{plural}/{sub}" if sub else plural


@asynccontextmanager
async def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    on_request: OnRequest | None = None,
) -> AsyncIterator[client.ApiClient]:
    """Open a client, and close it in the end; nothing is sent yet.

    Args:
        kubeconfig: file to use. None: the service account of the pod this runs in, else $KUBECONFIG or ~/.kube/config.
        context: context of the kubeconfig; None: its current one.
        on_request: told of each request.

    Raises:
        ClusterError: there is no configuration, or it cannot be read.
    """
    configuration = client.Configuration()
    in_cluster = kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(
                config_file=kubeconfig,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        api = _Client(configuration)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        where = (
            "the pod's service account"
            if in_cluster
            else (kubeconfig or "$KUBECONFIG or ~/.kube/config")
        )
        msg = f"no usable access to a cluster in {where}: {error}. Name a kubeconfig with --kubeconfig FILE."
        raise ClusterError(msg) from error
    api.user_agent = USER_AGENT
    api.on_request = on_request
    async with api:
        yield api

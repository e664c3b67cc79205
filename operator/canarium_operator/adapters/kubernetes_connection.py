"""How the operator finds its cluster: as a pod by its service account, elsewhere by a kubeconfig."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import yaml
from kubernetes.aio import client, config

from canarium_operator.errors import ClusterError

USER_AGENT = "canarium-operator"


@asynccontextmanager
async def connect(
    kubeconfig: str | None = None, context: str | None = None
) -> AsyncIterator[client.ApiClient]:
    """Open a client, and close it in the end; nothing is sent yet.

    Args:
        kubeconfig: file to use. None: the service account of the pod this runs in, else $KUBECONFIG or ~/.kube/config.
        context: context of the kubeconfig; None: its current one.

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
        api = client.ApiClient(configuration)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        where = (
            "the pod's service account"
            if in_cluster
            else (kubeconfig or "$KUBECONFIG or ~/.kube/config")
        )
        msg = f"no usable access to a cluster in {where}: {error}. Name a kubeconfig with --kubeconfig FILE."
        raise ClusterError(msg) from error
    api.user_agent = USER_AGENT
    async with api:
        yield api

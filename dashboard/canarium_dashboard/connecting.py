"""How the dashboard finds its API server, and with whose credentials.

Where users bring their own tokens, nothing but the server's address and its certificate authority is taken from the
kubeconfig or the pod: a client certificate, or the pod's own token, would lend its owner's rights to everybody.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import yaml
from kubernetes.aio import client, config

from canarium_dashboard.errors import DashboardError

USER_AGENT: Final = "canarium-dashboard"
_CA_FILE: Final = Path("/var/run/canarium/ca/ca.crt")
"""Where the manifest mounts the cluster's certificate authority: the pod has no token, so Kubernetes mounts none."""
_OF_THE_SERVER: Final = (
    "host", "ssl_ca_cert", "ca_cert_data", "verify_ssl", "disable_strict_ssl_verification", "tls_server_name", "proxy",
    "proxy_headers",
)  # fmt: skip
_CONNECTIONS: Final = 256
"""To the API server at the same time; each watch holds one."""


class ConnectionProblem(DashboardError):  # noqa: N818 - what is wrong before any request
    """There is no usable configuration."""


@asynccontextmanager
async def connect(
    kubeconfig: str | None, context: str | None, *, anonymous: bool
) -> AsyncIterator[client.ApiClient]:
    """Open a client, and close it in the end; nothing is sent yet.

    Args:
        kubeconfig: file to use. None: $KUBECONFIG or ~/.kube/config; with `anonymous` in a pod, the pod's cluster.
        context: context of the kubeconfig; None: its current one.
        anonymous: take no credentials from it.

    Raises:
        ConnectionProblem: there is no configuration, or it cannot be read.
    """
    found = client.Configuration()
    try:
        if anonymous and kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            found = _of_the_pod()
        else:
            await config.load_kube_config(
                config_file=kubeconfig,
                context=context,
                client_configuration=found,
                persist_config=False,
            )
            if anonymous:
                found = _without_credentials(found)
        found.connection_pool_maxsize = _CONNECTIONS
        api = client.ApiClient(found)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError) as error:
        where = kubeconfig or "$KUBECONFIG or ~/.kube/config"
        msg = f"no usable access to a cluster in {where}: {error}. Name a kubeconfig with --kubeconfig FILE."
        raise ConnectionProblem(msg) from error
    api.user_agent = USER_AGENT
    async with api:
        yield api


def context_namespace(kubeconfig: str | None, context: str | None) -> str:
    """Give the namespace that a kubeconfig's context names; `default` where it names none."""
    try:
        contexts, active = config.list_kube_config_contexts(kubeconfig)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError):
        return "default"
    chosen = next((c for c in contexts if c["name"] == context), active)
    return str((chosen.get("context") or {}).get("namespace") or "default")


def _of_the_pod() -> client.Configuration:
    found = client.Configuration()
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    address = f"[{host}]" if ":" in host else host
    found.host = f"https://{address}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}"
    found.ssl_ca_cert = os.environ.get("CANARIUM_DASHBOARD_CA_FILE", str(_CA_FILE))
    return found


def _without_credentials(known: client.Configuration) -> client.Configuration:
    found = client.Configuration()
    for name in _OF_THE_SERVER:
        setattr(found, name, getattr(known, name))
    return found

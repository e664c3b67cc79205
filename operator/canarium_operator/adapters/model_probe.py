"""Asks a model server for its model's inputs and outputs, through the API server's proxy to its Service.

The proxy works from wherever the API server can be reached, so an operator outside the cluster can ask too, and it
needs one permission (`get` on `services/proxy`) instead of a way into the pods' network. Answers are bounded in time
and size.
"""

import json
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from kubernetes.aio.client import ApiClient
from pydantic import ValidationError

from canarium_api.status import SignatureStatus
from canarium_operator.adapters.kubernetes_errors import error_of, translated
from canarium_operator.core.naming import ObjectRef, child_name
from canarium_operator.core.resources.service import PORT
from canarium_operator.errors import ClusterError, ProbeError

TIMEOUT: Final = timedelta(seconds=3)
"""For one question: a pass waits for it."""
MAX_BYTES: Final = 256 * 1024
"""Longest answer that is read."""


async def read_signature(
    api: ApiClient, ref: ObjectRef, revision: str, model: str, *, tls: bool = False
) -> SignatureStatus:
    """Ask any ready pod of a revision.

    Args:
        api: client of the cluster.
        ref: the ModelDeployment.
        revision: whose Service is asked.
        model: name of the model in URLs.
        tls: whether the pods speak TLS; the API server does not check their certificate.

    Raises:
        ProbeError: no pod answered in time, or what it answered is no signature.
    """
    service = child_name(ref.name, revision)
    path = (
        f"/api/v1/namespaces/{ref.namespace}/services/{'https:' if tls else ''}{service}:{PORT}/proxy/v2/models/"
        f"{quote(model, safe='')}"
    )
    action = f"ask {service} for its model's inputs and outputs"
    try:
        return parse_signature(await _get(api, path, action))
    except ClusterError as error:
        raise ProbeError(str(error)) from error


async def _get(api: ApiClient, path: str, action: str) -> bytes:
    with translated(action):
        serialized = await api.param_serialize(
            "GET",
            path,
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        timeout = aiohttp.ClientTimeout(total=TIMEOUT.total_seconds())
        response = await api.call_api(*serialized, _request_timeout=timeout)
        content = bytearray()
        async for chunk in response.response.content.iter_chunked(64 * 1024):
            content += chunk
            if len(content) > MAX_BYTES:
                response.response.close()
                msg = f"{action}: the answer is longer than {MAX_BYTES // 1024} KiB"
                raise ProbeError(msg)
    if response.status != 200:
        raise error_of(action, response.status, response.headers, bytes(content))
    return bytes(content)


def parse_signature(content: bytes) -> SignatureStatus:
    """Read the metadata of a model, as the Open Inference Protocol V2 has it.

    Raises:
        ProbeError: it is something else.
    """
    try:
        body: Any = json.loads(content)
        if not isinstance(body, dict) or not body.get("inputs") or not body.get("outputs"):
            msg = "no inputs and outputs in it"
            raise ValueError(msg)
        return SignatureStatus.from_manifest(body)
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        msg = f"the server's answer is not the metadata of a model: {first}"[:500]
        raise ProbeError(msg) from error

"""A gateway that accepts every route at once: what a controller says, without a data plane that nobody sends to.

A real one on the same two cores would be measured more than the operator.
"""

import argparse
import asyncio
import json
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient

from canarium_operator.adapters.kubernetes_connection import connect

ROUTES = "/apis/gateway.networking.k8s.io/v1/httproutes"


async def call(
    api: ApiClient, method: str, path: str, body: Any = None, content_type: str = "application/json"
) -> Any:
    """Send one request, and give the answer of the API server with its status as `_status`."""
    serialized = await api.param_serialize(
        method,
        path,
        header_params={"Accept": "application/json", "Content-Type": content_type},
        body=body,
        auth_settings=["BearerToken"],
    )
    answer = await api.call_api(*serialized, _request_timeout=aiohttp.ClientTimeout(total=60))
    found = json.loads(await answer.read())
    return {**found, "_status": answer.status}


async def _accept(api: ApiClient, route: dict[str, Any]) -> None:
    meta = route["metadata"]
    parents = route.get("status", {}).get("parents") or []
    seen = [c["observedGeneration"] for p in parents for c in p.get("conditions") or []]
    if seen and min(seen) == meta["generation"]:
        return
    conditions = [
        {
            "type": kind,
            "status": "True",
            "reason": kind,
            "message": "",
            "observedGeneration": meta["generation"],
            "lastTransitionTime": meta["creationTimestamp"],
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]
    status = [
        {
            "parentRef": parent,
            "controllerName": "canarium.dev/benchmark",
            "conditions": conditions,
        }
        for parent in route["spec"]["parentRefs"]
    ]
    path = f"{ROUTES.removesuffix('/httproutes')}/namespaces/{meta['namespace']}/httproutes/{meta['name']}/status"
    await call(api, "PATCH", path, {"status": {"parents": status}}, "application/merge-patch+json")


async def run(kubeconfig: str) -> None:
    """Accept routes until killed."""
    async with connect(kubeconfig) as api, asyncio.TaskGroup() as tasks:
        listed = await call(api, "GET", ROUTES)
        for item in listed.get("items") or []:
            tasks.create_task(_accept(api, item))
        version = listed["metadata"]["resourceVersion"]
        path = f"{ROUTES}?watch=true&resourceVersion={version}"
        serialized = await api.param_serialize(
            "GET", path, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        timeout = aiohttp.ClientTimeout(total=None)
        answer = (await api.call_api(*serialized, _request_timeout=timeout)).response
        async for line in answer.content:
            event = json.loads(line)
            if event["type"] in ("ADDED", "MODIFIED"):
                tasks.create_task(_accept(api, event["object"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    asyncio.run(run(parser.parse_args().kubeconfig))

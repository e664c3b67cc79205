"""A gateway that accepts every route at once: what a controller says, without a data plane that nobody sends to.

A real one on the same two cores would be measured more than the operator.
"""

import argparse
import asyncio
import json
from collections.abc import Callable
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


async def watch(api: ApiClient, path: str, take: Callable[[str, dict[str, Any]], None]) -> None:
    """List and watch a collection for ever; each object is told with the type of its event."""
    while True:
        try:
            listed = await call(api, "GET", path)
            if listed["_status"] != 200:
                raise aiohttp.ClientError(listed.get("message"))
            for item in listed.get("items") or []:
                take("ADDED", item)
            version = listed["metadata"]["resourceVersion"]
            serialized = await api.param_serialize(
                "GET",
                f"{path}?watch=true&resourceVersion={version}",
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            timeout = aiohttp.ClientTimeout(total=None)
            answer = (await api.call_api(*serialized, _request_timeout=timeout)).response
            async for line in answer.content:
                event = json.loads(line)
                take(event["type"], event["object"])
        except (aiohttp.ClientError, TimeoutError) as error:
            print(f"watch of {path}: {error}; again in a second", flush=True)
            await asyncio.sleep(1.0)


async def run(kubeconfig: str) -> None:
    """Accept routes until killed."""
    routes: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def take(kind: str, body: dict[str, Any]) -> None:
        if kind in ("ADDED", "MODIFIED"):
            routes.put_nowait(body)

    async def accept() -> None:
        while True:
            route = await routes.get()
            try:
                await _accept(api, route)
            except (aiohttp.ClientError, TimeoutError) as error:
                print(f"{route['metadata']['name']}: {error!r}", flush=True)
                routes.put_nowait(route)

    async with connect(kubeconfig) as api, asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(accept())
        await watch(api, ROUTES, take)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", required=True)
    asyncio.run(run(parser.parse_args().kubeconfig))

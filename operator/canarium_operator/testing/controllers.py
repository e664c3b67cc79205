"""The controllers of the fake cluster: what Kubernetes, an autoscaler and a gateway make of the operator's objects,
tick by tick.

`Controllers` is the `controllers` of a `FakeCluster`. Its attributes script the world; a script may be changed at
any time and counts from the next tick on, also for pods that run.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from canarium_api.golden import Outcome
from canarium_api.runtime_config import LoadFailure
from canarium_operator.core import manifests, naming
from canarium_operator.core.manifests import Manifest

if TYPE_CHECKING:
    from canarium_operator.testing.cluster import FakeCluster

_CREATED: Final = "testing/created"
"""Annotation of a pod: when a tick made it."""


@dataclass(frozen=True, kw_only=True)
class PodScript:
    """How the pods of a revision fare."""

    ready_after: timedelta | None = timedelta(seconds=5)
    """From creation; None: never."""
    failure: LoadFailure | None = None
    """The server ends with this, again and again."""
    waiting: str | None = None
    """The container waits for this reason, such as ImagePullBackOff."""

    def is_ready(self, age: timedelta) -> bool:
        """Tell whether a pod of that age is ready."""
        healthy = self.failure is None and self.waiting is None
        return healthy and self.ready_after is not None and age >= self.ready_after


class Controllers:
    """Deployments, HPAs and the gateway."""

    def __init__(self, cluster: "FakeCluster") -> None:
        self.pods = PodScript()
        """How pods fare where `revisions` does not say otherwise."""
        self.revisions: dict[str, PodScript] = {}
        """How the pods of single revisions fare."""
        self.load: dict[str, int] = {}
        """Replicas that the load of a revision asks for; its HPA keeps within its bounds. Default: the fewest."""
        self.golden = Outcome(passed=True, message="3 of 3 checks met")
        """What Jobs say of models on golden data."""
        self.golden_after = timedelta(seconds=20)
        """From the creation of such a Job to its word."""
        self.capacity: int | None = None
        """Pods that the nodes have room for; further ones are unschedulable."""
        self.route_delay = timedelta(seconds=1)
        """From a change of the route to the gateway's answer."""
        self.route_refusal: str | None = None
        """When set, the gateway answers with this instead of accepting."""
        self._cluster = cluster
        self._route_seen: dict[tuple[str, str, int], datetime] = {}
        self._pod_number = 0

    def tick(self, now: datetime) -> None:
        """Work once."""
        for autoscaler in self._cluster.each("HorizontalPodAutoscaler"):
            self._autoscale(autoscaler)
        for deployment in self._cluster.each("Deployment"):
            self._keep_pods(deployment, now)
        room = self.capacity
        for pod in self._cluster.each("Pod"):
            if naming.VALIDATION_LABEL in manifests.labels(pod):
                continue
            self._run(pod, now, has_room=room is None or room > 0)
            room = None if room is None else room - 1
        for deployment in self._cluster.each("Deployment"):
            self._report(deployment)
        for job in self._cluster.each("Job"):
            self._run_job(job, now)
        for service in self._cluster.each("Service"):
            self._lead(service)
        for route in self._cluster.each("HTTPRoute"):
            self._answer(route, now)

    def _lead(self, service: Manifest) -> None:
        """Name the pods that a Service leads to, as the controller of EndpointSlices does."""
        meta, selector = service["metadata"], service["spec"].get("selector") or {}
        endpoints = [
            {
                "conditions": {"ready": _is_ready(pod)},
                "targetRef": {"name": pod["metadata"]["name"]},
            }
            for pod in self._cluster.each("Pod")
            if pod["metadata"]["namespace"] == meta["namespace"]
            and selector.items() <= manifests.labels(pod).items()
        ]
        name = f"{meta['name']}-slice"
        known = self._cluster.live("EndpointSlice", meta["namespace"], name) or {}
        owner = {"kind": "Service", "name": meta["name"], "uid": meta["uid"]}
        self._cluster.store(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    **known.get("metadata", {}),
                    "name": name,
                    "namespace": meta["namespace"],
                    "labels": {
                        **(meta.get("labels") or {}),
                        "kubernetes.io/service-name": meta["name"],
                    },
                    "ownerReferences": [owner],
                },
                "endpoints": endpoints,
            }
        )

    def _autoscale(self, autoscaler: Manifest) -> None:
        spec = autoscaler["spec"]
        target = self._cluster.live(
            "Deployment", autoscaler["metadata"]["namespace"], spec["scaleTargetRef"]["name"]
        )
        if target is None or target["spec"]["replicas"] == 0:
            return  # at zero, an HPA rests
        wanted = self.load.get(
            manifests.labels(autoscaler).get(naming.REVISION_LABEL, ""), spec["minReplicas"]
        )
        replicas = max(spec["minReplicas"], min(wanted, spec["maxReplicas"]))
        self._cluster.store({**target, "spec": {**target["spec"], "replicas": replicas}})

    def _pods_of(self, deployment: Manifest) -> list[Manifest]:
        uid = deployment["metadata"]["uid"]
        return [
            p
            for p in self._cluster.each("Pod")
            if p["metadata"]["ownerReferences"][0]["uid"] == uid
        ]

    def _keep_pods(self, deployment: Manifest, now: datetime) -> None:
        pods = sorted(
            self._pods_of(deployment), key=lambda pod: (not _is_ready(pod), pod["metadata"]["name"])
        )
        wanted = deployment["spec"]["replicas"]
        for pod in pods[wanted:]:
            self._cluster.remove("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        for _ in range(wanted - len(pods)):
            self._pod_number += 1
            meta, template = deployment["metadata"], deployment["spec"]["template"]
            owner = {"kind": "ReplicaSet", "name": meta["name"], "uid": meta["uid"]}
            self._cluster.store(
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": f"{meta['name']}-{self._pod_number:05d}",
                        "namespace": meta["namespace"],
                        "labels": template["metadata"]["labels"],
                        "annotations": {_CREATED: now.isoformat()},
                        "ownerReferences": [owner],
                    },
                    "spec": template["spec"],
                    "status": {"phase": "Pending"},
                }
            )

    def _run(self, pod: Manifest, now: datetime, *, has_room: bool) -> None:
        script = self.revisions.get(manifests.labels(pod).get(naming.REVISION_LABEL, ""), self.pods)
        age = now - datetime.fromisoformat(manifests.annotations(pod)[_CREATED])
        ready = has_room and script.is_ready(age)
        conditions: list[dict[str, Any]] = [
            {"type": "Ready", "status": "True" if ready else "False"}
        ]
        status: dict[str, Any] = {
            "phase": "Running" if has_room else "Pending",
            "conditions": conditions,
        }
        if not has_room:
            conditions.append(
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available",
                }
            )
        elif script.waiting is not None:
            status["phase"] = "Pending"
            status["containerStatuses"] = [
                {"name": "server", "state": {"waiting": {"reason": script.waiting}}}
            ]
        elif script.failure is not None:
            ended = {"exitCode": 1, "reason": "Error", "message": script.failure.model_dump_json()}
            state = {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": ended},
            }
            status["containerStatuses"] = [{"name": "server", **state}]
        self._cluster.store({**pod, "status": status})

    def _run_job(self, job: Manifest, now: datetime) -> None:
        """Make the pod of a Job, and let it say its word."""
        meta, template = job["metadata"], job["spec"]["template"]
        name = f"{meta['name']}-0"
        pod = self._cluster.live("Pod", meta["namespace"], name)
        if pod is None:
            owner = {"kind": "Job", "name": meta["name"], "uid": meta["uid"]}
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": meta["namespace"],
                    "labels": template["metadata"]["labels"],
                    "annotations": {_CREATED: now.isoformat()},
                    "ownerReferences": [owner],
                },
                "spec": template["spec"],
                "status": {"phase": "Running"},
            }
        created = datetime.fromisoformat(manifests.annotations(pod)[_CREATED])
        if now >= created + self.golden_after and pod["status"]["phase"] == "Running":
            said = {"exitCode": 0, "message": self.golden.to_log()}
            status = {
                "phase": "Succeeded",
                "containerStatuses": [{"name": "validate", "state": {"terminated": said}}],
            }
            pod = {**pod, "status": status}
        self._cluster.store(pod)

    def _report(self, deployment: Manifest) -> None:
        pods = self._pods_of(deployment)
        ready = sum(map(_is_ready, pods))
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
        }
        self._cluster.store({**deployment, "status": status})

    def _answer(self, route: Manifest, now: datetime) -> None:
        meta = route["metadata"]
        seen = self._route_seen.setdefault(
            (meta["namespace"], meta["name"], meta["generation"]), now
        )
        if now < seen + self.route_delay:
            return
        services = {service["metadata"]["name"] for service in self._cluster.each("Service")}
        backends = {
            backend["name"] for rule in route["spec"]["rules"] for backend in rule["backendRefs"]
        }
        backends |= {
            entry["requestMirror"]["backendRef"]["name"]
            for rule in route["spec"]["rules"]
            for entry in rule.get("filters") or []
            if "requestMirror" in entry
        }
        missing = sorted(backends - services)
        answers = {
            "Accepted": self.route_refusal,
            "ResolvedRefs": f"no Service {missing[0]}" if missing else None,
        }
        conditions = [
            {
                "type": kind,
                "status": "True" if refusal is None else "False",
                "reason": kind if refusal is None else "Refused",
                "message": refusal or "",
                "observedGeneration": meta["generation"],
            }
            for kind, refusal in answers.items()
        ]
        parents = [
            {"parentRef": parent, "conditions": conditions}
            for parent in route["spec"]["parentRefs"]
        ]
        self._cluster.store({**route, "status": {"parents": parents}})


def _is_ready(pod: Manifest) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

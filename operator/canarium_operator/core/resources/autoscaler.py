"""The HorizontalPodAutoscaler of a revision: it, and not the Deployment's manifest, says how many pods there are."""

from canarium_api.v1alpha1 import AutoscalingSpec
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.plan import RevisionPlan
from canarium_operator.core.resources import metadata


def make_autoscaler(
    ref: ObjectRef, planned: RevisionPlan, autoscaling: AutoscalingSpec
) -> Manifest:
    """Make the HPA of a revision; a target at 0 is left out."""
    child = metadata.revision_metadata(ref, planned.revision)
    targets = {"cpu": autoscaling.cpu, "memory": autoscaling.memory}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": child,
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": child["name"],
            },
            "minReplicas": planned.min_replicas,
            "maxReplicas": planned.max_replicas,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": name,
                        "target": {"type": "Utilization", "averageUtilization": percent},
                    },
                }
                for name, percent in targets.items()
                if percent > 0
            ],
        },
    }

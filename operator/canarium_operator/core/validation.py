"""What the CRD's schema cannot say of a spec: checks across fields, each with the field and the remedy."""

import json
import re
from datetime import timedelta
from typing import Any, Final

from pydantic import ValidationError

from canarium_api.jobs_config import parse_networks
from canarium_api.quantity import parse_quantity
from canarium_api.rollout import SchemaChange
from canarium_api.security_config import OpenPath
from canarium_api.v1alpha1 import ModelDeploymentSpec, ResourcesSpec
from canarium_operator.core import ratio
from canarium_operator.core.cache_validation import validate_cache
from canarium_operator.core.outcomes.validation import validate_gitops
from canarium_operator.core.problems import Problem
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.validation import validate_rollout
from canarium_operator.core.several_validation import validate_several
from canarium_operator.core.versions import versions_of

MAX_SAMPLES_BYTES: Final = 64 * 1024
"""Most bytes of `model.warmup.samples`, which travel in an environment variable."""


def parse_spec(raw: Any) -> ModelDeploymentSpec | list[Problem]:
    """Read `.spec`; what the types refuse comes back as problems, not as an exception."""
    try:
        return ModelDeploymentSpec.from_manifest(raw if raw is not None else {})
    except ValidationError as error:
        return [
            Problem(field=_path(entry["loc"]), message=_words(entry["msg"]))
            for entry in error.errors(
                include_url=False, include_context=False, include_input=False
            )[:5]
        ]


def _path(location: tuple[int | str, ...]) -> str:
    path = "spec"
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path


def _words(message: str) -> str:
    return message.removeprefix("Value error, ")


def validate(spec: ModelDeploymentSpec, name: str | None = None) -> list[Problem]:
    """Check a spec across its fields; an empty list means that it can be carried out.

    Args:
        spec: what is asked for.
        name: of the object, where there is one.
    """
    return [
        *_resources(spec),
        *_model(spec),
        *validate_cache(spec.serving),
        *_batching(spec),
        *_padding(spec),
        *_input_rules(spec),
        *validate_several(spec, name),
        *_ratios(spec),
        *_test(spec),
        *_shadow(spec),
        *_security(spec),
        *_jobs(spec),
        *_versions(spec),
        *_golden(spec),
        *validate_rollout(spec.rollout),
        *validate_gitops(spec),
    ]


def _versions(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse two names for one revision, and fixed versions that nothing could split."""
    fixed = spec.rollout.fixed
    if fixed is None:
        return []
    if spec.traffic.gateway is None:
        message = "needs a gateway, which splits by weight and by header: set traffic.gateway"
        return [Problem(field="spec.rollout.fixed", message=message)]
    problems: list[Problem] = []
    known: dict[str, str] = {}
    for index, version in enumerate(versions_of(spec, revision_of(spec, "any"))):
        other = known.setdefault(version.revision.name, version.name)
        if other != version.name:
            field = f"spec.rollout.fixed.versions[{index - 1}].model"
            message = f"is that of {other}, too: give {version.name} another model, or remove it"
            problems.append(Problem(field=field, message=message))
    return problems


def _golden(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse golden data that nothing could read, and those that nobody would ask."""
    asked = spec.rollout.validation
    if asked is None:
        return []
    field = "spec.rollout.validation"
    problems = []
    if spec.rollout.fixed is not None:
        message = "is asked before a canary gets traffic, and rollout.fixed has none: remove one of the two"
        problems.append(Problem(field=field, message=message))
    for name, source in (("data", asked.data), ("reference", asked.reference)):
        if source is None:
            continue
        file = source.uri.partition("?")[0].lower()
        if not file.endswith((".csv", ".jsonl", ".ndjson", ".parquet")):
            message = "the name must end in .csv, .jsonl or .parquet, which tells how to read it: rename the file"
            problems.append(Problem(field=f"{field}.{name}.uri", message=message))
    return problems


def _ratios(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse weights that no ratio of pods gives, where no gateway splits the traffic."""
    canary, scaling = spec.rollout.canary, spec.autoscaling
    if spec.traffic.gateway is not None or canary is None:
        return []
    fewest, most = scaling.min_replicas, scaling.max_replicas
    reachable = ratio.reachable_weights(fewest, most)
    return [
        Problem(
            field=f"spec.rollout.canary.steps[{index}].weight",
            message=f"without a gateway no ratio of {fewest} to {most} pods gives {step.weight}%: use "
            f"{ratio.ranges(reachable)}, raise autoscaling.maxReplicas, or set traffic.gateway",
        )
        for index, step in enumerate(canary.steps)
        if step.weight not in reachable
    ]


def _test(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse an A/B test where nothing can tell users apart."""
    if spec.rollout.ab_test is None or spec.traffic.gateway is not None:
        return []
    message = "without a gateway nothing tells users apart: set traffic.gateway, or use canary"
    return [Problem(field="spec.rollout.abTest", message=message)]


def _shadow(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse a shadow where nothing could copy requests."""
    if spec.rollout.shadow is None or spec.traffic.gateway is not None:
        return []
    message = "without a gateway nothing copies requests: set traffic.gateway, or remove the shadow"
    return [Problem(field="spec.rollout.shadow", message=message)]


def _security(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse what would keep the probes, the operator or the router of an A/B test away from the pods."""
    security, rollout = spec.serving.security, spec.rollout
    problems: list[Problem] = []
    if security is None:
        return problems
    field = "spec.serving.security"
    if OpenPath.HEALTH not in security.open_paths:
        message = "Health must be among them: the kubelet's probes have no credentials"
        problems.append(Problem(field=f"{field}.openPaths", message=message))
    if (
        OpenPath.METADATA not in security.open_paths
        and rollout.schema_change is not SchemaChange.ALLOW
    ):
        message = (
            "without Metadata the operator cannot compare the inputs and outputs of two versions: add it, or set "
            "rollout.schemaChange to Allow"
        )
        problems.append(Problem(field=f"{field}.openPaths", message=message))
    if security.jwt is not None and security.jwt.leeway > timedelta(minutes=10):
        message = "at most 10m: longer than that, tokens that have expired would be taken"
        problems.append(Problem(field=f"{field}.jwt.leeway", message=message))
    if (
        security.tls is not None
        and rollout.ab_test is not None
        and rollout.ab_test.sticky is not None
    ):
        message = "the router of a sticky A/B test speaks plain HTTP to the pods: use abTest.header or abTest.cookie"
        problems.append(Problem(field=f"{field}.tls", message=message))
    return problems


def _jobs(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse batch jobs where there is no one revision that could answer them, and networks that are none."""
    jobs = spec.serving.jobs
    if jobs is None:
        return []
    field = "spec.serving.jobs"
    problems = []
    if spec.rollout.fixed is not None:
        message = "needs one stable revision, and rollout.fixed has several: remove one of the two"
        problems.append(Problem(field=field, message=message))
    for index, network in enumerate(jobs.private_networks):
        try:
            parse_networks(network)
        except ValueError as error:
            message = f"{error}: write the network's own address and its length, such as 10.0.0.0/8"
            problems.append(Problem(field=f"{field}.privateNetworks[{index}]", message=message))
    if (resources := jobs.workers.resources) is not None:
        problems += _above_limits(resources, f"{field}.workers.resources")
    return problems


def _above_limits(resources: ResourcesSpec, field: str) -> list[Problem]:
    return [
        Problem(
            field=f"{field}.requests.{name}",
            message=f"{request} is above the limit of {limit}: lower the request or raise the limit",
        )
        for name, limit in resources.limits.items()
        if (request := resources.requests.get(name)) is not None
        and parse_quantity(request) > parse_quantity(limit)
    ]


def _resources(spec: ModelDeploymentSpec) -> list[Problem]:
    resources = spec.serving.resources
    problems = _above_limits(resources, "spec.serving.resources")
    for target, name in ((spec.autoscaling.cpu, "cpu"), (spec.autoscaling.memory, "memory")):
        if target > 0 and name not in resources.requests:
            problems.append(
                Problem(
                    field=f"spec.serving.resources.requests.{name}",
                    message=f"autoscaling.{name} is a percentage of it: set it, or set autoscaling.{name} to 0",
                )
            )
    return problems


def _input_rules(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse rules that no pod could be started with."""
    try:
        spec.serving.validation.to_json()
    except ValueError as error:
        return [Problem(field="spec.serving.validation", message=str(error))]
    return []


def _batching(spec: ModelDeploymentSpec) -> list[Problem]:
    sizes, most = spec.serving.preferred_batch_sizes, spec.serving.max_batch_size
    field = "spec.serving.preferredBatchSizes"
    if sizes != sorted(set(sizes)):
        message = f"{sizes} must rise: put the sizes in order, each once"
        return [Problem(field=field, message=message)]
    if sizes and sizes[-1] > most:
        message = (
            f"{sizes[-1]} is above maxBatchSize, which is {most}: raise that, or remove the size"
        )
        return [Problem(field=field, message=message)]
    return []


def _padding(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse what cannot fit any model; the rest is known when the model is loaded."""
    problems = []
    declared = {tensor.name for tensor in spec.model.inputs}
    seen: set[tuple[str, int]] = set()
    for index, entry in enumerate(spec.model.padding):
        field = f"spec.model.padding[{index}]"
        if (entry.input, entry.axis) in seen:
            message = f"axis {entry.axis} of {entry.input!r} again: declare it once"
            problems.append(Problem(field=field, message=message))
        seen.add((entry.input, entry.axis))
        if declared and entry.input not in declared:
            message = f"no such input in model.inputs: {entry.input!r}"
            problems.append(Problem(field=f"{field}.input", message=message))
    return problems


def _model(spec: ModelDeploymentSpec) -> list[Problem]:
    uri = spec.model.uri
    scheme, _, rest = uri.partition("://")
    path = rest.split("/", 1)[1] if "/" in rest else ""
    if scheme in ("pvc", "file") and ".." in path.split("/"):
        return [
            Problem(field="spec.model.uri", message="'..' is not allowed: write the plain path")
        ]
    if scheme == "configmap" and not re.match(r"^[-._a-zA-Z0-9]{1,253}$", path):
        return [
            Problem(
                field="spec.model.uri",
                message=f"{path!r} is not a key of a ConfigMap: write configmap://NAME/KEY",
            )
        ]
    return _declared(spec)


def _declared(spec: ModelDeploymentSpec) -> list[Problem]:
    """Refuse names twice, and requests for the warm-up that would not fit into a ConfigMap."""
    problems = []
    for field, tensors in (("inputs", spec.model.inputs), ("outputs", spec.model.outputs)):
        names = [tensor.name for tensor in tensors]
        for index, name in enumerate(names):
            if name in names[:index]:
                place = f"spec.model.{field}[{index}].name"
                problems.append(
                    Problem(field=place, message=f"{name!r} is there already: rename it")
                )
    size = len(json.dumps(spec.model.warmup.samples))
    if size > MAX_SAMPLES_BYTES:
        message = (
            f"has {size} bytes, more than {MAX_SAMPLES_BYTES}: put the requests into a file and name it in "
            "model.warmup.uri"
        )
        problems.append(Problem(field="spec.model.warmup.samples", message=message))
    return problems

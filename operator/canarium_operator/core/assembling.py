"""From what was read of a ModelDeployment to the input of the engine: the same in the operator and in a replay."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from canarium_api.status import ModelDeploymentStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_operator.core import naming, validation
from canarium_operator.core.defaults import filled_in
from canarium_operator.core.manifests import Manifest
from canarium_operator.core.naming import ObjectRef
from canarium_operator.core.observation import GatewayClass
from canarium_operator.core.observing import observe
from canarium_operator.core.problems import Problem
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.inputs import RolloutInput
from canarium_operator.core.rollout.shadow import with_checks
from canarium_operator.core.status import present_unreadable
from canarium_operator.core.templates import TemplateKey, resolve


def completed(
    spec: ModelDeploymentSpec, templates: Mapping[TemplateKey, Any]
) -> ModelDeploymentSpec | list[Problem]:
    """Fill in what a spec leaves to its other fields, to templates and to built-in checks.

    Args:
        spec: as the user wrote it.
        templates: `.spec` of the AnalysisTemplates that it names.

    Returns:
        The spec; problems where a template cannot be used.
    """
    resolved = resolve(filled_in(spec), templates)
    return resolved if isinstance(resolved, list) else with_checks(resolved)


def assemble(
    ref: ObjectRef,
    body: Manifest,
    children: Iterable[Manifest],
    *,
    now: datetime,
    runtime_image: str,
    templates: Mapping[TemplateKey, Any],
    rejection: tuple[int, str] | None,
    gateway_class: GatewayClass | None = None,
) -> RolloutInput | ModelDeploymentStatus:
    """Bring together what the decision depends on; a spec that cannot even be read gives its status at once.

    Args:
        ref: the ModelDeployment.
        body: itself, as it was read.
        children: its children, pods included.
        now: the present.
        runtime_image: image of servers that name none.
        templates: `.spec` of the AnalysisTemplates that it names.
        rejection: (generation, words) of what the API server refused last.
        gateway_class: of the gateway that it names, where that was looked at.
    """
    status = ModelDeploymentStatus.from_manifest(body.get("status") or {})
    generation = body["metadata"]["generation"]
    spec = validation.parse_spec(body.get("spec"))
    if not isinstance(spec, ModelDeploymentSpec):
        return present_unreadable(status, generation, "; ".join(map(str, spec)), now)
    complete = completed(spec, templates)
    if isinstance(complete, ModelDeploymentSpec):
        spec, problems = complete, validation.validate(complete, ref.name)
    else:
        problems = complete
    current = rejection is not None and rejection[0] == generation
    return RolloutInput(
        ref=ref,
        generation=generation,
        spec=spec,
        wanted=None if problems else revision_of(spec, runtime_image),
        status=status,
        observed=replace(observe(list(children), spec), gateway_class=gateway_class),
        now=now,
        commands=naming.commands_of(body["metadata"].get("annotations") or {}),
        problem="; ".join(str(problem) for problem in problems) or None,
        rejection=rejection[1] if rejection is not None and current else None,
    )

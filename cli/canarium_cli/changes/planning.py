"""What becomes of a ModelDeployment when its manifest changes, by the operator's own core; pure.

Whether a rollout begins follows from the revision (core/revision), its steps from the strategy (core/rollout/strategy),
and what would break clients from the contract (core/rollout/contract), as far as manifests declare it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from canarium_api.duration import approximate_duration
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.changes import notes
from canarium_cli.changes.fields import FieldChange, changes
from canarium_operator.core import validation
from canarium_operator.core.assembling import completed
from canarium_operator.core.problems import Problem
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.strategy import Step, StepKind, steps_of, strategy_of
from canarium_operator.core.templates import TemplateKey

_IMAGE: Final = "the operator's default"
_KINDS: Final = {
    StepKind.SHADOW: "shadow",
    StepKind.PREVIEW: "preview",
    StepKind.MATCH: "A/B test",
    StepKind.STICKY: "A/B test",
}


class Effect(StrEnum):
    """What happens, in one word."""

    FIRST_DEPLOYMENT = "first deployment"
    """A new object: its first revision comes up without a canary."""
    ROLLOUT = "rollout"
    """Another revision: it becomes a canary."""
    VERSIONS = "versions"
    """Fixed versions get other models or weights."""
    IN_PLACE = "in place"
    """The same revision: what changed is applied at once."""
    REMOVED = "removed"
    """The object is gone."""
    REFUSED = "refused"
    """The new manifest cannot be carried out; what serves goes on serving."""
    NONE = "none"
    """Nothing that the operator looks at has changed."""


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """One step of the rollout that would begin."""

    weight: int
    """Percent."""
    pause_seconds: float
    kind: str
    """`split`, `shadow`, `preview` or `A/B test`."""
    approval: bool
    """Somebody has to approve its end."""
    checks: int
    """Checks that gate it."""

    def __str__(self) -> str:
        what = f"{self.kind} " if self.kind != "split" else ""
        pause = approximate_duration(timedelta(seconds=self.pause_seconds))
        held = f" for {pause}" if self.pause_seconds else ""
        return f"{what}{self.weight}%{held}{', approval' if self.approval else ''}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of one object."""

    where: str
    """Directory of the kustomization, or `files`."""
    name: str
    """`shop/deliveries`."""
    effect: Effect
    before: str = ""
    """Model version that serves now."""
    after: str = ""
    strategy: str = ""
    steps: Sequence[PlannedStep] = ()
    least_seconds: float = 0
    """Shortest time from the first weight to promotion: the pauses."""
    approvals: int = 0
    """Approvals that are needed."""
    revision_fields: Sequence[FieldChange] = ()
    """What makes it another revision."""
    other_fields: Sequence[FieldChange] = ()
    """What is applied in place."""
    breaks: Sequence[str] = ()
    """How the declared inputs and outputs break clients."""
    notes: Sequence[str] = ()
    problems: Sequence[str] = ()
    """Why it is refused."""


Specs = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]


def plan(
    where: str,
    name: str,
    specs: Specs,
    templates: Mapping[TemplateKey, Any],
    problems: Sequence[str] = (),
) -> Change:
    """Tell what becomes of an object.

    Args:
        where: see `Change`.
        name: of the object, with its namespace.
        specs: its raw `.spec` before and after; None: it does not exist.
        templates: `.spec` of the AnalysisTemplates after the change.
        problems: what a check has found wrong with it as it is now.
    """
    raw_before, raw_after = specs
    before = validation.parse_spec(raw_before) if raw_before is not None else None
    old = before if isinstance(before, ModelDeploymentSpec) else None
    if raw_after is None:
        told = (
            "where the GitOps tool prunes, its Deployments, route and Services are deleted: clients get no answer",
        )
        return Change(
            where=where, name=name, effect=Effect.REMOVED, before=_version(old), notes=told
        )
    new = validation.parse_spec(raw_after)
    complete = _completed(new, templates) if isinstance(new, ModelDeploymentSpec) else new
    if isinstance(complete, list) or isinstance(new, list) or problems:
        found = complete if isinstance(complete, list) else []
        return Change(
            where=where,
            name=name,
            effect=Effect.REFUSED,
            before=_version(old),
            after=_version(new if isinstance(new, ModelDeploymentSpec) else None),
            problems=problems or [str(problem) for problem in found],
            notes=("what serves now goes on serving",) if old is not None else (),
        )
    if old is None:
        return _first(where, name, new)
    return _changed(where, name, old, new, complete)


def _completed(
    spec: ModelDeploymentSpec, templates: Mapping[TemplateKey, Any]
) -> ModelDeploymentSpec | list[Problem]:
    """Complete a spec as the operator does; templates that are not known are left out."""
    analysis = spec.rollout.analysis
    known = [ref for ref in analysis.templates if (ref.cluster_scope, ref.name) in templates]
    rollout = spec.rollout.model_copy(
        update={"analysis": analysis.model_copy(update={"templates": known})}
    )
    return completed(spec.model_copy(update={"rollout": rollout}), templates)


def _version(spec: ModelDeploymentSpec | None) -> str:
    return revision_of(spec, _IMAGE).model_version if spec is not None else ""


def _first(where: str, name: str, new: ModelDeploymentSpec) -> Change:
    good = new.rollout.last_good
    if good is not None:
        note = f"in a new cluster rollout.lastGood ({good.uri}) comes up first, and spec.model follows as a canary"
    else:
        note = "the first revision comes up without a canary: there is nothing to compare it with"
    return Change(
        where=where,
        name=name,
        effect=Effect.FIRST_DEPLOYMENT,
        after=_version(new),
        notes=(note, *notes.of_holds(new)),
    )


def _changed(
    where: str,
    name: str,
    old: ModelDeploymentSpec,
    new: ModelDeploymentSpec,
    complete: ModelDeploymentSpec,
) -> Change:
    everything = changes(old.to_manifest(), new.to_manifest(), "spec")
    another = revision_of(old, _IMAGE).name != revision_of(new, _IMAGE).name
    deciding = [c for c in everything if another and _decides(c.field, old, new)]
    common: dict[str, Any] = {
        "where": where,
        "name": name,
        "before": _version(old),
        "after": _version(new),
        "revision_fields": deciding,
        "other_fields": [c for c in everything if c not in deciding],
    }
    if new.rollout.fixed is not None and _versions_change(old, new, another=another):
        note = "versions get their weights as soon as their pods are ready, without steps or checks"
        return Change(effect=Effect.VERSIONS, notes=(note, *notes.of_holds(new)), **common)
    if not another:
        effect = Effect.IN_PLACE if everything else Effect.NONE
        return Change(effect=effect, notes=notes.of_in_place(everything, old, new), **common)
    strategy = strategy_of(new.rollout)
    steps = steps_of(complete.rollout, strategy)
    breaks = tuple(notes.breaks(old, new))
    return Change(
        effect=Effect.ROLLOUT,
        strategy=strategy.value,
        steps=[_planned(step, complete) for step in steps],
        least_seconds=sum(step.pause.total_seconds() for step in steps),
        approvals=sum(step.approval for step in steps),
        breaks=breaks,
        notes=(
            *notes.of_contract(old, new, breaks),
            *notes.of_rollout(new, strategy),
            *notes.of_holds(new),
        ),
        **common,
    )


def _decides(field: str, old: ModelDeploymentSpec, new: ModelDeploymentSpec) -> bool:
    """Whether a field is part of what names a revision; see `revision_of`."""
    if field.startswith("spec.serving.jobs.workers"):
        return False
    if field == "spec.model.uri" and old.model.sha256 and old.model.sha256 == new.model.sha256:
        return False
    return field.startswith(("spec.model", "spec.serving"))


def _versions_change(old: ModelDeploymentSpec, new: ModelDeploymentSpec, *, another: bool) -> bool:
    return another or old.rollout.fixed != new.rollout.fixed


def _planned(step: Step, spec: ModelDeploymentSpec) -> PlannedStep:
    known = spec.rollout.analysis.metrics
    gating = known if step.metrics is None else [m for m in known if m.name in step.metrics]
    return PlannedStep(
        weight=step.size if step.kind is StepKind.SHADOW else step.weight,
        pause_seconds=step.pause.total_seconds(),
        kind=_KINDS.get(step.kind, "split"),
        approval=step.approval,
        checks=len(gating),
    )

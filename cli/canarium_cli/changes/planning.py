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
from canarium_api.model_types import TensorDeclaration
from canarium_api.rollout import SchemaChange
from canarium_api.status import SignatureStatus, TensorStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.changes.fields import FieldChange, changes
from canarium_operator.core import validation
from canarium_operator.core.assembling import completed
from canarium_operator.core.problems import Problem
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.contract import breaking_changes
from canarium_operator.core.rollout.strategy import Step, StepKind, Strategy, steps_of, strategy_of
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
        notes = (
            "where the GitOps tool prunes, its Deployments, route and Services are deleted: clients get no answer",
        )
        return Change(
            where=where, name=name, effect=Effect.REMOVED, before=_version(old), notes=notes
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
        notes=(note, *_holds(new)),
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
        return Change(effect=Effect.VERSIONS, notes=(note, *_holds(new)), **common)
    if not another:
        effect = Effect.IN_PLACE if everything else Effect.NONE
        return Change(effect=effect, notes=_in_place_notes(everything, old, new), **common)
    strategy = strategy_of(new.rollout)
    steps = steps_of(complete.rollout, strategy)
    breaks = tuple(_breaks(old, new))
    return Change(
        effect=Effect.ROLLOUT,
        strategy=strategy.value,
        steps=[_planned(step, complete) for step in steps],
        least_seconds=sum(step.pause.total_seconds() for step in steps),
        approvals=sum(step.approval for step in steps),
        breaks=breaks,
        notes=(*_contract(old, new, breaks), *_rollout_notes(new, strategy), *_holds(new)),
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


def _in_place_notes(
    everything: Sequence[FieldChange], old: ModelDeploymentSpec, new: ModelDeploymentSpec
) -> tuple[str, ...]:
    notes = []
    if any(c.field.startswith("spec.rollout") for c in everything):
        notes.append(
            "a rollout under way takes up changed steps and checks; else they count for the next one"
        )
    if old.model.uri != new.model.uri and new.model.sha256:
        notes.append(
            "model.uri moves and model.sha256 stays: the same bytes from another place are no new revision"
        )
    return tuple(notes)


def _rollout_notes(spec: ModelDeploymentSpec, strategy: Strategy) -> list[str]:
    notes = []
    if spec.rollout.rollback_window > 0:
        notes.append(
            f"if this revision was stable before (one of the last {spec.rollout.rollback_window}), it gets all "
            "traffic at once, without steps"
        )
    if strategy is Strategy.AB_TEST:
        notes.append("an A/B test ends by its result, not by its pause")
    if spec.rollout.gates:
        names = ", ".join(gate.name for gate in spec.rollout.gates)
        notes.append(f"outside systems must agree: {names}")
    return notes


def _holds(spec: ModelDeploymentSpec) -> list[str]:
    notes = []
    if spec.rollout.paused:
        notes.append("rollout.paused is true: nothing starts until it is false")
    if spec.rollout.freezes:
        count = len(spec.rollout.freezes)
        notes.append(f"{count} freeze window{'s' if count > 1 else ''} may hold it")
    return notes


def _contract(
    old: ModelDeploymentSpec, new: ModelDeploymentSpec, breaks: Sequence[str]
) -> list[str]:
    if new.rollout.schema_change is SchemaChange.ALLOW:
        return ["inputs and outputs are not compared: rollout.schemaChange is Allow"]
    if breaks:
        return ["it gets no traffic (IncompatibleSchema) unless rollout.schemaChange is Allow"]
    if old.model.inputs and new.model.inputs:
        return []
    return ["inputs and outputs are compared when pods of both revisions are up"]


def _breaks(old: ModelDeploymentSpec, new: ModelDeploymentSpec) -> list[str]:
    """Compare what both manifests declare; most models tell their inputs and outputs only when they are loaded."""
    if not (old.model.inputs and new.model.inputs):
        return []
    return breaking_changes(_signature(old), _signature(new))


def _signature(spec: ModelDeploymentSpec) -> SignatureStatus:
    def tensors(declared: Sequence[TensorDeclaration]) -> list[TensorStatus]:
        return [
            TensorStatus(name=t.name, datatype=t.datatype.value, shape=list(t.shape))
            for t in declared
        ]

    return SignatureStatus(inputs=tensors(spec.model.inputs), outputs=tensors(spec.model.outputs))

"""What a reader of a plan must know besides: what may hold a rollout, and what clients would notice."""

from collections.abc import Sequence

from canarium_api.model_types import TensorDeclaration
from canarium_api.rollout import SchemaChange
from canarium_api.status import SignatureStatus, TensorStatus
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.changes.fields import FieldChange
from canarium_operator.core.rollout.contract import breaking_changes
from canarium_operator.core.rollout.strategy import Strategy


def of_in_place(
    everything: Sequence[FieldChange], old: ModelDeploymentSpec, new: ModelDeploymentSpec
) -> tuple[str, ...]:
    """Say what a change in place means beyond itself."""
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


def of_rollout(spec: ModelDeploymentSpec, strategy: Strategy) -> list[str]:
    """Say what may make a rollout other than its steps."""
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


def of_holds(spec: ModelDeploymentSpec) -> list[str]:
    """Say what may hold anything from beginning."""
    notes = []
    if spec.rollout.paused:
        notes.append("rollout.paused is true: nothing starts until it is false")
    if spec.rollout.freezes:
        count = len(spec.rollout.freezes)
        notes.append(f"{count} freeze window{'s' if count > 1 else ''} may hold it")
    return notes


def of_contract(
    old: ModelDeploymentSpec, new: ModelDeploymentSpec, breaks: Sequence[str]
) -> list[str]:
    """Say when inputs and outputs are compared, and what becomes of one that breaks clients."""
    if new.rollout.schema_change is SchemaChange.ALLOW:
        return ["inputs and outputs are not compared: rollout.schemaChange is Allow"]
    if breaks:
        return ["it gets no traffic (IncompatibleSchema) unless rollout.schemaChange is Allow"]
    if old.model.inputs and new.model.inputs:
        return []
    return ["inputs and outputs are compared when pods of both revisions are up"]


def breaks(old: ModelDeploymentSpec, new: ModelDeploymentSpec) -> list[str]:
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

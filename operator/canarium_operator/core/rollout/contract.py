"""The schema contract: does the new model take what clients send, and give what they read?

A pod of each revision is asked once for its model's inputs and outputs, in the words of the Open Inference Protocol
V2. A canary whose answers would break clients of stable gets no traffic, not even copies of requests, unless
`rollout.schemaChange` is Allow. As long as either side is not known, the canary waits. That is never blamed on the
revision: after the progress deadline the object says that it is stalled, and goes on by itself when a pod answers.

The rules are those of a function that replaces another: it may ask for less and give more. What the contract cannot
see is meaning: the same shapes with other units, or classes in another order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from canarium_api.conditions import Reason
from canarium_api.rollout import SchemaChange
from canarium_api.status import ModelDeploymentStatus, RevisionStatus, SignatureStatus, TensorStatus
from canarium_operator.core.rollout.endings import roll_back
from canarium_operator.core.rollout.inputs import (
    POLL,
    Decision,
    ProbeFailure,
    RolloutInput,
    SignatureAnswer,
    clock,
    deadline_of,
    display,
)
from canarium_operator.core.rollout.strategy import Strategy
from canarium_operator.core.versions import versions_of

OPEN: Final = -1
"""A dimension of any size."""
REMEDY: Final = "set rollout.schemaChange to Allow"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A question to a pod of a revision."""

    revision: str
    model: str
    """Name of the model in URLs."""
    tls: bool = False
    """Whether its pods speak TLS."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is known of a canary's contract."""

    breaks: tuple[str, ...] = ()
    """What would break clients."""
    missing: str = ""
    """What is not known yet, in words; empty: all is known."""
    skipped: bool = False
    """Nothing is compared: the user allows every change, or it is the way back to a revision that was good."""


def breaking_changes(old: SignatureStatus, new: SignatureStatus) -> list[str]:
    """Name every way in which a new model breaks clients of an old one; an empty list: it breaks none.

    Allowed are an output more, an input that takes any size where it took one, and an output of a known size where it
    had any. An output whose size becomes open is allowed too: exporters write -1 where they merely do not know.
    """
    inputs = {tensor.name: tensor for tensor in new.inputs}
    outputs = {tensor.name: tensor for tensor in new.outputs}
    known = {tensor.name for tensor in old.inputs}
    found = []
    for tensor in old.inputs:
        found += _changes("input", tensor, inputs.get(tensor.name), is_input=True)
    for tensor in new.inputs:
        if tensor.name not in known:
            found.append(f"input {tensor.name!r} is new, and clients do not send it")
    for tensor in old.outputs:
        found += _changes("output", tensor, outputs.get(tensor.name), is_input=False)
    return found


def _changes(
    kind: str, old: TensorStatus, new: TensorStatus | None, *, is_input: bool
) -> list[str]:
    what = f"{kind} {old.name!r}"
    if new is None:
        return [f"{what} is gone"]
    if new.datatype != old.datatype:
        return [f"{what} is {new.datatype}, it was {old.datatype}"]
    if len(new.shape) != len(old.shape):
        return [f"{what} has shape {new.shape}, it had {old.shape}"]
    broken = [
        position
        for position, (before, after) in enumerate(zip(old.shape, new.shape, strict=True))
        if after != before and after != OPEN and (is_input or before != OPEN)
    ]
    return [f"{what} has shape {new.shape}, it had {old.shape}"] if broken else []


def due_probes(given: RolloutInput) -> tuple[Probe, ...]:
    """Name the revisions whose signature is needed, not known, and can be asked for now."""
    if given.spec.rollout.schema_change is SchemaChange.ALLOW:
        return ()
    templates = dict(given.observed.revisions)
    if given.wanted is not None:
        templates[given.wanted.name] = given.wanted
        for version in versions_of(given.spec, given.wanted):
            templates[version.revision.name] = version.revision
    return tuple(
        Probe(
            revision=who.revision,
            model=templates[who.revision].model.name or given.ref.name,
            tls=templates[who.revision].serving.speaks_tls,
        )
        for who in (given.status.stable, given.status.canary, *_following(given.status))
        if who is not None
        and who.signature is None
        and who.revision in templates
        and who.revision in given.observed.services
        and given.observed.workload(who.revision).ready_replicas > 0
    )


def with_signatures(
    status: ModelDeploymentStatus, answers: Mapping[str, SignatureAnswer]
) -> ModelDeploymentStatus:
    """Note what pods told; a signature is asked for once and kept with its revision."""

    def told(who: RevisionStatus | None) -> RevisionStatus | None:
        if who is None or who.signature is not None:
            return who
        answer = answers.get(who.revision)
        if not isinstance(answer, SignatureStatus):
            return who
        return who.model_copy(update={"signature": answer})

    return status.model_copy(
        update={
            "stable": told(status.stable),
            "canary": told(status.canary),
            "versions": [v.model_copy(update={"next": told(v.next)}) for v in status.versions],
        }
    )


def _following(status: ModelDeploymentStatus) -> list[RevisionStatus]:
    """Give what comes up to take the place of fixed versions."""
    return [version.next for version in status.versions if version.next is not None]


def compare_with_stable(given: RolloutInput, who: RevisionStatus) -> Comparison:
    """Compare what shall serve beside stable with it; the same clients ask both."""
    stable = given.status.stable
    if given.spec.rollout.schema_change is SchemaChange.ALLOW or stable is None:
        return Comparison(skipped=True)
    for one in (who, stable):
        if one.signature is None:
            answer = given.signatures.get(one.revision)
            why = f": {answer.message}" if isinstance(answer, ProbeFailure) else ""
            return Comparison(
                missing=f"no pod of {display(one)} has told its model's inputs and outputs{why}"
            )
    assert who.signature is not None  # noqa: S101 - both are known
    assert stable.signature is not None  # noqa: S101
    return Comparison(breaks=tuple(breaking_changes(stable.signature, who.signature)))


def compare(given: RolloutInput) -> Comparison:
    """Compare the canary's contract with stable's; asked only while there is a canary."""
    stable, canary, rollout = given.status.stable, given.status.canary, given.status.rollout
    assert stable is not None  # noqa: S101 - a canary runs beside a stable revision
    assert canary is not None  # noqa: S101
    if rollout is not None and rollout.strategy == Strategy.DIRECT and _was_stable(given, canary):
        return Comparison(skipped=True)
    return compare_with_stable(given, canary)


def _was_stable(given: RolloutInput, canary: RevisionStatus) -> bool:
    return any(
        entry.revision == canary.revision and entry.outcome in ("Deployed", "Promoted")
        for entry in given.status.history
    )


def refused(given: RolloutInput) -> Decision | None:
    """Take a canary back that would break clients: before any traffic, since none moves until both sides are known."""
    stable, canary = given.status.stable, given.status.canary
    if stable is None or canary is None:
        return None
    breaks = compare(given).breaks
    if not breaks:
        return None
    return roll_back(
        given,
        Reason.INCOMPATIBLE_SCHEMA,
        f"clients of {display(stable)} would break: {'; '.join(breaks)}. To roll it out all the same, {REMEDY}",
    )


def awaits_signature(given: RolloutInput) -> Decision | None:
    """Hold a canary whose contract is not known yet."""
    missing = compare(given).missing
    if not missing:
        return None
    return Decision(
        status=given.status,
        requeue_after=POLL,
        blocked_on=Reason.AWAITING_SIGNATURE,
        waiting=f"{missing}; asked again every few seconds, stalled from {clock(deadline_of(given))}",
    )


def stalled(given: RolloutInput) -> str | None:
    """Say that no pod has told its signature within the progress deadline, if so."""
    status = given.status
    if status.canary is None or status.rollout is None or status.rollout.paused_at is not None:
        return None
    if status.canary.ready_replicas == 0 or given.now < deadline_of(given):
        return None
    if status.rollout.prepared_step == status.rollout.step:
        return None
    missing = compare(given).missing
    return f"{missing}. It goes on when one does; to go on without, {REMEDY}" if missing else None


def compatibility(
    given: RolloutInput,
) -> tuple[Literal["True", "False", "Unknown"], Reason, str] | None:
    """Give status, reason and message of the condition Compatible; None where nothing is compared."""
    status, wanted = given.status, given.wanted
    if status.canary is not None and status.stable is not None:
        found = compare(given)
        if found.skipped:
            return None
        if found.missing:
            return "Unknown", Reason.AWAITING_SIGNATURE, found.missing
        who = f"{display(status.canary)} takes what clients of {display(status.stable)} send"
        return "True", Reason.COMPATIBLE, f"{who}, and gives what they read"
    for failure in status.failed_revisions:
        failed = wanted is not None and failure.revision == wanted.name
        if failed and failure.reason == Reason.INCOMPATIBLE_SCHEMA:
            return "False", Reason.INCOMPATIBLE_SCHEMA, failure.message
    return None

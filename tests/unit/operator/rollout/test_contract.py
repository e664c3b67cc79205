"""The schema contract: what breaks clients gets no traffic, and what is not known waits."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarium_api.conditions import ConditionType, Reason
from canarium_api.status import Phase, SignatureStatus, TensorStatus
from canarium_operator.adapters.model_probe import parse_signature
from canarium_operator.core.revision import revision_of
from canarium_operator.core.rollout.contract import breaking_changes, compare, due_probes
from canarium_operator.core.rollout.inputs import ProbeFailure
from canarium_operator.core.rollout.strategy import Strategy
from canarium_operator.errors import ProbeError
from canarium_operator.testing.cluster import SIGNATURE
from canarium_operator.testing.scenario import IMAGE, Scenario, Traffic, make_spec

V1, V2 = (revision_of(make_spec(v), IMAGE).name for v in "12")
ROLLOUT = make_spec().to_manifest()["rollout"]


def tensor(name: str, datatype: str = "FP32", *shape: int) -> TensorStatus:
    return TensorStatus(name=name, datatype=datatype, shape=list(shape))


def signature(inputs: list[TensorStatus], outputs: list[TensorStatus]) -> SignatureStatus:
    return SignatureStatus(inputs=inputs, outputs=outputs)


X, Y = tensor("x", "FP32", -1, 4), tensor("y", "FP32", -1, 3)
OLD = signature([X], [Y])


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (signature([], [Y]), ["input 'x' is gone"]),
        (
            signature([tensor("z", "FP32", -1, 4)], [Y]),
            ["input 'x' is gone", "input 'z' is new, and clients do not send it"],
        ),
        (signature([tensor("x", "FP64", -1, 4)], [Y]), ["input 'x' is FP64, it was FP32"]),
        (
            signature([tensor("x", "FP32", -1, 5)], [Y]),
            ["input 'x' has shape [-1, 5], it had [-1, 4]"],
        ),
        (signature([tensor("x", "FP32", 4)], [Y]), ["input 'x' has shape [4], it had [-1, 4]"]),
        (
            signature([tensor("x", "FP32", 1, 4)], [Y]),
            ["input 'x' has shape [1, 4], it had [-1, 4]"],
        ),
        (
            signature([X, tensor("age", "INT64", -1)], [Y]),
            ["input 'age' is new, and clients do not send it"],
        ),
        (signature([X], []), ["output 'y' is gone"]),
        (signature([X], [tensor("y", "INT64", -1, 3)]), ["output 'y' is INT64, it was FP32"]),
        (
            signature([X], [tensor("y", "FP32", -1, 5)]),
            ["output 'y' has shape [-1, 5], it had [-1, 3]"],
        ),
        (signature([X], [tensor("y", "FP32", -1)]), ["output 'y' has shape [-1], it had [-1, 3]"]),
    ],
    ids=[
        "input gone",
        "input renamed",
        "input of another type",
        "another number of features",
        "input of another rank",
        "one row where any number was",
        "a new input",
        "output gone",
        "output of another type",
        "another number of classes",
        "output of another rank",
    ],
)
def test_what_breaks_clients_is_named(new: SignatureStatus, words: list[str]) -> None:
    """Each change in words that a user can act on."""
    assert words == breaking_changes(OLD, new)


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        signature([X], [Y, tensor("explanation", "FP32", -1, 4)]),
        signature([tensor("x", "FP32", -1, -1)], [Y]),
        signature([X], [tensor("y", "FP32", -1, -1)]),
        signature([X], [tensor("y", "FP32", 1, 3)]),
    ],
    ids=["the same", "an output more", "any number of features", "open classes", "a known size"],
)
def test_what_breaks_nobody_is_allowed(new: SignatureStatus) -> None:
    """To ask for less and to give more is no breaking change."""
    assert breaking_changes(OLD, new) == []


tensors = st.builds(
    TensorStatus,
    name=st.sampled_from("abc"),
    datatype=st.sampled_from(("FP32", "INT64")),
    shape=st.lists(st.sampled_from((-1, 1, 4)), max_size=3),
)
signatures = st.builds(
    SignatureStatus,
    inputs=st.lists(tensors, max_size=3, unique_by=lambda t: t.name),
    outputs=st.lists(tensors, max_size=3, unique_by=lambda t: t.name),
)


@given(one=signatures)
def test_every_contract_keeps_itself(one: SignatureStatus) -> None:
    """A model of the same shapes never breaks anybody."""
    assert breaking_changes(one, one) == []


@given(one=signatures, other=signatures)
def test_two_contracts_that_keep_each_other_differ_in_open_sizes_alone(
    one: SignatureStatus, other: SignatureStatus
) -> None:
    """Who may replace whom in both ways has the same inputs, and outputs of the same names, types and ranks."""
    if breaking_changes(one, other) or breaking_changes(other, one):
        return
    key = [sorted((t.name, t.datatype, tuple(t.shape)) for t in s.inputs) for s in (one, other)]
    assert key[0] == key[1]
    key = [sorted((t.name, t.datatype, (len(t.shape),)) for t in s.outputs) for s in (one, other)]
    assert key[0] == key[1]


# --- in the engine

WIDER = signature([tensor("input", "FP32", -1, 5)], SIGNATURE.outputs)
SILENCE = ProbeFailure(message="no endpoints")


def started(**changes: Any) -> Scenario:
    """Version 2 comes up beside version 1."""
    scenario = Scenario().settle().change(make_spec("2"))
    return replace(scenario, **changes)


def condition(scenario: Scenario, kind: ConditionType) -> str | None:
    found = [c for c in scenario.status.conditions if c.type == kind]
    return f"{found[0].status}/{found[0].reason}" if found else None


def test_a_breaking_model_gets_no_traffic_at_any_moment_and_says_why() -> None:
    """It is taken back before the first weight, with the list."""
    scenario = started(signatures={V2: WIDER})
    for _ in range(8):
        scenario = scenario.step().act()
        assert scenario.observed.weight(V2) == 0
    scenario = scenario.later(60).settle()
    assert scenario.status.phase is Phase.ABORTED
    [failure] = scenario.status.failed_revisions
    assert failure.reason == Reason.INCOMPATIBLE_SCHEMA
    assert "input 'input' has shape [-1, 5], it had [-1, 4]" in failure.message
    assert "schemaChange" in failure.message
    assert condition(scenario, ConditionType.COMPATIBLE) == "False/IncompatibleSchema"


@pytest.mark.parametrize(
    "strategy",
    [{"blueGreen": {}}, {"shadow": {}, "canary": ROLLOUT["canary"]}],
    ids=["blue-green", "shadow"],
)
def test_a_breaking_model_is_not_even_previewed_or_shadowed(strategy: dict[str, Any]) -> None:
    """No request reaches it in any way: the step that prepares it is not entered."""
    rollout = {k: v for k, v in ROLLOUT.items() if k != "canary"}
    spec = make_spec("2", rollout={**rollout, **strategy})
    scenario = replace(Scenario().settle().change(spec), signatures={V2: WIDER})
    for _ in range(8):
        scenario = scenario.step().act()
        prepared = scenario.status.rollout.prepared_step if scenario.status.rollout else 0
        assert prepared == 0
    assert [f.reason for f in scenario.status.failed_revisions] == ["IncompatibleSchema"]


def test_a_breaking_model_that_is_allowed_is_rolled_out_and_nobody_is_asked() -> None:
    """The user knows the clients."""
    spec = make_spec("2", rollout={**ROLLOUT, "schemaChange": "Allow"})
    scenario = replace(Scenario().settle().change(spec), signatures={V2: WIDER}).settle()
    assert scenario.observed.weight(V2) == 10
    assert scenario.status.canary is not None
    assert scenario.status.canary.signature is None


def test_a_compatible_model_says_so_and_is_asked_once() -> None:
    """What a pod told is kept with its revision, through the promotion."""
    scenario = started().settle()
    assert condition(scenario, ConditionType.COMPATIBLE) == "True/Compatible"
    assert due_probes(scenario.given()) == ()
    for _ in range(3):
        scenario = scenario.later(61).settle()
    assert scenario.status.stable is not None
    assert scenario.status.stable.revision == V2
    assert scenario.status.stable.signature == SIGNATURE


@pytest.mark.parametrize("silent", [V1, V2], ids=["stable", "canary"])
def test_a_silent_pod_holds_the_canary_without_traffic_and_is_blamed_on_nobody(silent: str) -> None:
    """After the deadline the object is stalled; when the pod tells, it goes on."""
    calm = Scenario(signatures={silent: SILENCE}).settle().change(make_spec("2")).settle()
    assert calm.observed.weight(V2) == 0
    assert calm.status.rollout is not None
    assert calm.status.rollout.blocked_on == Reason.AWAITING_SIGNATURE
    assert "no endpoints" in calm.status.message
    late = calm.later(601).settle()
    assert condition(late, ConditionType.STALLED) == "True/AwaitingSignature"
    assert late.status.failed_revisions == []
    assert late.later(86400).settle().status.epoch == late.status.epoch
    back = replace(late, signatures={}).settle()
    assert condition(back, ConditionType.STALLED) is None
    assert back.observed.weight(V2) == 10


def test_a_way_back_to_a_revision_that_was_stable_is_not_barred() -> None:
    """Version 1 would break the clients of version 2, but it was good: at once, without steps, it may come back."""
    scenario = (
        started(signatures={V2: WIDER})
        .change(make_spec("2", rollout={**ROLLOUT, "schemaChange": "Allow"}))
        .settle()
    )
    assert scenario.status.rollout is not None
    assert scenario.status.canary is not None
    direct = scenario.status.rollout.model_copy(update={"strategy": Strategy.DIRECT})
    told = scenario.status.canary.model_copy(update={"signature": WIDER})
    status = scenario.status.model_copy(update={"rollout": direct, "canary": told})
    given_ = replace(scenario.change(make_spec("2")), status=status).given()
    given_ = replace(
        given_,
        status=status.model_copy(
            update={"stable": status.stable.model_copy(update={"signature": SIGNATURE})}  # type: ignore[union-attr]
        ),
    )
    assert compare(given_).breaks
    entry = given_.status.history[-1].model_copy(update={"revision": V2, "outcome": "Promoted"})
    history = [*given_.status.history, entry]
    known = given_.status.model_copy(update={"history": history})
    assert not compare(replace(given_, status=known)).breaks


def test_forbidding_a_change_in_the_middle_of_a_rollout_takes_it_back() -> None:
    """An allowance that is withdrawn counts at once, at any weight."""
    spec = make_spec("2", rollout={**ROLLOUT, "schemaChange": "Allow"})
    scenario = replace(Scenario().settle().change(spec), signatures={V2: WIDER}).settle()
    scenario = scenario.change(make_spec("2")).settle()
    assert scenario.observed.weight(V2) == 0
    assert [f.reason for f in scenario.status.failed_revisions] == ["IncompatibleSchema"]


def test_a_bad_canary_is_taken_back_though_its_pod_is_silent() -> None:
    """A hold keeps nothing bad: once it has traffic, only the checks count."""
    scenario = started().settle().serves(V2, Traffic(error_rate=0.3))
    scenario = scenario.later(timedelta(seconds=31).total_seconds()).settle()
    assert scenario.status.canary is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"inputs": [], "outputs": []}',
        b'{"inputs": [{"name": "x"}], "outputs": [{"name": "y"}]}',
        b'{"inputs": [{"name":"x","datatype":"FP32","shape":["a"]}], "outputs": [{}]}',
    ],
)
def test_an_answer_that_is_no_signature_is_an_error(content: bytes) -> None:
    """Whatever else listens there."""
    with pytest.raises(ProbeError, match="not the metadata of a model"):
        parse_signature(content)


def test_an_answer_of_the_server_is_read() -> None:
    """As the Open Inference Protocol has it; what else is in it does not matter."""
    content = (
        b'{"name":"fraud","platform":"onnx","inputs":[{"name":"x","datatype":"FP32","shape":[-1,4]}],'
        b'"outputs":[{"name":"y","datatype":"FP32","shape":[-1,3]}]}'
    )
    assert parse_signature(content) == OLD

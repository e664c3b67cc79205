"""The rules of kstatus, one by one and in its order."""

from typing import Any

import pytest

from canarium_api.kstatus import Health, judge


def conditions(*said: str) -> list[dict[str, str]]:
    """Make conditions of words such as `Ready=True`."""
    made = []
    for index, word in enumerate(said):
        kind, _, status = word.partition("=")
        made.append({"type": kind, "status": status, "reason": "Why", "message": f"no. {index}"})
    return made


@pytest.mark.parametrize(
    ("listed", "health", "field"),
    [
        (["Reconciling=True", "Stalled=True"], Health.IN_PROGRESS, "conditions[0]"),
        (["Stalled=True", "Reconciling=True"], Health.FAILED, "conditions[0]"),
        (["Ready=True", "Reconciling=True"], Health.IN_PROGRESS, "conditions[1]"),
        (["Ready=True", "Stalled=True"], Health.FAILED, "conditions[1]"),
        (["Reconciling=False", "Stalled=Unknown", "Ready=True"], Health.CURRENT, "conditions[2]"),
        (["Ready=False"], Health.IN_PROGRESS, "conditions[0]"),
        (["Ready=Unknown"], Health.IN_PROGRESS, "conditions[0]"),
        (["Ready=true", "Ready=False"], Health.IN_PROGRESS, "conditions[1]"),
        (["Ready=true"], Health.CURRENT, ""),
        (["Available=False", "Progressing=False"], Health.CURRENT, ""),
        ([], Health.CURRENT, ""),
    ],
)
def test_what_holds_and_stands_first_decides_and_ready_comes_last(
    listed: list[str], health: Health, field: str
) -> None:
    """Reconciling and Stalled in the order of the list; other types, and words that it does not know, say nothing."""
    found = judge({"status": {"conditions": conditions(*listed)}})
    assert (found.health, found.field) == (health, f"status.{field}".removesuffix("."))


@pytest.mark.parametrize(
    ("meta", "observed", "health", "field"),
    [
        ({"generation": 2}, 2, Health.FAILED, "status.conditions[0]"),
        ({"generation": 2}, 2.0, Health.FAILED, "status.conditions[0]"),
        ({"generation": 2}, 1, Health.IN_PROGRESS, "status.observedGeneration"),
        ({"generation": 1}, 2, Health.IN_PROGRESS, "status.observedGeneration"),
        ({"generation": 1}, -1, Health.IN_PROGRESS, "status.observedGeneration"),
        ({"generation": 2}, None, Health.FAILED, "status.conditions[0]"),
        ({}, 1, Health.FAILED, "status.conditions[0]"),
        ({"generation": 2, "deletionTimestamp": "x"}, 1, Health.TERMINATING, "metadata"),
        ({"generation": 2, "deletionTimestamp": ""}, 2, Health.FAILED, "status.conditions[0]"),
    ],
)
def test_deletion_comes_before_the_generation_and_that_before_conditions(
    meta: dict[str, Any], observed: float | None, health: Health, field: str
) -> None:
    """A generation is compared where the object and its status both name one."""
    status: dict[str, Any] = {"conditions": conditions("Stalled=True")}
    if observed is not None:
        status["observedGeneration"] = observed
    found = judge({"metadata": meta, "status": status})
    assert (found.health, found.field) == (health, field)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"metadata": {"deletionTimestamp": "x"}}, "it is being deleted"),
        (
            {"metadata": {"generation": 3}, "status": {"observedGeneration": 2}},
            "the operator has seen generation 2, and the object's is 3",
        ),
        ({"status": {"conditions": conditions("Ready=False")}}, "Ready=False, Why: no. 0"),
        ({"metadata": None, "status": None}, "it has no condition Ready: kstatus takes such"),
    ],
)
def test_the_message_names_what_decided(body: dict[str, Any], words: str) -> None:
    """`canarium check` prints it."""
    assert judge(body).message.startswith(words)


@pytest.mark.parametrize("observed", ["1", 1.5])
def test_an_observed_generation_that_is_no_integer_is_refused(observed: object) -> None:
    """There is no health then, but an error, and whoever waits waits in vain."""
    with pytest.raises(TypeError, match=rf"status\.observedGeneration is {observed!r}"):
        judge({"metadata": {"generation": 1}, "status": {"observedGeneration": observed}})

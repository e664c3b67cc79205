"""Answers of two sides to pairs of the same request."""

import pytest

from canarium_api.metric_names import PredictionStatus, ShadowSide, ShadowUnpaired
from canarium_runtime.shadow.pairing import Pairing
from canarium_runtime.shadow.records import Answer, Tensor

STABLE, SHADOW = ShadowSide.STABLE, ShadowSide.SHADOW
WINDOW = 30.0


def answer(request_id: str, body: int | None = 1, size: int = 0) -> Answer:
    outputs = [Tensor("y", "UINT8", (size,), bytes(size))]
    return Answer(request_id, body, PredictionStatus.SUCCESS, 0.1, outputs)


Event = tuple[ShadowSide, str, float] | tuple[ShadowSide, str, float, int | None]


@pytest.mark.parametrize(
    ("events", "pairs", "unpaired"),
    [
        pytest.param([(STABLE, "a", 0.0), (SHADOW, "a", 1.0)], ["a"], {}, id="stable first"),
        pytest.param([(SHADOW, "a", 0.0), (STABLE, "a", 1.0)], ["a"], {}, id="shadow first"),
        pytest.param([(STABLE, "a", 0.0), (SHADOW, "b", 0.0)], [], {}, id="two requests"),
        pytest.param(
            [(STABLE, "a", 0.0), (SHADOW, "a", 30.0)],
            [],
            {(STABLE, "expired"): 1},
            id="too late: the second now waits itself",
        ),
        pytest.param([(STABLE, "a", 0.0), (SHADOW, "a", 29.9)], ["a"], {}, id="just in time"),
        pytest.param(
            [(STABLE, "a", 0.0), (STABLE, "a", 1.0), (SHADOW, "a", 2.0)],
            [],
            {(STABLE, "ambiguous"): 2, (SHADOW, "ambiguous"): 1},
            id="an id twice on one side",
        ),
        pytest.param(
            [(STABLE, "a", 0.0), (SHADOW, "a", 1.0), (SHADOW, "a", 2.0)],
            ["a"],
            {(SHADOW, "ambiguous"): 1},
            id="an id again after its pair",
        ),
        pytest.param(
            [(STABLE, "a", 0.0, 1), (SHADOW, "a", 1.0, 2)],
            [],
            {(STABLE, "ambiguous"): 1, (SHADOW, "ambiguous"): 1},
            id="one id, two bodies",
        ),
        pytest.param(
            [(STABLE, "a", 0.0, 1), (SHADOW, "a", 1.0, None)],
            ["a"],
            {},
            id="refused before its body was read",
        ),
        pytest.param(
            [(STABLE, "a", 0.0), (SHADOW, "a", 1.0), (STABLE, "a", 31.0), (SHADOW, "a", 32.0)],
            ["a", "a"],
            {},
            id="an id that comes back after a window",
        ),
    ],
)
def test_answers_pair(
    events: list[Event], pairs: list[str], unpaired: dict[tuple[ShadowSide, str], int]
) -> None:
    """Only what is certain to be the same request."""
    pairing = Pairing(WINDOW)
    found = []
    for side, request_id, now, *body in events:
        pair = pairing.offer(side, answer(request_id, *body), now)
        if pair is not None:
            assert pair.stable.id == pair.shadow.id
            found.append(pair.stable.id)
    assert found == pairs
    assert dict(pairing.unpaired) == {
        (side, ShadowUnpaired(reason)): count for (side, reason), count in unpaired.items()
    }


def test_each_side_keeps_its_place() -> None:
    """Whichever came first, stable's answer is stable's."""
    for first, second in ((STABLE, SHADOW), (SHADOW, STABLE)):
        pairing = Pairing(WINDOW)
        answers = {STABLE: answer("a"), SHADOW: answer("a")}
        assert pairing.offer(first, answers[first], 0.0) is None
        pair = pairing.offer(second, answers[second], 0.0)
        assert pair is not None
        assert pair.stable is answers[STABLE]
        assert pair.shadow is answers[SHADOW]


def test_the_oldest_leave_when_too_many_wait() -> None:
    """By number of ids, and by bytes of what waits."""
    pairing = Pairing(WINDOW, max_ids=2)
    for name in "abc":
        pairing.offer(STABLE, answer(name), 0.0)
    assert (pairing.ids, pairing.unpaired[STABLE, ShadowUnpaired.EVICTED]) == (2, 1)
    assert pairing.offer(SHADOW, answer("a"), 0.0) is None
    assert pairing.offer(SHADOW, answer("c"), 0.0) is not None

    pairing = Pairing(WINDOW, max_bytes=5000)
    for name in "abc":
        pairing.offer(STABLE, answer(name, size=2000), 0.0)
    assert pairing.ids == 1
    assert pairing.waiting_bytes <= 5000

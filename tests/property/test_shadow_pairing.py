"""Laws of pairing: never two requests in one pair, nothing lost or counted twice, bounded, and in any order."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from canarium_api.metric_names import PredictionStatus, ShadowSide
from canarium_runtime.shadow.pairing import Pairing
from canarium_runtime.shadow.records import Answer, Tensor

WINDOW = 10.0
SIDES = st.sampled_from(ShadowSide)


def answer(request_id: str, body: int | None, size: int = 0) -> Answer:
    tensor = Tensor("y", "UINT8", (size,), bytes(size))
    return Answer(request_id, body, PredictionStatus.SUCCESS, 0.1, [tensor])


@given(
    events=st.lists(
        st.tuples(
            SIDES,
            st.sampled_from("abcde"),
            st.sampled_from([None, 1, 2]),
            st.integers(0, 3000),
            st.floats(0, 15),
        ),
        max_size=60,
    ),
    max_ids=st.integers(1, 6),
    max_bytes=st.integers(1000, 20_000),
)
def test_every_answer_is_in_one_pair_or_counted_or_waits(
    events: list[tuple[ShadowSide, str, int | None, int, float]], max_ids: int, max_bytes: int
) -> None:
    """For any answers in any order, with ids that repeat and bodies that do not fit."""
    pairing = Pairing(WINDOW, max_ids=max_ids, max_bytes=max_bytes)
    offered: Counter[ShadowSide] = Counter()
    pairs = 0
    now = 0.0
    for side, request_id, body, size, pause in events:
        now += pause
        offered[side] += 1
        pair = pairing.offer(side, answer(request_id, body, size), now)
        if pair is not None:
            pairs += 1
            assert pair.stable.id == pair.shadow.id == request_id
            assert None in {pair.stable.body, pair.shadow.body} or (
                pair.stable.body == pair.shadow.body
            )
        assert pairing.ids <= max_ids
        assert 0 <= pairing.waiting_bytes <= max_bytes
    pairing.expire(now + WINDOW)
    assert (pairing.ids, pairing.waiting_bytes) == (0, 0)
    for side in ShadowSide:
        counted = sum(n for (s, _), n in pairing.unpaired.items() if s is side)
        assert offered[side] == pairs + counted


@given(
    mirrored=st.lists(st.booleans(), min_size=1, max_size=40),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_order_of_answers_does_not_matter(mirrored: list[bool], seed: int) -> None:
    """Within a window, whatever comes first: the requests that both sides answered are the pairs."""
    answers = [(ShadowSide.STABLE, f"r{i}") for i in range(len(mirrored))]
    answers += [(ShadowSide.SHADOW, f"r{i}") for i, m in enumerate(mirrored) if m]
    random.Random(seed).shuffle(answers)
    pairing = Pairing(WINDOW)
    found = set()
    for side, request_id in answers:
        pair = pairing.offer(side, answer(request_id, 1), 0.0)
        if pair is not None:
            assert pair.stable.id not in found
            found.add(pair.stable.id)
    assert found == {f"r{i}" for i, m in enumerate(mirrored) if m}

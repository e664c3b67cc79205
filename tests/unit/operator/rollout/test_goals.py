"""What the goals of A/B tests say: how often they are wrong over many looks, and how often they find what there is."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from canarium_api.analysis import AnalysisSpec, MetricSpec
from canarium_api.experiment import GoalStatus, GoalVerdict, Tally
from canarium_operator.core.rollout import goals

ORDERS = MetricSpec.from_manifest(
    {
        "name": "orders",
        "proportion": {"events": "e{{revision}}", "trials": "t{{revision}}"},
        "higherIsBetter": True,
        "minEffect": "1%",
    }
)
BASKET = MetricSpec.from_manifest(
    {
        "name": "basket",
        "mean": {"sum": "s{{revision}}", "sumOfSquares": "q{{revision}}", "count": "c{{revision}}"},
        "higherIsBetter": True,
    }
)
SPEC = AnalysisSpec.from_manifest({"minSamples": 100})
LATENCY = MetricSpec.from_manifest({"name": "latency-p95"})


def share(events: float, trials: float) -> dict[str, float]:
    return {"events": events, "trials": trials}


def judged(
    tallies: Sequence[tuple[MetricSpec, dict[str, float], dict[str, float]]],
) -> list[GoalStatus]:
    """Judge goals by the counts of A and B."""
    begun = [
        goals.new(metric).model_copy(update={"open": Tally(stable=a, canary=b)})
        for metric, a, b in tallies
    ]
    return goals.judge(begun, {metric.name: metric for metric, _, _ in tallies}, SPEC)


def verdict(a: dict[str, float], b: dict[str, float], metric: MetricSpec = ORDERS) -> GoalVerdict:
    return judged([(metric, a, b)])[0].verdict


@pytest.mark.parametrize(
    ("b", "expected"),
    [
        (600, GoalVerdict.BETTER),
        (250, GoalVerdict.WORSE),
        (405, GoalVerdict.NO_DIFFERENCE),
    ],
)
def test_a_share_is_better_worse_or_no_different(b: int, expected: GoalVerdict) -> None:
    """4 % of 10,000, against 6 %, 2.5 % and 4.05 %, where a point matters."""
    assert verdict(share(400, 10_000), share(b, 10_000)) is expected


def test_few_requests_decide_nothing() -> None:
    """Fewer than minSamples on either side."""
    assert verdict(share(0, 99), share(90, 99)) is GoalVerdict.UNDECIDED
    assert verdict(share(0, 10_000), share(90, 99)) is GoalVerdict.UNDECIDED


def test_lower_is_better_unless_it_is_said() -> None:
    """An error rate that falls is a better one; and the effect keeps its sign."""
    errors = MetricSpec.from_manifest({"name": "error-rate"})
    (goal,) = judged([(errors, share(500, 10_000), share(100, 10_000))])
    assert goal.verdict is GoalVerdict.BETTER
    assert goal.effect == pytest.approx(-0.04)
    assert goal.interval is not None
    assert goal.interval[0] < -0.04 < goal.interval[1] < 0


def test_latency_is_compared_by_its_histogram() -> None:
    """Twice as fast is better, and the effect is a ratio."""
    slow = {"0.01": 100.0, "0.1": 9000.0, "0.2": 10_000.0, "inf": 10_000.0}
    fast = {"0.01": 5000.0, "0.1": 9900.0, "0.2": 10_000.0, "inf": 10_000.0}
    (goal,) = judged([(LATENCY, slow, fast)])
    assert goal.verdict is GoalVerdict.BETTER
    assert goal.effect is not None
    assert goal.effect < -0.25
    assert verdict(fast, slow, LATENCY) is GoalVerdict.WORSE


def test_the_interval_is_wider_than_one_for_a_single_look_but_not_much() -> None:
    """Against Wald's interval for one look, with scipy's quantile: always valid costs less than thrice its width."""
    a, b, n = 4000, 4300, 100_000
    (goal,) = judged([(ORDERS, share(a, n), share(b, n))])
    spread = math.sqrt(sum(x / n * (1 - x / n) / n for x in (a, b)))
    low, high = stats.norm.interval(0.95, loc=(b - a) / n, scale=spread)
    assert goal.interval is not None
    assert goal.interval[0] < low < high < goal.interval[1]
    assert goal.interval[1] - goal.interval[0] < 3 * (high - low)


def looks(rng: np.random.Generator, rates: tuple[float, float], count: int) -> list[GoalVerdict]:
    """Look at one goal after every 500 requests a side, and give what it said at each look."""
    steps = rng.binomial(500, rates, size=(count, 2)).cumsum(axis=0)
    return [
        verdict(share(float(a), 500.0 * n), share(float(b), 500.0 * n))
        for n, (a, b) in enumerate(steps, start=1)
    ]


def test_equal_versions_are_seldom_told_apart_however_often_one_looks() -> None:
    """300 A/A tests, 20 looks each: Better or Worse at any look in at most alpha of them, plus chance."""
    rng = np.random.default_rng(7)
    wrong = sum(
        any(v in (GoalVerdict.BETTER, GoalVerdict.WORSE) for v in looks(rng, (0.04, 0.04), 20))
        for _ in range(300)
    )
    assert wrong <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)


def test_a_difference_that_matters_is_found() -> None:
    """4 % against 5.5 %, 100 tests of 10,000 requests a side: nearly all find it, and none the wrong way round."""
    rng = np.random.default_rng(8)
    found: Counter[Any] = Counter()
    for _ in range(100):
        said = [v for v in looks(rng, (0.04, 0.055), 20) if v is not GoalVerdict.UNDECIDED]
        found[said[0] if said else None] += 1
    assert found[GoalVerdict.BETTER] >= 80
    assert found[GoalVerdict.WORSE] == 0


def test_means_are_compared_in_both_directions() -> None:
    """A basket of 52 against 50 with a deviation of 10; the same in 200 A/A tests is seldom taken for a difference."""
    rng = np.random.default_rng(9)

    def sums(values: np.ndarray) -> dict[str, float]:
        return {
            "total": float(values.sum()),
            "squares": float((values**2).sum()),
            "count": float(len(values)),
        }

    a, b = rng.normal(50, 10, 2000), rng.normal(52, 10, 2000)
    assert verdict(sums(a), sums(b), BASKET) is GoalVerdict.BETTER
    assert verdict(sums(b), sums(a), BASKET) is GoalVerdict.WORSE
    wrong = 0
    for _ in range(200):
        a, b = rng.normal(50, 10, (2, 2000))
        said = {verdict(sums(a[:n]), sums(b[:n]), BASKET) for n in range(200, 2001, 200)}
        wrong += bool(said & {GoalVerdict.BETTER, GoalVerdict.WORSE})
    assert wrong <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_several_goals_share_alpha() -> None:
    """Evidence that is enough for one goal is not enough for one of five."""
    clear = (ORDERS, share(400, 10_000), share(531, 10_000))
    (alone,) = judged([clear])
    others = [
        (ORDERS.model_copy(update={"name": f"other-{n}"}), share(400, 10_000), share(400, 10_000))
        for n in range(4)
    ]
    among = judged([clear, *others])[0]
    assert alone.p_value is not None
    assert among.p_value is not None
    assert among.p_value == pytest.approx(5 * alone.p_value, rel=0.01)


def test_another_share_keeps_the_evidence_and_begins_new_counts() -> None:
    """Half of the evidence's weight was on what began before; no count of one share is added to another's."""
    (goal,) = judged([(ORDERS, share(400, 10_000), share(600, 10_000))])
    carried = goals.with_part_closed(goal, same_share=False)
    assert carried.closed == carried.open == Tally()
    assert carried.better.carried > 100
    (later,) = goals.judge(
        [carried.model_copy(update={"open": Tally(stable=share(4, 100), canary=share(4, 100))})],
        {"orders": ORDERS},
        SPEC,
    )
    assert later.p_value is not None
    assert later.p_value < 0.05
    same = goals.with_part_closed(goal, same_share=True)
    assert same.closed.canary == share(600, 10_000)
    assert same.better == goal.better

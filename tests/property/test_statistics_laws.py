"""Laws of the tests behind the gates, on whatever counts Prometheus may bring."""

import math
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from canarium_api.evidence import Evidence
from canarium_operator.core.statistics import (
    correction,
    evidence,
    latency,
    means,
    power,
    proportions,
)
from canarium_operator.core.statistics.means import Sample

count = st.floats(0, 1e9)
rate = st.floats(0, 1)
alpha = st.floats(1e-4, 0.5)
bounds = st.lists(st.floats(1e-4, 100), min_size=1, max_size=8, unique=True).map(sorted)


@st.composite
def side(draw: st.DrawFn) -> tuple[float, float]:
    """Draw (events, trials)."""
    trials = draw(count)
    return draw(rate) * trials, trials


@st.composite
def histogram(draw: st.DrawFn) -> latency.Buckets:
    """Draw cumulative buckets."""
    edges = [*draw(bounds), math.inf]
    sizes = draw(st.lists(st.floats(0, 1e6), min_size=len(edges), max_size=len(edges)))
    return tuple(zip(edges, accumulate(sizes), strict=True))


@st.composite
def values(draw: st.DrawFn) -> Sample:
    """Draw the sums of some values."""
    drawn = draw(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
    times = draw(st.integers(1, 50))
    return Sample(
        total=times * math.fsum(drawn),
        squares=times * math.fsum(x * x for x in drawn),
        count=times * len(drawn),
    )


@given(canary=side(), stable=side(), fewer=rate)
def test_fewer_errors_of_stable_never_speak_for_the_canary(
    canary: tuple[float, float], stable: tuple[float, float], fewer: float
) -> None:
    """With the canary's errors as they are."""
    before = proportions.log_e_value(*canary, *stable)
    after = proportions.log_e_value(*canary, stable[0] * fewer, stable[1])
    assert after >= before - 1e-9 * (1 + abs(before))


@given(canary=side(), stable=side(), factor=st.floats(1e-3, 1e3))
def test_only_the_share_of_the_trials_counts(
    canary: tuple[float, float], stable: tuple[float, float], factor: float
) -> None:
    """The same events among ten times as many requests of both are no other evidence."""
    once = proportions.log_e_value(*canary, *stable)
    again = proportions.log_e_value(canary[0], canary[1] * factor, stable[0], stable[1] * factor)
    if min(canary[1], stable[1]) > 1e-200:
        assert math.isclose(once, again, rel_tol=1e-6, abs_tol=1e-6)


@given(events=side(), level=alpha)
def test_the_interval_of_a_rate_is_within_bounds_around_what_was_seen(
    events: tuple[float, float], level: float
) -> None:
    """And a stricter level gives a wider one."""
    low, high = proportions.rate_interval(*events, level)
    assert 0 <= low <= high <= 1
    if events[1] > 0:
        seen = events[0] / events[1]
        assert low <= seen + 1e-9
        assert seen - 1e-9 <= high
    wider = proportions.rate_interval(*events, level / 10)
    assert wider[0] <= low + 1e-9
    assert high <= wider[1] + 1e-9


@given(buckets=histogram(), q=rate, more=rate)
def test_quantiles_rise_with_their_order(buckets: latency.Buckets, q: float, more: float) -> None:
    """And none is beyond the last finite bound."""
    low, high = (latency.quantile(buckets, x) for x in sorted((q, more)))
    if low is None or high is None:
        assert buckets[-1][1] == 0
        return
    assert 0 <= low <= high + 1e-12
    assert high <= buckets[-2][0]


@given(canary=histogram(), stable=histogram(), q=st.floats(0.01, 0.99), level=alpha)
def test_any_two_histograms_give_numbers(
    canary: latency.Buckets, stable: latency.Buckets, q: float, level: float
) -> None:
    """Never NaN, never an interval that is turned around."""
    assert math.isfinite(latency.log_e_value(canary, stable))
    interval = latency.ratio_interval(canary, stable, q, level)
    if interval is not None:
        assert -1 <= interval[0] <= interval[1] < math.inf


@given(buckets=histogram())
def test_a_histogram_is_not_slower_than_itself(buckets: latency.Buckets) -> None:
    """Equal counts never speak against the canary."""
    assert latency.log_e_value(buckets, buckets) <= 1e-9


@given(canary=values(), stable=values(), scale=st.none() | st.floats(1e-6, 1e3), level=alpha)
def test_any_two_samples_give_numbers(
    canary: Sample, stable: Sample, scale: float | None, level: float
) -> None:
    """Constants, huge values and few of them included; the interval holds the difference that was seen."""
    assert math.isfinite(means.log_e_value(canary, stable, scale))
    interval = means.difference_interval(canary, stable, scale, level)
    if interval is not None:
        difference = canary.mean - stable.mean
        assert -math.inf < interval[0] <= difference <= interval[1] < math.inf


@given(canary=values(), stable=values(), shift=st.floats(0, 100))
def test_a_worse_mean_never_speaks_for_the_canary(
    canary: Sample, stable: Sample, shift: float
) -> None:
    """Each of its values higher by as much, where lower is better."""
    worse = Sample(
        total=canary.total + shift * canary.count,
        squares=canary.squares + 2 * shift * canary.total + shift**2 * canary.count,
        count=canary.count,
    )
    before = means.log_e_value(canary, stable, 1.0)
    # Sums of squares round: a variance that moves in its last digits moves the evidence a little.
    enough = min(canary.count, stable.count) >= means.MIN_COUNT
    if (
        enough
        and canary.mean >= stable.mean
        and canary.variance > 1e-3 * canary.squares / canary.count
    ):
        assert means.log_e_value(worse, stable, 1.0) >= before - 1e-3 * (1 + abs(before))


@given(p_values=st.lists(rate, max_size=8), seed=st.randoms(use_true_random=False))
def test_the_order_of_the_checks_means_nothing(p_values: list[float], seed: object) -> None:
    """Holm's adjusted values go with their checks, are never smaller, and at most Bonferroni's."""
    adjusted = correction.holm(p_values)
    order = list(range(len(p_values)))
    seed.shuffle(order)  # type: ignore[attr-defined]
    assert [adjusted[n] for n in order] == correction.holm([p_values[n] for n in order])
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert p <= corrected <= min(1.0, len(p_values) * p) + 1e-12


@given(logs=st.lists(st.floats(-100, 100), max_size=40))
def test_the_weights_of_all_beginnings_never_exceed_one(logs: list[float]) -> None:
    """Whatever the steps bring: what was spent and what is left add up to 1."""
    state, spent = Evidence(), 0.0
    for log in logs:
        spent += evidence.share_of_step(state)
        state = evidence.next_step(state.model_copy(update={"log": log}))
        assert math.isclose(spent + state.rest, 1, rel_tol=1e-9)


@given(log=st.floats(-80, 80), more=st.floats(0, 10), carried=st.floats(0, 1e20), rest=rate)
def test_more_evidence_never_raises_the_p_value(
    log: float, more: float, carried: float, rest: float
) -> None:
    """Neither does evidence of earlier steps."""
    state = Evidence(carried=carried, rest=rest, log=log)
    p = evidence.p_value(state)
    assert 0 <= p <= 1
    assert evidence.p_value(state.model_copy(update={"log": log + more})) <= p
    assert evidence.p_value(state.model_copy(update={"carried": carried * 2})) <= p


@given(
    stable=st.floats(1e-5, 0.9),
    worsening=st.floats(1e-4, 0.5),
    level=st.floats(0.001, 0.2),
    found=st.floats(0.5, 0.99),
)
def test_what_is_easier_to_find_needs_no_more_requests(
    stable: float, worsening: float, level: float, found: float
) -> None:
    """A larger alpha, a smaller power; and there is always a number."""
    needed = power.requests_for_share(stable, worsening, alpha=level, power=found)
    assert 1 <= needed <= power.MOST
    easier = power.requests_for_share(stable, worsening, alpha=level * 2, power=found - 0.1)
    assert easier <= needed

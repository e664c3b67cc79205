"""Weights as ratios of pods: what holds for every weight and every number of pods."""

from hypothesis import given
from hypothesis import strategies as st

from canarium_operator.core import ratio

weights = st.integers(1, 99)
sizes = st.integers(1, 1000)


@given(weights, sizes)
def test_a_canary_never_gets_more_than_its_weight(weight: int, stable: int) -> None:
    """By half a point at most, where one pod is not more than that anyway; and one pod more would be more."""
    pods = ratio.canary_pods(weight, stable)
    share = 100 * pods / (stable + pods)
    assert share <= weight + 0.5 or pods == 1
    assert 100 * (pods + 1) / (stable + pods + 1) > weight + 0.5


@given(weights, st.integers(1, 300), st.integers(0, 300))
def test_the_least_size_is_the_least_and_reaches(weight: int, fewest: int, more: int) -> None:
    """Compared with a search over all numbers of pods."""
    most = fewest + more
    found = ratio.least_stable(weight, fewest, most)
    slow = next(
        (
            s
            for s in range(fewest, most + 1)
            if any(
                abs(100 * c / (s + c) - weight) <= 0.5 + 1e-9
                for c in (1, most, *range(max(1, s * weight // (100 - weight) - 2), most + 1))[:9]
                if c <= most
            )
        ),
        None,
    )
    assert found == slow


@given(weights, sizes, sizes)
def test_a_larger_stable_never_makes_it_too_much(weight: int, stable: int, more: int) -> None:
    """Stable may grow without the canary: its share falls."""
    pods = ratio.canary_pods(weight, stable)
    assert ratio.canary_pods(weight, stable + more) >= pods


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 1000)))
def test_whoever_has_a_pod_has_a_share(ready: dict[str, int]) -> None:
    """What gets a connection is never taken for drained."""
    shares = ratio.shares(ready)
    assert set(shares) == {revision for revision, pods in ready.items() if pods > 0}
    assert all(share >= 1 for share in shares.values())

"""Data quality and drift, feature by feature."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from canarium_runtime.golden import profile
from canarium_runtime.golden.profile import Feature, Sample, Words

NORMAL = np.random.default_rng(5).normal(size=2000)


def described(
    values: np.ndarray, reference: np.ndarray | None, *, is_text: bool = False, features: int = 1
) -> Feature:
    return profile.profile(
        "x", values, reference, is_text=is_text, threshold=0.7, features=features
    )


@settings(max_examples=40)
@given(
    st.integers(0, 1000), st.integers(10, 200), st.integers(10, 200), st.sampled_from([0, 0.3, 1])
)
def test_the_distance_and_its_chance_are_scipys(seed: int, n: int, m: int, shift: float) -> None:
    """The asymptotic chance, to a few percent."""
    random = np.random.default_rng(seed)
    one, other = random.normal(size=n).round(1), random.normal(shift, size=m).round(1)
    expected = stats.ks_2samp(one, other, method="asymp")
    distance = profile.ks(one, other)
    assert distance == pytest.approx(expected.statistic)
    assert profile.ks_p_value(distance, n, m) == pytest.approx(expected.pvalue, abs=0.1)


@settings(max_examples=40)
@given(st.floats(0.01, 80), st.integers(1, 30))
def test_the_chance_of_an_index_is_that_of_chi_square(value: float, degrees: int) -> None:
    """Exactly."""
    found = profile._chi_square_tail(value, degrees)
    assert found == pytest.approx(stats.chi2.sf(value, degrees), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("shift", "scale", "drifted"),
    [(0, 1, False), (0.1, 1, False), (1, 1, True), (0, 3, True), (-2, 1, True)],
)
def test_a_feature_drifts_where_it_moves_much_and_surely(
    shift: float, scale: float, drifted: bool
) -> None:
    """A tenth of a deviation is no drift, a whole one is."""
    found = described(np.random.default_rng(6).normal(shift, scale, 2000), NORMAL)
    assert found.drift is not None
    assert found.drift.drifted is drifted
    assert (found.drift.score >= 0.7) is drifted


def test_an_index_of_a_quarter_is_a_score_of_seven_tenths() -> None:
    """The custom's line of a major shift is the default threshold."""
    assert 1 - math.exp(-0.25 / profile._SCALE) == pytest.approx(0.7)


def test_samples_of_one_population_hardly_ever_drift() -> None:
    """In 200 comparisons of 60 and 80 rows, where the index alone would often be above 0.25."""
    random = np.random.default_rng(8)
    found = [described(random.normal(size=60), random.normal(size=80)).drift for _ in range(200)]
    assert sum(drift.drifted for drift in found if drift is not None) <= 6
    assert sum(drift.psi > 0.25 for drift in found if drift is not None) > 20


def test_values_that_go_missing_are_drift() -> None:
    """A third of them, where the reference had none."""
    values = NORMAL.copy()
    values[::3] = np.nan
    found = described(values, NORMAL)
    assert found.missing_share == pytest.approx(1 / 3, abs=1e-3)
    assert found.drift is not None
    assert found.drift.drifted


def test_too_few_rows_say_nothing_of_drift() -> None:
    """On either side."""
    few = NORMAL[: profile.MIN_ROWS - 1]
    assert described(few, NORMAL).drift is None
    assert described(NORMAL, few).drift is None
    assert described(NORMAL, None).drift is None


def test_values_outside_the_references_range_and_words_it_has_not_are_counted() -> None:
    """One of four in each."""
    numbers = described(np.array([0.0, 1.0, 2.0, 9.0]), np.array([0.0, 5.0]))
    assert numbers.out_of_range == 0.25
    words = Words()
    reference, values = words.codes(["a", "b"]), words.codes(["a", "b", "c", "", "a"])
    text = described(values, reference, is_text=True)
    assert (text.out_of_range, text.missing, text.words) == (0.25, 1, 3)


def test_words_drift_by_their_shares() -> None:
    """From half and half to nine of ten."""
    words = Words()
    reference = words.codes(["a", "b"] * 200)
    assert described(words.codes(["a", "b"] * 150), reference, is_text=True).drift.drifted is False  # type: ignore[union-attr]
    moved = described(words.codes(["a"] * 270 + ["b"] * 30), reference, is_text=True)
    assert moved.drift is not None
    assert (moved.drift.drifted, moved.drift.ks) == (True, None)


def test_a_feature_that_never_changes_is_described() -> None:
    """A constant, one with infinities, one that is all missing."""
    assert described(np.zeros(60), np.zeros(60)).drift.score == 0  # type: ignore[union-attr]
    endless = described(np.array([1.0, math.inf]), None)
    assert (endless.mean, endless.most) == (1.0, math.inf)
    gone = described(np.full(60, np.nan), NORMAL)
    assert (gone.mean, gone.missing_share) == (None, 1.0)
    assert gone.drift is not None
    assert gone.drift.drifted


def test_a_sample_keeps_a_bounded_number_of_rows_each_with_the_same_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 20,000 rows, 500 are kept, as many from the beginning as from the end, whatever the chunks."""
    monkeypatch.setattr(profile, "SAMPLE_ROWS", 500)
    sample = Sample(1)
    for first in range(0, 20_000, 700):
        sample.add(np.arange(first, min(first + 700, 20_000), dtype=float)[:, None])
    kept = sample.values()[:, 0]
    assert (len(kept), sample.rows) == (500, 20_000)
    assert len(set(kept.tolist())) == 500
    assert 8_500 < kept.mean() < 11_500

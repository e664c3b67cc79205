"""Distribution and ranking of an output over the latest rows, against published values and an independent library."""

import math

import numpy as np
import pytest
import scipy.stats

from canarium_runtime.backends.base import Array
from canarium_runtime.shadow import windows
from canarium_runtime.shadow.windows import Bins, OutputWindow

RANDOM = np.random.default_rng(20)


def window(stable: Array, shadow: Array, *, labels: bool = False) -> OutputWindow:
    result = OutputWindow(stable.shape[1], labels=labels, window_rows=1000, reference_rows=200)
    for start in range(0, len(stable), 50):
        result.add(stable[start : start + 50], shadow[start : start + 50])
    return result


def test_psi_is_the_sum_over_the_bins() -> None:
    """50 and 50 % against 60 and 40 %: 0.1 * ln 1.2 + 0.1 * ln 1.25 = 0.0405; many cases, so the half ones vanish."""
    counts = np.array([500_000, 500_000]), np.array([600_000, 400_000])
    expected = 0.1 * math.log(1.2) + 0.1 * math.log(1.25)
    assert windows.psi(*counts) == pytest.approx(expected, abs=1e-5)


def test_psi_is_the_symmetrised_divergence() -> None:
    """As scipy's relative entropies in both directions, of the shares with half a case more in each bin."""
    p, q = np.array([30, 0, 12, 7]), np.array([22, 4, 9, 1])
    a, b = (p + 0.5) / (p.sum() + 2), (q + 0.5) / (q.sum() + 2)
    expected = scipy.stats.entropy(a, b) + scipy.stats.entropy(b, a)
    assert windows.psi(p, q) == pytest.approx(expected, rel=1e-12)


def test_psi_of_one_population_is_what_chance_makes_of_it() -> None:
    """Independent samples of n: PSI / (2 / n) is about chi-square with BINS - 1 degrees of freedom (Yurdakul 2018)."""
    n, values = 2000, []
    for _ in range(300):
        bins = Bins.of(RANDOM.normal(size=20_000), labels=False)
        samples = RANDOM.normal(size=(2, n))
        values.append(windows.psi(*(bins.count(s) for s in samples)) / (2 / n))
    assert np.mean(values) == pytest.approx(windows.BINS - 1, rel=0.15)


def test_equal_answers_have_moved_by_nothing() -> None:
    """Exactly: the same rows are counted on both sides."""
    rows = RANDOM.normal(size=(300, 3))
    result = window(rows, rows)
    assert result.psi() == 0.0
    assert result.rank_correlation() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("stable", "shadow", "labels"),
    [
        pytest.param(rows := RANDOM.normal(size=(400, 1)), rows + 1, False, id="a shift"),
        pytest.param(
            rows := RANDOM.dirichlet([1, 1], 400), rows[:, ::-1] ** 3, False, id="classes"
        ),
        pytest.param(np.ones((400, 1)), np.ones((400, 1)) * 0.9, False, id="a constant, lower"),
        pytest.param(np.ones((400, 1)), np.ones((400, 1)) * 1.1, False, id="a constant, higher"),
        pytest.param(np.ones((400, 1)), np.full((400, 1), math.nan), False, id="NaN"),
        pytest.param(rows := RANDOM.integers(0, 3, (400, 1)), rows * 0, True, id="labels"),
        pytest.param(
            np.full((400, 1), "cat", object), np.full((400, 1), "dog", object), True, id="strings"
        ),
    ],
)
def test_a_distribution_that_moved_shows(stable: Array, shadow: Array, labels: bool) -> None:
    """Beyond 0.25, which practitioners call a major shift."""
    psi = window(stable, shadow, labels=labels).psi()
    assert psi is not None
    assert 0.25 < psi < 100


def test_columns_are_looked_at_one_by_one() -> None:
    """Two classes that swap places have together the values that they had; each alone does not."""
    stable = np.column_stack([np.linspace(0, 0.3, 400), np.linspace(0.7, 1, 400)])
    psi = window(stable, stable[:, ::-1]).psi()
    assert psi is not None
    assert psi > 1


def test_nothing_is_said_before_there_are_enough_rows() -> None:
    """No series is no evidence."""
    rows = RANDOM.normal(size=(199, 3))
    result = window(rows, rows)
    assert (result.psi(), result.rank_correlation()) == (None, None)
    result.add(rows[:1], rows[:1])
    assert result.psi() == 0.0


def test_the_latest_rows_count() -> None:
    """A difference that is a whole window ago is forgotten; the bins stay those of the first rows."""
    rows = RANDOM.normal(size=(2000, 1))
    shadow = rows.copy()
    shadow[:1000] += 5
    assert window(rows, shadow).psi() == 0.0
    assert window(rows[:1000], shadow[:1000]).psi() != 0.0


def test_the_order_of_the_classes_is_compared_row_by_row() -> None:
    """The mean of scipy's Spearman over the rows."""
    stable = RANDOM.normal(size=(250, 5)).round(1)
    shadow = (stable + RANDOM.normal(size=stable.shape)).round(1)
    expected = np.mean(
        [scipy.stats.spearmanr(a, b).statistic for a, b in zip(stable, shadow, strict=True)]
    )
    assert window(stable, shadow).rank_correlation() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("columns", [1, 2])
def test_the_order_of_the_requests_is_compared_where_there_is_one_score(columns: int) -> None:
    """Scipy's Spearman of the last column over the rows."""
    stable = RANDOM.normal(size=(250, columns)).round(1)
    shadow = (stable + RANDOM.normal(size=stable.shape)).round(1)
    expected = scipy.stats.spearmanr(stable[:, -1], shadow[:, -1]).statistic
    assert window(stable, shadow).rank_correlation() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 1, 1], [2, 2, 2], 1.0),
        ([1, 1, 1], [1, 2, 3], 0.0),
        # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5)
        ([10, 20, 20, 30], [1, 2, 3, 4], 4.5 / math.sqrt(4.5 * 5)),
        ([1], [1], math.nan),
        ([1, math.nan], [1, 2], math.nan),
        ([-math.inf, 0, math.inf], [1, 2, 3], 1.0),
    ],
)
def test_ranks_correlate(a: list[float], b: list[float], expected: float) -> None:
    """Ties share their rank; what prefers nothing agrees only with its like."""
    got = windows.spearman(np.array(a, np.float64), np.array(b, np.float64))
    assert got == pytest.approx(expected, nan_ok=True)


def test_labels_have_no_ranking() -> None:
    """Their numbers are names."""
    rows = RANDOM.integers(0, 3, (300, 1))
    assert window(rows, rows, labels=True).rank_correlation() is None


def test_bins_are_the_references_tenths() -> None:
    """1 to 100: ten values in each bin, and nothing in that of NaN."""
    bins = Bins.of(np.arange(1.0, 101.0), labels=False)
    assert bins.count(np.arange(1.0, 101.0)).tolist() == [10] * 10 + [0]
    assert bins.count(np.array([-5.0, 1000.0, math.nan, math.inf])).tolist() == (
        [1] + [0] * 8 + [2] + [1]
    )


def test_few_values_have_a_bin_each() -> None:
    """And what the reference never had shares one more."""
    bins = Bins.of(np.array([0.0, 0.0, 1.0]), labels=False)
    assert bins.count(np.array([0.0, 0.5, 1.0, 2.0, -1.0])).tolist() == [1, 1, 3, 0]


def test_more_labels_than_can_be_told_apart_share_a_bin() -> None:
    """Memory is bounded, whatever a model gives out."""
    labels = np.arange(3000).reshape(-1, 1)
    result = OutputWindow(1, labels=True, window_rows=100, reference_rows=50)
    for start in range(0, 3000, 50):
        result.add(labels[start : start + 50], labels[start : start + 50])
    assert result.psi() == 0.0


def test_wide_outputs_are_looked_at_in_part() -> None:
    """At most 16 columns, the first and the last among them; the ranking uses all."""
    rows = RANDOM.normal(size=(250, 1000))
    shadow = rows.copy()
    shadow[:, -1] += 5
    result = window(rows, shadow)
    assert result.psi() == pytest.approx(window(rows[:, -1:], shadow[:, -1:]).psi())
    assert window(rows, rows[:, ::-1]).rank_correlation() == pytest.approx(0.0, abs=0.1)

"""Metrics, each against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from canarium_runtime.golden import scores

CLASSES = 4
rows = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=60
)
numbers = st.floats(-1e3, 1e3, allow_nan=False).map(lambda v: round(v, 3))


@settings(max_examples=40)
@given(rows)
def test_metrics_of_classes_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    """Whatever classes occur, in the data or in the answers alone."""
    truth, said = (np.array(column, np.intp) for column in zip(*pairs, strict=True))
    counts = scores.confusion(truth, said, CLASSES)
    used = np.union1d(truth, said)
    classes = scores.by_class(counts[used][:, used], [str(c) for c in used])
    found = scores.classification(counts[used][:, used], classes)
    more = {"average": "macro", "zero_division": 0}
    there = np.isin(used, truth)
    assert found == pytest.approx(
        {
            "accuracy": sk.accuracy_score(truth, said),
            "balancedAccuracy": sk.recall_score(truth, said, labels=used[there], **more),
            "precision": sk.precision_score(truth, said, **more),
            "recall": sk.recall_score(truth, said, **more),
            "f1": sk.f1_score(truth, said, **more),
        }
    )


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.5, 0.5001, 1.0])),
        min_size=2,
        max_size=50,
    )
)
def test_the_area_under_the_curve_is_scikit_learns(pairs: list[tuple[bool, float]]) -> None:
    """Ties count half; with one kind of rows alone there is none."""
    truth, given_scores = (np.array(column) for column in zip(*pairs, strict=True))
    found = scores.auc(truth.astype(bool), given_scores.astype(float))
    if len(set(truth.tolist())) < 2:
        assert found is None
    else:
        assert found == pytest.approx(sk.roc_auc_score(truth, given_scores))


def test_the_curve_begins_and_ends_in_its_corners_and_has_few_points() -> None:
    """A million rows make no plot of a million points."""
    random = np.random.default_rng(1)
    curve = scores.roc(random.random(5000) < 0.4, random.random(5000))
    assert (curve[0], curve[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert len(curve) <= 101
    assert curve == sorted(curve)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 100))
def test_log_loss_is_scikit_learns(truth: list[int], seed: int) -> None:
    """Probabilities of 0 are kept off it."""
    given_scores = np.random.default_rng(seed).dirichlet([0.3] * 3, len(truth))
    expected = sk.log_loss(truth, given_scores, labels=[0, 1, 2])
    assert scores.log_loss(np.array(truth, np.intp), given_scores) == pytest.approx(
        expected, rel=1e-6
    )


@settings(max_examples=40)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=40))
def test_metrics_of_numbers_are_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    """Also where all right answers are the same."""
    truth, said = (np.array(column, np.float64) for column in zip(*pairs, strict=True))
    found = scores.regression(truth, said)
    assert found == pytest.approx(
        {
            "rmse": sk.root_mean_squared_error(truth, said),
            "mae": sk.mean_absolute_error(truth, said),
            "r2": sk.r2_score(truth, said),
        },
        abs=1e-9,
        rel=1e-6,
    )


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    """80 % sure and right in 8 of 10: 0; always right: 0.2."""
    confidence = np.full(10, 0.8)
    right = np.array([True] * 8 + [False] * 2)
    assert scores.calibration_error(scores.calibration(right, confidence)) == pytest.approx(0)
    always = scores.calibration(np.ones(10, bool), confidence)
    assert scores.calibration_error(always) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("right", "total", "expected"),
    [(95, 100, (0.8882, 0.9785)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (0, 0, (0, 1))],
)
def test_wilsons_interval(right: int, total: int, expected: tuple[float, float]) -> None:
    """As worked out in tables."""
    assert scores.interval(right, total) == pytest.approx(expected, abs=1e-4)

"""How the answers of a pair differ, output by output."""

import math

import numpy as np
import pytest

from canarium_api.metric_names import PredictionStatus, ShadowMismatch, ShadowOutcome
from canarium_runtime.backends.base import Array
from canarium_runtime.shadow.answers import tensor_of
from canarium_runtime.shadow.comparison import Tolerance, compare, compare_output
from canarium_runtime.shadow.pairing import Pair
from canarium_runtime.shadow.records import Answer, Tensor

TOLERANCE = Tolerance(absolute=0.1, relative=0.01)
OK, REJECTED, INVALID = (
    PredictionStatus.SUCCESS,
    PredictionStatus.REJECTED,
    PredictionStatus.INVALID,
)
SAME: set[str] = set()
F = np.float32


def tensor(array: Array, name: str = "y", datatype: str | None = None) -> Tensor:
    kinds = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "bool": "BOOL"}
    return tensor_of(name, datatype or kinds.get(array.dtype.name, "BYTES"), array)


def pair(
    stable: list[Tensor],
    shadow: list[Tensor],
    statuses: tuple[PredictionStatus, PredictionStatus] = (OK, OK),
) -> Pair:
    one, other = statuses
    return Pair(stable=Answer("a", 1, one, 0.1, stable), shadow=Answer("a", 1, other, 0.2, shadow))


@pytest.mark.parametrize(
    ("stable", "shadow", "kinds", "flipped_rows"),
    [
        pytest.param(np.array([1, 2], F), np.array([1, 2], F), SAME, 0, id="equal"),
        # 10 may be 9.8 to 10.2: 0.1 + 0.01 * 10
        pytest.param(np.array([10.0]), np.array([10.19]), {"exact"}, 0, id="within"),
        pytest.param(np.array([10.0]), np.array([10.21]), {"exact", "tolerance"}, 0, id="beyond"),
        pytest.param(np.array([-10.0]), np.array([-10.19]), {"exact"}, 0, id="negative"),
        pytest.param(np.array([math.nan]), np.array([math.nan]), SAME, 0, id="both NaN"),
        pytest.param(np.array([math.inf]), np.array([math.inf]), SAME, 0, id="both infinite"),
        pytest.param(
            np.array([math.inf]), np.array([1.0]), {"exact", "tolerance"}, 0, id="was infinite"
        ),
        pytest.param(
            np.array([1.0]), np.array([math.nan]), {"exact", "tolerance"}, 0, id="became NaN"
        ),
        pytest.param(np.array([0.0]), np.array([-0.0]), SAME, 0, id="signed zeros"),
        pytest.param(np.array(1.0), np.array(9.0), {"exact", "tolerance"}, 0, id="no axes"),
        pytest.param(np.zeros((0, 2), F), np.zeros((0, 2), F), SAME, 0, id="no rows"),
        pytest.param(
            np.array([[0.6, 0.4], [0.2, 0.8]]),
            np.array([[0.6, 0.4], [0.9, 0.1]]),
            {"exact", "tolerance", "flip"},
            1,
            id="one of two rows flips",
        ),
        pytest.param(
            np.array([[0.51, 0.49]]),
            np.array([[0.49, 0.51]]),
            {"exact", "flip"},
            1,
            id="a near tie",
        ),
        pytest.param(
            np.array([[0.5, 0.5]]), np.array([[0.5, 0.5]]), SAME, 0, id="a tie that stays"
        ),
        pytest.param(
            np.array([[[1.0, 2.0]], [[3.0, 1.0]]]),
            np.array([[[2.0, 1.0]], [[1.0, 3.0]]]),
            {"exact", "tolerance", "flip"},
            2,
            id="classes on the last of three axes",
        ),
        pytest.param(
            np.array([[0.2], [0.9]]),
            np.array([[0.9], [0.2]]),
            {"exact", "tolerance"},
            0,
            id="one score has no class",
        ),
        pytest.param(
            np.array([3, 4, 5]),
            np.array([3, 5, 4]),
            {"exact", "tolerance", "flip"},
            2,
            id="labels",
        ),
        pytest.param(
            np.array([2**53 + 1]),
            np.array([2**53]),
            {"exact", "tolerance", "flip"},
            1,
            id="labels that no float could tell apart",
        ),
        pytest.param(np.array([True]), np.array([True]), SAME, 0, id="equal booleans"),
        pytest.param(
            np.array(["cat", "dog"], object),
            np.array(["cat", "cow"], object),
            {"exact", "tolerance", "flip"},
            1,
            id="strings",
        ),
        pytest.param(np.zeros(2, F), np.zeros(3, F), {"shape"}, 0, id="another shape"),
        pytest.param(np.zeros((1, 2), F), np.zeros((2, 1), F), {"shape"}, 0, id="turned"),
        pytest.param(np.zeros(2, F), np.zeros(2), {"shape"}, 0, id="another datatype"),
    ],
)
def test_outputs_differ(stable: Array, shadow: Array, kinds: set[str], flipped_rows: int) -> None:
    """Each kind of difference is found, and no other."""
    result = compare_output(tensor(stable), tensor(shadow), TOLERANCE)
    assert ({ShadowMismatch(k) for k in kinds}, flipped_rows) == (
        result.mismatches,
        result.flipped_rows,
    )


def test_the_largest_differences_are_told() -> None:
    """In absolute terms and relative to stable; a zero of stable has no relative difference."""
    stable, shadow = np.array([0.0, 2.0, 100.0]), np.array([0.5, 3.0, 103.0])
    result = compare_output(tensor(stable), tensor(shadow), TOLERANCE)
    assert (result.max_absolute, result.max_relative) == (3.0, 0.5)
    assert result.rows == 3


def test_a_number_that_was_lost_is_infinitely_far() -> None:
    """NaN in one answer alone is not hidden by a maximum that skips it."""
    stable, shadow = np.array([0.0, 1.0]), np.array([math.nan, 1.0])
    result = compare_output(tensor(stable), tensor(shadow), TOLERANCE)
    assert (math.inf, math.inf) == (result.max_absolute, result.max_relative)


def test_the_largest_of_numbers_do_not_overflow() -> None:
    """Differences of float64's ends are infinite, without a warning."""
    stable, shadow = np.array([-1.7e308]), np.array([1.7e308])
    result = compare_output(tensor(stable), tensor(shadow), TOLERANCE)
    assert ShadowMismatch.TOLERANCE in result.mismatches


LARGE = np.zeros(50_000, F)
LARGEST = np.zeros(500_000, F)


@pytest.mark.parametrize(
    ("stable", "shadow", "kinds", "outcome"),
    [
        pytest.param(LARGE, LARGE, SAME, ShadowOutcome.COMPARED, id="equal digests"),
        pytest.param(LARGE, LARGE + 1, {"exact"}, ShadowOutcome.UNCOMPARED, id="other digests"),
        pytest.param(LARGEST, LARGEST, SAME, ShadowOutcome.UNCOMPARED, id="no digests"),
        pytest.param(LARGE, LARGEST, {"shape"}, ShadowOutcome.COMPARED, id="another shape"),
    ],
)
def test_large_outputs_are_compared_as_far_as_they_can_be(
    stable: Array, shadow: Array, kinds: set[str], outcome: ShadowOutcome
) -> None:
    """What was not seen is not called equal, and not called a mismatch."""
    result = compare(pair([tensor(stable)], [tensor(shadow)]), TOLERANCE)
    assert ({ShadowMismatch(k) for k in kinds}, outcome) == (result.mismatches, result.outcome)
    assert result.is_mismatch == ("shape" in kinds)


@pytest.mark.parametrize(
    ("statuses", "outcome", "differs", "is_mismatch"),
    [
        ((OK, REJECTED), ShadowOutcome.SHADOW_FAILED, True, True),
        ((OK, INVALID), ShadowOutcome.SHADOW_FAILED, True, True),
        ((REJECTED, OK), ShadowOutcome.STABLE_FAILED, True, False),
        ((INVALID, INVALID), ShadowOutcome.BOTH_FAILED, False, False),
        ((INVALID, REJECTED), ShadowOutcome.BOTH_FAILED, True, False),
    ],
)
def test_only_a_shadow_that_fails_where_stable_answers_is_to_blame(
    statuses: tuple[PredictionStatus, PredictionStatus],
    outcome: ShadowOutcome,
    differs: bool,
    is_mismatch: bool,
) -> None:
    """Another way to end is a difference; a mismatch is what a client of the shadow would have noticed."""
    result = compare(pair([], [], statuses), TOLERANCE)
    assert result.outcome is outcome
    assert result.mismatches == (frozenset({ShadowMismatch.STATUS}) if differs else frozenset())
    assert result.is_mismatch is is_mismatch


def test_outputs_are_matched_by_name() -> None:
    """Their order means nothing, an additional one is no difference, a missing one is."""
    a, b = tensor(np.array([1.0]), "a"), tensor(np.array([2.0]), "b")
    result = compare(pair([a, b], [b, tensor(np.array([3.0]), "new"), a]), TOLERANCE)
    assert (result.mismatches, result.is_mismatch) == (frozenset(), False)
    result = compare(pair([a, b], [a]), TOLERANCE)
    assert (result.mismatches, result.is_mismatch) == (frozenset({ShadowMismatch.SHAPE}), True)


def test_a_difference_within_the_tolerance_is_no_mismatch() -> None:
    """It is counted as not exact, and that is all."""
    stable, shadow = [tensor(np.array([1.0]))], [tensor(np.array([1.01]))]
    result = compare(pair(stable, shadow), TOLERANCE)
    assert (result.mismatches, result.is_mismatch) == (frozenset({ShadowMismatch.EXACT}), False)

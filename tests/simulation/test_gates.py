"""The gates on random traffic, in small; `make sim-report` does the same a thousand times and writes the figures."""

from dataclasses import replace
from functools import partial

import pytest
from benchmarks.gates.report import DEFAULTS, EVERY_10_SECONDS, at_20_to_200, five_checks
from benchmarks.gates.rollouts import GOOD
from benchmarks.gates.traffic import Nature

RUNS = 60


def test_good_canaries_are_seldom_taken_back() -> None:
    """Also when looked at every 10 s; a bare threshold takes most of them back on the same data."""
    for settings in (DEFAULTS, EVERY_10_SECONDS):
        outcomes = [at_20_to_200(GOOD, settings, seed) for seed in range(RUNS)]
        assert sum(not outcome.promoted for outcome in outcomes) <= 3
    bare = map(partial(five_checks, GOOD, 100), range(RUNS))
    assert sum(not outcome.promoted for outcome in bare) > RUNS / 2


@pytest.mark.parametrize(
    "nature",
    [replace(GOOD, error_rate=0.03), replace(GOOD, median=GOOD.median * 1.5)],
    ids=["errors", "slow"],
)
def test_bad_canaries_are_taken_back_early(nature: Nature) -> None:
    """With six times the errors, or half as slow again."""
    outcomes = [at_20_to_200(nature, DEFAULTS, seed) for seed in range(RUNS)]
    assert sum(outcome.promoted or outcome.held for outcome in outcomes) <= 3
    assert sum(outcome.canary_requests for outcome in outcomes) / RUNS < 1000

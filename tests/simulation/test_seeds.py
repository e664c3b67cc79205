"""Whole rollouts in virtual time, from seeds: whatever goes wrong, each ends as it should, and nobody notices."""

import asyncio
import os

import pytest

from .story import Story

SEEDS = int(os.environ.get("SEEDS", "250"))
"""How many seeds are played; `make sim SEEDS=10000` plays more."""
ONLY = os.environ.get("SEED")
"""Play this seed alone."""


def seeds(count: int) -> list[int]:
    return [int(ONLY)] if ONLY is not None else list(range(count))


@pytest.mark.parametrize("seed", seeds(SEEDS))
def test_every_rollout_ends_as_it_should(seed: int) -> None:
    """Faults from a seed: the laws hold after every write, and the end is the right one."""
    story = Story(seed)
    with story.world.explained(f"rerun with: SEED={seed} make sim"):
        asyncio.run(story.play())


@pytest.mark.parametrize("seed", seeds(SEEDS // 10))
def test_two_operators_at_once_do_everything_once(seed: int) -> None:
    """Their calls interleave in every order: no step is skipped or repeated, no Event told twice, and the end is
    right.
    """
    story = Story(seed, operators=2, pods_fail=False)
    with story.world.explained(f"rerun with: SEED={seed} make sim"):
        asyncio.run(story.play())


@pytest.mark.parametrize("seed", seeds(SEEDS // 4))
def test_without_a_gateway_it_ends_as_it_should_too(seed: int) -> None:
    """The ratio of pods gives the weights: the Service leads to nobody but those who shall have connections."""
    story = Story(seed, gateway=False)
    with story.world.explained(f"rerun with: SEED={seed} make sim"):
        asyncio.run(story.play())

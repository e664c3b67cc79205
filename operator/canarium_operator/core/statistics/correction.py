"""Correction for several checks."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that rejecting those at or below alpha is wrong at all with chance at most alpha.

    Holm's step-down method ("A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6, 1979). It needs no independence: slow and failing requests often are the same ones.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted

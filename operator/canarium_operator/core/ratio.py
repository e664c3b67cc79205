"""Weights by the ratio of pods, where no gateway splits the traffic: `stable` and `canary` pods behind one Service get
connections alike, so the canary's weight is canary / (stable + canary).

Worked example: weight 10 with 9 pods of stable needs 1 pod of the canary, 1 / (9 + 1). With 10 pods of stable it is
still 1 (9.1 %), since 2 would be 16.7 %. A weight counts as reached within half a percentage point: 5 % needs 18 pods
of stable or more (1 / 19 = 5.3 %).

All is integer arithmetic: percentages are doubled, so that half a point is 1. The CEL rule of the CRD
(`canarium_api.v1alpha1`) has the same formulas.
"""

from collections.abc import Mapping


def canary_pods(weight: int, stable: int) -> int:
    """Most pods of a canary that keep within a weight, but at least one.

    From 100 c / (s + c) <= w + 1/2 follows c <= s (2 w + 1) / (199 - 2 w).

    Args:
        weight: percent, 1 to 99.
        stable: pods of the stable revision.
    """
    return max(1, (2 * weight + 1) * stable // (199 - 2 * weight))


def is_reached(weight: int, stable: int, canary: int) -> bool:
    """Tell whether so many pods give a weight, within half a percentage point."""
    total = stable + canary
    return abs(200 * canary - 2 * weight * total) <= total


def least_stable(weight: int, fewest: int, most: int) -> int | None:
    """Fewest pods of stable with which some number of canary pods gives a weight; None: no number does.

    Args:
        weight: percent, 1 to 99.
        fewest: pods that stable has at least.
        most: pods that either revision has at most.
    """
    sizes = range(fewest, most + 1)
    fits = (s for s in sizes if is_reached(weight, s, min(canary_pods(weight, s), most)))
    return next(fits, None)


def reachable_weights(fewest: int, most: int) -> list[int]:
    """Name all weights that some ratio of pods gives; 100 is always one, by the switch of the Service.

    With 3 to 20 pods: 5, 6 and so on to 87, and 100. With 3 pods always: 25, 40, 50, 100.
    """
    found = [w for w in range(1, 100) if least_stable(w, fewest, most) is not None]
    return [*found, 100]


def shares(ready: Mapping[str, int]) -> dict[str, int]:
    """Give the percent of the connections by revision, from ready pods; whoever has a pod has at least 1.

    Args:
        ready: ready pods by revision.
    """
    counted = {revision: pods for revision, pods in ready.items() if pods > 0}
    total = sum(counted.values())
    return {revision: max(1, round(100 * pods / total)) for revision, pods in counted.items()}


def ranges(weights: list[int]) -> str:
    """Write `25, 40, 50` or `5 to 87, 100`."""
    runs: list[list[int]] = []
    for weight in weights:
        if runs and weight == runs[-1][-1] + 1:
            runs[-1].append(weight)
        else:
            runs.append([weight])
    words = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(words)

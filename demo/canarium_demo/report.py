"""What the demo found, held against what it promises. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from canarium_demo.tally import Tally
from canarium_demo.world import World

GOOD: Final = "v2"
BAD: Final = "v3"
MIN_REQUESTS: Final = 2_000


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured; the fields are those of report.json."""

    promoted: list[str]
    """Versions that replaced another as stable."""
    rolled_back: list[str]
    """Versions that were taken back."""
    requests: int
    failed_requests: int
    """Requests without a good answer, whoever caused it."""
    failed_requests_on_stable: int
    """Those that the bad version did not itself cause."""
    seconds: float
    """The whole demo, from the first command to here."""
    operator_restarts: int
    weights_seen: list[int]
    """Weights that the route gave to canaries, in order: first the good one's, then the bad one's."""

    def write(self, path: Path) -> None:
        """Write report.json."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self)) + "\n")


def make_report(world: World, tally: Tally, seconds: float) -> Report:
    """Draw the report from what was seen of the cluster and of the answers."""
    own_failures = tally.failed_by(world.revisions_of(BAD))
    return Report(
        promoted=world.outcomes("Promoted"),
        rolled_back=world.failed_versions,
        requests=tally.requests,
        failed_requests=tally.failed,
        failed_requests_on_stable=tally.failed - own_failures,
        seconds=round(seconds, 1),
        operator_restarts=world.operator_restarts,
        weights_seen=[*world.canary_weights(GOOD), *world.canary_weights(BAD)],
    )


def shortcomings(
    report: Report, rollouts: Mapping[str, Sequence[int]], plan: Sequence[int]
) -> list[str]:
    """Say what does not hold, one sentence each; empty: the demo has kept its promises.

    Args:
        report: what was measured.
        rollouts: weights that were seen, by version.
        plan: weights of the steps.
    """
    found = []
    if report.promoted != [GOOD]:
        found.append(f"Promoted were {_names(report.promoted)}, not {GOOD} alone.")
    if report.rolled_back != [BAD]:
        found.append(f"Taken back were {_names(report.rolled_back)}, not {BAD} alone.")
    if report.requests <= MIN_REQUESTS:
        found.append(f"Only {report.requests} requests were sent, not more than {MIN_REQUESTS}.")
    if report.failed_requests_on_stable:
        found.append(
            f"{report.failed_requests_on_stable} requests failed that {BAD} did not itself fail."
        )
    if report.operator_restarts < 1:
        found.append("The operator was not seen to restart.")
    for version, weights in rollouts.items():
        if problem := weights_problem(weights, plan):
            found.append(f"{version}: {problem}")
    if list(rollouts.get(GOOD, ())) != list(plan):
        found.append(
            f"{GOOD} was seen at {list(rollouts.get(GOOD, ()))}, not at each of {list(plan)}."
        )
    return found


def weights_problem(weights: Sequence[int], plan: Sequence[int]) -> str | None:
    """Say how a rollout's weights left the plan: a weight that is no step, a step that was skipped, a step back."""
    reached = 0
    for weight in weights:
        if weight not in plan:
            return f"the weight {weight} is none of the steps {list(plan)}"
        step = list(plan).index(weight)
        if step > reached:
            return f"the weight {weight} came before step {reached + 1} ({plan[reached]}%) was seen"
        if step < reached - 1:
            return f"the weight went back to {weight}"
        reached = step + 1
    return None


def _names(versions: Sequence[str]) -> str:
    return " and ".join(versions) if versions else "none"

"""`make sim-report`: how often gates are right, on simulated traffic with fixed seeds.

Every rollout of Canarium is carried out by the engine that the operator runs, pass by pass, in virtual time. The peers'
gates are modelled from their documentation (see PEERS). Writes docs/reference/gates.md; `--runs 50` is a quick look.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

from .rollouts import GOOD, Outcome, ThresholdGate, canarium
from .traffic import Nature

PAGE = Path(__file__).parents[2] / "docs/reference/gates.md"
BASE = timedelta(seconds=30)
DEFAULTS: dict[str, Any] = {}
"""`spec.rollout` left out: weights 1 to 100, five minutes each, checks every 30 s, alpha 5 %."""
EVERY_10_SECONDS: dict[str, Any] = {
    # No wait for power at the end: it would only add looks at 100 %, where all steps but the last are the point here.
    "canary": {"steps": [{"weight": w, "pause": "1m"} for w in (1, 5, 10, 25, 50, 100)]},
    "analysis": {"interval": "10s", "power": 0.01},
}
PER_SECOND = 40
"""Requests to both revisions together, where a service of one size is meant."""
FIVE_CHECKS = ThresholdGate(
    name="error < 1 %, five checks",
    weights=(20, 40, 60, 80, 100),
    interval=BASE,
    checks_per_weight=1,
    least_success=0.99,
    strict=True,
    forgiven=0,
)
PEERS = (
    # fluxcd/flagger, docs/gitbook/usage/how-it-works.md, the first example: interval 1m, threshold 10,
    # maxWeight 50, stepWeight 5, request-success-rate at least 99, request-duration (p99) at most 500 ms.
    ThresholdGate(
        name="Flagger's documented example",
        weights=tuple(range(5, 55, 5)),
        interval=timedelta(minutes=1),
        checks_per_weight=1,
        least_success=0.99,
        most_p99=0.5,
        forgiven=9,
        failed_check_waits=True,
    ),
    # argoproj/argo-rollouts, docs/features/analysis.md, "Background Analysis": 20, 40, 60, 80 %, ten minutes each,
    # success rate at least 95 % every 5 minutes, from 40 % on, failed after three such measurements.
    ThresholdGate(
        name="Argo Rollouts' documented example",
        weights=(20, 40, 60, 80),
        interval=timedelta(minutes=5),
        checks_per_weight=2,
        least_success=0.95,
        forgiven=2,
        first_checked_weight=40,
    ),
)


def per_interval(requests: int, weight: int) -> tuple[int, int]:
    """Give the canary so many requests an interval at any weight, and stable what goes with it."""
    return requests, round(requests * (100 - weight) / max(weight, 1))


def one_service(weight: int) -> tuple[int, int]:
    """Split the requests of one service by weight."""
    total = round(PER_SECOND * BASE.total_seconds())
    return round(total * weight / 100), round(total * (100 - weight) / 100)


def at_20_to_200(canary: Nature, rollout: dict[str, Any], seed: int) -> Outcome:
    """Run one rollout of Canarium with 20 to 200 canary requests an interval."""
    return canarium(canary, seed, partial(per_interval, 20 + seed * 7 % 181), rollout)


def on_one_service(canary: Nature, seed: int) -> Outcome:
    """Run one rollout of Canarium on the service of one size."""
    return canarium(canary, seed, one_service, DEFAULTS)


def five_checks(canary: Nature, requests: int, seed: int) -> Outcome:
    """Run one rollout behind a bare threshold."""
    return FIVE_CHECKS.run(canary, seed, partial(per_interval, requests), BASE)


def a_peer(gate: ThresholdGate, canary: Nature, seed: int) -> Outcome:
    """Run one rollout of a peer on the service of one size."""
    return gate.run(canary, seed, one_service, BASE)


@dataclass(frozen=True)
class Row:
    """Outcomes of one kind of rollout."""

    name: str
    outcomes: Sequence[Outcome]

    @property
    def taken_back(self) -> float:
        """Share that was taken back."""
        return mean(not (o.promoted or o.held) for o in self.outcomes)

    @property
    def failed(self) -> float:
        """Mean number of users' requests that failed on the canary until it was taken back or promoted."""
        return mean(o.canary_failed for o in self.outcomes)

    def minutes(self) -> float:
        """Median time to the end."""
        return median(o.elapsed.total_seconds() for o in self.outcomes) / 60


def make_rows(runs: int, looks: int, run_all: Callable[..., Row]) -> dict[str, list[Row]]:
    """Run everything.

    Args:
        runs: rollouts of each kind.
        looks: rollouts of two equal versions looked at every 10 s.
        run_all: runs a function of a seed so many times.
    """
    bad, slow = replace(GOOD, error_rate=0.03), replace(GOOD, median=GOOD.median * 1.5)
    return {
        "canarium": [
            run_all(
                "as good as stable (0.5 % errors)", partial(at_20_to_200, GOOD, DEFAULTS), runs
            ),
            run_all("3 % errors", partial(at_20_to_200, bad, DEFAULTS), runs),
            run_all("50 % slower", partial(at_20_to_200, slow, DEFAULTS), runs),
        ],
        "looks": [
            run_all("looked at every 10 s", partial(at_20_to_200, GOOD, EVERY_10_SECONDS), looks)
        ],
        "threshold": [
            run_all(f"{n} requests a check", partial(five_checks, GOOD, n), runs)
            for n in (20, 50, 100, 200)
        ],
        "damage": [
            run_all(f"{share:.0%}|{name}", partial(function, nature), runs)
            for share in (0.03, 0.1, 0.5)
            for nature in (replace(GOOD, error_rate=share),)
            for name, function in (
                ("Canarium's defaults", on_one_service),
                *((gate.name, partial(a_peer, gate)) for gate in PEERS),
            )
        ],
    }


def make_page(rows: dict[str, list[Row]]) -> str:
    """Write the page."""
    good, bad, slow = rows["canarium"]
    [looks] = rows["looks"]
    lines = [
        "# How often the gates are right",
        "",
        "Made by `make sim-report`: simulated traffic with fixed seeds, every decision by the engine that the operator",
        "runs. [Evidence](../explanation/evidence.md) explains the tests.",
        "",
        f"## {len(good.outcomes)} canaries of each kind, default settings, 20 to 200 canary requests in 30 s",
        "",
        "| the canary in truth | taken back | median time to the end | canary requests (mean) | mark |",
        "|---|---|---|---|---|",
    ]
    for row, mark in ((good, "at most 5 %"), (bad, "at least 95 %"), (slow, "at least 95 %")):
        requests = mean(o.canary_requests for o in row.outcomes)
        lines.append(
            f"| {row.name} | {row.taken_back:.1%} | {row.minutes():.1f} min | {requests:.0f} | {mark} |"
        )
    lines += [
        "",
        f"**{len(looks.outcomes)} rollouts of two equal versions, looked at every 10 s** (three checks, six steps of a "
        f"minute): {looks.taken_back:.2%} taken back; alpha is 5 %.",
        "",
        "## The same good canary behind `error < 1 %`, five checks in a row",
        "",
        "| requests a check | taken back |",
        "|---|---|",
        *(f"| {row.name.split()[0]} | {row.taken_back:.0%} |" for row in rows["threshold"]),
        "",
        f"## Users' requests that failed on a bad canary ({PER_SECOND} requests a second in all)",
        "",
        "Until it was taken back, or promoted (what fails after that is not counted).",
        "",
        "| errors | gate | taken back | failed requests (mean) | Canarium's share of it |",
        "|---|---|---|---|---|",
    ]
    ours = 0.0
    for row in rows["damage"]:
        share, name = row.name.split("|")
        ours = row.failed if name.startswith("Canarium") else ours
        part = f"{ours / row.failed:.1%}" if not name.startswith("Canarium") else ""
        lines.append(f"| {share} | {name} | {row.taken_back:.0%} | {row.failed:.1f} | {part} |")
    lines += [
        "",
        "The peers' settings are the examples of their documentation: Flagger, *How it works* (interval 1 m, threshold",
        "10, 5 % to 50 % by 5, success rate 99 %, p99 500 ms); Argo Rollouts, *Background Analysis* (20, 40, 60, 80 %,",
        "ten minutes each, success rate 95 % every 5 minutes from 40 % on, three failures). They are models of the",
        "documented behaviour, not runs of those tools.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run, print, and write the page; 1 where a mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="rollouts of each kind")
    parser.add_argument("--looks", type=int, default=10_000, help="rollouts looked at every 10 s")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.jobs) as pool:

        def run_all(name: str, function: Callable[[int], Outcome], count: int) -> Row:
            begun = time.monotonic()
            outcomes = list(pool.map(function, range(count), chunksize=10))
            row = Row(name, outcomes)
            print(
                f"{name}: {row.taken_back:.2%} of {count} taken back, {time.monotonic() - begun:.0f} s",
                file=sys.stderr,
            )
            return row

        rows = make_rows(options.runs, options.looks, run_all)
    page = make_page(rows)
    print(page)
    if (options.runs, options.looks) == (1000, 10_000):
        PAGE.write_text(page, encoding="utf-8")
    return 0 if not missed(rows) else 1


def missed(rows: dict[str, list[Row]]) -> list[str]:
    """Name the marks that are missed, on the error stream too."""
    good, bad, slow = rows["canarium"]
    [looks] = rows["looks"]
    found = []
    if good.taken_back > 0.05 or looks.taken_back > 0.05:
        found.append("more than 5 % of good canaries were taken back")
    if min(bad.taken_back, slow.taken_back) < 0.95:
        found.append("fewer than 95 % of bad canaries were taken back")
    ours = 0.0
    for row in rows["damage"]:
        share, name = row.name.split("|")
        if name.startswith("Canarium"):
            ours = row.failed
        elif ours > row.failed / 3:
            found.append(f"{share} errors: more than a third of the failed requests of {name}")
    for words in found:
        print(f"MISSED: {words}", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())

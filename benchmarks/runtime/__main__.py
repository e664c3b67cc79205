"""`python -m benchmarks.runtime`: our server and its peers side by side. See README.md beside this file."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import interpreters, load, measuring, profiling, report
from .contenders import FAMILIES, PEERS, QUICK, VARIANTS, Contender
from .environments import REPOSITORY, Environments
from .marks import MARKS, Against, Mark
from .measuring import MODELS, Plan
from .progress import say
from .results import Result, begin
from .serving import Site

BUILD = REPOSITORY / "build" / "bench"


def main() -> int:
    """Run and report; 1 when a row is missed or was not run."""
    options = _parser().parse_args()
    options.peers = options.peers or list(QUICK if options.quick else FAMILIES)
    options.rounds = options.rounds or (2 if options.quick else 3)
    interpreter = interpreters.choose(options.python)
    build = options.build.resolve()
    environments = Environments(build, interpreter, make=not options.no_install)
    site = Site(environments, build)
    output = options.output or site.folder / "runtime.json"
    rows = _rows(options)
    if options.profile:
        load.require_wrk()
        measuring.prepare(site)
        print(profiling.profile(site, options.profile, options.seconds * 3))
        return 0
    if options.report_only:
        result = Result.read(output)
    else:
        load.require_wrk()
        result = _measure(options, rows, site, output)
    print(report.markdown(result, rows))
    if options.page:
        report.write_page(result, output, environments)
        say(f"written to {report.PAGE}")
    verdicts = [row.verdict for row in report.judged(result, rows)]
    for verdict in dict.fromkeys(verdicts):
        say(f"{verdicts.count(verdict)} of {len(verdicts)} rows: {verdict.strip('*')}")
    return 0 if set(verdicts) == {"reached"} else 1


def _measure(options: argparse.Namespace, rows: list[Mark], site: Site, output: Path) -> Result:
    """Measure, and write the result whatever happens."""
    plan = Plan(
        contenders=_contenders(options, rows),
        models="".join(m for m in options.models if any(r.model == m for r in rows)),
        rounds=options.rounds,
        seconds=options.seconds,
        short_seconds=options.short_seconds,
        connections=frozenset(row.connections for row in rows),
        alone=any(row.against is Against.ALONE for row in rows),
    )
    say(
        f"{len(plan.contenders)} contenders, models {', '.join(plan.models)}, {plan.rounds} rounds of "
        f"{plan.seconds} s: about {plan.minutes():.0f} minutes, and more the first time (environments)"
    )
    interpreter = site.environments.interpreter
    say(f"Python {interpreter.number}: {interpreter.path}")
    result = begin(
        interpreter, {"models": plan.models, "rounds": plan.rounds, "seconds": plan.seconds}
    )
    try:
        measuring.run(plan, site, result)
    finally:
        result.write(output)
        say(f"written to {output}")
    return result


def _rows(options: argparse.Namespace) -> list[Mark]:
    """Rows that are asked for."""
    return [
        mark
        for mark in MARKS
        if mark.model in options.models and (not options.rows or mark.id in options.rows)
    ]


def _contenders(options: argparse.Namespace, rows: list[Mark]) -> list[Contender]:
    """Those whom the rows need, of the peers that are asked for."""
    peers = [peer for peer in PEERS if peer.family in options.peers]
    everyone = [*VARIANTS, *peers]
    if not options.rows:
        return everyone
    return [c for c in everyone if any(row.needs(c) for row in rows)]


def _list_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Make argparse's type for a list with commas of known words."""

    def parse(text: str) -> list[str]:
        words = [word for word in text.split(",") if word]
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return words

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    add = parser.add_argument
    add("--models", type=_list_of(tuple(MODELS)), default=list(MODELS), help="T,M,L")
    add("--peers", type=_list_of(FAMILIES), help=f"default: {','.join(FAMILIES)}")
    add("--rows", type=_list_of(tuple(m.id for m in MARKS)), default=[], help="only these rows")
    add("--rounds", type=int, help="default: 3; 2 with --quick")
    add("--seconds", type=int, default=2, help="of load with 32 connections in each round")
    add("--short-seconds", type=int, default=1, help="of load with 1 and with 8 connections")
    add("--quick", action="store_true", help=f"only {', '.join(QUICK)}, and two rounds")
    add("--build", type=Path, default=BUILD, help="folder of environments, models and logs")
    add("--python", type=Path, help="interpreter of all servers; default: the quickest here")
    add("--no-install", action="store_true", help="make no environment: what lacks is not run")
    add("--output", type=Path, help="JSON file; default: runtime.json in the build folder")
    add("--report-only", action="store_true", help="measure nothing: read the JSON file")
    add(
        "--page", action="store_true", help=f"write {report.PAGE.relative_to(REPOSITORY)} and plots"
    )
    add("--profile", choices=list(MODELS), help="where our time goes, for one model; nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main())

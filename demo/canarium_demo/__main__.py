"""`python -m canarium_demo`, also `canarium demo` and `make demo`."""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from canarium_demo import installation, models, report, story, summary
from canarium_demo.errors import DemoError
from canarium_demo.repository import Repository
from canarium_devcluster import layout
from canarium_devcluster.errors import DevclusterError
from canarium_devcluster.progress import spoken

CLUSTER = "canarium-demo"
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status is 0 only if all that it promises was seen to happen."""
    options = _parse(arguments)
    console, problems = Console(), Console(stderr=True)
    try:
        return _run(options, console, problems)
    except (DemoError, DevclusterError) as error:
        problems.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        _tell_end(problems, options.cluster)
        return 1
    except KeyboardInterrupt:
        problems.print("Interrupted.")
        _tell_end(problems, options.cluster)
        return _INTERRUPTED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="canarium demo",
        description="Watch a good version of a model promoted and a bad one taken back, on a real cluster.",
    )
    parser.add_argument("--cluster", default=CLUSTER, help="its name (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="default: build/demo/report.json")
    parser.add_argument("--no-live", action="store_true", help="plain lines, also on a terminal")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--keep", action="store_true", help="leave the cluster up (the default)")
    end.add_argument("--down", action="store_true", help="end the cluster afterwards")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, console: Console, problems: Console) -> int:
    began = time.monotonic()
    checkout = layout.find().checkout
    build = checkout / "build" / "demo"
    target: Path = options.report or build / "report.json"
    target.unlink(missing_ok=True)  # a report of another run must not pass for this one's
    console.rule("[bold]A cluster, and Canarium in it", align="left")
    installed = installation.install(console, options.cluster)
    props = _prepare(installed, console, build)
    live = not options.no_live
    world, tally = asyncio.run(story.perform(props, console, live=live, began=began))
    found = report.make_report(world, tally, time.monotonic() - began)
    found.write(target)
    summary.print_object(console, installed)
    summary.print_summary(console, world, tally, found)
    rollouts = {version: world.canary_weights(version) for version in (report.GOOD, report.BAD)}
    lacking = report.shortcomings(found, rollouts, world.plan)
    for sentence in lacking:
        problems.print(f"Not as promised: {sentence}", style="red", highlight=False)
    if not lacking:
        console.print(
            f"All as promised: {report.GOOD} promoted, {report.BAD} taken back, and no request failed but by "
            f"{report.BAD} itself. {target}",
            style="green",
            highlight=False,
            soft_wrap=True,
        )
    if options.down:
        installation.take_down(console, options.cluster)
        console.print("The cluster is gone.")
    else:
        summary.print_next_steps(console, installed, props.repository.folder, props.data)
    return 1 if lacking else 0


def _prepare(installed: installation.Installation, console: Console, build: Path) -> story.Props:
    """Train the models and begin the git repository."""
    console.print()
    console.rule("[bold]Three versions of a model", align="left")
    began = time.monotonic()
    data = models.load_data()
    artefacts = [train(data) for train in models.TRAINERS]
    console.print(
        f"Trained on {len(data.train)} of scikit-learn's handwritten digits and exported to ONNX in "
        f"{spoken(time.monotonic() - began)}; the other {len(data.held_out)} will be the requests.",
        highlight=False,
        soft_wrap=True,
    )
    repository = Repository(build / "repo", installed.checkout / "examples" / "01-canary")
    repository.create()
    return story.Props(
        installation=installed,
        artefacts=artefacts,
        data=data,
        repository=repository,
        checkout=installed.checkout,
    )


def _tell_end(console: Console, cluster: str) -> None:
    end = summary.down_command(cluster)
    console.print(f"The cluster, if it is up, stays for a look. To end it: {end}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

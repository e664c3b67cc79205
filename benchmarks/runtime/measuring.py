"""The whole run: for each model all servers at once, held but for the one that is measured; rounds are interleaved."""

import json
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .contenders import Contender
from .environments import REPOSITORY, TOOLS, MissingError
from .marks import LOADED, LONE, SOME
from .processes import stop_all
from .progress import say
from .results import Alone, Measured, Missed, Result, Started
from .serving import NotRunError, Running, Site

MODELS = "TML"
LIMIT_SECONDS = 0.3
"""For each batch size in each round."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    contenders: list[Contender]
    models: str
    rounds: int
    seconds: int
    """Of load with 32 connections in each round."""
    short_seconds: int
    """The same with 8 and with one connection."""
    connections: frozenset[int]
    """Of the loads that are asked for."""
    alone: bool
    """Whether to measure ONNX Runtime alone."""

    def loads(self, contender: Contender) -> list[tuple[int, int]]:
        """Connections and seconds of each run in a round."""
        short = [(n, self.short_seconds) for n in (LONE, SOME) if n in self.connections]
        return [(LOADED, self.seconds), *(short if not contender.is_variant else [])]

    def minutes(self) -> float:
        """Estimate how long it takes."""
        total = 0.0
        for model in self.models:
            for contender in self.contenders:
                if model in contender.models:
                    loads = self.loads(contender)
                    total += 5 + 1 + self.rounds * sum(s + 0.25 for _, s in loads)
            total += self.rounds * (8 * LIMIT_SECONDS + 2) if self.alone else 0
        return total / 60


def prepare(site: Site) -> None:
    """Write the models.

    Raises:
        MissingError: the tools' environment cannot be made.
    """
    python = site.environments.python(TOOLS)
    subprocess.run(
        [python, "-m", "benchmarks.runtime.models", site.folder / "models"],
        check=True,
        cwd=REPOSITORY,
    )


def measure(plan: Plan, site: Site, result: Result) -> None:
    """Run the plan; what is found is added to the result as it comes."""
    for model in plan.models:
        with _started(plan, model, site, result) as servers:
            for number in range(1, plan.rounds + 1):
                for running in list(servers):
                    if not _measure_one(plan, running, model, number, result):
                        servers.remove(running)
                        running.stop()
                if plan.alone:
                    result.limits += _alone(model, site, plan)
    for environment in sorted({c.environment for c in result.contenders}):
        result.versions[environment] = site.environments.versions(environment)


@contextmanager
def _started(plan: Plan, model: str, site: Site, result: Result) -> Iterator[list[Running]]:
    """Start everyone, one after the other, warm each up and hold it."""
    servers: list[Running] = []
    try:
        for contender in plan.contenders:
            if model not in contender.models:
                continue
            try:
                running = Running(contender, model, site)
                servers.append(running)
                running.measure(LOADED, 1)
            except NotRunError as error:
                _give_up(result, contender, model, error)
                if servers and servers[-1].contender is contender:
                    servers.pop().stop()
                continue
            result.starts.append(Started(contender.name, model, running.start))
            say(
                f"{model}  {contender.name:40} first answer after {running.start.wall_seconds:.1f} s, "
                f"{running.start.cpu_seconds:.2f} s of CPU"
            )
            running.hold()
        yield servers
    finally:
        stop_all([running.tree for running in servers])


def _measure_one(plan: Plan, running: Running, model: str, number: int, result: Result) -> bool:
    """Give one server its turn; False when it failed."""
    name = running.contender.name
    running.go_on()
    try:
        for connections, seconds in plan.loads(running.contender):
            figures = running.measure(connections, seconds)
            result.measured.append(Measured(name, model, number, figures))
            say(
                f"{model} {number}/{plan.rounds}  {name:40} {connections:2} connections "
                f"{figures.cpu_us:7.0f} us of CPU  {figures.requests_per_second:7.0f}/s  "
                f"p50 {figures.p50_ms:.2f}  p99 {figures.p99_ms:.1f} ms"
            )
    except (NotRunError, OSError) as error:
        _give_up(result, running.contender, model, error)
        return False
    running.hold()
    return True


def _give_up(result: Result, contender: Contender, model: str, error: Exception) -> None:
    result.not_run.append(Missed(contender.name, model, str(error)))
    say(f"{model}  {contender.name:40} not run: {error}")


def _alone(model: str, site: Site, plan: Plan) -> Iterable[Alone]:
    """Measure ONNX Runtime alone, on one core and on two."""
    python = site.environments.python(TOOLS)
    command: list[str | Path] = [python, "-m", "benchmarks.runtime.limits", site.model(model)]
    done = subprocess.run(
        [*command, str(LIMIT_SECONDS), "1", "2"],
        capture_output=True,
        check=True,
        cwd=REPOSITORY,
        text=True,
    )
    for line in done.stdout.splitlines():
        document = json.loads(line)
        processes = document.pop("processes")
        for batch, figures in document.items():
            yield Alone(model, processes, batch, **figures)


def run(plan: Plan, site: Site, result: Result) -> None:
    """Prepare and measure; the reason ends the program when nothing can be measured."""
    began = time.monotonic()
    try:
        prepare(site)
    except MissingError as error:
        raise SystemExit(str(error)) from error
    try:
        measure(plan, site, result)
    finally:
        result.minutes = (time.monotonic() - began) / 60

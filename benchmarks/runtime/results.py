"""What a run found, as it is written to the JSON file and read again: samples, never only their medians."""

import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from .contenders import PEERS, VARIANTS, Contender
from .interpreters import Interpreter
from .serving import Figures, Start

_BY_NAME = {c.name: c for c in (*VARIANTS, *PEERS)}


@dataclass(frozen=True)
class Measured:
    """One run of load against one contender."""

    name: str
    model: str
    round: int
    figures: Figures


@dataclass(frozen=True)
class Started:
    """One start of a contender."""

    name: str
    model: str
    start: Start


@dataclass(frozen=True)
class Missed:
    """A contender that was not measured, or not to the end."""

    name: str
    model: str
    reason: str


@dataclass(frozen=True)
class Alone:
    """ONNX Runtime without a server: one session with one thread for each process."""

    model: str
    processes: int
    batch: str
    cpu_us: float
    samples_per_second: float


@dataclass
class Result:
    """All of a run."""

    date: str
    machine: dict[str, str]
    options: dict[str, object]
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    starts: list[Started] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    limits: list[Alone] = field(default_factory=list)
    not_run: list[Missed] = field(default_factory=list)
    minutes: float = 0.0

    @property
    def contenders(self) -> list[Contender]:
        """Those that were measured, as they stand in the list."""
        names = {m.name for m in self.measured}
        return [c for name, c in _BY_NAME.items() if name in names]

    def median(self, name: str, model: str, connections: int, figure: str) -> float | None:
        """Median over the rounds; None: not measured. Who failed once in a model has no figures there."""
        if any(m.name == name and m.model == model for m in self.not_run):
            return None
        values = [
            float(getattr(m.figures, figure))
            for m in self.measured
            if (m.name, m.model, m.figures.connections) == (name, model, connections)
        ]
        return _median(values)

    def spread(self, name: str, model: str, connections: int, figure: str) -> tuple[float, float]:
        """Lowest and highest of the rounds."""
        values = [
            float(getattr(m.figures, figure))
            for m in self.measured
            if (m.name, m.model, m.figures.connections) == (name, model, connections)
        ]
        return min(values), max(values)

    def start_cpu(self, name: str, model: str) -> float | None:
        """Median CPU seconds from the start to the first right answer."""
        return _median(s.start.cpu_seconds for s in self._starts(name, model))

    def start_seconds(self, name: str, model: str) -> float | None:
        """Median wall-clock seconds from the start to the first right answer."""
        return _median(s.start.wall_seconds for s in self._starts(name, model))

    def alone(self, model: str, processes: int, batch: str) -> Alone | None:
        """Medians of ONNX Runtime alone."""
        found = [
            a for a in self.limits if (a.model, a.processes, a.batch) == (model, processes, batch)
        ]
        if not found:
            return None
        cpu = statistics.median(a.cpu_us for a in found)
        rate = statistics.median(a.samples_per_second for a in found)
        return Alone(model, processes, batch, cpu, rate)

    def why_not(self, name: str, model: str) -> str:
        """Tell why a contender has no figures."""
        reasons = [m.reason for m in self.not_run if (m.name, m.model) == (name, model)]
        return f"{name}: {reasons[0]}" if reasons else f"{name} was not asked for"

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Result":
        """Read what `write` wrote."""
        raw = json.loads(path.read_text())
        raw["starts"] = [Started(**{**s, "start": Start(**s["start"])}) for s in raw["starts"]]
        raw["measured"] = [
            Measured(**{**m, "figures": Figures(**m["figures"])}) for m in raw["measured"]
        ]
        raw["limits"] = [Alone(**a) for a in raw["limits"]]
        raw["not_run"] = [Missed(**m) for m in raw["not_run"]]
        return cls(**raw)

    def _starts(self, name: str, model: str) -> list[Started]:
        return [s for s in self.starts if (s.name, s.model) == (name, model)]


def begin(interpreter: Interpreter, options: dict[str, object]) -> Result:
    """Make an empty result for this moment, machine and interpreter."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory_gib": f"{memory:.0f}",
        "kernel": platform.release(),
        "python": interpreter.number,
        "python_loop_ms": f"{interpreter.loop_ms:.0f}",
        "load_average_before": f"{os.getloadavg()[0]:.1f}",
    }
    return Result(datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), machine, options)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def _cpu() -> str:
    """Name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def short(value: float) -> str:
    """Three digits that matter, without an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

"""What is to be reached, as data: each row is a figure of ours, divided by another, against a bound."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from .contenders import BINARY, DEFAULT, FEATURES, PAIR, ROUTE, Contender
from .results import Result

LOADED, SOME, LONE = 32, 8, 1
"""Connections."""


class Against(StrEnum):
    """What a figure of ours is divided by."""

    BEST = "the best peer"
    BEST_BUT_MOSEC = "the best peer but mosec"
    MLSERVER = "the best MLServer"
    DEFAULT = "our default"
    ALONE = "ONNX Runtime alone"
    """On as many cores, at batch 16."""
    NOTHING = "nothing"
    """The figure itself."""


class Figure(StrEnum):
    """Which figure; the names are those of `serving.Figures`, but for the last one."""

    CPU = "cpu_us"
    RATE = "requests_per_second"
    P50 = "p50_ms"
    P99 = "p99_ms"
    START_CPU = "start_cpu_seconds"


WORDS = {
    Figure.CPU: "CPU for each request",
    Figure.RATE: "requests a second",
    Figure.P50: "p50",
    Figure.P99: "p99",
    Figure.START_CPU: "CPU until the first answer, s",
}
BATCH_ALONE = "16"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One row."""

    id: str
    what: str
    """The row of the table that it belongs to."""
    model: str
    figure: Figure
    against: Against
    at_most: float | None = None
    at_least: float | None = None
    ours: str = DEFAULT
    """The contender of ours."""
    connections: int = LOADED

    @property
    def bound(self) -> str:
        """The bound in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return f"at least {self.at_least:g}"

    @property
    def is_share(self) -> bool:
        """The other figure divided by ours: how much of the possible is reached."""
        return self.against is Against.ALONE and self.figure is Figure.CPU

    def is_reached(self, value: float) -> bool:
        """Tell whether a value is within the bound."""
        if self.at_most is not None:
            return value <= self.at_most
        return self.at_least is not None and value >= self.at_least

    def needs(self, contender: Contender) -> bool:
        """Tell whether a contender is part of the row."""
        if self.model not in contender.models:
            return False
        if contender.is_ours:
            also = self.against is Against.DEFAULT and contender.name == DEFAULT
            return contender.name == self.ours or also
        if self.against is Against.MLSERVER:
            return contender.family == "mlserver" and contender.processes == 1
        if self.against is Against.BEST_BUT_MOSEC and contender.family == "mosec":
            return False
        compared = self.against in {Against.BEST, Against.BEST_BUT_MOSEC}
        return compared and contender.processes <= self.processes

    @property
    def processes(self) -> int:
        """How many processes of a server may take part."""
        return 2 if self.ours == PAIR else 1


_less = partial(Mark, figure=Figure.CPU, against=Against.BEST)
"""CPU for each request against the best peer, where nothing else is said."""
_share = partial(Mark, figure=Figure.CPU, against=Against.ALONE)
"""Of what ONNX Runtime alone does."""


def _each(models: str, bounds: tuple[float, ...]) -> Iterable[tuple[str, float]]:
    return zip(models, bounds, strict=True)


MARKS = (
    _less(id="T-cpu", what="T", model="T", at_most=0.5),
    _less(id="T-mlserver", what="T", model="T", at_most=0.05, against=Against.MLSERVER),
    _less(id="T-p99", what="T", model="T", at_most=1, figure=Figure.P99),
    _less(id="M-cpu", what="M", model="M", at_most=0.8),
    _less(id="M-binary", what="M, binary tensors", model="M", at_most=0.5, ours=BINARY),
    _less(id="M-p99", what="M", model="M", at_most=1, figure=Figure.P99),
    _less(id="L-cpu", what="L", model="L", at_most=0.95),
    _share(id="L-share", what="L", model="L", at_least=0.82),
    _share(id="L-binary-share", what="L, binary tensors", model="L", at_least=0.88, ours=BINARY),
    _less(id="L-p99", what="L", model="L", at_most=1, figure=Figure.P99),
    *(
        _less(
            id=f"{m}-lone",
            what="a lone request",
            model=m,
            at_most=bound,
            figure=Figure.P50,
            connections=LONE,
        )
        for m, bound in _each("TML", (0.9, 0.9, 0.9))
    ),
    *(
        Mark(
            id=f"{m}-eight",
            what="8 connections",
            model=m,
            figure=Figure.RATE,
            against=Against.BEST,
            at_least=bound,
            connections=SOME,
        )
        for m, bound in _each("TML", (3, 2, 1.25))
    ),
    *(
        Mark(
            id=f"{m}-pair",
            what="two processes on two cores",
            model=m,
            figure=Figure.RATE,
            against=Against.BEST,
            at_least=1.4,
            ours=PAIR,
        )
        for m in "ML"
    ),
    _share(
        id="L-pair-share",
        what="two processes on two cores",
        model="L",
        at_least=0.75,
        ours=PAIR,
        figure=Figure.RATE,
    ),
    *(
        _less(
            id=f"{m}-route",
            what="through the FastAPI route",
            model=m,
            at_most=1,
            ours=ROUTE,
            against=Against.BEST_BUT_MOSEC,
        )
        for m in "TML"
    ),
    _less(
        id="T-features",
        what="all features on",
        model="T",
        at_most=1.4,
        ours=FEATURES,
        against=Against.DEFAULT,
    ),
    _less(
        id="T-start",
        what="cold start",
        model="T",
        at_most=1.5,
        figure=Figure.START_CPU,
        against=Against.NOTHING,
    ),
)


@dataclass(frozen=True)
class Judged:
    """A row with what was found."""

    mark: Mark
    value: float | None
    """None: not run."""
    rival: str
    """Whose figure it was divided by; or why the row was not run."""

    @property
    def verdict(self) -> str:
        """In words."""
        if self.value is None:
            return "not run"
        return "reached" if self.mark.is_reached(self.value) else "**missed**"


def judge(mark: Mark, result: Result) -> Judged:
    """Work out one row."""
    ours = _figure(result, mark, mark.ours)
    if ours is None:
        return Judged(mark, None, result.why_not(mark.ours, mark.model))
    if mark.against is Against.NOTHING:
        return Judged(mark, ours, "")
    if mark.against is Against.ALONE:
        alone = result.alone(mark.model, mark.processes, BATCH_ALONE)
        if alone is None:
            return Judged(mark, None, "ONNX Runtime alone was not measured")
        if mark.figure is Figure.RATE:
            return Judged(mark, ours / alone.samples_per_second, "ONNX Runtime alone")
        return Judged(mark, alone.cpu_us / ours, "ONNX Runtime alone")
    figures = {
        c.name: value
        for c in result.contenders
        if c.name != mark.ours
        and mark.needs(c)
        and (value := _figure(result, mark, c.name)) is not None
    }
    if not figures:
        return Judged(mark, None, f"none was measured of: {mark.against}")
    pick = max if mark.figure is Figure.RATE else min
    rival = pick(figures, key=lambda name: figures[name])
    return Judged(mark, ours / figures[rival], rival)


def _figure(result: Result, mark: Mark, name: str) -> float | None:
    if mark.figure is Figure.START_CPU:
        return result.start_cpu(name, mark.model)
    return result.median(name, mark.model, mark.connections, mark.figure)

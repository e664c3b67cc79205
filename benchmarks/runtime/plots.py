"""Plots of a result as SVG files. Runs in the tools' environment, which alone has matplotlib.

`python -m benchmarks.runtime.plots RESULT.json FOLDER` writes `runtime-cpu-T.svg`, `runtime-latency-T.svg` and so on.
"""

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.ticker import NullFormatter, ScalarFormatter

from .marks import LOADED
from .results import Result, short

OURS, THEIRS, LIMIT = "#c8781e", "#8a97a5", "#333333"
KINDS = {
    "cpu": ("cpu_us", "CPU time for each request, µs, 32 connections (log scale)"),
    "latency": ("p99_ms", "p99, ms, 32 connections (log scale)"),
}
mpl.rcParams.update({"svg.hashsalt": "canarium", "svg.fonttype": "none", "font.size": 9})


def draw(result: Result, model: str, kind: str, path: Path) -> None:
    """Draw one horizontal bar for each server, the least on top."""
    figure, label = KINDS[kind]
    bars = sorted(
        (value, contender.name, contender.is_ours)
        for contender in result.contenders
        if (value := result.median(contender.name, model, LOADED, figure)) is not None
    )
    if not bars:
        return
    values, names, ours = zip(*reversed(bars), strict=True)
    canvas, axes = pyplot.subplots(figsize=(8, 0.6 + 0.26 * len(bars)), layout="constrained")
    drawn = axes.barh(names, values, color=[OURS if mine else THEIRS for mine in ours])
    axes.bar_label(drawn, labels=[short(value) for value in values], padding=3)
    alone = result.alone(model, 1, "16")
    if kind == "cpu" and alone is not None:
        label += f"\ndotted: ONNX Runtime alone at batch 16, {short(alone.cpu_us)}"
        axes.axvline(alone.cpu_us, color=LIMIT, linestyle=":")
    low = alone.cpu_us if kind == "cpu" and alone is not None else min(values)
    axes.set_xscale("log")
    axes.set_xlim(min(low, min(values)) / 2, max(values) * 1.6)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)
    axes.set_title(f"Model {model}, {result.date}", loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, metadata={"Date": None})
    pyplot.close(canvas)


def main() -> None:
    """Draw all."""
    result = Result.read(Path(sys.argv[1]))
    folder = Path(sys.argv[2])
    for model in str(result.options["models"]):
        for kind in KINDS:
            draw(result, model, kind, folder / f"runtime-{kind}-{model}.svg")


if __name__ == "__main__":
    main()

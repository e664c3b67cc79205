"""A result as Markdown: the marks, a table for each model, ONNX Runtime alone, and what was not run."""

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from .contenders import DEFAULT
from .environments import REPOSITORY, TOOLS, Environments, MissingError
from .marks import LOADED, LONE, MARKS, SOME, WORDS, Judged, Mark, judge
from .progress import say
from .results import Result, short

PAGE = REPOSITORY / "docs" / "reference" / "runtime-benchmarks.md"
START, END = "<!-- figures: start -->", "<!-- figures: end -->"
"""Between these lines of the page stands what this module writes."""
BATCHES = ("1", "8", "16", "32")
MODEL_NAMES = {
    "T": "logistic regression, 30 features",
    "M": "MLP 256 → 1024 → 1024 → 16",
    "L": "8 dense layers of 1024 with GELU and layer norm",
}
_PLOTS = (("cpu", "CPU time for each request"), ("latency", "p99"))


def judged(result: Result, rows: Sequence[Mark] = MARKS) -> list[Judged]:
    """Work out all rows."""
    return [judge(mark, result) for mark in rows]


def markdown(result: Result, rows: Sequence[Mark] = MARKS, plots: bool = False) -> str:
    """Write all tables."""
    parts = [_about(result), "### Marks", _marks(judged(result, rows))]
    for model in str(result.options["models"]):
        parts += [f"### {model}: {MODEL_NAMES[model]}", _servers(result, model)]
        if plots:
            parts += [
                f"![{what} of each server, model {model}](runtime-{kind}-{model}.svg)"
                for kind, what in _PLOTS
            ]
    if result.limits:
        parts += ["### ONNX Runtime alone", _alone(result)]
    if result.not_run:
        parts += ["### Not run", _not_run(result)]
    parts += ["### Versions", _versions(result)]
    return "\n\n".join(parts) + "\n"


def write_page(result: Result, source: Path, environments: Environments) -> None:
    """Put the tables into the page of the docs, and draw the plots beside it."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    try:
        python = environments.python(TOOLS)
        command: list[str | Path] = [python, "-m", "benchmarks.runtime.plots", source, PAGE.parent]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        plots = True
    except (MissingError, subprocess.CalledProcessError) as error:
        say(f"no plots: {error}")
        plots = False
    body = markdown(result, plots=plots)
    PAGE.write_text(f"{head}{START}\n\n{body}\n{END}{tail}", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _about(result: Result) -> str:
    machine, options = result.machine, result.options
    return (
        f"{result.date}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']} (a loop of a million rounds takes "
        f"{machine['python_loop_ms']} ms in it); load average before the run "
        f"{machine['load_average_before']}. {options['rounds']} interleaved rounds of {options['seconds']} s, medians; "
        f"{result.minutes:.0f} minutes in all. wrk shares the cores with the server."
    )


def _marks(rows: Iterable[Judged]) -> str:
    lines = []
    for row in rows:
        mark = row.mark
        value = "" if row.value is None else f"{row.value:.3g}"
        where = (
            row.rival if row.value is None else f"{_what(mark)}{row.rival and f' ({row.rival})'}"
        )
        lines.append([mark.id, mark.what, where, mark.bound, value, row.verdict])
    return table(["row", "what", "how", "mark", "found", ""], lines)


def _what(mark: Mark) -> str:
    """How a row is worked out."""
    words = f"{WORDS[mark.figure]}, {mark.model}"
    if mark.is_share:
        return f"ONNX Runtime's CPU for each sample at batch 16 / ours, {mark.model}"
    if mark.connections != LOADED:
        words += f", {mark.connections} connection{'s' if mark.connections > 1 else ''}"
    return f"{words}, / {mark.against}" if mark.against.value != "nothing" else words


def _servers(result: Result, model: str) -> str:
    """Everyone's figures for one model, by CPU time."""
    lines: list[tuple[float, list[str]]] = []
    for contender in result.contenders:
        name = contender.name
        cpu = result.median(name, model, LOADED, "cpu_us")
        if cpu is None:
            continue
        low, high = result.spread(name, model, LOADED, "cpu_us")
        lines.append(
            (
                cpu,
                [
                    f"**{name}**" if contender.is_ours else name,
                    f"{short(cpu)} ({short(low)} to {short(high)})",
                    *(
                        _cell(result.median(name, model, LOADED, figure))
                        for figure in ("requests_per_second", "p50_ms", "p95_ms", "p99_ms")
                    ),
                    _cell(result.median(name, model, LONE, "p50_ms")),
                    _cell(result.median(name, model, SOME, "requests_per_second")),
                    _cell(result.median(name, model, LOADED, "memory_mb")),
                    _cell(result.start_cpu(name, model)),
                    _cell(result.start_seconds(name, model)),
                ],
            )
        )
    head = (
        "server",
        "CPU µs a request (lowest to highest)",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "lone p50 ms",
        "8 connections, requests/s",
        "memory MB",
        "start, s of CPU",
        "start, s",
    )
    return table(head, [line for _, line in sorted(lines, key=lambda pair: pair[0])])


def _alone(result: Result) -> str:
    lines = []
    for model in str(result.options["models"]):
        for processes in (1, 2):
            found = [result.alone(model, processes, batch) for batch in BATCHES]
            if any(found):
                cells = [
                    "" if a is None else f"{short(a.cpu_us)} / {a.samples_per_second:.0f}"
                    for a in found
                ]
                lines.append([model, str(processes), *cells])
    return (
        "CPU µs a sample / samples a second, one process with one thread on each core:\n\n"
        + table(["model", "cores", *(f"batch {b}" for b in BATCHES)], lines)
    )


def _not_run(result: Result) -> str:
    reasons = {(m.name, m.reason): "" for m in result.not_run}
    lines = []
    for name, reason in reasons:
        models = [m.model for m in result.not_run if (m.name, m.reason) == (name, reason)]
        lines.append(
            [name, ", ".join(dict.fromkeys(models)), reason.replace("|", "/").replace("\n", " ")]
        )
    return table(["server", "models", "reason"], lines)


def _versions(result: Result) -> str:
    lines = [
        [DEFAULT if name == "ours" else name, ", ".join(f"{p} {v}" for p, v in packages.items())]
        for name, packages in result.versions.items()
    ]
    return table(["environment", "packages"], lines)


def _cell(value: float | None) -> str:
    return "" if value is None else short(value)

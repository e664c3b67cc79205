"""The report as one HTML page: no scripts, no outside assets, light and dark."""

from collections.abc import Sequence
from html import escape
from importlib import resources

from canarium_cli.validating import svg, words
from canarium_cli.validating.report import Report
from canarium_runtime.golden.judging import shown
from canarium_runtime.golden.profile import Feature

_MOST_CLASSES = 60
_MOST_FEATURES = 200
_OPEN_FEATURES = 15


def html(report: Report) -> str:
    """Write the page."""
    style = resources.files("canarium_cli.validating").joinpath("page.css").read_text("utf-8")
    state = "passed" if report.passed else "failed"
    title = f"Model validation: {report.model.name}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>",
        f'<header><h1>Model validation</h1><span class="badge {state}">{escape(words.verdict(report))}</span></header>',
        f'<p class="sub">{escape(report.model.name)} on {escape(report.data)}, {report.at:%Y-%m-%d %H:%M} UTC</p>',
        _tiles(report),
        _checks(report),
        f'<div class="plots">{"".join(_plots(report))}</div>',
        _metrics(report),
        _classes(report),
        _features(report),
        _facts(report),
        _notes(report),
        f"<footer>canarium validate {escape(report.version)}</footer></main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _section(title: str, body: str) -> str:
    return f'<section><h2>{escape(title)}</h2><div class="scroll">{body}</div></section>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Write a table; cells are HTML already, and those of `numbers` stand on the right."""

    def cell(tag: str, index: int, value: str) -> str:
        return f"<{tag}{' class=n' if index in numbers else ''}>{value}</{tag}>"

    top = "".join(cell("th", i, escape(name)) for i, name in enumerate(head))
    body = "".join(
        f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _tiles(report: Report) -> str:
    found = report.found
    metrics = found.new.metrics
    tiles = [
        (shown(metrics[name]), words.NAMES[name])
        for name in ("accuracy", "f1", "auc", "rmse", "mae", "r2")
        if name in metrics
    ]
    tiles.append((f"{found.latency.p95:.3g} ms", "latency p95, one row"))
    tiles.append((words.size(report.model.size_bytes), "size"))
    if found.agreement is not None:
        tiles.append((f"{found.agreement.share:.1%}", "agreement with the old version"))
    drifted = [f for f in found.features if f.drift is not None]
    if drifted:
        count = sum(f.drift.drifted for f in drifted if f.drift is not None)
        tiles.append((f"{count} of {len(drifted)}", "features drifted"))
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
            for value, name in tiles
        )
        + "</div>"
    )


def _checks(report: Report) -> str:
    rows = [
        (
            f'<span class="mark {"passed" if c.passed else "failed"}">{"✓ met" if c.passed else "✗ missed"}</span>',
            escape(c.name),
            '<span class="soft">not measured</span>' if c.value is None else shown(c.value),
            escape(c.limit),
            escape(c.message),
        )
        for c in sorted(report.checks, key=lambda c: c.passed)
    ]
    return _section(
        "Checks", _table(("", "Check", "Measured", "Asked for", "In words"), rows, (2,))
    )


def _plots(report: Report) -> list[str]:
    found = report.found.new
    plots = []
    if found.confusion and len(found.confusion) <= _MOST_CLASSES:
        names = [c.name for c in found.classes]
        plots.append(_section("Confusion", svg.heatmap("confusion matrix", names, found.confusion)))
    if found.roc:
        plots.append(_section(f"ROC, AUC {shown(found.metrics['auc'])}", _roc(found.roc)))
    if found.calibration:
        plots.append(_section("Calibration", _calibration(report)))
    if found.pairs:
        plots.append(_section("Answers", _pairs(found.pairs)))
    plots.append(_section("Latency", _latency(report)))
    return plots


def _roc(points: Sequence[tuple[float, float]]) -> str:
    plot = svg.Plot("ROC curve", (0, 1), (0, 1), ("false alarms", "found"))
    plot.line([(0, 0), (1, 1)], "ideal")
    plot.line(points, "new", area=True)
    return plot.render()


def _calibration(report: Report) -> str:
    curve = report.found.new.calibration
    plot = svg.Plot(
        "calibration", (0, 1), (0, 1), ("how sure the model is", "how often it is right")
    )
    plot.line([(0, 0), (1, 1)], "ideal")
    plot.line([(b.confidence, b.accuracy) for b in curve], "new")
    most = max(b.rows for b in curve)
    for b in curve:
        tip = f"{b.rows} rows: {b.confidence:.0%} sure, {b.accuracy:.0%} right"
        plot.dot(
            b.confidence, b.accuracy, "new", tip, radius=round(3 + 5 * (b.rows / most) ** 0.5, 1)
        )
    return plot.render()


def _pairs(pairs: Sequence[tuple[float, float]]) -> str:
    values = [v for pair in pairs for v in pair]
    span = (min(values), max(values))
    plot = svg.Plot("answers against right answers", span, span, ("right answer", "answer"))
    plot.line([(span[0], span[0]), (span[1], span[1])], "ideal")
    for truth, said in pairs:
        plot.dot(truth, said, "new", f"right {truth:g}, answer {said:g}")
    return plot.render()


def _latency(report: Report) -> str:
    latency = report.found.latency
    width = latency.histogram[0][0]
    most = max(count for _, count in latency.histogram)
    plot = svg.Plot(
        "latency of one row", (0, latency.histogram[-1][0]), (0, most), ("milliseconds", "runs")
    )
    for edge, count in latency.histogram:
        plot.bar(
            (edge - width, edge), count, "new", f"{edge - width:.3g} to {edge:.3g} ms: {count} runs"
        )
    plot.rule(latency.p50, f"p50 {latency.p50:.3g}", "")
    plot.rule(latency.p95, f"p95 {latency.p95:.3g}", "")
    return plot.render()


def _metrics(report: Report) -> str:
    rows = []
    for name, value, before, change in words.rows_of_metrics(report):
        word = change.rpartition(" ")[2]
        style = word if word in ("better", "worse") else "soft"
        rows.append((escape(name), value, before, f'<span class="{style}">{escape(change)}</span>'))
    if report.found.old is None:
        return _section("Metrics", _table(("Metric", "Value"), [row[:2] for row in rows], (1,)))
    return _section("Metrics", _table(("Metric", "Value", "Old version", "Change"), rows, (1, 2)))


def _classes(report: Report) -> str:
    classes = report.found.new.classes
    if not classes or len(classes) > _MOST_CLASSES:
        return ""
    rows = [
        (escape(c.name), str(c.rows), *(f"{v:.3f}" for v in (c.precision, c.recall, c.f1)))
        for c in classes
    ]
    head = ("Class", "Rows", "Precision", "Recall", "F1")
    return _section("Classes", _table(head, rows, (1, 2, 3, 4)))


def _features(report: Report) -> str:
    features = sorted(
        report.found.features, key=lambda f: -(f.drift.score if f.drift is not None else 0)
    )[:_MOST_FEATURES]
    compared = report.found.reference_rows is not None
    keys = '<p><span class="key"><i></i>golden data</span>'
    keys += '<span class="key"><i class="old"></i>reference</span></p>' if compared else "</p>"
    head = ["Feature", "Distribution", "Missing", "Mean", "Least", "Most"]
    if compared:
        head += ["Drift score", "PSI", "KS", "Out of range"]
    rows = [_feature(feature, compared=compared) for feature in features]
    numbers = (2, 3, 4, 5, 7, 8, 9)
    table = _table(head, rows[:_OPEN_FEATURES], numbers)
    if rest := rows[_OPEN_FEATURES:]:
        table += (
            f"<details><summary>{len(rest)} more</summary>{_table(head, rest, numbers)}</details>"
        )
    return _section("Features", keys + table)


def _feature(feature: Feature, *, compared: bool) -> list[str]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    cells = [
        f"<code>{escape(feature.name)}</code>",
        svg.sparkline(feature.histogram, ("the golden data", "the reference")),
        f"{feature.missing_share:.1%}",
        f"{feature.words} words" if feature.is_text else number(feature.mean),
        number(feature.least),
        number(feature.most),
    ]
    if compared and feature.drift is not None:
        drift = feature.drift
        bad = " bad" if drift.drifted else ""
        cells += [
            f'<span class="meter{bad}"><i style="width:{drift.score:.0%}"></i></span>{drift.score:.2f}'
            + (' <span class="mark failed">drifted</span>' if drift.drifted else ""),
            f"{drift.psi:.3f}",
            number(drift.ks),
            "" if feature.out_of_range is None else f"{feature.out_of_range:.1%}",
        ]
    elif compared:
        cells += ['<span class="soft">too few rows</span>', "", "", ""]
    return cells


def _facts(report: Report) -> str:
    rows = [(f'<span class="soft">{escape(a)}</span>', escape(b)) for a, b in words.facts(report)]
    for title, tensors in (("inputs", report.model.inputs), ("outputs", report.model.outputs)):
        listed = "<br>".join(f"<code>{escape(t)}</code>" for t in tensors)
        rows.append((f'<span class="soft">{title}</span>', listed))
    return _section("What was validated", _table(("", ""), rows))


def _notes(report: Report) -> str:
    notes = report.notes()
    if not notes:
        return ""
    return _section("Notes", f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes)}</ul>")

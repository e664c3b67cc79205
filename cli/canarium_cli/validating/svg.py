"""Plots as inline SVG. Colours are classes, so that the page's style decides them, in the light and in the dark.

Every plot has a title for those who hear it, and numbers in tooltips for those who point at it.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH: Final = 420
HEIGHT: Final = 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40
_TICKS: Final = 5

Point = tuple[float, float]
Range = tuple[float, float]


class Plot:
    """Axes, and what is drawn between them.

    Args:
        title: what is shown, in words.
        x: range of the horizontal axis.
        y: range of the vertical axis.
        labels: of the two axes.
    """

    def __init__(self, title: str, x: Range, y: Range, labels: tuple[str, str]) -> None:
        self._title = title
        self._x = _wide(x)
        self._y = _wide(y)
        self._labels = labels
        self._marks: list[str] = []

    def at(self, x: float, y: float) -> Point:
        """Give the place of a point."""
        (x0, x1), (y0, y1) = self._x, self._y
        across = (x - x0) / (x1 - x0) * (WIDTH - _LEFT - _RIGHT)
        up = (y - y0) / (y1 - y0) * (HEIGHT - _TOP - _BOTTOM)
        return _LEFT + across, HEIGHT - _BOTTOM - up

    def line(self, points: Sequence[Point], style: str, *, area: bool = False) -> None:
        """Draw a line, and the area below it."""
        places = [self.at(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        if area:
            floor = HEIGHT - _BOTTOM
            ends = f"{places[-1][0]:.1f},{floor} {places[0][0]:.1f},{floor}"
            self._marks.append(f'<polygon class="area {style}" points="{path} {ends}"/>')
        self._marks.append(f'<polyline class="line {style}" points="{path}"/>')

    def bar(self, x: Range, y: float, style: str, tip: str) -> None:
        """Draw a bar from the floor."""
        left, top = self.at(x[0], y)
        right, _ = self.at(x[1], y)
        floor = HEIGHT - _BOTTOM
        width, height = max(right - left - 1, 0.5), max(floor - top, 0)
        self._marks.append(
            f'<rect class="bar {style}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def dot(self, x: float, y: float, style: str, tip: str, radius: float = 3) -> None:
        """Draw a dot."""
        left, top = self.at(x, y)
        self._marks.append(
            f'<circle class="dot {style}" cx="{left:.1f}" cy="{top:.1f}" r="{radius}">'
            f"<title>{escape(tip)}</title></circle>"
        )

    def rule(self, x: float, words: str, style: str) -> None:
        """Draw an upright line with words beside it."""
        left, _ = self.at(x, self._y[0])
        late = left > WIDTH - 110
        anchor, shift = ("end", -5) if late else ("start", 5)
        row = _TOP + 10 + 13 * sum("rule-words" in mark for mark in self._marks)
        self._marks.append(
            f'<line class="rule {style}" x1="{left:.1f}" x2="{left:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
            f'<text class="rule-words" x="{left + shift:.1f}" y="{row}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def render(self) -> str:
        """Give the SVG element."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self._title)}">'
            f"{self._axes()}{''.join(self._marks)}</svg>"
        )

    def _axes(self) -> str:
        parts = []
        floor = HEIGHT - _BOTTOM
        for y in ticks(*self._y):
            _, top = self.at(self._x[0], y)
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{top:.1f}" y2="{top:.1f}"/>'
                f'<text class="tick" x="{_LEFT - 7}" y="{top + 4:.1f}" text-anchor="end">{_short(y)}</text>'
            )
        for x in ticks(*self._x):
            left, _ = self.at(x, self._y[0])
            parts.append(
                f'<text class="tick" x="{left:.1f}" y="{floor + 16}" text-anchor="middle">{_short(x)}</text>'
            )
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) / 2
        middle = _TOP + (HEIGHT - _TOP - _BOTTOM) / 2
        parts.append(
            f'<text class="axis" x="{across}" y="{HEIGHT - 5}" text-anchor="middle">{escape(self._labels[0])}</text>'
            f'<text class="axis" transform="translate(13 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(self._labels[1])}</text>"
        )
        return "".join(parts)


def ticks(low: float, high: float) -> list[float]:
    """Give round numbers within a range, at most eight: 0 to 0.26 gives 0, 0.05, 0.1, 0.15, 0.2, 0.25."""
    rough = (high - low) / _TICKS
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(m for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.75) * magnitude
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _wide(span: Range) -> Range:
    low, high = span
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _short(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:.6g}"


def heatmap(title: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draw a confusion matrix; each row's shade is its share of that class."""
    cell = max(18, min(56, 340 // max(len(names), 1)))
    left, top = 96, 30
    wide, high = max(left + cell * len(names) + 10, 300), top + cell * len(names) + 26
    parts = [
        f'<svg viewBox="0 0 {wide} {high}" class="matrix" role="img" aria-label="{escape(title)}">'
    ]
    for i, row in enumerate(counts):
        total = sum(row)
        y = top + cell * i
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{y + cell / 2 + 4:.1f}" text-anchor="end">{_name(names[i])}</text>'
        )
        for j, count in enumerate(row):
            x = left + cell * j
            share = count / total if total else 0.0
            style = "right" if i == j else "wrong"
            tip = f"{names[i]} answered as {names[j]}: {count} of {total} ({share:.1%})"
            parts.append(
                f'<g><title>{escape(tip)}</title><rect class="cell" x="{x}" y="{y}" width="{cell - 2}" '
                f'height="{cell - 2}" rx="3"/><rect class="shade {style}" x="{x}" y="{y}" width="{cell - 2}" '
                f'height="{cell - 2}" rx="3" style="opacity:{_shade(share)}"/>'
            )
            if cell >= 26 and count:
                strong = " strong" if _shade(share) > 0.55 else ""
                parts.append(
                    f'<text class="count{strong}" x="{x + cell / 2 - 1:.1f}" y="{y + cell / 2 + 3:.1f}" '
                    f'text-anchor="middle">{count}</text>'
                )
            parts.append("</g>")
    for j, name in enumerate(names):
        parts.append(
            f'<text class="tick" x="{left + cell * j + cell / 2:.1f}" y="{top - 8}" text-anchor="middle">'
            f"{_name(name, 8)}</text>"
        )
    parts.append(
        f'<text class="axis" x="{wide / 2:.1f}" y="{high - 6}" text-anchor="middle">'
        "answer (columns), right class (rows)</text>"
    )
    return "".join([*parts, "</svg>"])


def _shade(share: float) -> float:
    """Make small shares visible: 1 % is 0.18."""
    return round(0.1 + 0.8 * share**0.5, 2) if share else 0.0


def _name(name: str, most: int = 13) -> str:
    return escape(name if len(name) <= most else f"{name[: most - 1]}…")


def sparkline(shares: Sequence[Point], names: tuple[str, str]) -> str:
    """Draw two small histograms over each other: golden data as bars, the reference as a line."""
    if not shares:
        return ""
    wide, high = 132, 30
    most = max(max(a, b) for a, b in shares) or 1.0
    step = wide / len(shares)
    bars = "".join(
        f'<rect class="bar new" x="{i * step:.1f}" y="{high - a / most * (high - 2):.1f}" '
        f'width="{max(step - 1, 0.6):.1f}" height="{a / most * (high - 2):.1f}"/>'
        for i, (a, _) in enumerate(shares)
    )
    line = ""
    if any(b for _, b in shares):
        points = " ".join(
            f"{(i + 0.5) * step:.1f},{high - b / most * (high - 2):.1f}"
            for i, (_, b) in enumerate(shares)
        )
        line = f'<polyline class="line old" points="{points}"/>'
    return (
        f'<svg class="spark" viewBox="0 0 {wide} {high}" role="img" aria-label="distribution of {names[0]} as bars, '
        f'{names[1]} as a line">{bars}{line}</svg>'
    )

"""Plots in rows, without scripts: bars with intervals, a forest plot of differences, stacked bars of counts.

A row is a name, a small SVG whose horizontal places are in percent, and the figures as text: letters keep their size on
a phone and on paper, and everything that a colour says is said by a shape or a word too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import ceil, floor

from ramify.evaluate.report.charts import step_for
from ramify.evaluate.report.visible import attribute, isolated, visible
from ramify.evaluate.scores import Rate

_MARGIN = 3.0  # percent of the width on either side, so that a marker or a number at the edge is not cut
_INSIDE = 0.07  # share of the width that the number inside a segment needs


class Shape(Enum):
    """How an estimate is drawn; shapes differ without colour."""

    UP = "up"  # better: a triangle to the right
    DOWN = "down"  # worse: a triangle to the left
    OPEN = "open"  # nothing can be shown: an open circle


_DRAWN = {
    Shape.UP: "<path class='up' d='M-5-6L6 0L-5 6z'/>",
    Shape.DOWN: "<path class='down' d='M5-6L-6 0L5 6z'/>",
    Shape.OPEN: "<circle class='open' r='4.5'/>",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A row of a forest plot, in points.

    Attributes:
        low, high: the 95 % interval of `value`.
        figures: value and interval in words; finding: what they show, in words.
        strong: stands out, as the row of a whole does among those of its parts.
    """

    name: str
    value: float
    low: float
    high: float
    shape: Shape
    figures: str
    finding: str
    strong: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of segment of stacked bars: its name, and its class in the page's style."""

    name: str
    style: str


def bars(rows: Sequence[tuple[str, Rate]]) -> str:
    """Horizontal bars of shares with a whisker for the 95 % interval, from 0 to 100 %."""
    made = []
    for name, rate in rows:
        low, value, high = (100 * share for share in (rate.low, rate.value, rate.high))
        label = f"{name}: {value:.1f} %, 95 % interval {low:.1f} to {high:.1f}"
        ends = "".join(f"<line x1='{x:.2f}%' x2='{x:.2f}%' y1='7' y2='17'/>" for x in (low, high))
        whisker = f"<g class='whisker'><line x1='{low:.2f}%' x2='{high:.2f}%' y1='12' y2='12'/>{ends}</g>"
        drawn = f"<rect class='track' width='100%' height='24'/><rect class='fill' width='{value:.2f}%' height='24'/>"
        figure = f"<span class='figure'><b>{value:.1f} %</b> ({low:.1f}–{high:.1f})</span>"
        made.append(_row("bar", name, _svg(label, 24, drawn + whisker), figure))
    return _rows("bars", made)


def forest(title: str, rows: Sequence[Estimate], axis: str) -> str:
    """Differences with their intervals on one axis, zero marked: a triangle where something is shown, else a circle."""
    if not rows:
        return ""
    scale = _Scale.over([each.low for each in rows], [each.high for each in rows])
    made = []
    for each in rows:
        label = f"{each.name}: {each.figures}, {each.finding}"
        middle = f"<svg x='{scale.x(each.value):.2f}%' y='13' overflow='visible'>{_DRAWN[each.shape]}</svg>"
        low, high = scale.x(each.low), scale.x(each.high)
        line = f"<line class='interval' x1='{low:.2f}%' x2='{high:.2f}%' y1='13' y2='13'/>"
        figures = (
            f"<span class='figure'>{visible(each.figures)}</span><span class='found'>{visible(each.finding)}</span>"
        )
        kind = "estimate strong" if each.strong else "estimate"
        made.append(_row(kind, each.name, _svg(label, 26, scale.grid() + line + middle), figures))
    made.append(_row("estimate axis", "", _axis(scale), f"<span class='figure quiet'>{visible(axis)}</span>", ""))
    return _rows("forest", made, title)


def stacked(title: str, kinds: Sequence[Kind], rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    """A bar a row, divided by counts in the order of `kinds`; rows without counts are empty bars."""
    made = []
    for name, counts in rows:
        total = sum(counts)
        shares = [count / total if total else 0.0 for count in counts]
        parts = zip(kinds, counts, shares, strict=True)
        label = f"{name}: " + ", ".join(f"{kind.name} {count} ({100 * share:.1f} %)" for kind, count, share in parts)
        drawn = "<rect class='track' width='100%' height='26'/>" + _segments(kinds, counts, shares)
        made.append(_row("bar", name, _svg(label, 26, drawn), f"<span class='figure quiet'>n = {total:,}</span>"))
    keys = " ".join(f"<span class='swatch {kind.style}'>{visible(kind.name)}</span>" for kind in kinds)
    return _rows("stack", [f"<p class='legend'>{keys}</p>", *made], title)


def _segments(kinds: Sequence[Kind], counts: Sequence[int], shares: Sequence[float]) -> str:
    made, start = [], 0.0
    for kind, count, share in zip(kinds, counts, shares, strict=True):
        if count:
            made.append(f"<rect class='{kind.style}' x='{100 * start:.2f}%' width='{100 * share:.2f}%' height='26'/>")
        if share >= _INSIDE:
            middle = 100 * (start + share / 2)
            made.append(f"<text class='on {kind.style}' x='{middle:.2f}%' y='18' text-anchor='middle'>{count:,}</text>")
        start += share
    return "".join(made)


@dataclass(frozen=True, slots=True)
class _Scale:
    """An axis from `low` to `high`, both multiples of `step`, zero among them."""

    low: float
    high: float
    step: float

    @classmethod
    def over(cls, lows: Sequence[float], highs: Sequence[float]) -> _Scale:
        low, high = min(0.0, *lows), max(0.0, *highs)
        if high - low < 1e-6:
            low, high = -1.0, 1.0
        step = step_for(high - low)
        return cls(floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step, step)

    @property
    def places(self) -> list[float]:
        return [round(self.low + i * self.step, 10) for i in range(round((self.high - self.low) / self.step) + 1)]

    def x(self, value: float) -> float:
        """The place of a value, in percent of the width."""
        return _MARGIN + (value - self.low) / (self.high - self.low) * (100 - 2 * _MARGIN)

    def grid(self) -> str:
        """A line at each place; the one at zero stands out."""
        lines = ((self.x(value), "zero" if value == 0 else "grid") for value in self.places)
        return "".join(f"<line class='{kind}' x1='{x:.2f}%' x2='{x:.2f}%' y1='0' y2='100%'/>" for x, kind in lines)


def _axis(scale: _Scale) -> str:
    marks = "".join(
        f"<text x='{scale.x(value):.2f}%' y='12' text-anchor='middle'>{f'{value:+g}'.replace('-', '−') if value else 0}"
        "</text>"
        for value in scale.places
    )
    return f"<svg height='16' aria-hidden='true'>{marks}</svg>"


def _svg(label: str, height: int, inner: str) -> str:
    return f"<svg height='{height}' role='img' aria-label='{attribute(label)}'>{inner}</svg>"


def _row(kind: str, name: str, plot: str, figures: str, shown: str | None = None) -> str:
    written = isolated(name) if shown is None else shown
    return f"<div class='row {kind}'><span class='name'>{written}</span>{plot}{figures}</div>"


def _rows(kind: str, rows: Sequence[str], title: str = "") -> str:
    caption = f"<figcaption>{visible(title)}</figcaption>" if title else ""
    return f"<figure class='rows {kind}'>{caption}{''.join(rows)}</figure>"

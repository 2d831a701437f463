"""Curves and bars for a page without scripts: inline SVG for curves, plain elements for bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from math import ceil, floor, isfinite, log10

from ramify.evaluate.scores import Rate

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 12, 34


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line of (x, y) points. `style` is a class of the page: `train` (thin) or `valid` (dots)."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str


def line_chart(title: str, x_name: str, curves: Sequence[Curve]) -> str:
    """An SVG figure of curves over a common x. Curves without points are left out; with none it says so.

    Points that are not finite are left out too.
    """
    finite = [replace(curve, points=[point for point in curve.points if all(map(isfinite, point))]) for curve in curves]
    drawn = [curve for curve in finite if curve.points]
    if not drawn:
        return f"<figure><figcaption>{escape(title)}</figcaption><p class='quiet'>no curve was written</p></figure>"
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points]
    plot = _Plot(min(xs), max(xs), 0.0, max(ys))
    parts = [_axes(plot, x_name), *(_line(plot, curve) for curve in drawn)]
    legend = " ".join(f"<span class='key {c.style}'>{escape(c.name)}</span>" for c in drawn)
    label = escape(
        f"{title}: " + "; ".join(f"{c.name} from {c.points[0][1]:.3g} to {c.points[-1][1]:.3g}" for c in drawn)
    )
    return (
        f"<figure><figcaption>{escape(title)} <span class='legend'>{legend}</span></figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label=\"{label}\">{''.join(parts)}</svg></figure>"
    )


def bar_rows(rows: Sequence[tuple[str, Rate]]) -> str:
    """Horizontal bars of shares with a whisker for the interval; plain elements, so that text keeps its size."""
    made = []
    for name, rate in rows:
        low, value, high = (100 * share for share in (rate.low, rate.value, rate.high))
        made.append(
            f"<div class='bar'><span class='name'>{escape(name)}</span>"
            f"<span class='track'><span class='fill' style='width:{value:.2f}%'></span>"
            f"<span class='whisker' style='left:{low:.2f}%;width:{max(high - low, 0.0):.2f}%'></span></span>"
            f"<span class='figure'>{value:.1f} %</span></div>"
        )
    return f"<div class='bars'>{''.join(made)}</div>"


def ticks(top: float, wanted: int = 4) -> list[float]:
    """Round numbers from 0 up to at least `top`, about `wanted` of them."""
    if top <= 0:
        return [0.0, 1.0]
    rough = top / wanted
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [round(i * step, 10) for i in range(ceil(top / step - 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class _Plot:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @property
    def y_top(self) -> float:
        return ticks(self.y_high)[-1]

    def x(self, value: float) -> float:
        share = (value - self.x_low) / ((self.x_high - self.x_low) or 1)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value / self.y_top * (_HEIGHT - _TOP - _BOTTOM)


def _axes(plot: _Plot, x_name: str) -> str:
    parts = []
    for value in ticks(plot.y_high):
        y = plot.y(value)
        parts.append(f"<line class='grid' x1='{_LEFT}' x2='{_WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<text x='{_LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{value:g}</text>")
    base = _HEIGHT - _BOTTOM + 16
    parts.append(f"<text x='{_LEFT}' y='{base}'>{plot.x_low:g}</text>")
    parts.append(f"<text x='{_WIDTH - _RIGHT}' y='{base}' text-anchor='end'>{plot.x_high:g}</text>")
    parts.append(f"<text x='{(_LEFT + _WIDTH) / 2:.0f}' y='{base}' text-anchor='middle'>{escape(x_name)}</text>")
    return "".join(parts)


def _line(plot: _Plot, curve: Curve) -> str:
    places = [f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in curve.points]
    dots = ""
    if curve.style == "valid" or len(places) == 1:
        centres = (place.split(",") for place in places)
        dots = "".join(f"<circle class='{curve.style}' cx='{x}' cy='{y}' r='2.6'/>" for x, y in centres)
    return f"<polyline class='{curve.style}' points='{' '.join(places)}'/>{dots}"

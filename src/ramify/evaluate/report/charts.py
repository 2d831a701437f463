"""Curves for a page without scripts, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite, log10

from ramify.evaluate.report.visible import attribute, isolated, visible

_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 12, 34
_DRAWN = 720  # points of a curve: two a pixel


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line of (x, y) points. `style` is a class of the page: `train` (thin) or `valid` (dots).

    Curves of one name and style are one entry of the legend.
    """

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
        return f"<figure><figcaption>{isolated(title)}</figcaption><p class='quiet'>no curve was written</p></figure>"
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points]
    plot = _Plot(min(xs), max(xs), 0.0, max(ys))
    parts = [_axes(plot, x_name), *(_line(plot, curve) for curve in drawn)]
    names = dict.fromkeys((curve.style, curve.name) for curve in drawn)
    legend = " ".join(f"<span class='key {style}'>{visible(name)}</span>" for style, name in names)
    label = attribute(
        f"{title}: " + "; ".join(f"{c.name} from {c.points[0][1]:.3g} to {c.points[-1][1]:.3g}" for c in drawn)
    )
    return (
        f"<figure><figcaption>{isolated(title)} <span class='legend'>{legend}</span></figcaption>"
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' aria-label=\"{label}\">{''.join(parts)}</svg></figure>"
    )


def step_for(width: float, wanted: int = 4) -> float:
    """A round number of which about `wanted` fill a positive width."""
    rough = width / wanted
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def ticks(top: float, wanted: int = 4) -> list[float]:
    """Round numbers from 0 up to at least `top`, about `wanted` of them."""
    if top <= 0:
        return [0.0, 1.0]
    step = step_for(top, wanted)
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
    parts.append(f"<text x='{(_LEFT + _WIDTH) / 2:.0f}' y='{base}' text-anchor='middle'>{visible(x_name)}</text>")
    return "".join(parts)


def _line(plot: _Plot, curve: Curve) -> str:
    places = [f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in _thinned(curve.points)]
    dots = ""
    if curve.style == "valid" or len(places) == 1:
        centres = (place.split(",") for place in places)
        dots = "".join(f"<circle class='{curve.style}' cx='{x}' cy='{y}' r='2.6'/>" for x, y in centres)
    return f"<polyline class='{curve.style}' points='{' '.join(places)}'/>{dots}"


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points of a long curve that look the same at its width: the lowest and the highest of each small stretch."""
    stretch = 2 * ceil(len(points) / _DRAWN)
    if stretch <= 2:
        return list(points)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = (min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1]))
        kept += sorted(dict.fromkeys(ends))
    return kept

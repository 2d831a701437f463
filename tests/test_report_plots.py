"""Plots say in shapes and words what they say in colours, and keep what is drawn where its value is."""

from __future__ import annotations

import re

import pytest
from test_evaluate_report import NASTY, Page

from ramify.evaluate.report.charts import Curve, line_chart
from ramify.evaluate.report.plots import Estimate, Kind, Shape, bars, forest, stacked
from ramify.evaluate.scores import Rate

KINDS = [Kind("right", "right"), Kind("wrong", "wrong"), Kind("cut off", "truncated")]


def places(html: str, pattern: str) -> list[float]:
    return [float(each) for each in re.findall(pattern, html)]


def estimate(name: str, value: float, low: float, high: float, shape: Shape = Shape.OPEN) -> Estimate:
    return Estimate(name, value, low, high, shape, f"{value:+.1f}", "cannot be told")


def test_bars_end_at_their_value_and_whiskers_at_their_interval() -> None:
    html = bars([("base", Rate(0.25, 0.2, 0.4)), (NASTY, Rate(1.0, 0.9, 1.0))])
    assert places(html, r"class='fill' width='([\d.]+)%'") == [25.0, 100.0]
    assert places(html, r"<line x1='([\d.]+)%' x2='[\d.]+%' y1='12'") == [20.0, 90.0]
    assert "aria-label='base: 25.0 %, 95 % interval 20.0 to 40.0'" in html
    assert Page(html).open == [] and NASTY in Page(html).text and "script" not in Page(html).tags


def test_a_forest_plot_has_one_axis_with_zero_on_it() -> None:
    rows = [estimate("a", 10, 5, 20, Shape.UP), estimate("b", -4, -10, 2), estimate("c", -9, -12, -5, Shape.DOWN)]
    html = forest("Differences", rows, "points")
    zero = set(places(html, r"class='zero' x1='([\d.]+)%'"))
    assert len(zero) == 1
    middles = places(html, r"<svg x='([\d.]+)%'")
    starts = places(html, r"class='interval' x1='([\d.]+)%'")
    ends = places(html, r"class='interval' x1='[\d.]+%' x2='([\d.]+)%'")
    (nothing,) = zero
    assert starts[0] > nothing and starts[1] < nothing < ends[1] and ends[2] < nothing
    assert all(low < middle < high for low, middle, high in zip(starts, middles, ends, strict=True))
    scale = (middles[0] - nothing) / 10
    assert middles == pytest.approx([nothing + scale * each.value for each in rows], abs=0.02)
    assert all(html.count(f"class='{each.value}'") == 1 for each in Shape)
    assert Page(html).open == [] and "cannot be told" in Page(html).text


@pytest.mark.parametrize("value", [0.0, 1e-9, 100.0, -100.0, 37.5])
def test_an_axis_holds_whatever_there_is(value: float) -> None:
    html = forest("", [estimate("x", value, value, value)], "")
    (middle,) = places(html, r"<svg x='([\d.]+)%'")
    assert 0 <= middle <= 100
    marks = places(html, r"<text x='([\d.]+)%'")
    assert 2 <= len(marks) <= 8 and marks == sorted(marks)


def test_without_rows_there_is_no_plot() -> None:
    assert forest("x", [], "points") == ""


def test_segments_fill_the_bar_in_order_and_say_how_many() -> None:
    html = stacked("", KINDS, [("base", [30, 60, 10]), ("none", [0, 0, 0])])
    widths = [
        (kind, float(x), float(width))
        for kind, x, width in re.findall(r"<rect class='(\w+)' x='([\d.]+)%' width='([\d.]+)%'", html)
    ]
    assert widths == [("right", 0.0, 30.0), ("wrong", 30.0, 60.0), ("truncated", 90.0, 10.0)]
    assert re.findall(r"text-anchor='middle'>(\d+)<", html) == ["30", "60", "10"]
    assert "base: right 30 (30.0 %), wrong 60 (60.0 %), cut off 10 (10.0 %)" in html
    assert "n = 100" in html and "n = 0" in html
    assert all(f"<span class='swatch {kind.style}'>{kind.name}</span>" in html for kind in KINDS)


def test_a_long_curve_is_thinned_without_losing_its_peaks() -> None:
    points = [(float(step), 1.0 + (5.0 if step == 7_003 else 0.0)) for step in range(20_000)]
    html = line_chart("loss", "step", [Curve("training", points, "train")])
    drawn = re.findall(r"[\d.]+,([\d.]+)", html)
    assert 300 < len(drawn) < 1500
    assert sum(float(y) < 60 for y in drawn) == 1  # y grows downwards: the one peak is still there


def test_curves_of_several_seeds_share_an_entry_of_the_legend() -> None:
    curves = [Curve("training", [(0.0, 1.0), (1.0, value)], "train") for value in (0.5, 0.6)]
    html = line_chart("loss", "step", curves)
    assert html.count("<polyline") == 2 and html.count("class='key train'") == 1

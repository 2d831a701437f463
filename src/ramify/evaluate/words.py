"""Findings in words: computed from the figures, and silent about what the figures cannot show."""

from __future__ import annotations

from ramify.evaluate.scores import Paired, Rate
from ramify.evaluate.statistics.findings import LEVEL, Finding


def headline(before: str, after: str, found: Paired) -> str:
    """One sentence on what `after` gained or lost against `before`; says so when nothing can be shown."""
    interval = f"95 % interval {_points(found.low)} to {_points(found.high)}, n = {found.n}"
    if not found.shown:
        gained = _signed(found.difference)
        return f"No difference can be shown between {before} and {after}: {gained} points ({interval})."
    more = "more" if found.difference > 0 else "fewer"
    gained = _points(abs(found.difference))
    if found.difference < 0:
        interval = f"95 % interval {_points(-found.high)} to {_points(-found.low)}, n = {found.n}"
    return f"{after} answers {gained} points {more} questions correctly than {before} ({interval})."


def verdict(found: Finding) -> str:
    """What a finding shows, with its certainty: `better: +18.0 points, 95 % interval +12.0 to +24.0, n = 500`.

    Where nothing is shown it says what it would take: more problems, or more training seeds.
    """
    pair = found.paired
    if found.shown:
        return f"{found.outcome.value}: {_signed(pair.difference)} points, {_interval(pair)}, n = {pair.n:,}"
    said = f"no difference can be shown with n = {pair.n:,}"
    figures = f"({_signed(pair.difference)} points, {_interval(pair)})"
    return f"{said}: {_missing(found)} {figures}" if pair.n else "no problem was graded on both sides"


def _missing(found: Finding) -> str:
    """What it would take to show a difference of this size."""
    if found.paired.difference == 0:
        return "as many became right as became wrong"
    if found.needed is None:
        return "more training seeds would be needed, more problems alone would not do"
    if found.needed > found.paired.n:
        return f"about {_round(found.needed):,} would be needed"
    if found.tests > 1 and found.paired.shown and found.paired.p <= LEVEL:
        return f"it does not outlast the correction for {found.tests} tests"
    return "the interval just reaches 0" if not found.paired.shown else "the exact p is just above 0.05"


def _round(count: int) -> int:
    """Two digits are all that is known of it."""
    step = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // step) * step


def _interval(pair: Paired) -> str:
    return f"95 % interval {_signed(pair.low)} to {_signed(pair.high)}"


def finding(found: Paired) -> str:
    """`better`, `worse`, or that no difference can be shown."""
    if not found.shown:
        return "no difference can be shown"
    return "better" if found.difference > 0 else "worse"


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def rate(found: Rate) -> str:
    """A rate with its interval, in percent: `31.2 % (27.3–35.4)`."""
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f}–{100 * found.high:.1f})"


def points(found: Paired) -> str:
    """A difference with its interval, in points: `+31.2 (+27.3 to +35.1)`."""
    return f"{_signed(found.difference)} ({_signed(found.low)} to {_signed(found.high)})"


def p_value(p: float) -> str:
    """`0.032`, or `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _points(share: float) -> str:
    """A share in points with one decimal, a true minus sign, and no minus before zero."""
    return f"{100 * share:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _signed(share: float) -> str:
    text = _points(share)
    return text if text.startswith("−") or text == "0.0" else f"+{text}"

"""Findings in words: computed from the figures, and silent about what the figures cannot show."""

from __future__ import annotations

from collections.abc import Mapping

from ramify.evaluate.scores import Paired, Rate
from ramify.evaluate.statistics.findings import LEVEL, Finding, Outcome

_NAMED = 8
"""Categories that are named in a sentence."""
_OUTCOMES = {Outcome.BETTER: "better", Outcome.WORSE: "worse", Outcome.NOT_SHOWN: "cannot be told"}


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


def by_category(found: Mapping[str, Finding]) -> str:
    """What became better and worse by category: `better in a and b; worse in c; 6 more cannot be told`.

    Empty where there are no categories.
    """
    names = {each: [name for name, one in found.items() if one.outcome is each] for each in Outcome}
    open_ones = len(names[Outcome.NOT_SHOWN])
    parts = [f"{each.value} in {_joined(names[each])}" for each in (Outcome.BETTER, Outcome.WORSE) if names[each]]
    if open_ones:
        parts.append(f"{open_ones} more cannot be told" if parts else f"none of {open_ones} can be told")
    return "; ".join(parts)


def _joined(names: list[str]) -> str:
    """Names as people list them, the last ones counted where there are many."""
    named = names if len(names) <= _NAMED else [*names[: _NAMED - 1], f"{len(names) - _NAMED + 1} others"]
    return " and ".join([", ".join(named[:-1]), named[-1]]) if len(named) > 1 else named[0]


def _missing(found: Finding) -> str:
    """What it would take to show a difference of this size."""
    if found.paired.difference == 0:
        return "as many became right as became wrong"
    if found.needed is None:
        return "more training seeds would be needed, more problems alone would not do"
    if found.needed > found.paired.n:
        return f"about {needed(found)} would be needed"
    if found.tests > 1 and found.paired.shown and found.paired.p <= LEVEL:
        return f"it does not outlast the correction for {found.tests} tests"
    return "the interval just reaches 0" if not found.paired.shown else "p is just above 0.05"


def _round(count: int) -> int:
    """Two digits are all that is known of it."""
    step = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // step) * step


def _interval(pair: Paired) -> str:
    return f"95 % interval {_signed(pair.low)} to {_signed(pair.high)}"


def outcome(found: Finding) -> str:
    """`better`, `worse`, or that it cannot be told."""
    return _OUTCOMES[found.outcome]


def needed(found: Finding) -> str:
    """How many problems it would take, as the verdict says it; a dash where more problems are not what it lacks."""
    return f"{_round(found.needed):,}" if found.needed is not None and found.needed > found.paired.n else "–"


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


def signed(value: float) -> str:
    """A number with one decimal and its sign, a true minus; zero has none."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _signed(share: float) -> str:
    """A share in points."""
    return signed(100 * share)

"""Student's distribution: what an interval needs that rests on few repetitions. Standard library only."""

from __future__ import annotations

from math import exp, inf, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist

_TINY = 1e-300
_STEPS = 400
_MANY = 20


def t_tail(t: float, df: float) -> float:
    """Two-sided p of a t statistic with `df` > 0 degrees of freedom, which may be fractional or infinite.

    Source: Abramowitz & Stegun 1964, equation 26.7.1 with 26.5.27, by the regularised incomplete beta function.
    """
    if df == inf:
        df = 1e12  # equal to the normal distribution in every digit that is shown
    square = t * t
    return _incomplete_beta(df / 2, 0.5, df / (df + square)) if square < inf else 0.0


def t_point(p: float, df: float) -> float:
    """The t above 0 whose two-sided p is `p` (0 < p <= 1): 2.776 for p = 0.05 and df = 4.

    By Newton's method: with many degrees of freedom from Abramowitz & Stegun 26.7.5, with few from the normal
    distribution's point, which never lies beyond (the tail is convex).
    """
    normal = NormalDist().inv_cdf(1 - p / 2) if p > 1e-15 else 8.0
    t = _expanded(normal, df) if df > _MANY else normal
    for _ in range(_STEPS):
        step = (t_tail(t, df) - p) / (2 * _density(t, df))
        t += step
        if abs(step) <= 1e-9 * max(t, 1.0):  # the next one would be of the order of its square
            break
    return t


def _expanded(x: float, df: float) -> float:
    """The t point as a series in 1 / df around the normal point."""
    square = x * x
    terms = (
        x,
        x * (square + 1) / 4,
        x * ((5 * square + 16) * square + 3) / 96,
        x * (((3 * square + 19) * square + 17) * square - 15) / 384,
    )
    return sum(term / df**power for power, term in enumerate(terms))


def _density(t: float, df: float) -> float:
    front = lgamma((df + 1) / 2) - lgamma(df / 2) - log(df * pi) / 2
    return exp(front - (df + 1) / 2 * log1p(t * t / df))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b) for 0 <= x <= 1, by its continued fraction (Abramowitz & Stegun 26.5.8)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1 - x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method (Lentz 1976, Applied Optics 15)."""
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, _STEPS + round(5 * sqrt(max(a, b) ** 0.5))):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + numerator * d)
            c = _away(1 + numerator / c)
            found *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return found


def _away(value: float) -> float:
    """The value, or one next to zero in place of zero."""
    return value if abs(value) > _TINY else _TINY

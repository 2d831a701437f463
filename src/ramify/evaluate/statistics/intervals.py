"""Intervals and tests for shares and for differences of paired shares: what makes a figure a finding.

Pure functions of counts, standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb, sqrt

Z_95 = 1.959963984540054  # the 97.5 % point of the standard normal distribution


def wilson(successes: float, n: float) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953).

    Both counts may be fractional: `n` is then an effective sample size. Without observations it is (0, 1).
    """
    if n <= 0:
        return 0.0, 1.0
    share = successes / n
    spread = Z_95 * sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n))
    middle, scale = share + Z_95**2 / (2 * n), 1 + Z_95**2 / n
    return max(0.0, min(share, (middle - spread) / scale)), min(1.0, max(share, (middle + spread) / scale))


def tango(fixed: int, broken: int, n: int) -> tuple[float, float]:
    """95 % score interval of a difference of paired shares (Tango 1998, Statistics in Medicine 17, 891-908).

    The difference is (fixed - broken) / n. Unlike the normal interval it keeps its coverage when few pairs
    disagree, and it has a width when none does. Without pairs it is (-1, 1).
    """
    if n <= 0:
        return -1.0, 1.0
    estimate = (fixed - broken) / n
    low = _root(lambda delta: _tango_z(fixed, broken, n, delta) - Z_95, -1.0, estimate)
    high = _root(lambda delta: _tango_z(fixed, broken, n, delta) + Z_95, estimate, 1.0)
    return low, high


def _tango_z(fixed: int, broken: int, n: int, delta: float) -> float:
    """Tango's equation 5: the score statistic at a supposed difference; falls from +inf to -inf over [-1, 1]."""
    b = (2 * n - fixed + broken) * delta - fixed - broken
    c = -broken * delta * (1 - delta)
    nuisance = (sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)  # largest likelihood of `broken` given delta
    variance = n * (2 * nuisance + delta * (1 - delta))
    distance = fixed - broken - n * delta
    if variance <= 0:
        return 0.0 if distance == 0 else float("inf") if distance > 0 else float("-inf")
    return distance / sqrt(variance)


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero, by bisection to the last bit that matters."""
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def sign_test(up: int, down: int) -> float:
    """Two-sided exact p that `up` and `down` are equally likely: McNemar's exact test on the pairs that disagree.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996, with the binomial distribution in place of chi square.
    """
    trials, tail, ways = up + down, 0, 1
    for i in range(min(up, down) + 1):
        tail += ways
        ways = ways * (trials - i) // (i + 1)
    return min(1.0, 2 * tail / (1 << trials))


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased chance that one of k samples is correct, from n samples of which `correct` were.

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1. `k` must not exceed `n`.
    """
    if k > n:
        raise ValueError(f"pass@{k} needs at least {k} samples, found {n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)

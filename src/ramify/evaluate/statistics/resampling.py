"""Paired differences of any size: a bootstrap interval of their mean, and a permutation test that it is 0.

A difference is a fraction: with 4 samples a problem the share of right answers moves in quarters. On such a grid the
permutation distribution is computed, not drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import gcd, lcm, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ramify.base.rng import key
from ramify.evaluate.statistics.student import t_point

RESAMPLES = 10_000
_GRID = 1 << 22
"""Points of a permutation distribution that are computed; beyond, it is drawn."""
_CHUNK = 1 << 22
"""Numbers in memory while drawing."""


def bootstrap(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean over problems: a percentile bootstrap (Efron 1979), expanded for small samples.

    The percentiles are those that make it as wide as a t interval where the differences are normal (Hesterberg 2015,
    https://doi.org/10.1080/00031305.2015.1089789, section 5.3). Draws are keyed, so equal differences give equal
    intervals. With fewer than two problems it is (-1, 1), or wider where a difference is.
    """
    n = len(differences)
    if n < 2:
        widest = max(1.0, *(abs(each) for each in (*differences, 0.0)))
        return -widest, widest
    means = _resampled_means(np.asarray([round(each, 12) for each in differences], dtype=np.float64))
    tail = NormalDist().cdf(-sqrt(n / (n - 1)) * t_point(0.05, n - 1))
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def _resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of `RESAMPLES` samples of n values drawn with replacement; how often each value is drawn is multinomial."""
    distinct, counts = np.unique(values, return_counts=True)
    n = len(values)
    draws = np.random.default_rng(key("paired bootstrap", n))
    step = max(1, _CHUNK // len(distinct))
    found = [
        draws.multinomial(n, counts / n, size=min(step, RESAMPLES - start)) @ distinct / n
        for start in range(0, RESAMPLES, step)
    ]
    return np.concatenate(found)


def sign_flip(differences: Iterable[Fraction | int]) -> float:
    """Two-sided p of the permutation test that flips the sign of each problem's difference (Fisher 1935, section 21).

    Exact, by the characteristic function of the permutation distribution, where the differences lie on a grid of
    bearable size (as Pagano & Tritchler 1983, https://doi.org/10.1080/01621459.1983.10477990); else from
    `RESAMPLES` keyed draws, the observed one among them (Phipson & Smyth 2010, arXiv 1603.05766). Where every
    difference is 1, 0 or -1 it is McNemar's exact test.
    """
    moved = [each for each in differences if each]
    if not moved:
        return 1.0
    unit = lcm(*(each.denominator for each in moved))
    sizes = [int(each * unit) for each in moved]
    step = gcd(*sizes)
    sizes = [size // step for size in sizes]
    return _exact(sizes) if 4 * sum(map(abs, sizes)) < _GRID else _drawn([float(each) for each in moved])


def _exact(sizes: Sequence[int]) -> float:
    """Share of all sign patterns whose sum is at least as far from 0 as the observed one."""
    total, observed = sum(map(abs, sizes)), abs(sum(sizes))
    grid = 1 << (2 * total + 1).bit_length()
    angle = 2 * np.pi * np.arange(grid // 2 + 1) / grid
    spectrum = np.ones_like(angle)
    for size, count in Counter(map(abs, sizes)).items():
        spectrum *= np.cos(size * angle) ** count
    chances = np.fft.irfft(spectrum, grid)
    inner = chances[0] + 2 * chances[1:observed].sum() if observed else 0.0
    return float(min(1.0, max(1 - inner, 2.0 ** -min(len(sizes) - 1, 1000))))  # the observed pattern is one of them


def _drawn(values: Sequence[float]) -> float:
    size, observed = np.abs(np.asarray(values)), abs(sum(values))
    draws = np.random.default_rng(key("sign flips", len(values)))
    step = max(1, _CHUNK // len(values))
    reached = 0
    for start in range(0, RESAMPLES - 1, step):
        signs = draws.integers(0, 2, (min(step, RESAMPLES - 1 - start), len(values)), dtype=np.int8)
        reached += int((np.abs((2 * signs - 1) @ size) >= observed * (1 - 1e-12)).sum())
    return (1 + reached) / RESAMPLES

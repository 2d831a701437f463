"""How many problems it takes: what a comparison that shows nothing can still tell its reader."""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist

_POWER = 0.8
_ALPHA = 0.05


def problems_needed(difference: float, square: float, *, tests: int = 1) -> int | None:
    """Problems with which a difference of this size is shown in 80 of 100 comparisons, at 5 % over all `tests`.

    Source: Connor 1987, https://doi.org/10.2307/2531961, equation 2 (for right and wrong answers `square` is the share
    of problems whose answers disagree), with half a step of the exact test taken off the difference, as its
    conservatism asks.

    Args:
        difference: mean of the paired differences; its sign does not matter.
        square: mean of their squares.
        tests: how many are corrected together; each is then counted at the level of Holm's first step.

    Returns:
        None where there is no difference.
    """
    size = abs(difference)
    if size == 0 or square <= 0:
        return None
    normal = NormalDist()
    alpha, power = normal.inv_cdf(1 - _ALPHA / tests / 2), normal.inv_cdf(_POWER)
    width = alpha * sqrt(square) + power * sqrt(max(square - size * size, 0.0))
    root = (width + sqrt(width * width + 4 * size)) / (2 * size)
    return ceil(root * root)

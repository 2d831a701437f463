"""How much of each source a mix takes: exact integers from weights, in rows or in trained tokens."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Literal

Short = Literal["cap", "repeat", "rebalance"]


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total`, each less than 1 from its share: the largest remainders are rounded up.

    Of equal remainders the first goes first.
    """
    quotas = [total * share for share in _exact(weights)]
    parts = [floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(parts)), key=lambda at: (parts[at] - quotas[at], at))
    for at in by_remainder[: total - sum(parts)]:
        parts[at] += 1
    return parts


def amounts(total: int | None, weights: Sequence[float], there: Sequence[int], short: Short) -> list[int]:
    """How much to take of each source.

    Args:
        total: of the mix; None: as much as leaves the weights exact, without repeating anything.
        there: what each source has; one that has nothing gives nothing.
        short: what happens when a source has less than its share: `cap` takes what there is, `repeat` takes the share
            all the same, `rebalance` shares what is missing among the others by their weights until nothing moves.

    Returns:
        an amount for each source: its apportioned share, what it has, or (`repeat`) more than it has.
    """
    if total is None:
        return _as_much(weights, there)
    wanted = apportion(total, weights)
    if short == "repeat":
        return [amount if has else 0 for amount, has in zip(wanted, there, strict=True)]
    if short == "cap":
        return [min(amount, has) for amount, has in zip(wanted, there, strict=True)]
    return _rebalanced(total, weights, there)


def _as_much(weights: Sequence[float], there: Sequence[int]) -> list[int]:
    full = [at for at, has in enumerate(there) if has]
    given = [weights[at] for at in full]
    parts = [0] * len(there)
    if full:
        whole = min(there[at] / share for at, share in zip(full, _exact(given), strict=True))
        for at, amount in zip(full, apportion(floor(whole), given), strict=True):
            parts[at] = amount
    return parts


def _rebalanced(total: int, weights: Sequence[float], there: Sequence[int]) -> list[int]:
    """Sources whose exact share is all they have, or more, give all; the rest is shared by the others, and so on."""
    parts = list(there)
    open_ = list(range(len(there)))
    left = total
    while open_:
        shares = _exact([weights[at] for at in open_])
        short = {at for at, share in zip(open_, shares, strict=True) if left * share >= there[at]}
        if not short:
            for at, amount in zip(open_, apportion(left, [weights[at] for at in open_]), strict=True):
                parts[at] = amount
            break
        left -= sum(there[at] for at in short)
        open_ = [at for at in open_ if at not in short]
    return parts


def _exact(weights: Sequence[float]) -> list[Fraction]:
    """Shares that sum to 1; weights count as they are written: 0.1 is a tenth."""
    exact = [Fraction(str(weight)) for weight in weights]
    return [each / sum(exact) for each in exact]

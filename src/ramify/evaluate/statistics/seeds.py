"""Differences between trainings: an interval that covers the problems asked and the seeds trained with.

A training with another seed is another model. What a method is worth is its mean over seeds, and with few of them that
mean is uncertain however many problems are asked.

    accuracy of seed s on problem i  =  what all seeds share on i  +  effect of s  +  the rest

Problems and seeds are crossed random effects. With S seeds the mean of the seeds' accuracies has variance s²/S (s: the
standard deviation between them, the rest included), known with S - 1 degrees of freedom; what the problems add to it is
their variance without the rest. Both parts have a t interval of their own, and their half-widths are added as squares
(Zou & Donner 2008, https://doi.org/10.1002/sim.3095). Where that is narrower than the interval over problems alone, the
latter holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf

import numpy as np
from numpy.typing import NDArray

from ramify.evaluate.scores import Paired, Shares, paired_shares
from ramify.evaluate.statistics.spread import Spread


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: what was found of it, a table for each training seed.

    Attributes:
        trained: whether it was trained, so that another seed would give another model.
    """

    tables: Sequence[Shares]
    trained: bool


def paired_seeds(before: Side, after: Side, *, same_trainings: bool = False) -> Paired:
    """`after` against `before` on the problems that every table has: means over training seeds.

    With one table on each side it is `paired_shares`, which covers the problems only. Otherwise interval and p cover
    both, and p is at least that of `paired_shares`. A side that was trained once is taken to vary between seeds as the
    other one does; one that was not trained does not vary.

    Args:
        same_trainings: both sides measure the same trainings in two ways, table by table.
    """
    tables = [*before.tables, *after.tables]
    if len(tables) == 2:
        return paired_shares(tables[0], tables[1])
    names = [name for name in tables[0] if all(name in table for table in tables)]
    found = paired_shares(*({name: _mean(side, name) for name in names} for side in (before, after)))
    found = replace(found, left_out=len({name for table in tables for name in table}) - len(names))
    spread = _spread(before, after, names, same_trainings) if len(names) > 1 else None
    if spread is None:
        return found
    half = spread.half_width(0.05)
    if half == 0:  # nothing varied: what problems alone leave open stays open
        return replace(found, spread=spread)
    most = 1.0 if all(table[name] <= 1 for table in tables for name in names) else inf  # no share differs by more
    return replace(
        found,
        low=max(-most, found.difference - half),
        high=min(most, found.difference + half),
        p=max(found.p, spread.p(found.difference)),
        spread=spread,
    )


def _mean(side: Side, name: str) -> Fraction:
    return sum((table[name] for table in side.tables), Fraction(0)) / len(side.tables)


def _spread(before: Side, after: Side, names: Sequence[str], same_trainings: bool) -> Spread | None:
    """None where no side has several seeds."""
    left, right = _matrix(before, names), _matrix(after, names)
    n = len(names)
    problems = float((right.mean(0) - left.mean(0)).var(ddof=1)) / n
    if same_trainings:
        varying, inverse = [right - left], 1 / len(right)
    else:
        trained = [found for side, found in ((before, left), (after, right)) if side.trained]
        varying, inverse = trained, sum(1 / len(found) for found in trained)
    several = [found for found in varying if len(found) > 1]
    df = sum(len(found) - 1 for found in several)
    if not df:
        return None
    between = sum((len(found) - 1) * float(found.mean(1).var(ddof=1)) for found in several) / df
    rest = sum(_rest(found) for found in several) / (df * (n - 1)) / n
    return Spread(problems, n, max(problems - rest * inverse, 0.0), between * inverse, df)


def _matrix(side: Side, names: Sequence[str]) -> NDArray[np.float64]:
    """A row a seed, a column a problem."""
    return np.array([[float(table[name]) for name in names] for table in side.tables])


def _rest(found: NDArray[np.float64]) -> float:
    """Sum of squares that neither seeds nor problems explain."""
    explained = found.mean(1, keepdims=True) + found.mean(0, keepdims=True) - found.mean()
    return float(((found - explained) ** 2).sum())

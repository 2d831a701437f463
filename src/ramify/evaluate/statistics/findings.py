"""From figures to claims: a difference is shown where its interval excludes 0 and its corrected p is at most 0.05.

found = findings([paired(a, b), paired(a, c)])     # a family: corrected together
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ramify.evaluate.scores import Paired
from ramify.evaluate.statistics.power import problems_needed

LEVEL = 0.05
"""Chance of claiming any difference in a family where there is none."""


class Outcome(Enum):
    """What a comparison shows."""

    BETTER = "better"  # the interval lies above 0, and the corrected p is at most 0.05
    WORSE = "worse"  # the interval lies below 0, and the corrected p is at most 0.05
    NOT_SHOWN = "not_shown"  # neither; that they are equal is not shown either


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim about `after` against `before` on a set of problems.

    Attributes:
        paired: the difference, its interval, the exact p.
        p_adjusted: p corrected over the family (Holm 1979).
        tests: how many were corrected together.
        needed: problems that it would take to show a difference of this size with 80 % power; None where it is shown,
            where there is no difference, or where more problems alone would not do.
    """

    paired: Paired
    p_adjusted: float
    tests: int
    outcome: Outcome
    needed: int | None

    @property
    def shown(self) -> bool:
        """Whether it is better or worse."""
        return self.outcome is not Outcome.NOT_SHOWN


def findings(family: Sequence[Paired]) -> tuple[Finding, ...]:
    """What each of a family of comparisons shows; in the order given."""
    adjusted = holm([each.p for each in family])
    return tuple(_finding(each, p, len(family)) for each, p in zip(family, adjusted, strict=True))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected so that the chance of any false claim among them stays at its level, in the order given.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    found = [1.0] * len(p_values)
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        found[i] = largest
    return found


def _finding(found: Paired, p_adjusted: float, tests: int) -> Finding:
    outcome = Outcome.NOT_SHOWN
    if found.shown and p_adjusted <= LEVEL:
        outcome = Outcome.BETTER if found.difference > 0 else Outcome.WORSE
    needed = None if outcome is not Outcome.NOT_SHOWN else _needed(found, tests)
    return Finding(found, p_adjusted, tests, outcome, needed)


def _needed(found: Paired, tests: int) -> int | None:
    if found.spread is not None and found.difference:
        return found.spread.problems_needed(found.difference, tests=tests)
    return problems_needed(found.difference, found.square, tests=tests)

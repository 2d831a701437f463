"""How uncertain a mean difference is when both the problems asked and the seeds trained with could have been others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from statistics import NormalDist

from ramify.evaluate.statistics.student import t_point

_STEPS = 30
_MOST = 1 << 24
"""Problems that nobody has."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Variance of a mean difference.

    Attributes:
        problems: over problems alone; n: how many.
        own: the part of it that is not between seeds too.
        seeds: between seeds; df: its degrees of freedom.
    """

    problems: float
    n: int
    own: float
    seeds: float
    df: int

    def half_width(self, p: float) -> float:
        """Of the interval that leaves out a true difference with chance `p`."""
        of_problems = t_point(p, max(self.n - 1, 1))
        both = t_point(p, self.df) ** 2 * self.seeds + of_problems**2 * self.own
        return sqrt(max(both, of_problems**2 * self.problems))

    def p(self, difference: float) -> float:
        """Two-sided p of a difference: that of the interval that ends at 0."""
        size, low, high = abs(difference), 0.0, 1.0
        if size == 0:
            return 1.0
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.half_width(middle) > size else (low, middle)
        return high

    def of(self, n: int) -> Spread:
        """What it would be with `n` problems and the same trainings."""
        return replace(self, problems=self.problems * self.n / n, own=self.own * self.n / n, n=n)

    def problems_needed(self, difference: float, *, tests: int = 1) -> int | None:
        """Problems with which a difference of this size is shown in about 80 of 100 comparisons, with as many seeds.

        Args:
            tests: how many are corrected together; each is then counted at the level of Holm's first step.

        Returns:
            None where no number of problems would do.
        """
        low, high = 1, 2
        while not self.of(high).shows(difference, tests):
            if high > _MOST:
                return None
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.of(middle).shows(difference, tests) else (middle, high)
        return high

    def shows(self, difference: float, tests: int) -> bool:
        """Whether a difference of this size is likely (80 %) to lie outside of its interval."""
        deviation = sqrt(max(self.problems, self.seeds + self.own))
        return abs(difference) >= self.half_width(0.05 / tests) + NormalDist().inv_cdf(0.8) * deviation

"""What the votes of a judge amount to: win rate, position bias, and agreement with the rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ramify.evaluate.judge.asking import Judged, Order, Pairing, Preference, asked_id
from ramify.evaluate.scores import Rate, rate_of
from ramify.evaluate.statistics.findings import LEVEL, holm
from ramify.evaluate.statistics.intervals import sign_test


@dataclass(frozen=True, slots=True)
class Standing:
    """How `after` stands against `before` in the eyes of a judge.

    Attributes:
        win_rate: wins plus half of the ties, over the pairs that were judged, with a 95 % interval.
        p: two-sided exact p that wins and losses are equally likely (sign test; ties say nothing).
        p_adjusted: p corrected over the categories of a judgement (Holm 1979); over everything it is p.
        swayed, same: ties because the order decided, and because the texts are equal; counted in `ties`.
        errors: pairs with a word that could not be read; in none of the figures.
    """

    n: int
    wins: int
    losses: int
    ties: int
    swayed: int
    same: int
    errors: int
    win_rate: Rate
    p: float
    p_adjusted: float

    @property
    def shown(self) -> bool:
        """Whether a preference is shown: the interval excludes one half, and so does the corrected test at 5 %."""
        return self.p_adjusted <= LEVEL and (self.win_rate.low > 0.5 or self.win_rate.high < 0.5)


@dataclass(frozen=True, slots=True)
class Bias:
    """What the order of two answers does to the judge, over the pairs of which both words could be read.

    Attributes:
        consistent: share judged alike in both orders.
        first, second: share in which the answer shown first (second) was preferred in both orders.
    """

    n: int
    consistent: Rate
    first: Rate
    second: Rate


@dataclass(frozen=True, slots=True)
class RuleAgreement:
    """How the judge agrees with the task's own grader on which answer is better.

    Attributes:
        n: pairs that both have judged.
        agreement: share of equal preferences, ties among them.
        kappa: Cohen's kappa (1960, https://doi.org/10.1177/001316446002000104) of before, after and tie; None where
            chance alone leaves nothing to disagree on.
        decided: pairs of which the grader found one answer right and the other not; followed: share of them in which
            the judge preferred the right one.
    """

    n: int
    agreement: Rate
    kappa: float | None
    decided: int
    followed: Rate


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that a judge's votes show.

    Attributes:
        categories: the same by category, where there are at least two.
    """

    overall: Standing
    categories: Mapping[str, Standing]
    bias: Bias
    rules: RuleAgreement


def judgement(pairings: Sequence[Pairing], found: Sequence[Judged], words: Mapping[str, str | None]) -> Judgement:
    """Count the votes.

    Args:
        found: how each pairing was judged; words: what the judge said, by `asked_id`.
    """
    by_category: dict[str, list[Judged]] = {}
    for each, outcome in zip(pairings, found, strict=True):
        by_category.setdefault(each.problem.category or "(none)", []).append(outcome)
    categories = _corrected(by_category) if len(by_category) > 1 else {}
    return Judgement(standing(found), categories, _bias(pairings, words), _rules(pairings, found))


def _corrected(by_category: Mapping[str, Sequence[Judged]]) -> dict[str, Standing]:
    """How `after` stands in each category; as many tests as there are categories."""
    found = [standing(held) for held in by_category.values()]
    adjusted = holm([each.p for each in found])
    return {name: replace(each, p_adjusted=p) for name, each, p in zip(by_category, found, adjusted, strict=True)}


def standing(found: Sequence[Judged]) -> Standing:
    """Wins, losses and ties of `after`; a tie is half a win in the rate."""
    counts = Counter(found)
    wins, losses = counts[Judged.AFTER], counts[Judged.BEFORE]
    ties = counts[Judged.TIE] + counts[Judged.SWAYED] + counts[Judged.SAME]
    halves = [[True]] * wins + [[False]] * losses + [[True, False]] * ties
    p = sign_test(wins, losses)
    return Standing(
        n=wins + losses + ties,
        wins=wins,
        losses=losses,
        ties=ties,
        swayed=counts[Judged.SWAYED],
        same=counts[Judged.SAME],
        errors=counts[Judged.ERROR],
        win_rate=rate_of(halves),
        p=p,
        p_adjusted=p,
    )


def headline(before: str, after: str, found: Standing) -> str:
    """One sentence on which of the two the judge prefers; says so when nothing can be shown."""
    if not found.n:
        return f"Nothing is known: no word of the judge could be read ({found.errors} pairs)."
    low, high = 100 * found.win_rate.low, 100 * found.win_rate.high
    told = f"win rate {100 * found.win_rate.value:.1f} %, 95 % interval {low:.1f} to {high:.1f}, n = {found.n}"
    if not found.shown:
        return f"No preference can be shown between {before} and {after} ({told})."
    better = after if found.win_rate.value > 0.5 else before
    return f"The judge prefers {better} (of {after}: {told})."


def _bias(pairings: Iterable[Pairing], words: Mapping[str, str | None]) -> Bias:
    said = [tuple(words.get(asked_id(each.problem.id, order)) for order in Order) for each in pairings]
    both = [pair for pair in said if None not in pair]
    same = {("A", "B"), ("B", "A"), ("tie", "tie")}
    return Bias(
        n=len(both),
        consistent=rate_of([[pair in same] for pair in both]),
        first=rate_of([[pair == ("A", "A")] for pair in both]),
        second=rate_of([[pair == ("B", "B")] for pair in both]),
    )


def _rules(pairings: Sequence[Pairing], found: Sequence[Judged]) -> RuleAgreement:
    both = [
        (each.rules, outcome.preference)
        for each, outcome in zip(pairings, found, strict=True)
        if each.rules is not None and outcome.preference is not None
    ]
    decided = [(rules, judge) for rules, judge in both if rules is not Preference.TIE]
    return RuleAgreement(
        n=len(both),
        agreement=rate_of([[rules is judge] for rules, judge in both]),
        kappa=cohen_kappa(both),
        decided=len(decided),
        followed=rate_of([[rules is judge] for rules, judge in decided]),
    )


def cohen_kappa(pairs: Sequence[tuple[object, object]]) -> float | None:
    """Agreement of two raters beyond chance; None without pairs, or where both give one and the same label only."""
    n = len(pairs)
    left, right = (Counter(each[side] for each in pairs) for side in (0, 1))
    chance = sum(left[label] * right[label] for label in left) / n**2 if n else 1.0
    if chance >= 1:
        return None
    return (sum(a == b for a, b in pairs) / n - chance) / (1 - chance)

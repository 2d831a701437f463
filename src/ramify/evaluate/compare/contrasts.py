"""Two arms held against each other: what became better, what became worse, and what cannot be told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from statistics import fmean

from ramify.base.types import Problem, Reason, Sample, Stop, Verdict
from ramify.evaluate import words
from ramify.evaluate.compare.arms import Arm, Holds
from ramify.evaluate.compare.nearest import Near
from ramify.evaluate.scores import ANSWERED, Paired, Rate, Shares
from ramify.evaluate.statistics.findings import Finding, findings
from ramify.evaluate.statistics.intervals import pass_at_k, tango
from ramify.evaluate.statistics.resampling import bootstrap
from ramify.evaluate.statistics.seeds import Side, paired_seeds

_ONE_SEED = "; one training seed, the variance between seeds is not covered"


def is_right(sample: Sample, verdict: Verdict) -> bool:
    """The answer is correct."""
    return verdict.reason is Reason.CORRECT


def is_answered(sample: Sample, verdict: Verdict) -> bool:
    """The answer could be read, right or wrong."""
    return verdict.reason in ANSWERED


def is_ended(sample: Sample, verdict: Verdict) -> bool:
    """The model ended by itself, or at a stop string."""
    return sample.stop is not Stop.LENGTH


class FlipKind(Enum):
    """Which way an answer went."""

    FIXED = "fixed"  # wrong before, right after
    BROKEN = "broken"  # right before, wrong after


@dataclass(frozen=True, slots=True)
class Flip:
    """A problem whose first answer (of the first training seed) changed between right and wrong."""

    problem: Problem
    before: Sample
    before_verdict: Verdict
    after: Sample
    after_verdict: Verdict
    kind: FlipKind


@dataclass(frozen=True, slots=True)
class PassAt:
    """The chance that one of k samples is right, before and after, on the problems that both have k samples of.

    Attributes:
        low, high: 95 % interval of the difference (bootstrap over problems; Tango's where no chance differs).
    """

    before: float
    after: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Length:
    """New tokens of an answer.

    Attributes:
        before, after: mean over all answers.
        paired: difference in tokens, problem by problem; `fixed` are those that became longer.
    """

    before: float
    after: float
    paired: Paired


@dataclass(frozen=True)
class Contrast:
    """`after` against `before`.

    Attributes:
        overall: correctness; corrected over all contrasts of the comparison, as the next two are.
        answered: the same on whether an answer could be read: format failures apart from wrong answers.
        ended: the same on whether the model ended by itself.
        right_when_answered: share correct of the answers that could be read, before and after.
        length: new tokens; None where an engine did not tell them.
        categories: correctness by category, corrected over them; empty when there are fewer than two.
        pass_at_k: by k, for k above 1.
        across_seeds: whether interval and p cover the variance between training seeds.
        seeds_matter: whether the two differ in their training, so that there is such a variance.
        flips: every first answer that changed between right and wrong.
        verdict: in words, with its certainty.
        near: problem -> the training rows nearest to its broken answer, where `trace` has looked for them.
    """

    before: Arm
    after: Arm
    overall: Finding
    answered: Finding
    ended: Finding
    right_when_answered: tuple[Rate, Rate]
    length: Length | None
    categories: Mapping[str, Finding]
    pass_at_k: Mapping[int, PassAt]
    across_seeds: bool
    seeds_matter: bool
    flips: tuple[Flip, ...]
    verdict: str
    near: Mapping[str, tuple[Near, ...]] = field(default_factory=dict)

    @property
    def by_category(self) -> str:
        """What became better and worse by category, in words; empty where there are no categories."""
        return words.by_category(self.categories)

    @property
    def fixed(self) -> tuple[Flip, ...]:
        """Flips from wrong to right."""
        return self.of_kind(FlipKind.FIXED)

    @property
    def broken(self) -> tuple[Flip, ...]:
        """Flips from right to wrong."""
        return self.of_kind(FlipKind.BROKEN)

    def of_kind(self, kind: FlipKind) -> tuple[Flip, ...]:
        """Flips of one kind."""
        return tuple(each for each in self.flips if each.kind is kind)


def contrasts(pairs: Sequence[tuple[Arm, Arm]]) -> tuple[Contrast, ...]:
    """All contrasts of a comparison; what they claim is corrected over them."""
    families = [_family(pairs, holds) for holds in (is_right, is_answered, is_ended)]
    return tuple(_contrast(a, b, *found) for (a, b), *found in zip(pairs, *families, strict=True))


def _contrast(before: Arm, after: Arm, overall: Finding, answered: Finding, ended: Finding) -> Contrast:
    matter = before.trainings != after.trainings
    across = matter and max(before.seeds, after.seeds) > 1
    return Contrast(
        before=before,
        after=after,
        overall=overall,
        answered=answered,
        ended=ended,
        right_when_answered=(before.right_when_answered, after.right_when_answered),
        length=_length(before, after),
        categories=_categories(before, after),
        pass_at_k=_pass_at_k(before, after),
        across_seeds=across,
        seeds_matter=matter,
        flips=_flips(before, after),
        verdict=words.verdict(overall) + (_ONE_SEED if matter and not across else ""),
    )


def _family(pairs: Sequence[tuple[Arm, Arm]], holds: Holds) -> tuple[Finding, ...]:
    return findings([_held(a, b, a.shares(holds), b.shares(holds)) for a, b in pairs])


def _held(before: Arm, after: Arm, left: Sequence[Shares], right: Sequence[Shares]) -> Paired:
    """Two arms' tables against each other, with what their trainings say about seeds."""
    sides = Side(left, bool(before.trainings)), Side(right, bool(after.trainings))
    return paired_seeds(*sides, same_trainings=before.trainings == after.trainings)


def _categories(before: Arm, after: Arm) -> dict[str, Finding]:
    """Correctness by category, in the order of their names; nothing when there are fewer than two."""
    category = {problem.id: problem.category for problem in before.stage.problems}
    names = sorted({name for name in category.values() if name})
    if len(names) < 2:
        return {}
    left, right = ([_divided(table, category) for table in arm.shares(is_right)] for arm in (before, after))
    family = [_held(before, after, [t[name] for t in left], [t[name] for t in right]) for name in names]
    return dict(zip(names, findings(family), strict=True))


def _divided(table: Shares, category: Mapping[str, str]) -> Mapping[str, dict[str, Fraction]]:
    """Category -> the shares of its problems."""
    found: dict[str, dict[str, Fraction]] = defaultdict(dict)
    for name, share in table.items():
        found[category.get(name, "")][name] = share
    return found


def _length(before: Arm, after: Arm) -> Length | None:
    if not (before.scores.tokens and after.scores.tokens):
        return None
    return Length(before.scores.tokens, after.scores.tokens, _held(before, after, before.lengths, after.lengths))


def _pass_at_k(before: Arm, after: Arm) -> dict[int, PassAt]:
    ks = [k for k in before.scores.pass_at_k if k > 1 and k in after.scores.pass_at_k]
    found = {k: _pass_at(_chances(before, k), _chances(after, k)) for k in ks}
    return {k: each for k, each in found.items() if each is not None}


def _pass_at(left: Mapping[str, float], right: Mapping[str, float]) -> PassAt | None:
    """None where no problem has enough samples on both sides."""
    names = [name for name in left if name in right]
    if not names:
        return None
    differences = [right[name] - left[name] for name in names]
    low, high = bootstrap(differences) if any(differences) else tango(0, 0, len(names))
    return PassAt(fmean(left[name] for name in names), fmean(right[name] for name in names), low, high)


def _chances(arm: Arm, k: int) -> dict[str, float]:
    """Problem -> chance that one of k samples is right; the mean over training seeds."""
    found: dict[str, list[float]] = {}
    for counts in arm.right_counts:
        for name, (drawn, right) in counts.items():
            if drawn >= k:
                found.setdefault(name, []).append(pass_at_k(drawn, right, k))
    return {name: fmean(each) for name, each in found.items() if len(each) == arm.seeds}


def _flips(before: Arm, after: Arm) -> tuple[Flip, ...]:
    old, new = _first_answers(before), _first_answers(after)
    found = []
    for problem in after.stage.problems:
        if problem.id in old and problem.id in new:
            was, now = is_right(*old[problem.id]), is_right(*new[problem.id])
            if was != now:
                kind = FlipKind.FIXED if now else FlipKind.BROKEN
                found.append(Flip(problem, *old[problem.id], *new[problem.id], kind))
    return tuple(found)


def _first_answers(arm: Arm) -> dict[str, tuple[Sample, Verdict]]:
    return {sample.problem_id: (sample, verdict) for sample, verdict in arm.answers[0] if sample.index == 0}

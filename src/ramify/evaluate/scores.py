"""What a set of verdicts amounts to: rates with intervals, pass@k, maj@k, and paired comparisons.

A grader's own failures (`Reason.ERROR`) are counted and left out of every rate: they say nothing about a model.
With several samples a problem, the problem is the unit: intervals allow for samples of one problem being alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from statistics import fmean

from ramify.base.errors import DataError
from ramify.base.types import Reason, Sample, Stop, Verdict
from ramify.evaluate.statistics.intervals import pass_at_k, sign_test, tango, wilson
from ramify.evaluate.statistics.resampling import bootstrap, sign_flip
from ramify.evaluate.statistics.spread import Spread

ANSWERED = frozenset({Reason.CORRECT, Reason.WRONG})
"""What a grader finds where there is an answer that it can read, right or wrong."""
Shares = Mapping[str, Fraction]
"""Problem -> share of its graded samples of which something holds."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share between 0 and 1 with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What an evaluation found.

    Attributes:
        n: problems with at least one graded sample.
        samples: graded samples.
        errors: samples whose grader failed; in none of the rates.
        accuracy: share correct.
        answer_rate: share with an answer that could be parsed, right or wrong.
        stop_rate: share that ended by itself or at a stop string, not at the length limit.
        truncated: share cut off by the length limit before an answer.
        pass_at_k: k -> chance that one of k samples is correct.
        maj_at_k: k -> share of problems whose most frequent answer of k samples is correct; empty where the task's
            answers are open texts, which do not vote.
        tokens: mean number of new tokens of a sample.
    """

    n: int
    samples: int
    errors: int
    accuracy: Rate
    answer_rate: Rate
    stop_rate: Rate
    truncated: Rate
    pass_at_k: Mapping[int, float]
    maj_at_k: Mapping[int, float]
    tokens: float


@dataclass(frozen=True, slots=True)
class Paired:
    """How `b` compares with `a` on the problems both were graded on.

    Attributes:
        difference: mean of b's correctness minus a's; low and high: its 95 % interval.
        fixed: problems on which b does better; broken: on which it does worse.
        both_right, both_wrong: problems on which they do equally well, by that share being at least half or not.
        p: two-sided: McNemar's exact test with one sample a problem, else a permutation test (see `sign_flip`), and
            with several training seeds the larger one of it and that over problems and seeds.
        left_out: problems of either side without a graded partner.
        square: mean of the squared differences; with one sample a problem the share of problems that disagree.
        spread: how uncertain the difference is over problems and training seeds; None with one seed each.
    """

    difference: float
    low: float
    high: float
    fixed: int
    broken: int
    both_right: int
    both_wrong: int
    p: float
    n: int
    left_out: int
    square: float = 0.0
    spread: Spread | None = None

    @property
    def shown(self) -> bool:
        """Whether the interval excludes no difference."""
        return self.low > 0 or self.high < 0


def score(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> Scores:
    """Scores of samples and their verdicts, matched by problem and index.

    Raises:
        DataError: a verdict or a sample has no partner.
    """
    both = graded(samples, verdicts)
    groups: dict[str, list[tuple[Sample, Verdict]]] = defaultdict(list)
    for sample, verdict in both:
        groups[sample.problem_id].append((sample, verdict))
    votes = {name: [verdict for _, verdict in group] for name, group in groups.items()}
    ks = _ks(max((len(group) for group in groups.values()), default=0))
    return Scores(
        n=len(groups),
        samples=len(both),
        errors=len(verdicts) - len(both),
        accuracy=rate_of([[v.reason is Reason.CORRECT for _, v in group] for group in groups.values()]),
        answer_rate=rate_of([[v.reason in ANSWERED for _, v in group] for group in groups.values()]),
        stop_rate=rate_of([[s.stop is not Stop.LENGTH for s, _ in group] for group in groups.values()]),
        truncated=rate_of([[v.reason is Reason.TRUNCATED for _, v in group] for group in groups.values()]),
        pass_at_k={k: _pass(votes.values(), k) for k in ks},
        maj_at_k={} if _are_open(verdicts) else {k: _majority(votes.values(), k) for k in ks},
        tokens=fmean(len(s.token_ids) for s, _ in both) if both else 0.0,
    )


def paired(a: Iterable[Verdict], b: Iterable[Verdict]) -> Paired:
    """Compare two evaluations problem by problem: correctness of `b` minus that of `a`, see `paired_shares`."""
    return paired_shares(correctness(a), correctness(b))


def paired_shares(before: Shares, after: Shares) -> Paired:
    """Compare shares problem by problem: `after` minus `before`, on the problems that both have.

    The interval is Tango's score interval when every share is 0 or 1 (one sample each) or no share moved, which is no
    proof that none would; else a bootstrap over problems (`resampling.bootstrap`), whose draws are keyed: equal shares
    give equal intervals.
    """
    names = [name for name in before if name in after]
    unit, pairs = _on_grid([(before[name], after[name]) for name in names])
    left_out = len(before) + len(after) - 2 * len(pairs)
    differences = [y - x for x, y in pairs]
    fixed, broken = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    both_right = sum(x == y and 2 * x >= unit for x, y in pairs)
    both_wrong = len(pairs) - fixed - broken - both_right
    are_shares = all(0 <= x <= unit and 0 <= y <= unit for x, y in pairs)
    if are_shares and (unit == 1 or not any(differences)):
        return paired_counts(fixed, broken, both_right, both_wrong, left_out=left_out)
    low, high = bootstrap([d / unit for d in differences])
    return Paired(
        difference=sum(differences) / (len(pairs) * unit),
        low=low,
        high=high,
        fixed=fixed,
        broken=broken,
        both_right=both_right,
        both_wrong=both_wrong,
        p=sign_flip(differences),
        n=len(pairs),
        left_out=left_out,
        square=sum(d * d for d in differences) / (len(pairs) * unit * unit),
    )


def _on_grid(pairs: Sequence[tuple[Fraction, Fraction]]) -> tuple[int, list[tuple[int, int]]]:
    """The pairs as whole numbers of 1 / unit, which are exact too, and quicker by far."""
    unit = lcm(*{share.denominator for pair in pairs for share in pair})
    return unit, [(x.numerator * (unit // x.denominator), y.numerator * (unit // y.denominator)) for x, y in pairs]


def paired_counts(fixed: int, broken: int, both_right: int, both_wrong: int, *, left_out: int = 0) -> Paired:
    """The same for a table of counts: every problem is right or wrong before and after."""
    n = fixed + broken + both_right + both_wrong
    low, high = tango(fixed, broken, n)
    return Paired(
        difference=(fixed - broken) / n if n else 0.0,
        low=low,
        high=high,
        fixed=fixed,
        broken=broken,
        both_right=both_right,
        both_wrong=both_wrong,
        p=sign_test(fixed, broken),
        n=n,
        left_out=left_out,
        square=(fixed + broken) / n if n else 0.0,
    )


def correctness(verdicts: Iterable[Verdict]) -> dict[str, Fraction]:
    """Problem -> share of its graded samples that are correct."""
    return share_of((v.problem_id, v.reason is Reason.CORRECT) for v in verdicts if v.reason is not Reason.ERROR)


def share_of(found: Iterable[tuple[str, bool]]) -> dict[str, Fraction]:
    """Problem -> share of what was found of it that holds."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name, holds in found:
        counts[name][0] += holds
        counts[name][1] += 1
    return {name: _share(held, total) for name, (held, total) in counts.items()}


@lru_cache(maxsize=4096)
def _share(held: int, total: int) -> Fraction:
    """The same few fractions come up for thousands of problems."""
    return Fraction(held, total)


def graded(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> list[tuple[Sample, Verdict]]:
    """Each sample with its verdict, grader failures left out.

    Raises:
        DataError: a verdict or a sample has no partner.
    """
    found = {(verdict.problem_id, verdict.sample_index): verdict for verdict in verdicts}
    if len(found) != len(verdicts) or len(samples) != len(verdicts):
        raise DataError(f"{len(samples)} samples but {len(found)} distinct verdicts in {len(verdicts)}")
    pairs = []
    for sample in samples:
        verdict = found.get((sample.problem_id, sample.index))
        if verdict is None:
            raise DataError(f"sample {sample.index} of problem {sample.problem_id!r} has no verdict")
        if verdict.reason is not Reason.ERROR:
            pairs.append((sample, verdict))
    return pairs


def rate_of(groups: Sequence[Sequence[bool]]) -> Rate:
    """Mean over problems of the share within each, with Wilson's interval at the effective sample size.

    The effective size is p(1-p) over the variance of the mean of the problems' shares (Kish 1965): the number
    of problems with one sample each, up to the number of samples when samples of a problem are independent.
    """
    if not groups:
        return Rate(0.0, 0.0, 1.0)
    shares = [fmean(group) for group in groups]
    p, n = fmean(shares), len(shares)
    variance = fmean((share - p) ** 2 for share in shares) / n
    most = sum(len(group) for group in groups)
    effective = n if p in (0.0, 1.0) else most if variance == 0 else min(most, p * (1 - p) / variance)
    low, high = wilson(p * effective, effective)
    return Rate(p, low, high)


def _ks(most: int) -> list[int]:
    """1, 2, 4, … and the largest number of samples itself."""
    powers = [2**i for i in range(most.bit_length()) if 2**i < most]
    return [*powers, most] if most else []


def _pass(groups: Iterable[Sequence[Verdict]], k: int) -> float:
    """Mean pass@k over the problems with at least k graded samples."""
    values = [pass_at_k(len(g), sum(v.reason is Reason.CORRECT for v in g), k) for g in groups if len(g) >= k]
    return fmean(values) if values else 0.0


def _are_open(verdicts: Iterable[Verdict]) -> bool:
    """Whether answers were found, and none of them has a form that could be counted."""
    answered = [verdict for verdict in verdicts if verdict.reason in ANSWERED]
    return bool(answered) and all(verdict.answer is None for verdict in answered)


def _majority(groups: Iterable[Sequence[Verdict]], k: int) -> float:
    """Mean over problems of the share of disjoint blocks of k samples whose most frequent answer is correct."""
    values = []
    for group in groups:
        blocks = [group[start : start + k] for start in range(0, len(group) - k + 1, k)]
        if blocks:
            values.append(fmean(_vote(block) for block in blocks))
    return fmean(values) if values else 0.0


def _vote(verdicts: Sequence[Verdict]) -> float:
    """1 when the most frequent answer is correct, 0 when not; a tie counts as the share of it that is correct."""
    ballots: dict[str | float, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.answer is not None:
            answer = verdict.answer if isinstance(verdict.answer, str) else round(verdict.answer, 3)
            ballots[answer].append(verdict.reason is Reason.CORRECT)
    most = max((len(votes) for votes in ballots.values()), default=0)
    winners = [fmean(votes) for votes in ballots.values() if len(votes) == most]
    return fmean(winners) if winners else 0.0

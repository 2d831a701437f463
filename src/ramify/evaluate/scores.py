"""What a set of verdicts amounts to: rates with intervals, pass@k, maj@k, and paired comparisons.

A grader's own failures (`Reason.ERROR`) are counted and left out of every rate: they say nothing about a model.
With several samples a problem, the problem is the unit: intervals allow for samples of one problem being alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ramify.base.errors import DataError
from ramify.base.rng import key
from ramify.base.types import Reason, Sample, Stop, Verdict
from ramify.evaluate.intervals import pass_at_k, sign_test, tango, wilson

_ANSWERED = frozenset({Reason.CORRECT, Reason.WRONG})
_RESAMPLES = 10_000


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
        maj_at_k: k -> share of problems whose most frequent answer of k samples is correct.
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
        p: two-sided exact p of fixed against broken (McNemar's test with one sample a problem, else a sign test).
        left_out: problems of either side without a graded partner.
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

    @property
    def shown(self) -> bool:
        """Whether the interval excludes no difference."""
        return self.low > 0 or self.high < 0


def score(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> Scores:
    """Scores of samples and their verdicts, matched by problem and index.

    Raises:
        DataError: a verdict or a sample has no partner.
    """
    graded = _graded(samples, verdicts)
    groups: dict[str, list[tuple[Sample, Verdict]]] = defaultdict(list)
    for sample, verdict in graded:
        groups[sample.problem_id].append((sample, verdict))
    votes = {name: [verdict for _, verdict in group] for name, group in groups.items()}
    ks = _ks(max((len(group) for group in groups.values()), default=0))
    return Scores(
        n=len(groups),
        samples=len(graded),
        errors=len(verdicts) - len(graded),
        accuracy=rate_of([[v.reason is Reason.CORRECT for _, v in group] for group in groups.values()]),
        answer_rate=rate_of([[v.reason in _ANSWERED for _, v in group] for group in groups.values()]),
        stop_rate=rate_of([[s.stop is not Stop.LENGTH for s, _ in group] for group in groups.values()]),
        truncated=rate_of([[v.reason is Reason.TRUNCATED for _, v in group] for group in groups.values()]),
        pass_at_k={k: _pass(votes.values(), k) for k in ks},
        maj_at_k={k: _majority(votes.values(), k) for k in ks},
        tokens=fmean(len(s.token_ids) for s, _ in graded) if graded else 0.0,
    )


def paired(a: Iterable[Verdict], b: Iterable[Verdict]) -> Paired:
    """Compare two evaluations problem by problem: `b` minus `a`.

    The interval is Tango's score interval when every problem is right or wrong (one sample each), else a
    percentile bootstrap over problems (Efron 1979) that is keyed, so equal verdicts give equal intervals.
    """
    left, right = _correctness(a), _correctness(b)
    names = [name for name in left if name in right]
    before, after = [left[name] for name in names], [right[name] for name in names]
    differences = [y - x for x, y in zip(before, after, strict=True)]
    fixed, broken = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    equal = [x for x, d in zip(before, differences, strict=True) if d == 0]
    binary = all(x in (0.0, 1.0) for x in before + after)
    low, high = tango(fixed, broken, len(names)) if binary else _bootstrap(differences)
    return Paired(
        difference=fmean(differences) if differences else 0.0,
        low=low,
        high=high,
        fixed=fixed,
        broken=broken,
        both_right=sum(x >= 0.5 for x in equal),
        both_wrong=sum(x < 0.5 for x in equal),
        p=sign_test(fixed, broken),
        n=len(names),
        left_out=len(left) + len(right) - 2 * len(names),
    )


def _graded(samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> list[tuple[Sample, Verdict]]:
    """Each sample with its verdict, grader failures left out."""
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


def _correctness(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Problem -> share of its graded samples that are correct."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.reason is not Reason.ERROR:
            groups[verdict.problem_id].append(verdict.reason is Reason.CORRECT)
    return {name: fmean(group) for name, group in groups.items()}


def _bootstrap(differences: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of the mean over resampled problems."""
    values = np.asarray(differences, dtype=np.float64)
    draws = np.random.default_rng(key("paired bootstrap", len(values)))
    means = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        means[i] = values[draws.integers(0, len(values), len(values))].mean()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)

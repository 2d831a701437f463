"""Which graded samples become training rows: rejection sampling as a pure function, with every refusal counted.

Rejection-sampling fine-tuning: Yuan et al. 2023, arXiv 2308.01825 (there up to k distinct chains a question;
`first_correct` is the plain form).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ramify.base.config import Select
from ramify.base.errors import ConfigError
from ramify.base.types import Completion, Example, Lineage, Problem, Reason, Sample, Stop, Verdict
from ramify.tasks.collection import Graded
from ramify.tasks.numbers import correct

_HISTOGRAM_BINS = 10


class Refusal(Enum):
    """Why a sample did not become a row."""

    WRONG = "wrong"  # an answer, and not the right one
    NO_ANSWER = "no_answer"  # nothing that can be parsed
    TRUNCATED = "truncated"  # cut off by the length limit, so it would teach no end
    ERROR = "error"  # the grader failed on it
    UNCLOSED = "unclosed_tag"  # the answer's tag was never closed
    IMPRECISE = "imprecise"  # correct, but further from the gold answer than `select.tolerance`
    EMPTY = "empty"  # no text
    DUPLICATE = "duplicate"  # the same text as a row kept before
    SURPLUS = "surplus"  # correct, and its question has all the rows it may have


@dataclass(frozen=True)
class Yield:
    """What came of a set of problems.

    Attributes:
        questions: problems asked; `solved`: with at least one correct sample.
        samples: graded samples; `correct`: graded correct.
        rows: kept for training; `questions_kept`: problems with at least one row.
        refused: counts by `Refusal`.
        histogram: problems by pass rate in ten equal bins; a rate of 1 falls into the last.
        pass_rate: mean over problems of the share of correct samples (grader errors left out).
    """

    questions: int
    solved: int
    samples: int
    correct: int
    rows: int
    questions_kept: int
    refused: Mapping[str, int]
    histogram: tuple[int, ...]
    pass_rate: float

    def table(self) -> list[tuple[str, str]]:
        """Lines of (what, how many) for the terminal and the report."""
        share = f"{self.solved / self.questions:.1%}" if self.questions else "-"
        lines = [
            ("questions", str(self.questions)),
            ("solved", f"{self.solved} ({share})"),
            ("samples", str(self.samples)),
            ("correct", str(self.correct)),
            ("mean pass rate", f"{self.pass_rate:.3f}"),
            ("rows kept", f"{self.rows} of {self.questions_kept} questions"),
        ]
        return lines + [(f"refused: {name}", str(count)) for name, count in self.refused.items()]


@dataclass(frozen=True)
class Selection:
    """Training rows and the account of them."""

    rows: tuple[Example, ...]
    account: Yield


@dataclass
class _Chooser:
    """What is kept of one problem while its samples are gone through."""

    problem: Problem
    settings: Select
    texts: set[str] = field(default_factory=set)
    kept: list[Sample] = field(default_factory=list)

    def consider(self, graded: Graded) -> Refusal | None:
        """Keep the sample, or say why not."""
        refusal = refuse(graded, self.problem, self.settings.tolerance)
        if refusal is not None:
            return refusal
        text = normalised(graded.sample.text)
        if text in self.texts:
            return Refusal.DUPLICATE
        if len(self.kept) == (1 if self.settings.strategy == "first_correct" else self.settings.per_problem):
            return Refusal.SURPLUS
        self.texts.add(text)
        self.kept.append(graded.sample)
        return None


def select(problems: Sequence[Problem], graded: Mapping[str, Sequence[Graded]], settings: Select, n: int) -> Selection:
    """Choose training rows among graded samples.

    Args:
        problems: what was asked, in the order rows will have.
        graded: samples with verdicts by problem id; taken in the order of their indices.
        settings: strategy, how many rows a problem may give, and how exact they have to be.
        n: samples of one problem in one round; a row's round is its index // n.

    Returns:
        One `Example` a kept sample, with its lineage and the gold answer in `meta`, and the account of all others.

    Raises:
        ConfigError: a tolerance is set, and answers are not numbers.
    """
    rows: list[Example] = []
    refused: Counter[Refusal] = Counter()
    kept = 0
    for problem in problems:
        chooser = _Chooser(problem, settings)
        for each in sorted(graded.get(problem.id, ()), key=lambda one: one.sample.index):
            refusal = chooser.consider(each)
            refused.update([] if refusal is None else [refusal])
        rows += [_row(problem, sample, n) for sample in chooser.kept]
        kept += bool(chooser.kept)
    return Selection(tuple(rows), _account(problems, graded, len(rows), kept, refused))


def refuse(graded: Graded, problem: Problem, tolerance: float | None = None) -> Refusal | None:
    """Why a sample cannot be a row whatever else was kept, or None.

    Args:
        tolerance: relative; None: what the grader calls correct is exact enough.

    Raises:
        ConfigError: a tolerance is given, and the answer is not a number.
    """
    sample, verdict = graded.sample, graded.verdict
    if verdict.reason is not Reason.CORRECT:
        return Refusal(verdict.reason.value)
    if sample.stop is Stop.LENGTH:
        return Refusal.TRUNCATED
    if "unclosed_tag" in verdict.notes:
        return Refusal.UNCLOSED
    if tolerance is not None and not _exact(verdict, problem, tolerance):
        return Refusal.IMPRECISE
    return None if sample.text.strip() else Refusal.EMPTY


def _exact(verdict: Verdict, problem: Problem, tolerance: float) -> bool:
    answer, gold = verdict.answer, problem.answer
    if not isinstance(answer, int | float) or not isinstance(gold, int | float):
        raise ConfigError(
            f"select.tolerance = {tolerance}: problem {problem.id!r} is not answered by a number (found {answer!r})",
            hint="leave select.tolerance unset for this task",
        )
    return correct(answer, gold, tolerance)


def normalised(text: str) -> str:
    """Text as duplicates are compared: white space and letter case do not make a chain distinct."""
    return " ".join(text.split()).casefold()


def _row(problem: Problem, sample: Sample, n: int) -> Example:
    return Example(
        prompt=problem.prompt,
        completions=(Completion(sample.text.strip()),),
        source=problem.source,
        lineage=Lineage(problem.id, sample.index, sample.seed, sample.policy, sample.index // n),
        meta={} if problem.answer is None else {"answer": str(problem.answer)},
    )


def _account(
    problems: Sequence[Problem],
    graded: Mapping[str, Sequence[Graded]],
    rows: int,
    questions_kept: int,
    refused: Counter[Refusal],
) -> Yield:
    rates = [rate for problem in problems if (rate := _pass_rate(graded.get(problem.id, ()))) is not None]
    bins = Counter(min(int(rate * _HISTOGRAM_BINS), _HISTOGRAM_BINS - 1) for rate in rates)
    everything = [each for problem in problems for each in graded.get(problem.id, ())]
    return Yield(
        questions=len(problems),
        solved=sum(rate > 0 for rate in rates),
        samples=len(everything),
        correct=sum(each.verdict.reason is Reason.CORRECT for each in everything),
        rows=rows,
        questions_kept=questions_kept,
        refused={reason.value: refused[reason] for reason in Refusal if refused[reason]},
        histogram=tuple(bins[place] for place in range(_HISTOGRAM_BINS)),
        pass_rate=sum(rates) / len(rates) if rates else 0.0,
    )


def _pass_rate(graded: Sequence[Graded]) -> float | None:
    counted = [each.verdict.reason for each in graded if each.verdict.reason is not Reason.ERROR]
    return sum(reason is Reason.CORRECT for reason in counted) / len(counted) if counted else None


def yield_record(accounts: Sequence[Yield]) -> dict[str, Any]:
    """The content of yield.json: the account after each round."""
    return {"rounds": [dict(vars(account)) for account in accounts]}

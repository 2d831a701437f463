"""Agreement with an assistant on ordered ratings: what a grading evaluation amounts to besides its accuracy.

A grade is one output on one problem: the assistant's rating, and the one given (None: the output was unusable). Ratings
are places in the problem's own scale, 0 the best. A criterion is a scale of its own, so figures of several criteria are
pooled as follows:

    accuracy, baseline, one_off, better, worse, unusable    by counting grades; accuracy + better + worse + unusable = 1
    precision, recall, f1                                   of each criterion, then the mean weighted by its grades
    kappa                                                   of each criterion, then the mean weighted by its usable
                                                            grades, criteria without a kappa left out
    confusions                                              added up over criteria with the same names of ratings

Sampled outputs of one problem count as grades of their own; only the interval allows for their being alike. It takes
problems for independent, so it does not widen where grades of one student are alike.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from ramify.base.types import Problem, Reason, Verdict
from ramify.evaluate.scores import Rate, rate_of
from ramify.tasks.grading import gold_rating
from ramify.tasks.letters import option_letters

Counts = npt.NDArray[np.int64]
GROUPINGS = ("category", "lab", "criterion", "split")
"""What figures are also given for, value by value: the problem's category, and these entries of its `meta`."""


@dataclass(frozen=True, slots=True)
class Grade:
    """One graded output.

    Attributes:
        criterion: the scale it belongs to: the problem's category.
        scale: names of the ratings, best first.
        gold: place of the assistant's rating; given: of the output's, None when it was unusable.
    """

    problem: Problem
    criterion: str
    scale: tuple[str, ...]
    gold: int
    given: int | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of a scale: `counts[gold][given]`, the last column of each row counts unusable outputs."""

    ratings: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How outputs agree with the assistant (pooled as the module says).

    Attributes:
        n: grades.
        accuracy: share that is exactly the assistant's rating; an unusable output is not.
        baseline: accuracy of always giving each criterion's most frequent rating among these very grades.
        precision, recall, f1: macro averages over the ratings that the assistant or the outputs used; a rating that
            was never given has precision 0, and an unusable output counts against recall.
        kappa: quadratic weighted kappa of the usable outputs (Cohen 1968, https://doi.org/10.1037/h0026256); None
            where chance alone leaves nothing to disagree on.
        one_off: share at most one rating away.
        better, worse: share rated better, or worse, than the assistant did.
        unusable: share without a rating.
        confusions: one for each set of rating names.
    """

    n: int
    accuracy: Rate
    baseline: float
    precision: float
    recall: float
    f1: float
    kappa: float | None
    one_off: float
    better: float
    worse: float
    unusable: float
    confusions: tuple[Confusion, ...]


@dataclass(frozen=True, slots=True)
class Ratings:
    """Agreement over everything, and over each value of each grouping.

    Attributes:
        groups: grouping -> value -> agreement. A grouping that no problem has a value of is left out, and so is the
            criterion where it divides as the category does (one lab).
    """

    overall: Agreement
    groups: Mapping[str, Mapping[str, Agreement]]


def ratings(problems: Sequence[Problem], verdicts: Sequence[Verdict]) -> Ratings:
    """What the verdicts of task `grading` amount to; outputs on which the grader failed are left out.

    Raises:
        DataError: a problem has no options, or a gold answer that is not among them.
    """
    grades = grades_of(problems, verdicts)
    divided = {name: _divide(grades, name) for name in GROUPINGS}
    if _same_parts(divided["criterion"], divided["category"]):
        del divided["criterion"]
    groups = {
        name: {value: agreement(part) for value, part in sorted(parts.items())}
        for name, parts in divided.items()
        if any(parts)
    }
    return Ratings(agreement(grades), groups)


def grades_of(problems: Sequence[Problem], verdicts: Iterable[Verdict]) -> list[Grade]:
    """The grades that verdicts hold, grader failures left out.

    Raises:
        DataError: a problem has no options, or a gold answer that is not among them.
    """
    asked = {problem.id: problem for problem in problems}
    found = []
    for verdict in verdicts:
        if verdict.reason is not Reason.ERROR:
            problem = asked[verdict.problem_id]
            scale = option_letters(problem)
            given = scale.index(str(verdict.answer)) if verdict.answer in scale else None
            found.append(Grade(problem, problem.category, scale, gold_rating(problem), given))
    return found


def agreement(grades: Sequence[Grade]) -> Agreement:
    """How these grades agree with the assistant."""
    scales: dict[tuple[str, tuple[str, ...]], list[Grade]] = defaultdict(list)
    outputs: dict[str, list[bool]] = defaultdict(list)
    for grade in grades:
        scales[grade.criterion, grade.scale].append(grade)
        outputs[grade.problem.id].append(grade.given == grade.gold)
    tables = [(scale, _table(found, len(scale))) for (_, scale), found in scales.items()]
    macros = [(macro(table), int(table.sum())) for _, table in tables]
    kappas = [(quadratic_kappa(table[:, :-1]), int(table[:, :-1].sum())) for _, table in tables]
    precision, recall, f1 = (_mean([(each[place], n) for each, n in macros]) for place in range(3))
    return Agreement(
        n=len(grades),
        accuracy=rate_of(list(outputs.values())),
        baseline=_share(sum(int(table.sum(axis=1).max()) for _, table in tables), len(grades)),
        precision=precision or 0.0,
        recall=recall or 0.0,
        f1=f1 or 0.0,
        kappa=_mean(kappas),
        one_off=_count(grades, lambda grade, given: abs(given - grade.gold) <= 1),
        better=_count(grades, lambda grade, given: given < grade.gold),
        worse=_count(grades, lambda grade, given: given > grade.gold),
        unusable=_share(sum(grade.given is None for grade in grades), len(grades)),
        confusions=_confusions(tables),
    )


def quadratic_kappa(counts: Counts) -> float | None:
    """Cohen's weighted kappa with weights that grow as the square of the distance.

    kappa = 1 - sum(w o) / sum(w e), w = (gold - given)^2, o the observed shares and e the product of the margins
    (Cohen 1968, https://doi.org/10.1037/h0026256). 1 is agreement, 0 what the margins give by chance.

    Args:
        counts: [ratings, ratings], gold by given.

    Returns:
        None when there are no counts, or both sides always use the same one rating.
    """
    n = int(counts.sum())
    places = np.arange(len(counts))
    weights = (places[:, None] - places) ** 2
    by_chance = int((weights * np.outer(counts.sum(axis=1), counts.sum(axis=0))).sum())
    return None if by_chance == 0 else 1.0 - n * int((weights * counts).sum()) / by_chance


def macro(counts: Counts) -> tuple[float, float, float]:
    """Precision, recall and F1, each the plain mean over the ratings that occur as gold or as given.

    Args:
        counts: [ratings, ratings + 1], gold by given; the last column counts unusable outputs.
    """
    right, gold, given = np.diagonal(counts), counts.sum(axis=1), counts[:, :-1].sum(axis=0)
    used = [place for place in range(len(counts)) if gold[place] or given[place]]
    precision = [_share(int(right[place]), int(given[place])) for place in used]
    recall = [_share(int(right[place]), int(gold[place])) for place in used]
    f1 = [_share(2 * int(right[place]), int(gold[place] + given[place])) for place in used]
    return (fmean(precision), fmean(recall), fmean(f1)) if used else (0.0, 0.0, 0.0)


def _divide(grades: Iterable[Grade], grouping: str) -> dict[str, list[Grade]]:
    """The grades by their value of a grouping; problems without one have the empty value."""
    parts: dict[str, list[Grade]] = defaultdict(list)
    for grade in grades:
        problem = grade.problem
        parts[problem.category if grouping == "category" else problem.meta.get(grouping, "")].append(grade)
    return parts


def _same_parts(one: Mapping[str, Sequence[Grade]], other: Mapping[str, Sequence[Grade]]) -> bool:
    return {tuple(map(id, part)) for part in one.values()} == {tuple(map(id, part)) for part in other.values()}


def _table(grades: Iterable[Grade], size: int) -> Counts:
    """[size, size + 1] gold by given, unusable outputs last."""
    counts = np.zeros((size, size + 1), dtype=np.int64)
    for (gold, given), times in Counter((grade.gold, grade.given) for grade in grades).items():
        counts[gold, size if given is None else given] = times
    return counts


def _confusions(tables: Iterable[tuple[tuple[str, ...], Counts]]) -> tuple[Confusion, ...]:
    added: dict[tuple[str, ...], Counts] = {}
    for scale, table in tables:
        added[scale] = added[scale] + table if scale in added else table
    rows = {scale: table.tolist() for scale, table in sorted(added.items())}
    return tuple(Confusion(scale, tuple(tuple(row) for row in found)) for scale, found in rows.items())


def _count(grades: Sequence[Grade], holds: Callable[[Grade, int], bool]) -> float:
    """Share of all grades that are usable and of which this holds."""
    return _share(sum(grade.given is not None and holds(grade, grade.given) for grade in grades), len(grades))


def _mean(values: Iterable[tuple[float | None, int]]) -> float | None:
    """Weighted mean of those that are defined."""
    known = [(value, weight) for value, weight in values if value is not None and weight]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

"""Agreement on ratings: every figure equals a published example, or the formula written out a second way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from statistics import fmean, pvariance

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.errors import DataError
from ramify.base.records import json_line
from ramify.base.types import Message, Problem, Reason, Verdict
from ramify.evaluate.ratings import Agreement, grades_of, macro, quadratic_kappa, ratings
from ramify.evaluate.statistics.intervals import wilson

LETTERS = "ABCD"


def counted(gold: Sequence[int], given: Sequence[int | None], size: int) -> np.ndarray:
    """[size, size + 1] gold by given, unusable last."""
    counts = np.zeros((size, size + 1), dtype=np.int64)
    for row, column in zip(gold, given, strict=True):
        counts[row, size if column is None else column] += 1
    return counts


def kappa_of(gold: Sequence[int], given: Sequence[int], size: int) -> float | None:
    return quadratic_kappa(counted(gold, given, size)[:, :-1])


@pytest.mark.parametrize(
    ("gold", "given", "kappa"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),
        ([1, 2, 1], [1, 2, 2], 0.4),
        ([1, 2, 3, 1, 2, 2, 3], [1, 2, 3, 1, 2, 3, 2], 0.75),
    ],
)
def test_kappa_of_known_examples(gold: list[int], given: list[int], kappa: float) -> None:
    """The second: the mean squared difference is 1/3; by chance it is 2/9 + 2/9 + (1/3)^2 = 5/9; 1 - 3/5 = 0.4."""
    assert kappa_of(gold, given, 4) == pytest.approx(kappa, abs=1e-12)


def test_kappa_of_two_ratings_is_the_plain_one() -> None:
    """With two ratings the weights are 0 and 1. 45 and 15 on the diagonal of 100, 25 and 15 beside it: o = 0.6,
    e = 0.6 · 0.7 + 0.4 · 0.3 = 0.54, kappa = 0.06 / 0.46 = 0.1304 (the second example of Cohen's kappa with margins
    60/40 and 70/30 that textbooks give)."""
    assert quadratic_kappa(np.array([[45, 15], [25, 15]])) == pytest.approx(0.06 / 0.46)


rating_pairs = st.integers(2, 5).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), min_size=1, max_size=40),
    )
)


@given(rating_pairs)
def test_kappa_is_lins_concordance(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    """Quadratic kappa is 2 cov / (var + var + (mean - mean)^2) (Lin 1989), which is computed without any table."""
    size, pairs = drawn
    gold, given = [a for a, _ in pairs], [b for _, b in pairs]
    below = pvariance(gold) + pvariance(given) + (fmean(gold) - fmean(given)) ** 2
    found = kappa_of(gold, given, size)
    if below == 0:
        assert found is None
    else:
        covariance = fmean(a * b for a, b in pairs) - fmean(gold) * fmean(given)
        assert found == pytest.approx(2 * covariance / below, abs=1e-9)
        swapped = kappa_of([size - 1 - b for b in given], [size - 1 - a for a in gold], size)
        assert swapped == pytest.approx(found, abs=1e-12)


def test_macro_figures_of_a_known_example() -> None:
    """The example of scikit-learn's precision_score, recall_score and f1_score: 0.22, 0.33 and 0.26."""
    found = macro(counted([0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1], 3))
    assert found == pytest.approx((2 / 9, 1 / 3, 4 / 15))


def test_macro_leaves_out_ratings_that_nobody_used() -> None:
    assert macro(counted([0, 1], [0, 1], 4)) == (1.0, 1.0, 1.0)
    precision, recall, f1 = macro(counted([0, 1], [0, 2], 4))
    assert (precision, recall, f1) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert macro(counted([0, 0], [0, None], 2)) == pytest.approx((1.0, 0.5, 2 / 3))
    assert macro(counted([], [], 3)) == (0.0, 0.0, 0.0)


def problem(number: int, gold: int, size: int = 4, category: str = "lab1 / Loops", **meta: str) -> Problem:
    options = tuple(f'{{"answer": "{LETTERS[place]}. text"}}' for place in range(size))
    return Problem(f"p{number}", (Message("user", "?"),), LETTERS[gold], category=category, options=options, meta=meta)


def verdict(number: int, given: int | None, gold: int, index: int = 0, error: bool = False) -> Verdict:
    usable = Reason.CORRECT if given == gold else Reason.WRONG
    reason = Reason.ERROR if error else Reason.NO_ANSWER if given is None else usable
    answer = None if given is None else LETTERS[given]
    return Verdict(f"p{number}", index, float(reason is Reason.CORRECT), reason, answer)


Row = tuple[int, int, int | None]  # (criterion, gold, given); criterion 0 has 4 ratings, 1 has 3, 2 has 2
SIZES = (4, 3, 2)


def build(rows: Sequence[Row]) -> tuple[list[Problem], list[Verdict]]:
    problems = [
        problem(i, gold, SIZES[c], f"lab{c % 2} / criterion {c}", lab=f"lab{c % 2}", split=f"s{i % 2}")
        for i, (c, gold, _) in enumerate(rows)
    ]
    return problems, [verdict(i, given, gold) for i, (_, gold, given) in enumerate(rows)]


@st.composite
def row(draw: st.DrawFn) -> Row:
    criterion = draw(st.integers(0, 2))
    rating = st.integers(0, SIZES[criterion] - 1)
    return criterion, draw(rating), draw(st.none() | rating)


def by_hand(rows: Sequence[Row]) -> dict[str, float | None]:
    """The module's definitions, counted grade by grade."""
    n = len(rows)
    used = [[r for r in rows if r[0] == c] for c in range(3)]
    figures: dict[str, float | None] = {
        "accuracy": sum(given == gold for _, gold, given in rows) / n,
        "one_off": sum(given is not None and abs(given - gold) < 2 for _, gold, given in rows) / n,
        "better": sum(given is not None and given < gold for _, gold, given in rows) / n,
        "worse": sum(given is not None and given > gold for _, gold, given in rows) / n,
        "unusable": sum(given is None for _, _, given in rows) / n,
        "baseline": sum(max((sum(r[1] == g for r in some) for g in range(4)), default=0) for some in used) / n,
    }
    f1s, kappas = [], []
    for some in used:
        labels = {r[1] for r in some} | {r[2] for r in some if r[2] is not None}
        scores = []
        for label in labels:
            hits = sum(r[1] == r[2] == label for r in some)
            given, gold = sum(r[2] == label for r in some), sum(r[1] == label for r in some)
            p, r = (Fraction(hits, given) if given else 0), (Fraction(hits, gold) if gold else 0)
            scores.append(float(2 * p * r / (p + r)) if p + r else 0.0)
        f1s += [(fmean(scores), len(some))] if some else []
        usable = [(gold, given) for _, gold, given in some if given is not None]
        chance = sum((a - b) ** 2 for a, _ in usable for _, b in usable)
        if chance:
            observed = sum((a - b) ** 2 for a, b in usable)
            kappas.append((1 - len(usable) * observed / chance, len(usable)))
    figures["f1"] = sum(f * w for f, w in f1s) / sum(w for _, w in f1s)
    figures["kappa"] = sum(k * w for k, w in kappas) / sum(w for _, w in kappas) if kappas else None
    return figures


@given(st.lists(row(), min_size=1, max_size=60))
def test_every_figure_is_what_it_says(rows: list[Row]) -> None:
    found = ratings(*build(rows)).overall
    for name, value in by_hand(rows).items():
        seen = found.accuracy.value if name == "accuracy" else getattr(found, name)
        assert seen == (None if value is None else pytest.approx(value, abs=1e-9)), name
    assert found.accuracy.value + found.better + found.worse + found.unusable == pytest.approx(1)
    assert sum(sum(sum(line) for line in each.counts) for each in found.confusions) == found.n == len(rows)
    assert json_line(found)


def test_accuracy_has_its_interval() -> None:
    rows: list[Row] = [(0, 1, 1)] * 30 + [(0, 1, 2)] * 10
    found = ratings(*build(rows)).overall
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx(wilson(30, 40))
    assert (found.baseline, found.kappa, found.worse) == (1.0, 0.0, 0.25)


def test_confusions_have_gold_rows_given_columns_and_unusable_last() -> None:
    found = ratings(*build([(0, 0, 1), (0, 0, 1), (0, 3, None), (2, 1, 1)])).overall
    assert [each.ratings for each in found.confusions] == [("A", "B"), ("A", "B", "C", "D")]
    assert found.confusions[0].counts == ((0, 0, 0), (0, 1, 0))
    assert found.confusions[1].counts == ((0, 2, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 1))


def test_groups_divide_all_grades_and_equal_what_they_hold() -> None:
    rows: list[Row] = [(i % 3, i % 2, (i // 2) % 2) for i in range(40)]
    problems, verdicts = build(rows)
    found = ratings(problems, verdicts)
    assert set(found.groups) == {"category", "lab", "split"}
    for values in found.groups.values():
        assert sum(each.n for each in values.values()) == 40
    own = [p for p in problems if p.meta["lab"] == "lab1"]
    alone = ratings(own, [v for v in verdicts if v.problem_id in {p.id for p in own}])
    assert found.groups["lab"]["lab1"] == alone.overall
    assert set(alone.groups) == {"category", "lab", "split"} and set(alone.groups["lab"]) == {"lab1"}
    bare = [replace(p, meta={}, category="") for p in problems]
    assert ratings(bare, verdicts).groups == {}


def test_a_criterion_of_several_labs_is_a_group_of_its_own() -> None:
    problems = [problem(i, 0, category=f"lab{i % 2} / Loops", criterion="Loops", lab=f"lab{i % 2}") for i in range(6)]
    verdicts = [verdict(i, 0, 0) for i in range(6)]
    assert set(ratings(problems, verdicts).groups["criterion"]) == {"Loops"}
    one = [p for p in problems if p.meta["lab"] == "lab0"]
    assert "criterion" not in ratings(one, [v for v in verdicts if v.problem_id in {p.id for p in one}]).groups


def test_several_samples_and_failed_graders() -> None:
    problems = [problem(0, 0), problem(1, 1)]
    verdicts = [verdict(0, 0, 0, 0), verdict(0, 1, 0, 1), verdict(1, 1, 1, 0), verdict(1, None, 1, 1, error=True)]
    found = ratings(problems, verdicts).overall
    assert (found.n, found.unusable) == (3, 0.0)
    assert found.accuracy.value == pytest.approx(0.75)  # of the problems' own shares, 1/2 and 1


def test_problems_without_ratings_are_named() -> None:
    bare = Problem("p0", (Message("user", "?"),), "A", source="rows.jsonl:7")
    with pytest.raises(DataError, match=r"rows\.jsonl:7: options"):
        grades_of([bare], [verdict(0, 0, 0)])


def test_nothing_graded_is_all_zero() -> None:
    found: Agreement = ratings([], []).overall
    assert (found.n, found.kappa, found.f1, found.confusions) == (0, None, 0.0, ())
    assert not math.isnan(found.accuracy.value)

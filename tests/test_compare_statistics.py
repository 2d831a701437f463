"""The statistics of a comparison equal scipy's and statsmodels', and its claims are calibrated on simulated models."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from ramify.evaluate.scores import Paired, Shares, paired_counts, paired_shares
from ramify.evaluate.statistics.findings import Outcome, findings, holm
from ramify.evaluate.statistics.power import problems_needed
from ramify.evaluate.statistics.resampling import bootstrap, sign_flip
from ramify.evaluate.statistics.seeds import Side, paired_seeds
from ramify.evaluate.statistics.student import t_point, t_tail

Table = NDArray[np.float64]


def shares(values: NDArray[np.int64], k: int = 1) -> Shares:
    """Counts out of `k` as a table by problem."""
    return {f"p{i}": Fraction(int(value), k) for i, value in enumerate(values)}


@pytest.mark.parametrize("counts", [(9, 3, 40, 8), (0, 0, 5, 5), (1, 0, 3, 3), (180, 25, 200, 95), (30, 30, 10, 1)])
def test_mcnemar_equals_statsmodels(counts: tuple[int, int, int, int]) -> None:
    fixed, broken, right, wrong = counts
    expected = mcnemar([[right, broken], [fixed, wrong]], exact=True).pvalue
    assert paired_counts(*counts).p == pytest.approx(min(float(expected), 1.0), rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 9, 40])
def test_holm_equals_statsmodels(count: int) -> None:
    values = [*np.random.default_rng(count).random(count) ** 3, 0.01, 0.01]
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1], rel=1e-9)


@given(st.floats(0.01, 40), st.floats(1, 3000))
@settings(max_examples=200, deadline=None)
def test_students_tail_equals_scipy(t: float, df: float) -> None:
    assert t_tail(t, df) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-7, abs=1e-290)


@pytest.mark.parametrize("df", [1, 1.5, 2, 4, 30, 499, 4999])
@pytest.mark.parametrize("p", [0.9, 0.05, 0.05 / 9, 1e-6])
def test_students_point_equals_scipy(p: float, df: float) -> None:
    assert t_point(p, df) == pytest.approx(stats.t.isf(p / 2, df), rel=1e-8)


@given(st.lists(st.fractions(-1, 1, max_denominator=8), max_size=9))
@settings(max_examples=80, deadline=None)
def test_sign_flips_equal_all_patterns_counted(differences: list[Fraction]) -> None:
    patterns = list(itertools.product((-1, 1), repeat=len(differences)))
    sums = [abs(sum(sign * each for sign, each in zip(pattern, differences, strict=True))) for pattern in patterns]
    expected = sum(each >= abs(sum(differences)) for each in sums) / len(sums)
    assert sign_flip(differences) == pytest.approx(expected, abs=1e-10)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_sign_flips_of_single_answers_are_mcnemars_test(up: int, down: int) -> None:
    flips = sign_flip([Fraction(1)] * up + [Fraction(-1)] * down)
    assert flips == pytest.approx(paired_counts(up, down, 3, 3).p, rel=1e-6, abs=1e-12)


def quarters(n: int, seed: int, gain: float = 0.05) -> list[Fraction]:
    """Differences of two models with 4 samples of each problem."""
    draws = np.random.default_rng(seed)
    chance = draws.beta(1, 1.5, n)
    before, after = draws.binomial(4, chance), draws.binomial(4, np.minimum(chance + gain, 1))
    return [Fraction(int(b) - int(a), 4) for a, b in zip(before, after, strict=True)]


def test_sign_flips_equal_scipys_permutation_test() -> None:
    differences = quarters(150, seed=2)
    expected = stats.permutation_test(
        (np.array(differences, dtype=float),),
        np.mean,
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    ).pvalue
    assert sign_flip(differences) == pytest.approx(expected, abs=4 * np.sqrt(expected / 20_000))


def test_sign_flips_beyond_any_grid_are_drawn() -> None:
    draws = np.random.default_rng(4)
    primes = (1009, 1013, 1019, 1021)
    differences = [Fraction(int(draws.integers(-400, 600)), int(draws.choice(primes))) for _ in range(60)]
    close = [each.limit_denominator(16) for each in differences]
    assert sign_flip(differences) == pytest.approx(sign_flip(close), abs=0.02)
    assert sign_flip(differences) == sign_flip(differences)


def test_bootstrap_equals_scipys() -> None:
    differences = [float(each) for each in quarters(400, seed=3)]
    expected = stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert bootstrap(differences) == pytest.approx((expected.low, expected.high), abs=0.003)


def test_bootstrap_of_few_problems_is_as_wide_as_a_t_interval() -> None:
    differences = np.random.default_rng(5).normal(0.1, 0.2, 8)
    low, high = bootstrap(list(differences))
    expected = stats.t.interval(0.95, 7, differences.mean(), differences.std(ddof=1) / np.sqrt(8))
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.1)


def test_bootstrap_of_nothing_says_nothing() -> None:
    assert bootstrap([]) == (-1.0, 1.0) and bootstrap([0.5]) == (-1.0, 1.0)


def claims(family: list[Paired]) -> int:
    """How many differences are claimed."""
    return sum(each.shown for each in findings(family))


def test_equal_models_are_told_apart_in_at_most_the_stated_share() -> None:
    draws = np.random.default_rng(2026)
    claimed = 0
    for _ in range(2000):
        n, discordance = int(draws.integers(25, 1001)), draws.uniform(0.05, 0.4)
        fixed, broken, same = draws.multinomial(n, (discordance / 2, discordance / 2, 1 - discordance))
        claimed += claims([paired_counts(int(fixed), int(broken), int(same), 0)])
    assert 0.01 <= claimed / 2000 <= 0.055


def test_ten_points_are_found_with_500_problems() -> None:
    draws = np.random.default_rng(7)
    outcomes = []
    for _ in range(600):
        fixed, broken, same = map(int, draws.multinomial(500, (0.2, 0.1, 0.7)))
        outcomes += [each.outcome for each in findings([paired_counts(fixed, broken, same, 0)])]
    assert outcomes.count(Outcome.BETTER) / 600 >= 0.95
    assert outcomes.count(Outcome.WORSE) == 0


def test_nine_equal_categories_make_one_false_claim_in_twenty_comparisons_at_most() -> None:
    draws = np.random.default_rng(11)
    wrong = 0
    for _ in range(500):
        counts = [draws.multinomial(int(n), (0.15, 0.15, 0.7)) for n in draws.integers(15, 200, 9)]
        wrong += claims([paired_counts(int(f), int(b), int(s), 0) for f, b, s in counts]) > 0
    assert wrong / 500 <= 0.055


def test_equal_models_with_several_samples_are_told_apart_in_at_most_the_stated_share() -> None:
    draws = np.random.default_rng(13)
    claimed = 0
    for _ in range(2000):
        n, k = int(draws.integers(20, 150)), int(draws.integers(2, 6))
        chance = draws.beta(0.7, 1.0, n)
        before, after = shares(draws.binomial(k, chance), k), shares(draws.binomial(k, chance), k)
        claimed += claims([paired_shares(before, after)])
    assert 0.01 <= claimed / 2000 <= 0.055


class Trainings:
    """Simulated trainings: seeds move a model as a whole, and each of its answers a little."""

    def __init__(self, seed: int, n: int, spread: float) -> None:
        self.draws = np.random.default_rng(seed)
        self.n, self.spread = n, spread
        self.difficulty = self.draws.normal(0, 1.5, n)

    def side(self, seeds: int, gain: float = 0.0, trained: bool = True) -> Side:
        """Greedy answers of `seeds` models; one that was not trained has no spread."""
        moved = self.draws.normal(gain, self.spread if trained else 0, (seeds, 1))
        found = self.difficulty + moved + self.draws.normal(0, 0.5, (seeds, self.n)) > 0
        return Side([shares(row.astype(np.int64)) for row in found], trained)


def false_claims(seeds: int, spread: float, tables: int) -> float:
    """Share of comparisons of equal methods, trained with several seeds, that claim a difference."""
    claimed = 0
    for number in range(tables):
        trainings = Trainings(100_000 * seeds + number, 80, spread)
        claimed += claims([paired_seeds(trainings.side(seeds), trainings.side(seeds))])
    return claimed / tables


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.3), (3, 0.0)])
def test_equal_methods_whose_seeds_differ_are_rarely_told_apart(seeds: int, spread: float) -> None:
    assert false_claims(seeds, spread, 80) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 80)


@pytest.mark.proof
@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.1), (2, 0.3), (2, 0.8), (3, 0.0), (3, 0.3), (5, 0.1), (5, 0.8)])
def test_equal_methods_whose_seeds_differ_are_told_apart_in_at_most_the_stated_share(seeds: int, spread: float) -> None:
    assert false_claims(seeds, spread, 2000) <= 0.06


def test_one_seed_each_claims_far_more_than_the_stated_share_where_seeds_differ() -> None:
    claimed = 0
    for number in range(60):
        trainings = Trainings(number, 300, 0.3)
        claimed += claims([paired_seeds(trainings.side(1), trainings.side(1))])
    assert claimed / 60 > 0.3  # which is why a comparison says that it does not cover them


def test_several_seeds_find_a_real_difference() -> None:
    found = 0
    for number in range(25):
        trainings = Trainings(number, 200, 0.1)
        found += claims([paired_seeds(trainings.side(1, trained=False), trainings.side(5, gain=1.0))])
    assert found / 25 >= 0.95


def test_seeds_of_equal_accuracy_do_not_narrow_the_interval_over_problems() -> None:
    trainings = Trainings(3, 80, 0.0)
    before, after = trainings.side(1, trained=False), trainings.side(1, gain=0.5)
    twice = Side([*after.tables, *after.tables], True)
    alone, both = paired_seeds(before, after), paired_seeds(before, twice)
    assert alone.spread is None and both.spread is not None
    assert both.high - both.low == pytest.approx(alone.high - alone.low, rel=0.06)
    assert both.p >= alone.p


def test_interval_over_seeds_equals_welch_where_problems_do_not_matter() -> None:
    """With seeds that are right on the same share of disjoint problems all variance is between seeds."""
    accuracies = ((0.5, 0.6, 0.55), (0.7, 0.75, 0.65))
    n = 4000
    sides = [
        Side([shares((np.random.default_rng(i).random(n) < accuracy).astype(np.int64)) for accuracy in group], True)
        for i, group in enumerate(accuracies)
    ]
    found = paired_seeds(*sides)
    means = [[float(sum(table.values())) / n for table in side.tables] for side in sides]
    expected = stats.ttest_ind(means[1], means[0], equal_var=True)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=0.05)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.006)


def test_p_and_interval_over_seeds_agree() -> None:
    for number in range(15):
        trainings = Trainings(number, 60, 0.2)
        found = paired_seeds(trainings.side(2), trainings.side(3, gain=0.5))
        assert found.spread is not None
        assert (found.spread.p(found.difference) <= 0.05) == (found.low > 0 or found.high < 0)


def test_the_same_trainings_in_two_ways_are_paired_by_seed() -> None:
    """A prompt that helps every seed by the same amount is found, however different the seeds are."""
    draws = np.random.default_rng(9)
    hard = np.arange(400) < 30
    bases = [((draws.random(400) < accuracy) & ~hard).astype(np.int64) for accuracy in (0.2, 0.5, 0.8)]
    helped = [base + hard for base in bases]
    before, after = (Side([shares(row) for row in rows], True) for rows in (bases, helped))
    assert findings([paired_seeds(before, after)])[0].outcome is Outcome.NOT_SHOWN
    assert findings([paired_seeds(before, after, same_trainings=True)])[0].outcome is Outcome.BETTER


@pytest.mark.parametrize(("difference", "discordance"), [(0.1, 0.3), (0.05, 0.2), (0.2, 0.25), (0.03, 0.05)])
def test_the_problems_needed_show_the_difference_in_four_of_five_comparisons(
    difference: float, discordance: float
) -> None:
    n = problems_needed(difference, discordance)
    assert n is not None
    draws = np.random.default_rng(17)
    chances = ((discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance)
    shown = 0
    for fixed, broken, same in draws.multinomial(n, chances, size=800):
        shown += claims([paired_counts(int(fixed), int(broken), int(same), 0)])
    assert 0.76 <= shown / 800 <= 0.9  # few problems move in large steps, and it is the next one up


def test_more_tests_need_more_problems_and_no_difference_needs_none() -> None:
    alone, many = problems_needed(0.1, 0.3), problems_needed(0.1, 0.3, tests=9)
    assert alone is not None and many is not None and alone < many
    assert problems_needed(0.0, 0.3) is None


def test_a_small_table_says_how_many_it_would_take() -> None:
    [found] = findings([paired_counts(4, 1, 15, 5)])
    assert found.outcome is Outcome.NOT_SHOWN
    assert found.needed is not None and 90 <= found.needed <= 140


def test_more_problems_do_not_replace_seeds() -> None:
    trainings = Trainings(21, 200, 1.5)
    [found] = findings([paired_seeds(trainings.side(2), trainings.side(2, gain=0.2))])
    assert found.outcome is Outcome.NOT_SHOWN and found.needed is None


def test_a_claim_needs_both_the_interval_and_the_corrected_p() -> None:
    barely = paired_counts(14, 4, 30, 2)
    assert barely.shown and barely.p <= 0.05
    assert findings([barely])[0].outcome is Outcome.BETTER
    first, *_ = findings([barely] * 5)
    assert first.outcome is Outcome.NOT_SHOWN and first.tests == 5 and first.p_adjusted > 0.05

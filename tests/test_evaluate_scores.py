from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from ramify.base.errors import DataError
from ramify.base.types import Reason, Sample, Stop, Verdict
from ramify.evaluate.scores import paired, score
from ramify.evaluate.statistics.intervals import pass_at_k, sign_test, tango, wilson

RIGHT, WRONG, SILENT, CUT, ERROR = (
    Reason.CORRECT,
    Reason.WRONG,
    Reason.NO_ANSWER,
    Reason.TRUNCATED,
    Reason.ERROR,
)


def verdict(problem: int, reason: Reason, index: int = 0, answer: str | float | None = None) -> Verdict:
    return Verdict(f"p{problem}", index, float(reason is RIGHT), reason, answer)


def sample(problem: int, index: int = 0, tokens: int = 3, stop: Stop = Stop.EOS) -> Sample:
    return Sample(f"p{problem}", index, (1,) * tokens, (0.0,) * tokens, "", stop)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (10, 10), (250, 500), (499, 500), (3, 7)])
def test_wilson_equals_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_observations_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_sign_test_equals_scipy(up: int, down: int) -> None:
    expected = stats.binomtest(up, up + down, 0.5).pvalue if up + down else 1.0
    assert sign_test(up, down) == pytest.approx(expected, rel=1e-9)


def test_sign_test_of_many_pairs_is_finite() -> None:
    assert 0 <= sign_test(3000, 1000) < 1e-100
    assert sign_test(2000, 2000) == 1.0


def score_statistic(fixed: int, broken: int, n: int, delta: float) -> float:
    """Tango's statistic with the nuisance parameter found by numerical search instead of its closed form."""
    if abs(delta) > 1 - 1e-9:
        return -math.copysign(math.inf, delta)

    def minus_log_likelihood(q: float) -> float:  # q: chance of broken; q + delta: of fixed
        same = n - fixed - broken
        parts = ((fixed, q + delta), (broken, q), (same, 1 - 2 * q - delta))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return (fixed - broken - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize(("fixed", "broken", "n"), [(9, 3, 40), (0, 0, 25), (1, 0, 30), (180, 25, 500), (5, 5, 60)])
def test_tango_inverts_the_score_test(fixed: int, broken: int, n: int) -> None:
    low, high = tango(fixed, broken, n)
    assert -1 <= low < (fixed - broken) / n < high <= 1
    assert score_statistic(fixed, broken, n, low) == pytest.approx(1.959964, abs=2e-3)
    assert score_statistic(fixed, broken, n, high) == pytest.approx(-1.959964, abs=2e-3)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_tango_is_antisymmetric(fixed: int, broken: int, same: int) -> None:
    low, high = tango(fixed, broken, fixed + broken + same)
    other_low, other_high = tango(broken, fixed, fixed + broken + same)
    assert (low, high) == pytest.approx((-other_high, -other_low), abs=1e-9)


def test_tango_covers_the_true_difference_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1)
    chance = (0.12, 0.04, 0.84)
    counts = draws.multinomial(80, chance, size=2000)
    covered = [low <= 0.08 <= high for low, high in (tango(int(f), int(b), 80) for f, b, _ in counts)]
    assert 0.93 < sum(covered) / len(covered) < 0.97


@pytest.mark.parametrize(("n", "correct", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 5, 2), (4, 4, 4)])
def test_pass_at_k_is_the_mean_over_all_choices(n: int, correct: int, k: int) -> None:
    outcomes = [i < correct for i in range(n)]
    choices = [any(choice) for choice in itertools.combinations(outcomes, k)]
    assert pass_at_k(n, correct, k) == pytest.approx(sum(choices) / len(choices))


def test_pass_at_k_refuses_more_than_was_sampled() -> None:
    with pytest.raises(ValueError, match="pass@3"):
        pass_at_k(2, 1, 3)


def test_scores_count_each_kind_once() -> None:
    reasons = [RIGHT, WRONG, SILENT, CUT, ERROR]
    samples = [sample(i, stop=Stop.LENGTH if reason is CUT else Stop.EOS) for i, reason in enumerate(reasons)]
    found = score(samples, [verdict(i, reason) for i, reason in enumerate(reasons)])
    assert (found.n, found.samples, found.errors) == (4, 4, 1)
    assert (found.accuracy.value, found.answer_rate.value) == (0.25, 0.5)
    assert (found.stop_rate.value, found.truncated.value) == (0.75, 0.25)
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx(wilson(1, 4))
    assert found.tokens == 3.0


def test_scores_of_several_samples() -> None:
    reasons = {0: [RIGHT, RIGHT, WRONG, WRONG], 1: [WRONG] * 4, 2: [RIGHT] * 4}
    answers = {0: [1.0, 1.0, 2.0, 3.0], 1: [5.0, 5.0, 6.0, 6.0], 2: [9.0] * 4}
    samples = [sample(p, i) for p in reasons for i in range(4)]
    verdicts = [verdict(p, r, i, answers[p][i]) for p in reasons for i, r in enumerate(reasons[p])]
    found = score(samples, verdicts)
    assert (found.n, found.samples) == (3, 12)
    assert found.accuracy.value == pytest.approx(0.5)
    assert found.pass_at_k[1] == pytest.approx(0.5)
    assert found.pass_at_k[4] == pytest.approx(2 / 3)
    assert found.maj_at_k[4] == pytest.approx(2 / 3)
    assert found.maj_at_k[2] == pytest.approx((0.5 + 0 + 1) / 3)
    low, high = wilson(1.5, 3)  # samples of a problem are nearly all alike, so 12 samples tell what about 4 would
    assert low < found.accuracy.low and found.accuracy.high < high


def test_a_tied_vote_counts_its_share_of_right_answers() -> None:
    verdicts = [verdict(0, RIGHT, 0, 1.0), verdict(0, WRONG, 1, 2.0)]
    assert score([sample(0, 0), sample(0, 1)], verdicts).maj_at_k[2] == 0.5


def test_votes_without_any_answer_are_lost() -> None:
    verdicts = [verdict(0, SILENT, 0), verdict(0, CUT, 1)]
    assert score([sample(0, 0), sample(0, 1)], verdicts).maj_at_k == {1: 0.0, 2: 0.0}


def test_open_answers_do_not_vote() -> None:
    """Their verdicts hold no answer that could be the same as another one: 0 % would be a wrong figure."""
    verdicts = [verdict(0, RIGHT, 0), verdict(0, WRONG, 1)]
    found = score([sample(0, 0), sample(0, 1)], verdicts)
    assert (found.maj_at_k, found.pass_at_k) == ({}, {1: 0.5, 2: 1.0})


def test_interval_of_clustered_samples_covers() -> None:
    draws = random.Random(5)
    hits = 0
    for _ in range(300):
        chances = [draws.betavariate(0.6, 0.9) for _ in range(60)]
        verdicts = [
            verdict(p, RIGHT if draws.random() < chance else WRONG, i)
            for p, chance in enumerate(chances)
            for i in range(4)
        ]
        found = score([sample(p, i) for p in range(60) for i in range(4)], verdicts).accuracy
        hits += found.low <= 0.4 <= found.high
    assert hits / 300 > 0.91


def test_scores_of_nothing() -> None:
    found = score([], [])
    assert (found.n, found.accuracy.value, found.accuracy.low, found.accuracy.high) == (0, 0.0, 0.0, 1.0)
    assert found.pass_at_k == {}


def test_samples_and_verdicts_must_match() -> None:
    with pytest.raises(DataError, match="samples but"):
        score([sample(0)], [])
    with pytest.raises(DataError, match="no verdict"):
        score([sample(0)], [verdict(1, RIGHT)])


def test_paired_counts_and_tests() -> None:
    before = [RIGHT] * 20 + [WRONG] * 80 + [ERROR]
    after = [RIGHT] * 15 + [WRONG] * 5 + [RIGHT] * 30 + [SILENT] * 50 + [RIGHT]
    found = paired([verdict(i, r) for i, r in enumerate(before)], [verdict(i, r) for i, r in enumerate(after)])
    assert (found.fixed, found.broken, found.both_right, found.both_wrong) == (30, 5, 15, 50)
    assert (found.n, found.left_out) == (100, 1)
    assert found.difference == pytest.approx(0.25)
    assert (found.low, found.high) == tango(30, 5, 100)
    assert found.p == pytest.approx(stats.binomtest(5, 35).pvalue)
    assert found.shown


def test_paired_of_equal_runs_shows_nothing() -> None:
    verdicts = [verdict(i, RIGHT if i % 2 else WRONG) for i in range(50)]
    found = paired(verdicts, verdicts)
    assert (found.difference, found.p, found.shown) == (0.0, 1.0, False)
    assert found.low < 0 < found.high


def test_paired_without_common_problems() -> None:
    found = paired([verdict(0, RIGHT)], [verdict(1, RIGHT)])
    assert (found.n, found.left_out, found.low, found.high) == (0, 2, -1.0, 1.0)


def test_paired_bootstrap_of_several_samples_agrees_with_the_normal_interval() -> None:
    draws = random.Random(3)
    before = [verdict(p, RIGHT if draws.random() < 0.3 else WRONG, i) for p in range(200) for i in range(4)]
    after = [verdict(p, RIGHT if draws.random() < 0.5 else WRONG, i) for p in range(200) for i in range(4)]
    found = paired(before, after)
    means = [
        np.mean([v.reason is RIGHT for v in after[4 * p : 4 * p + 4]])
        - np.mean([v.reason is RIGHT for v in before[4 * p : 4 * p + 4]])
        for p in range(200)
    ]
    margin = 1.96 * np.std(means, ddof=1) / math.sqrt(200)
    assert found.difference == pytest.approx(np.mean(means))
    assert (found.low, found.high) == pytest.approx((np.mean(means) - margin, np.mean(means) + margin), abs=0.005)
    assert paired(before, after) == found


def test_paired_with_several_samples_counts_how_far_a_problem_moved() -> None:
    """Four problems that lose a little against two that gain all: by their number worse, by their sum not."""
    before = [verdict(p, RIGHT if p < 4 else WRONG, i) for p in range(6) for i in range(4)]
    after = [verdict(p, RIGHT if p >= 4 or i else WRONG, i) for p in range(6) for i in range(4)]
    found = paired(before, after)
    assert (found.fixed, found.broken) == (2, 4)
    assert found.difference == pytest.approx((2 * 1 - 4 * 0.25) / 6)
    sizes = [1.0, 1.0, 0.25, 0.25, 0.25, 0.25]
    sums = [
        abs(sum(s * d for s, d in zip(signs, sizes, strict=True))) for signs in itertools.product((1, -1), repeat=6)
    ]
    assert found.p == pytest.approx(sum(each >= 1.0 for each in sums) / 64)
    assert found.square == pytest.approx((2 + 4 / 16) / 6)

"""How much of each source a mix takes: against a model that fills sources up little by little."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.data.mix.shares import Short, amounts, apportion

WEIGHTS = st.lists(st.sampled_from([0.1, 0.2, 0.25, 1.0, 2.0, 3.5, 7.0, 42.5]), min_size=1, max_size=5)


@st.composite
def sources(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """Weights, and what each source has."""
    weights = draw(WEIGHTS)
    return weights, draw(st.lists(st.integers(0, 60), min_size=len(weights), max_size=len(weights)))


def exact(weights: list[float]) -> list[Fraction]:
    given = [Fraction(str(weight)) for weight in weights]
    return [each / sum(given) for each in given]


def water(total: int, weights: list[float], there: list[int]) -> list[Fraction]:
    """All sources are filled at speeds that are their weights until they are full or `total` is poured."""
    level = [Fraction(0)] * len(there)
    left = Fraction(min(total, sum(there)))
    while left:
        open_ = [at for at, has in enumerate(there) if level[at] < has]
        speed = dict(zip(open_, exact([weights[at] for at in open_]), strict=True))
        until_full = min((there[at] - level[at]) / speed[at] for at in open_)
        time = min(left, until_full)
        for at in open_:
            level[at] += time * speed[at]
        left -= time
    return level


def test_parts_are_whole_and_sum_to_the_total() -> None:
    assert apportion(10, [1, 1, 1]) == [4, 3, 3]  # of equal remainders the first goes first
    assert apportion(300_000, [42.5, 12.5, 12.5, 10, 12.5, 10]) == [127_500, 37_500, 37_500, 30_000, 37_500, 30_000]
    assert apportion(10, [0.1, 0.2, 0.7]) == [1, 2, 7]  # as written: in binary 0.1 is no tenth
    assert apportion(1, [1, 3]) == [0, 1]


@given(st.integers(0, 10_000), WEIGHTS)
def test_no_part_is_a_whole_row_from_its_share(total: int, weights: list[float]) -> None:
    parts = apportion(total, weights)
    assert sum(parts) == total
    assert all(abs(part - total * share) < 1 for part, share in zip(parts, exact(weights), strict=True))


@given(st.integers(1, 200), sources())
def test_capped_sources_give_what_they_have(total: int, given_: tuple[list[float], list[int]]) -> None:
    weights, there = given_
    wanted = apportion(total, weights)
    assert amounts(total, weights, there, "cap") == [min(pair) for pair in zip(wanted, there, strict=True)]


@given(st.integers(1, 200), sources())
def test_repeated_sources_give_their_share(total: int, given_: tuple[list[float], list[int]]) -> None:
    weights, there = given_
    wanted = apportion(total, weights)
    assert amounts(total, weights, there, "repeat") == [w if has else 0 for w, has in zip(wanted, there, strict=True)]


@given(st.integers(1, 200), sources())
def test_rebalanced_sources_fill_up_like_water(total: int, given_: tuple[list[float], list[int]]) -> None:
    weights, there = given_
    parts = amounts(total, weights, there, "rebalance")
    level = water(total, weights, there)
    assert sum(parts) == min(total, sum(there))
    assert all(abs(part - each) < 1 for part, each in zip(parts, level, strict=True))
    assert all(part == has for part, each, has in zip(parts, level, there, strict=True) if each == has)


@given(sources())
def test_without_a_size_weights_are_exact_and_one_source_is_used_up(given_: tuple[list[float], list[int]]) -> None:
    weights, there = given_
    parts = amounts(None, weights, there, "cap")
    full = [at for at, has in enumerate(there) if has]
    assert all(part <= has for part, has in zip(parts, there, strict=True))
    shares = exact([weights[at] for at in full]) if full else []
    total = sum(parts)
    assert all(abs(parts[at] - total * share) < 1 for at, share in zip(full, shares, strict=True))
    assert not full or any((total + 1) * share > there[at] for at, share in zip(full, shares, strict=True))


@pytest.mark.parametrize(
    ("short", "expected"),
    [("cap", [50, 25, 5]), ("repeat", [50, 25, 25]), ("rebalance", [63, 32, 5])],
)
def test_what_happens_to_a_source_that_is_short(short: Short, expected: list[int]) -> None:
    assert amounts(100, [2, 1, 1], [1000, 1000, 5], short) == expected

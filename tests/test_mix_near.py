"""Near-duplicates: signatures estimate what sets of word triples have in common, and the first of its like stays."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from ramify.data.mix import near

WORDS = [f"w{at}" for at in range(400)]


def jaccard(one: str, other: str) -> float:
    first, second = (set(near.shingles(text)) for text in (one, other))
    return len(first & second) / len(first | second)


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of which some are earlier ones with words changed."""
    g = random.Random(seed)
    made: list[str] = []
    for _ in range(count):
        words = g.choices(WORDS, k=60) if not made or g.random() < 0.6 else g.choice(made).split()
        for _ in range(g.randint(0, 4)):
            words[g.randrange(len(words))] = g.choice(WORDS)
        made.append(" ".join(words))
    return made


def greedy(found: near.Signatures, similarity: float) -> list[bool]:
    """All compared with all earlier ones that stay."""
    stays: list[int] = []
    for row, signature in enumerate(found):
        if not any((found[other] == signature).mean() >= similarity for other in stays):
            stays.append(row)
    return [row in set(stays) for row in range(len(found))]


def kept(some: Sequence[str], similarity: float) -> list[bool]:
    return [bool(each) for each in near.first_of_its_like(some, similarity)]


@pytest.mark.parametrize("similarity", [0.7, 0.8, 0.95, 1.0])
def test_bands_miss_nothing_that_comparing_all_finds(similarity: float) -> None:
    some = texts(300)
    expected = greedy(near.signatures(some), similarity)
    assert kept(some, similarity) == expected
    assert 0 < expected.count(False) < 200


def test_the_share_of_equal_slots_estimates_the_similarity() -> None:
    some = texts(200, seed=1)
    found = near.signatures(some)
    pairs = [(one, other) for one in range(200) for other in range(one) if jaccard(some[one], some[other]) > 0.3]
    errors = [float((found[one] == found[other]).mean()) - jaccard(some[one], some[other]) for one, other in pairs]
    assert len(pairs) > 30
    assert abs(np.mean(errors)) < 0.02 and np.std(errors) < 0.07


def test_the_estimate_is_that_of_the_library() -> None:
    from rensa import RMinHash

    some = texts(40, seed=2)
    found = near.signatures(some)
    theirs = RMinHash.from_token_sets([near.shingles(text) for text in some], near.SLOTS, 42)
    for at in range(1, 40):
        assert theirs[0].jaccard(theirs[at]) == pytest.approx(float((found[0] == found[at]).mean()))


def test_shingles_are_word_triples_without_case_and_signs() -> None:
    assert near.shingles("What, is two plus TWO?") == ["what is two", "is two plus", "two plus two"]
    assert near.shingles("Yes!") == ["yes"]
    assert near.shingles("?!") == ["?!"]  # a text of signs alone is still itself

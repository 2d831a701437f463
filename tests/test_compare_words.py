"""A finding in words says what it would take where it shows nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramify.evaluate.scores import paired_counts
from ramify.evaluate.statistics.findings import Finding, Outcome
from ramify.evaluate.words import by_category, verdict

SOME = paired_counts(8, 4, 20, 8)
CLEAR = paired_counts(14, 4, 30, 2)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Finding(CLEAR, 0.03, 1, Outcome.BETTER, None), "better: +20.0 points, 95 % interval +"),
        (Finding(SOME, 0.4, 1, Outcome.NOT_SHOWN, 232), "with n = 40: about 240 would be needed (+10.0 points"),
        (Finding(SOME, 0.4, 1, Outcome.NOT_SHOWN, None), "more training seeds would be needed, more problems alone"),
        (Finding(CLEAR, 0.15, 5, Outcome.NOT_SHOWN, 40), "it does not outlast the correction for 5 tests"),
        (Finding(SOME, 0.06, 1, Outcome.NOT_SHOWN, 40), "the interval just reaches 0"),
        (Finding(replace(CLEAR, p=0.051), 0.051, 1, Outcome.NOT_SHOWN, 40), "p is just above 0.05"),
        (Finding(paired_counts(0, 0, 0, 0), 1.0, 1, Outcome.NOT_SHOWN, None), "no problem was graded on both sides"),
        (Finding(paired_counts(3, 3, 9, 9), 1.0, 1, Outcome.NOT_SHOWN, None), "as many became right as became wrong"),
    ],
)
def test_the_verdict_says_what_is_missing(found: Finding, words: str) -> None:
    assert words in verdict(found)


def test_categories_are_named_by_what_became_of_them() -> None:
    better, worse = Finding(CLEAR, 0.03, 9, Outcome.BETTER, None), Finding(CLEAR, 0.01, 9, Outcome.WORSE, None)
    unknown = Finding(SOME, 0.4, 9, Outcome.NOT_SHOWN, 200)
    assert by_category({}) == ""
    assert by_category({"a": unknown, "b": unknown}) == "none of 2 can be told"
    assert by_category({"a": better, "b": worse, "c": better}) == "better in a and c; worse in b"
    found = {"facts": worse, "json": unknown, "length": unknown, "questions": better, "tone": better, "time": better}
    assert by_category(found) == "better in questions, tone and time; worse in facts; 2 more cannot be told"
    many = {f"k{number}": worse for number in range(20)}
    assert by_category(many) == "worse in k0, k1, k2, k3, k4, k5, k6 and 13 others"

"""A finding in words says what it would take where it shows nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramify.evaluate.scores import paired_counts
from ramify.evaluate.statistics.findings import Finding, Outcome
from ramify.evaluate.words import verdict

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
        (Finding(replace(CLEAR, p=0.051), 0.051, 1, Outcome.NOT_SHOWN, 40), "the exact p is just above 0.05"),
        (Finding(paired_counts(0, 0, 0, 0), 1.0, 1, Outcome.NOT_SHOWN, None), "no problem was graded on both sides"),
        (Finding(paired_counts(3, 3, 9, 9), 1.0, 1, Outcome.NOT_SHOWN, None), "as many became right as became wrong"),
    ],
)
def test_the_verdict_says_what_is_missing(found: Finding, words: str) -> None:
    assert words in verdict(found)

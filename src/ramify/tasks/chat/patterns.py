"""Rules about regular expressions, in the syntax of Python.

Some patterns take longer than the age of the universe on the wrong text, and which ones do cannot be told from how they
look. Matching is therefore bounded: a pattern that has not come to an end after `SECONDS` of computing is an error of
the rule, never a finding about the answer.
"""

from __future__ import annotations

from typing import Any

import regex

from ramify.tasks.chat.finding import Answer, Check, Finding, Spot, negated, short

SECONDS = 2.0
"""Processor time that one search may take; those that end take microseconds."""


def matches(value: Any, spot: Spot) -> Check:
    """The pattern is found in the answer; with `whole: true` the answer as a whole is of its form.

    Capital letters count unless `case: false` is set; white space around the answer does not.

    Raises:
        TaskError: it is no regular expression.
    """
    given = spot.options(value, "pattern", ("case", "whole"))
    (written,) = spot.texts(given["pattern"]) if isinstance(given["pattern"], str) else ("",)
    if not written:
        raise spot.error("one regular expression", given["pattern"])
    case = spot.inside("case").flag(given.get("case", True))
    whole = spot.inside("whole").flag(given.get("whole", False))
    try:
        pattern = regex.compile(written, 0 if case else regex.IGNORECASE)
    except (regex.error, RecursionError, OverflowError) as error:
        raise spot.error("a regular expression", written, hint=f"{error}") from None
    find = pattern.fullmatch if whole else pattern.search

    def check(answer: Answer) -> Finding:
        try:
            found = find(answer.text.strip(), timeout=SECONDS)
        except TimeoutError:
            raise TimeoutError(f"{short(written)!r} took more than {SECONDS:g} s: its repeats overlap") from None
        return Finding(found is not None, False, "found" if found else f"{short(written)!r} not found")

    return check


def not_matches(value: Any, spot: Spot) -> Check:
    """The pattern is not found in the answer.

    Raises:
        TaskError: it is no regular expression.
    """
    return negated(matches(value, spot))

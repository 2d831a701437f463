"""Rules about how long an answer is: characters, words, sentences, lines.

A word is a run of letters and digits; `don't` and `well-known` are one. In scripts that put no spaces between words
(Chinese, Japanese, Thai, …) a run of letters counts as one word, so there characters are what to ask for. A sentence
ends at `.`, `!`, `?` or `…`, or with its line; initials, decimal points and usual abbreviations end none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ramify.base.errors import TaskError, unknown
from ramify.tasks.chat.finding import Answer, Check, Finding, Spot

_WORD = re.compile(r"\w+(?:['’\-]\w+)*")
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]*_]*+(?=\s|$)|[。！？]+[」』”]*")
_ABBREVIATIONS = frozenset(
    (
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "jr",
        "sr",
        "vs",
        "etc",
        "e.g",
        "i.e",
        "cf",
        "a.m",
        "p.m",
        "approx",
        "vol",
        "inc",
        "ltd",
    )
)


def characters(text: str) -> int:
    """Characters, white space around the text left out."""
    return len(text.strip())


def words(text: str) -> int:
    """Words."""
    return len(_WORD.findall(text))


def lines(text: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


def sentences(text: str) -> int:
    """Sentences; one that lacks its end counts too."""
    return sum(_sentences_of(line) for line in text.splitlines())


def _sentences_of(line: str) -> int:
    count, start = 0, 0
    for end in _END.finditer(line):
        part = line[start : end.start()]
        if end[0] == "." and _is_abbreviated(part) and end.end() < len(line):
            continue
        count += _WORD.search(part) is not None
        start = end.end()
    return count + (_WORD.search(line[start:]) is not None)


def _is_abbreviated(before: str) -> bool:
    """Whether a full stop behind this text belongs to its last word: `Dr`, `J`, the `1` of a numbered line."""
    last = "".join(before.rsplit(maxsplit=1)[-1:]).strip("(\"'")
    initial = len(last) == 1 and last.isalpha() and last.isupper() and last != "I"
    numbered = last.isdigit() and before.strip() == last
    return initial or numbered or last.lower() in _ABBREVIATIONS


_UNITS: Mapping[str, Callable[[str], int]] = {
    "characters": characters,
    "words": words,
    "sentences": sentences,
    "lines": lines,
}


def length(value: Any, spot: Spot) -> Check:
    """So many characters, words, sentences or lines: `{words: [3, 20]}`, `{sentences: 1}`, `{words: {max: 50}}`.

    Raises:
        TaskError: a unit is unknown, or its bounds are none.
    """
    if not isinstance(value, dict) or not value:
        raise spot.error("a unit with its bounds, as in {words: [3, 20]},", value)
    for unit in value:
        if unit not in _UNITS:
            raise TaskError(f"{spot.where}: {unknown('unit', str(unit), _UNITS)}")
    bounds = {unit: _bounds(given, spot.inside(unit)) for unit, given in value.items()}

    def check(answer: Answer) -> Finding:
        counts = {unit: _UNITS[unit](answer.text) for unit in bounds}
        too_long = any(counts[unit] > high for unit, (_, high) in bounds.items())
        holds = not too_long and all(counts[unit] >= low for unit, (low, _) in bounds.items())
        endless = all(high == float("inf") for _, high in bounds.values())  # more text makes no difference then
        said = ", ".join(f"{count} {unit if count != 1 else unit[:-1]}" for unit, count in counts.items())
        return Finding(holds, too_long or (holds and endless), said)

    return check


def _bounds(value: Any, spot: Spot) -> tuple[float, float]:
    if isinstance(value, dict):
        for name in value:
            if name not in ("min", "max"):
                raise TaskError(f"{spot.where}: {unknown('bound', str(name), ('min', 'max'))}")
        value = [value.get("min"), value.get("max")]
    pair = [value, value] if isinstance(value, int) else value
    if not isinstance(pair, list) or len(pair) != 2 or not all(_is_count(each) for each in pair) or pair == [None] * 2:
        raise spot.error("a number, [least, most] or {min, max}", value)
    low, high = pair[0] or 0, float("inf") if pair[1] is None else pair[1]
    if low > high:
        raise spot.error("at least as much for the most as for the least", value)
    return low, high


def _is_count(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)

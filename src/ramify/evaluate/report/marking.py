"""Where two answers differ, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_ALIKE = 0.25


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of an answer; `changed`: the other answer has something else there, or nothing."""

    text: str
    changed: bool


def differences(before: str, after: str) -> tuple[list[Passage], list[Passage]]:
    """Both texts in passages, in order; joined they are the texts again.

    The longest common runs of words are found first, then those beside them (Ratcliff and Metzener 1988). Texts that
    share less than a quarter of their words are not marked: nearly every word would be. The work grows with the square
    of the number of words, so long texts are clipped before.
    """
    left, right = _WORDS.findall(before), _WORDS.findall(after)
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    blocks = matcher.get_matching_blocks()
    common = sum(_size(left[block.a : block.a + block.size]) for block in blocks)
    if before == after or 2 * common < _ALIKE * (_size(left) + _size(right)):
        return [Passage(before, False)], [Passage(after, False)]
    kept = [(block.a, block.b, block.size) for block in blocks if _size(left[block.a : block.a + block.size])]
    return _passages(left, [(a, size) for a, _, size in kept]), _passages(right, [(b, size) for _, b, size in kept])


def _size(words: Sequence[str]) -> int:
    """Words and signs; spaces between them are not counted."""
    return sum(not word.isspace() for word in words)


def _passages(words: Sequence[str], kept: Sequence[tuple[int, int]]) -> list[Passage]:
    """The words in passages; `kept` are (start, length) of the runs that both texts have."""
    changed = [True] * len(words)
    for start, size in kept:
        changed[start : start + size] = [False] * size
    runs = groupby(zip(words, changed, strict=True), key=lambda pair: pair[1])
    return [Passage("".join(word for word, _ in run), flag) for flag, run in runs]

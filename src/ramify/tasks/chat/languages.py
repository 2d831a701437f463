"""Which language a text is in: by its script, and among languages in Latin and Cyrillic letters by their small words.

Small words (the, und, que, …) make up a third to a half of any running text, and few are shared between languages;
one that several languages share counts for each of them in part. Letters that few languages have (ß, ñ, ł, ő, …) count
too. What such a detector cannot do is said, not guessed: a text without small words (a name, a number, a formula) has
no language, and close relatives that are not in the table (Norwegian beside Danish, …) are taken for the one that is.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cache
from typing import Any

from ramify.base.errors import TaskError, unknown
from ramify.tasks.chat.finding import Answer, Check, Finding, Spot, listed
from ramify.tasks.chat.small_words import LETTERS, SMALL_WORDS

ENOUGH_WORDS = 6
"""From so many words on, a text without a single sign of a language is not in it."""

_SCRIPTS = {
    "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CJK": "zh", "GREEK": "el", "HEBREW": "he", "ARABIC": "ar",
    "DEVANAGARI": "hi", "THAI": "th",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
LANGUAGES = (*SMALL_WORDS, *dict.fromkeys(_SCRIPTS.values()))
"""What can be told apart, by ISO 639-1 codes."""


def language(value: Any, spot: Spot) -> Check:
    """The answer is in this language, or one of these: `en`, `[en, de]`.

    An answer of fewer than `ENOUGH_WORDS` words that shows no language at all is accepted: `Paris` is right in many.

    Raises:
        TaskError: the language is not among those that can be told.
    """
    wanted = spot.texts(value)
    for each in wanted:
        if each not in LANGUAGES:
            raise TaskError(f"{spot.where}: {unknown('language', each, LANGUAGES)}")

    def check(answer: Answer) -> Finding:
        signs = signs_of(answer.text)
        if not signs:
            count = len(_WORD.findall(answer.text))
            return Finding(count < ENOUGH_WORDS, False, f"no language to be seen in {count} words")
        best = max(signs.values())
        found = [name for name, weight in signs.items() if weight == best]
        return Finding(any(each in found for each in wanted), False, f"in {listed(found)}")

    return check


def language_of(text: str) -> str | None:
    """The language of a text, or None where nothing tells it."""
    signs = signs_of(text)
    return max(signs, key=lambda name: signs[name]) if signs else None


def signs_of(text: str) -> Mapping[str, float]:
    """How much speaks for each language, those for which nothing does left out."""
    script = _script_of(text)
    if script is not None:
        return {script: 1.0}
    small, letters = _tables()
    signs: defaultdict[str, float] = defaultdict(float)
    for word in _WORD.findall(text.lower().replace("’", "'")):
        for name, weight in small.get(word, ()):
            signs[name] += weight
    for letter, count in Counter(text.lower()).items():
        for name, weight in letters.get(letter, ()):
            signs[name] += count * weight
    return signs


def _script_of(text: str) -> str | None:
    """The language that a script other than Latin and Cyrillic stands for, where most letters are of it."""
    if text.isascii():
        return None
    letters = {each: count for each, count in Counter(text).items() if each.isalpha()}
    other: Counter[str] = Counter()
    for letter, count in letters.items():
        name = _SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0])
        other.update({name: count} if name else {})
    if sum(other.values()) * 2 <= sum(letters.values()):
        return None
    if other.get("ja", 0) * 10 >= sum(other.values()):
        return "ja"  # Japanese writes most nouns in Chinese characters, so a few kana decide
    return max(other, key=lambda name: other[name])


@cache
def _tables() -> tuple[dict[str, list[tuple[str, float]]], dict[str, list[tuple[str, float]]]]:
    """word -> (language, weight), letter -> (language, weight); a sign of several languages is shared among them."""
    words = _shared({name: set(held.split()) for name, held in SMALL_WORDS.items()}, 1.0)
    return words, _shared({name: set(held) for name, held in LETTERS.items()}, 0.7)


def _shared(table: Mapping[str, set[str]], weight: float) -> dict[str, list[tuple[str, float]]]:
    owners: dict[str, list[str]] = {}
    for name, signs in table.items():
        for sign in sorted(signs):
            owners.setdefault(sign, []).append(name)
    return {sign: [(name, weight / len(names)) for name in names] for sign, names in owners.items()}

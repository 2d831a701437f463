"""Rules about words that an answer contains, begins with, ends in, or is.

Compared is what is read, not how it is encoded: composed and decomposed letters are the same, curly quotes are straight
ones, and every run of white space is one space. Capital letters count only with `case: true`; accents count unless
`accents: false` is set. Words are found inside other words too, unless `whole: true` is set.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from ramify.tasks.chat.finding import Answer, Check, Finding, Spot, listed, negated, short

_QUOTES = str.maketrans({"‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"'})
_FLAGS = ("case", "accents", "whole")


def plain(text: str) -> str:
    """A text as rules read it: one form of letters and quotes, one space for all white space, none around it."""
    return " ".join(unicodedata.normalize("NFC", text).translate(_QUOTES).split())


def without_accents(text: str) -> str:
    """The text without marks on its letters: `café` is `cafe`; letters that are no letter with a mark (ø, ß) stay."""
    return "".join(each for each in unicodedata.normalize("NFD", text) if not unicodedata.combining(each))


@dataclass(frozen=True, slots=True)
class _Terms:
    """Texts to look for, and how they are compared."""

    written: tuple[str, ...]
    case: bool
    accents: bool
    whole: bool

    def read(self, text: str) -> str:
        """A text as it is compared."""
        text = plain(text)
        text = text if self.accents else unicodedata.normalize("NFC", without_accents(text))
        return text if self.case else text.casefold()

    def among(self, text: str) -> tuple[list[str], bool]:
        """Terms that the text holds, and whether they stay in it however it goes on."""
        if not self.whole:
            return [each for each in self.written if self.read(each) in text], True
        ends = {each: [m.end() for m in re.finditer(rf"(?<!\w){re.escape(self.read(each))}(?!\w)", text)]
                for each in self.written}  # fmt: skip
        return [each for each, at in ends.items() if at], all(at[0] < len(text) for at in ends.values() if at)


def contains(value: Any, spot: Spot) -> Check:
    """All of the texts occur."""
    terms = _terms(value, spot)

    def check(answer: Answer) -> Finding:
        found, stay = terms.among(terms.read(answer.text))
        missing = [each for each in terms.written if each not in found]
        return Finding(not missing, not missing and stay, f"{listed(missing)} not found" if missing else "found")

    return check


def contains_any(value: Any, spot: Spot) -> Check:
    """At least one of the texts occurs."""
    terms = _terms(value, spot)

    def check(answer: Answer) -> Finding:
        found, stay = terms.among(terms.read(answer.text))
        seen = f"{listed(found)} found" if found else f"none of {listed(terms.written)} found"
        return Finding(bool(found), bool(found) and stay, seen)

    return check


def not_contains(value: Any, spot: Spot) -> Check:
    """None of the texts occurs."""
    return negated(contains_any(value, spot))


def starts_with(value: Any, spot: Spot) -> Check:
    """One of the texts stands at the beginning; white space before it does not count."""
    terms = _terms(value, spot)

    def check(answer: Answer) -> Finding:
        text = terms.read(answer.text)
        wanted = [terms.read(each) for each in terms.written]
        holds = any(_begins(text, each, terms.whole) for each in wanted)
        stays = any(_begins(text, each, terms.whole) and (len(text) > len(each) or not terms.whole) for each in wanted)
        undecided = any(len(text) <= len(each) and each.startswith(text) for each in wanted)
        return Finding(holds, stays or not undecided, f"begins with {short(text, 30)!r}")

    return check


def ends_with(value: Any, spot: Spot) -> Check:
    """One of the texts stands at the end; white space behind it does not count."""
    terms = _terms(value, spot)

    def check(answer: Answer) -> Finding:
        text = terms.read(answer.text)
        holds = any(_begins(text[::-1], terms.read(each)[::-1], terms.whole) for each in terms.written)
        return Finding(holds, False, f"ends in {text[-30:]!r}")

    return check


def equals(value: Any, spot: Spot) -> Check:
    """The answer is one of the texts; white space, quotes around it and a full stop or mark behind it do not count."""
    terms = _terms(value, spot, flags=("case", "accents"))

    def check(answer: Answer) -> Finding:
        text = _bare(terms.read(answer.text))
        wanted = [_bare(terms.read(each)) for each in terms.written]
        undecided = any(each.startswith(text) for each in wanted)
        return Finding(text in wanted, not undecided, f"is {short(text, 40)!r}")

    return check


def _bare(text: str) -> str:
    """The text without quotes around it and marks behind it, unless it is nothing else."""
    inner = text.strip(" \"'")
    return inner.rstrip(".!?").rstrip(" \"'") or inner or text


def _begins(text: str, term: str, whole: bool) -> bool:
    if not text.startswith(term):
        return False
    return not whole or re.match(r"\w", text[len(term) :]) is None


def _terms(value: Any, spot: Spot, flags: tuple[str, ...] = _FLAGS) -> _Terms:
    given = spot.options(value, "text", flags)
    switched = {name: spot.inside(name).flag(given[name]) for name in flags if name in given}
    return _Terms(
        written=spot.texts(given["text"]),
        case=switched.get("case", False),
        accents=switched.get("accents", True),
        whole=switched.get("whole", False),
    )

"""Names and addresses out of the texts that a prompt shows.

Comments lose every e-mail address, the student's own name and each part of it (three letters or four digits at least),
and the names of others where they are no words. Code outside comments has to go on meaning the same, so it loses
only what belongs to students of the lab beyond doubt: their addresses, names such as `jane.doe` or `jdoe42`, and the
student's own first and last name side by side. `max` as a name is taken out of comments, and stays a function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from ramify.data.labs.files import fold, student_of

NAME, ADDRESS = "student", "address"
"""What stands in the place of a name and of an address: words that may stand in identifiers."""

_ADDRESS = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)*+")
_WORD = re.compile(r"(?<![\w.+-])\w++(?:[.+-]\w++)*+")
_SEPARATOR = re.compile(r"([.+-])")
_NO_WORD = 7  # letters of a full name that is known without a separator; the name ma.in is no `main`
_LONGEST = 7  # pieces and separators of a word that are tried as one name
_PART = re.compile(r"[^\W\d_]{2,}|\d{4,}")
_QUOTED = r"\"(?:\\.|[^\"\\\n])*+\"?|'(?:\\.|[^'\\\n])*+'?"
_SLASHES = rf"{_QUOTED}|(?P<comment>//[^\n]*+|/\*.*?(?:\*/|\Z))"
_HASH = rf"(?P<comment>\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)|\#[^\n]*+)|{_QUOTED}"
_DASHES = rf"{_QUOTED}|(?P<comment>--[^\n]*+|/\*.*?(?:\*/|\Z)|\{{-.*?(?:-\}}|\Z))"
_BOTH = rf"{_QUOTED}|(?P<comment>\#[^\n]*+|//[^\n]*+|/\*.*?(?:\*/|\Z))"
_SIGNS = r"\"(?:\\.|[^\"\\\n])*+\"?|(?P<comment>[;%!][^\n]*+|//[^\n]*+|[(/]\*.*?(?:\*[)/]|\Z))"  # ' may be no quote
_TICKS = r"\"[^\"\n]*+\"?|(?P<comment>'[^\n]*+)"
_MARKUP = r"(?P<comment><!--.*?(?:-->|\Z)|/\*.*?(?:\*/|\Z)|//[^\n]*+)"
_FAMILIES = {
    _SLASHES: "c cc cpp cxx c++ cu h hh hpp hxx inl java js jsx mjs ts tsx cs go rs swift kt kts scala dart v sv",
    _HASH: "py pyi rb r jl sh bash pl pm ex exs nim",
    _BOTH: "php",
    _DASHES: "sql hs lua adb ads vhd vhdl elm",
    _SIGNS: "asm s lisp lsp cl scm rkt clj m mm erl pro ml mli pas f f90 f95",
    _TICKS: "vb vbs bas",
    _MARKUP: "html htm css xml vue",
}
ENDINGS = {f".{ending}": pattern for pattern, endings in _FAMILIES.items() for ending in endings.split()}
"""Endings of source files, and how comments are told in each."""
_COMMENTS = {pattern: re.compile(pattern, re.DOTALL) for pattern in _FAMILIES}


@dataclass(frozen=True, slots=True)
class Roster:
    """The students of a lab, as their names may occur in texts.

    Attributes:
        names: of all of them, folded.
        telling: those of five characters at least that hold letters and something else, so no words and no numbers.
        numbers: those of five digits at least.
    """

    names: frozenset[str]
    telling: frozenset[str]
    numbers: frozenset[str]

    @classmethod
    def of(cls, students: Iterable[str]) -> Roster:
        """From folded names."""
        names = frozenset(students)
        long = [name for name in names if len(name) >= 5]
        telling = (name for name in long if not name.isalpha() and any(each.isalpha() for each in name))
        return cls(names, frozenset(telling), frozenset(name for name in long if name.isdecimal()))


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text, and how many names and addresses were replaced in it."""

    text: str
    replaced: int


class Scrubber:
    """Takes names and addresses out of the texts of one student, or (without one) of the lab's own texts."""

    def __init__(self, roster: Roster, student: str = "") -> None:
        parts = _PART.findall(student)
        self._roster = roster
        self._own = frozenset({student, *(part for part in parts if len(part) >= 3)} - {"", NAME, ADDRESS})
        self._full = _full_name([part for part in parts if part.isalpha()])

    def code(self, text: str, file: str) -> Cleaned:
        """A source file; its ending says what its comments are."""
        return self._join(_segments(text, _COMMENTS[ENDINGS[PurePath(file).suffix.lower()]]))

    def comment(self, text: str) -> Cleaned:
        """A text that is no code, such as a file's name."""
        return self._join([(True, text)])

    def statement(self, text: str) -> Cleaned:
        """A text of the teachers, in which other addresses may be part of the assignment."""
        return self._join([(False, text)])

    def _join(self, segments: Iterable[tuple[bool, str]]) -> Cleaned:
        done = [self._segment(text, comment=comment) for comment, text in segments]
        return Cleaned("".join(text for text, _ in done), sum(count for _, count in done))

    def _segment(self, text: str, *, comment: bool) -> tuple[str, int]:
        count = 0

        def address(found: re.Match[str]) -> str:
            nonlocal count
            known = comment or student_of(found[0]) in self._roster.names
            count += known
            return ADDRESS if known else found[0]

        def word(found: re.Match[str]) -> str:
            nonlocal count
            done = self._word(found[0], comment=comment)
            count += done.replaced
            return done.text

        if "@" in text:
            text = _ADDRESS.sub(address, text)
        if self._full is not None:
            text, full = self._full.subn(NAME, text)
            count += full
        return _WORD.sub(word, text), count

    def _word(self, word: str, *, comment: bool) -> Cleaned:
        """Replace names that the word is, or that stand between its separators (`jane.doe.cpp`)."""
        pieces, kept, replaced, at = _SEPARATOR.split(word), "", 0, 0
        while at < len(pieces):
            ends = range(min(len(pieces), at + _LONGEST), at, -2)
            end = next((end for end in ends if self._is_name("".join(pieces[at:end]), comment=comment)), None)
            piece = NAME if end is not None else self._parts(pieces[at]) if comment else pieces[at]
            replaced += end is not None or piece != pieces[at]
            at = at + 1 if end is None else end
            kept += piece + "".join(pieces[at : at + 1])
            at += 1
        return Cleaned(kept, replaced)

    def _is_name(self, word: str, *, comment: bool) -> bool:
        folded = fold(word)
        if folded in self._roster.telling:
            return True
        return comment and (folded in self._own or folded in self._roster.numbers)

    def _parts(self, piece: str) -> str:
        """The piece without parts of the student's own name that `_` or digits set apart."""
        return _PART.sub(lambda part: NAME if fold(part[0]) in self._own else part[0], piece)


def _full_name(parts: list[str]) -> re.Pattern[str] | None:
    """First and last name side by side, in either order, as words or within an identifier."""
    if len(parts) < 2:
        return None
    orders = (parts, parts[::-1])
    fewest = 0 if sum(map(len, parts)) >= _NO_WORD else 1
    names = "|".join(rf"[\s._,+-]{{{fewest},2}}".join(map(re.escape, each)) for each in orders)
    return re.compile(rf"(?<![^\W\d_])(?:{names})(?![^\W\d_])", re.IGNORECASE)


def _segments(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[bool, str]]:
    """(is a comment, text), in order and without gaps."""
    at = 0
    for found in pattern.finditer(text):
        if found["comment"] is not None:
            yield False, text[at : found.start()]
            yield True, found[0]
            at = found.end()
    yield False, text[at:]

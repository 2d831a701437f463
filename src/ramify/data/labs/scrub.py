"""Names and addresses out of the texts that a prompt shows.

Comments lose every e-mail address, the student's own name and each part of it (three letters or four digits at least),
and the names of others where they are hardly words. Texts in quotes lose addresses and the student's own name, except
for what the lab's statement shows, which a program has to print or to read. Code has to go on meaning the same, so it
loses only what belongs to students of the lab beyond doubt: their addresses, names such as `jane.doe` or `jdoe42`, the
student's own login of six letters at least, and the own first and last name side by side. `max` as a name leaves
comments, and stays a function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath

from ramify.data.labs.files import fold, student_of

NAME, ADDRESS = "student", "address"
"""What stands in the place of a name and of an address: words that may stand in identifiers."""

_ADDRESS = re.compile(r"(?<![\w.+-])[\w.+-]++@[\w-]++(?:\.[\w-]++)*+")
_WORD = re.compile(r"(?<![\w.+-])\w++(?:[.+-]\w++)*+")
_SEPARATOR = re.compile(r"([.+-])")
_NO_WORD = 7  # letters of a full name that is known without a separator; the name ma.in is no `main`
_LOGIN = 6  # letters of a login that is taken for no word of a language
_LONGEST = 7  # pieces and separators of a word that are tried as one name
_PART = re.compile(r"[^\W\d_]{2,}|\d{4,}")
_ESCAPE = re.compile(r"(\\.)", re.DOTALL)
_QUOTED = r"\"(?:\\.|[^\"\\\n])*+\"?|'(?:\\.|[^'\\\n])*+'?"
_SLASHES = rf"{_QUOTED}|(?P<comment>//[^\n]*+|/\*.*?(?:\*/|\Z))"
_HASH = rf"(?P<comment>\"\"\".*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)|\#[^\n]*+)|{_QUOTED}"
_DASHES = rf"{_QUOTED}|(?P<comment>--[^\n]*+|/\*.*?(?:\*/|\Z)|\{{-.*?(?:-\}}|\Z))"
_BOTH = rf"{_QUOTED}|(?P<comment>\#[^\n]*+|//[^\n]*+|/\*.*?(?:\*/|\Z))"
_SIGNS = r"\"(?:\\.|[^\"\\\n])*+\"?|(?P<comment>[;%!][^\n]*+|//[^\n]*+|[(/]\*.*?(?:\*[)/]|\Z))"  # ' may be no quote
_TICKS = r"\"[^\"\n]*+\"?|(?P<comment>'[^\n]*+)"
_MARKUP = r"(?P<comment><!--.*?(?:-->|\Z)|/\*.*?(?:\*/|\Z)|//[^\n]*+)"
_FAMILIES = {
    _SLASHES: "c cc cpp cxx c++ cu h hh hpp hxx inl ipp tpp ino java groovy js jsx mjs ts tsx cs go rs swift kt kts "
    "scala dart d zig v sv",
    _HASH: "py pyi rb r jl sh bash pl pm ex exs nim",
    _BOTH: "php",
    _DASHES: "sql hs lua adb ads vhd vhdl elm",
    _SIGNS: "asm s lisp lsp cl scm rkt clj m mm erl pro ml mli pas f f90 f95",
    _TICKS: "vb vbs bas",
    _MARKUP: "html htm css xml vue",
}
ENDINGS = {f".{ending}": pattern for pattern, endings in _FAMILIES.items() for ending in endings.split()}
"""Endings of source files, and how comments are told in each; what else a pattern matches is a text in quotes."""
_COMMENTS = {pattern: re.compile(pattern, re.DOTALL) for pattern in _FAMILIES}


class _Kind(Enum):
    """What a piece of a file is."""

    CODE = "code"  # and what else has to stay as it is
    QUOTED = "a text in quotes"
    COMMENT = "a comment"


@dataclass(frozen=True, slots=True)
class Roster:
    """The students of a lab, as their names may occur in texts.

    Attributes:
        names: of all of them, folded.
        telling: those of five characters at least that hold letters and something else, so no words and no numbers.
        plain: those of five digits or six letters at least, which code may hold for other reasons.
        shown: words and addresses of the lab's statement, folded.
    """

    names: frozenset[str]
    telling: frozenset[str]
    plain: frozenset[str]
    shown: frozenset[str]

    @classmethod
    def of(cls, students: Iterable[str], statement: str = "") -> Roster:
        """From folded names, and the statement of the lab."""
        names = frozenset(students)
        long = [name for name in names if len(name) >= 5]
        telling = (name for name in long if not name.isalpha() and any(each.isalpha() for each in name))
        plain = (name for name in long if name.isdecimal() or _is_login(name))
        shown = (*_ADDRESS.findall(statement), *_WORD.findall(statement), *_PART.findall(statement))
        return cls(names, frozenset(telling), frozenset(plain), frozenset(map(fold, shown)))


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
        self._login = student if _is_login(student) else ""
        self._full = _full_name([part for part in parts if part.isalpha()])

    def code(self, text: str, file: str) -> Cleaned:
        """A source file; its ending says what its comments are."""
        return self._join(_segments(text, _COMMENTS[ENDINGS[PurePath(file).suffix.lower()]]))

    def comment(self, text: str) -> Cleaned:
        """A text that is no code, such as a file's name."""
        return self._join([(_Kind.COMMENT, text)])

    def statement(self, text: str) -> Cleaned:
        """A text of the teachers, in which other addresses may be part of the assignment."""
        return self._join([(_Kind.CODE, text)])

    def _join(self, segments: Iterable[tuple[_Kind, str]]) -> Cleaned:
        done = [self._segment(text, kind) for kind, text in segments]
        return Cleaned("".join(text for text, _ in done), sum(count for _, count in done))

    def _segment(self, text: str, kind: _Kind) -> tuple[str, int]:
        count = 0

        def address(found: re.Match[str]) -> str:
            nonlocal count
            known = student_of(found[0]) in self._roster.names or self._is_address(found[0], kind)
            count += known
            return ADDRESS if known else found[0]

        def word(found: re.Match[str]) -> str:
            nonlocal count
            done = self._word(found[0], kind)
            count += done.replaced
            return done.text

        if "@" in text:
            text = _ADDRESS.sub(address, text)
        if self._full is not None:
            text, full = self._full.subn(NAME, text)
            count += full
        return _WORD.sub(word, text), count

    def _word(self, word: str, kind: _Kind) -> Cleaned:
        """Replace names that the word is, or that stand between its separators (`jane.doe.cpp`)."""
        pieces, kept, replaced, at = _SEPARATOR.split(word), "", 0, 0
        while at < len(pieces):
            ends = range(min(len(pieces), at + _LONGEST), at, -2)
            end = next((end for end in ends if self._is_name("".join(pieces[at:end]), kind)), None)
            piece = NAME if end is not None else self._parts(pieces[at], kind)
            replaced += end is not None or piece != pieces[at]
            at = at + 1 if end is None else end
            kept += piece + "".join(pieces[at : at + 1])
            at += 1
        return Cleaned(kept, replaced)

    def _is_address(self, text: str, kind: _Kind) -> bool:
        """Whether something with an @ is an address that nobody needs to see."""
        if kind is _Kind.QUOTED:
            return "." in text.partition("@")[2] and fold(text) not in self._roster.shown
        return kind is _Kind.COMMENT

    def _is_name(self, word: str, kind: _Kind) -> bool:
        folded = fold(word)
        if folded in self._roster.telling:
            return True
        return self._is_own(folded, kind) or (kind is _Kind.COMMENT and folded in self._roster.plain)

    def _is_own(self, folded: str, kind: _Kind) -> bool:
        """Whether it is the student's own name, or a part of it that this kind of text does not need."""
        if kind is _Kind.COMMENT:
            return folded in self._own
        known = self._own if kind is _Kind.QUOTED else (self._login,)
        return folded in known and folded not in self._roster.shown

    def _parts(self, piece: str, kind: _Kind) -> str:
        """The piece without parts of the student's own name that `_` or digits set apart."""
        return _PART.sub(lambda part: NAME if self._is_own(fold(part[0]), kind) else part[0], piece)


def _is_login(name: str) -> bool:
    return name.isalpha() and len(name) >= _LOGIN


def _full_name(parts: list[str]) -> re.Pattern[str] | None:
    """First and last name side by side, in either order, as words or within an identifier."""
    if len(parts) < 2:
        return None
    orders = (parts, parts[::-1])
    fewest = 0 if sum(map(len, parts)) >= _NO_WORD else 1
    names = "|".join(rf"[\s._,+-]{{{fewest},2}}".join(map(re.escape, each)) for each in orders)
    return re.compile(rf"(?<![^\W\d_])(?:{names})(?![^\W\d_])", re.IGNORECASE)


def _segments(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[_Kind, str]]:
    """(what it is, text), in order and without gaps. Escapes are code: the n of `\\nJane` belongs to no name."""
    at = 0
    for found in pattern.finditer(text):
        yield _Kind.CODE, text[at : found.start()]
        if found["comment"] is not None:
            yield _Kind.COMMENT, found[0]
        else:
            for place, piece in enumerate(_ESCAPE.split(found[0])):
                yield (_Kind.CODE if place % 2 else _Kind.QUOTED), piece
        at = found.end()
    yield _Kind.CODE, text[at:]

"""Letters in answers: which of the ratings that a problem offers a text names.

Each option of a problem is the full text of an answer, `{"answer": "B. Mostly right"}` or `B. Mostly right`; its letter
is what stands before the first full stop. A letter may be any short title (`B`, `A+`, `Good`). A text names a letter in
one of these forms; the first form that names any decides, and what was not plain is said in `Letter.notes`:

    {"answer": "B. Mostly right"}                 the whole text, as asked for
    Sure: {"answer": "B"} Done.                   text_around_json
    {"answer": "B. Mostly ri                      cut_off_json
    {'answer': 'B'}                               single_quotes
    ```json … ```                                 code_fence
    The correct answer is B.   Answer: B          sentence
    B. Mostly right   B: …   B) …   (B) …         option_line      at the start of a line
    b   B.                                        lone_letter      nothing else in the text
    {"answer": "b"}   b                           letter_case      in the two forms that hold nothing else

Two different letters are no answer (`several_letters`), and a letter that the problem does not offer is none. What
follows a letter must show that it ends there: `The correct answer is A program …` names none. Every quantifier of the
patterns is bounded or runs over one kind of character only, so no text takes more than linear time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ramify.base.errors import DataError
from ramify.base.types import Problem
from ramify.data.labs.wording import LONGEST_TITLE

_KEY = r"(?P<quote>[\"'])answer(?P=quote)\s{0,8}:\s{0,8}"
# An apostrophe inside a word does not close a text in single quotes.
_JSON = re.compile(
    _KEY + r"(?:\"(?P<double>(?:[^\"\\]|\\.)*)\"?|'(?P<single>(?:[^'\\]|\\.|'(?=\w))*)'?)",
    re.DOTALL | re.IGNORECASE,
)
_FENCE = re.compile(r"```\w{0,10}")
_TITLE = re.compile(rf"([^\n]{{1,{LONGEST_TITLE}}}?)\.(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Letter:
    """What was read in a text.

    Attributes:
        value: one of the letters offered, or None when there is no answer.
        notes: how it was read (see the module's table).
    """

    value: str | None
    notes: tuple[str, ...] = ()


def option_letters(problem: Problem) -> tuple[str, ...]:
    """The letter of each option of a problem, in order: the best rating first.

    Raises:
        DataError: it offers fewer than two options, or two options have the same letter; names its source.
    """
    where = problem.source or f"problem {problem.id}"
    letters = tuple(letter_of(option) for option in problem.options)
    if len(letters) < 2:
        raise DataError(
            f"{where}: options: at least two answers to choose from are needed, found {len(letters)}",
            hint='rows look like {"id", "prompt", "answer": "B", "options": ["A. …", "B. …"]}',
        )
    if len({letter.casefold() for letter in letters}) < len(letters):
        raise DataError(f"{where}: options: each needs a letter of its own, found {', '.join(letters)}")
    return letters


@lru_cache(maxsize=4096)
def letter_of(option: str) -> str:
    """The letter of an option's own text."""
    text = option.strip()
    answer = _JSON.search(text)
    if text.startswith("{") and answer is not None:
        text = _unescaped(_value(answer)).strip()
    found = _TITLE.match(text)
    return (found[1] if found else text).strip()


def read_letter(text: str, letters: Sequence[str]) -> Letter:
    """The letter that a text names, in the first form of the module's table that names any."""
    reader = _reader(tuple(letters))
    rest = _JSON.sub("\n", text)  # what a JSON answer says inside is no sentence and no line of its own
    for found, note in (
        (list(reader.in_json(text)), None),
        (list(reader.in_sentences(rest)), "sentence"),
        (list(reader.in_lines(rest)), "option_line"),
        (list(reader.alone(rest)), "lone_letter"),
    ):
        named = {letter for letter, _ in found}
        if len(named) > 1:
            return Letter(None, ("several_letters",))
        if named:
            letter, notes = found[0]
            return Letter(letter, notes if note is None else (note, *notes))
    return Letter(None)


@dataclass(frozen=True, slots=True)
class _Reader:
    """The patterns for one set of letters; each form gives (letter, notes) as often as it occurs."""

    by_case: dict[str, str]
    value: re.Pattern[str]
    sentence: re.Pattern[str]
    line: re.Pattern[str]

    def in_json(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        first = True  # only its notes are told, and each account of what is around an answer reads the whole text
        for found in _JSON.finditer(text):
            letter = self.value.match(_unescaped(_value(found)))
            if letter is not None:
                yield from self._offered(letter[1], _around(text, found) if first else ())
                first = False

    def in_sentences(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        for found in self.sentence.finditer(text):
            yield found[1], ()

    def in_lines(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        for found in self.line.finditer(text):
            yield found[1] or found[2], ()

    def alone(self, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        for bare in dict.fromkeys((text.strip(), _FENCE.sub("", text).strip(" \t\r\n*`\"'()[]{}.:"))):
            yield from self._offered(bare, ())

    def _offered(self, written: str, notes: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The letter as the problem writes it, when it is one."""
        letter = self.by_case.get(written.casefold())
        if letter is not None:
            yield letter, notes if letter == written else (*notes, "letter_case")


@lru_cache(maxsize=256)
def _reader(letters: tuple[str, ...]) -> _Reader:
    named = "|".join(re.escape(letter) for letter in sorted(letters, key=len, reverse=True))
    another = rf"(?!\s{{0,4}}(?:[,;/&+]|and\b|or\b)\s{{0,4}}(?:and\b|or\b)?\s{{0,4}}(?:{named})(?!\w))"
    after = r"\s{0,4}$|\s{0,4}\n|[.,:;)\]}\"'*`!](?-i:(?![a-z0-9]))|\s{1,4}(?:[(–—-]|because\b|since\b)"
    ended = rf"{another}(?={after})"
    opening = r"[\"'(\[{*`]{0,4}"
    kind = r"(?<!incorrect )(?<!wrong )(?<!\w)(?i:answer|rating|grade|option|choice|response)[\"'*`]{0,4}"
    link = r"(?:\s{0,4}[:=]|\s{1,4}(?i:is)\b\s{0,4}:?)\s{0,4}"
    return _Reader(
        by_case={letter.casefold(): letter for letter in letters},
        value=re.compile(rf"\s{{0,8}}[(\[]?({named}){ended}", re.IGNORECASE),
        sentence=re.compile(rf"{kind}{link}{opening}(?i:option\s{{1,4}})?{opening}({named}){ended}"),
        line=re.compile(
            rf"^[ \t*`\"'>-]{{0,8}}(?:({named})\*{{0,2}}(?:[.)]\*{{0,2}}(?=\s|$|[A-Z])|:\*{{0,2}}\s)|\(({named})\))",
            re.MULTILINE,
        ),
    )


def _value(answer: re.Match[str]) -> str:
    """What stands between the quotes of a JSON answer."""
    return answer["single"] if answer["double"] is None else answer["double"]


def _unescaped(value: str) -> str:
    """A JSON text as it reads; one that was cut off, or is no JSON, as it is written."""
    try:
        return str(json.loads(f'"{value}"'))
    except ValueError:
        return value


def _around(text: str, found: re.Match[str]) -> tuple[str, ...]:
    """What is not plain about a JSON answer at this place of a text."""
    before, after = text[: found.start()], text[found.end() :]
    fenced = _FENCE.search(before) is not None
    rest = _FENCE.sub("", before).strip(" \t\r\n{") + _FENCE.sub("", after).strip(" \t\r\n}`")
    notes = {
        "code_fence": fenced,
        "single_quotes": found["single"] is not None or found["quote"] == "'",
        "cut_off_json": "}" not in after,
        "text_around_json": bool(rest),
    }
    return tuple(name for name, there in notes.items() if there)

"""Rows from files, folders and the hub: problems to answer, examples to imitate, pairs to compare.

stream = stream_rows("train.jsonl")     # one row at a time, however long the file is
for row in stream:
    row.shape, row.place.source, row.decoded.examples
stream.summary()                        # "12,034 rows of the shape messages; 3 left out (…: 3, first at …)"

rows = read_rows("train.json")          # all of them at once
rows.shape        # "pairs"
rows.problems     # one a row, each with an id that follows from its content and a source `train.json:17`
rows.examples     # what the rows themselves give to imitate; empty for pairs, whose task writes the completion
rows.preferences  # chosen and rejected completions
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ramify.base.errors import DataError
from ramify.base.types import Example, Pair, Problem
from ramify.data.bad_rows import BadRows
from ramify.data.columns import Recognition
from ramify.data.decoded import Decoded
from ramify.data.fields import Place
from ramify.data.source import Source
from ramify.data.values import iter_readable

_COLUMNS = 100
"""Ignored columns that are counted by name; what is beyond counts as `_OTHERS`."""
_OTHERS = "others"


class Row(NamedTuple):
    """One row of a source: where it stands, what shape it has, what it became."""

    place: Place
    shape: str
    decoded: Decoded


class RowStream:
    """The rows of a source, read while they are iterated; its counts grow meanwhile and begin anew with each pass.

    Rows that do not fit are left out, as long as the source's share of bad rows allows it, and so are rows all of whose
    completions are unwanted (a reward of 0 or less).

    Attributes:
        shapes: how many rows of each shape were recognised.
        count: rows read, those left out included.
        bad: the rows that did not fit, by reason.
        unwanted: completions left out because of their reward or label.
        unanswered: user turns at the end of conversations, left out because nothing answers them.
        ignored: columns that mean nothing in the shape of their row, and how many rows have something in them.

    Raises:
        ConfigError: the source's columns or shape are unknown, or it has a setting that means nothing there.
        DataError: (while iterating) a file cannot be read, or more rows do not fit than are allowed.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._recognition = Recognition(source.columns, source.shape, as_text=source.as_text)
        self._begin()

    def __iter__(self) -> Iterator[Row]:
        self._begin()
        read, shapes, bad = self._recognition.read, self.shapes, self.bad
        for place, value in iter_readable(self.source):
            self.count += 1
            try:
                if isinstance(value, DataError):
                    raise value
                shape, decoded, unread = read(value, place)
            except DataError as error:
                bad.add(error, place, self.count)
                continue
            shapes[shape] += 1
            self.unanswered += decoded.unanswered
            for name in unread:
                self._ignore(name)
            if decoded.unwanted:
                self.unwanted += decoded.unwanted
                if decoded.is_empty:
                    continue
            yield Row(place, shape, decoded)
        bad.check(self.count, self.source.name)

    def summary(self) -> str:
        """What was recognised and what was left out, in one line."""
        used = sum(self.shapes.values())
        if len(self.shapes) == 1:
            said = f"{used:,} rows of the shape {next(iter(self.shapes))}"
        else:
            each = ", ".join(f"{count:,} {name}" for name, count in self.shapes.most_common())
            said = f"{used:,} rows: {each}" if used else "no rows"
        if self.unwanted:
            said += f"; {self.unwanted:,} completions left out for their reward or label"
        if self.unanswered:
            said += f"; {self.unanswered:,} last user turns left out, which nothing answers"
        return f"{said}; {self.bad.summary()}" if self.bad.count else said

    @property
    def leaves_out(self) -> bool:
        """Whether something of the rows read so far was left out."""
        return bool(self.bad.count or self.unwanted or self.unanswered)

    def _ignore(self, column: str) -> None:
        name = " ".join(str(column).split())[:40]
        self.ignored[name if name in self.ignored or len(self.ignored) < _COLUMNS else _OTHERS] += 1

    def _begin(self) -> None:
        self.shapes: Counter[str] = Counter()
        self.count = 0
        self.unwanted = self.unanswered = 0
        self.ignored: Counter[str] = Counter()
        self.bad = BadRows(self.source.bad_rows)


def stream_rows(source: Source | Path | str) -> RowStream:
    """The rows of a source, to be read one at a time.

    Raises:
        ConfigError: the source's columns or shape are unknown.
    """
    return RowStream(_limited(source, None))


@dataclass(frozen=True, slots=True)
class Rows:
    """The content of one source.

    Attributes:
        path: its file or folder, or the id of its data set.
        shape: the shape of its rows (see `ramify.data.shapes`); several are joined with ` + `.
        count: rows read that fit.
        problems: what can be asked.
        examples: what can be imitated.
        preferences: chosen and rejected completions.
        notes: how many rows are unusual, by what: `repeated_question`, `left_out`, `unwanted_completions`,
            `unanswered_turns`.
        unasked: sources of the rows that hold no problem.
    """

    path: Path
    shape: str
    count: int
    problems: tuple[Problem, ...]
    examples: tuple[Example, ...]
    preferences: tuple[Pair, ...] = ()
    notes: Mapping[str, int] = field(default_factory=dict)
    unasked: tuple[str, ...] = ()

    def refuse_mixed(self) -> None:
        """Refuse rows of which some are problems and others are not: those would be left out unsaid.

        Raises:
            DataError: there are such rows; says how many, and where the first one stands.
        """
        if self.problems and self.unasked:
            raise DataError(
                f"{len(self.unasked)} of {self.count} rows hold no problem (first: {self.unasked[0]}; "
                f"shapes: {self.shape})",
                path=self.path,
                hint="put problems and rows to imitate into files of their own",
            )


def read_rows(path: Source | Path | str, limit: int | None = None) -> Rows:
    """Read all rows of a source, or only the first `limit` of them.

    Raises:
        ConfigError: the source's columns or shape are unknown, or it has a setting that means nothing there.
        DataError: a file or a row cannot be used; one line with file, line, field, value and what is allowed.
    """
    stream = stream_rows(_limited(path, limit))
    problems: list[Problem] = []
    examples: list[Example] = []
    preferences: list[Pair] = []
    used: dict[str, list[str]] = {}
    unasked: list[str] = []
    for row in stream:
        decoded = row.decoded
        if decoded.problem is not None:
            problems.append(_distinct(decoded.problem, used, row.place, own_id=decoded.named))
        else:
            unasked.append(row.place.source)
        examples += decoded.examples
        if decoded.pair is not None:
            preferences.append(decoded.pair)
    unusual = {
        "repeated_question": len(problems) - len(used),
        "left_out": stream.bad.count,
        "unwanted_completions": stream.unwanted,
        "unanswered_turns": stream.unanswered,
    }
    return Rows(
        path=Path(stream.source.name),
        shape=" + ".join(stream.shapes),
        count=sum(stream.shapes.values()),
        problems=tuple(problems),
        examples=tuple(examples),
        preferences=tuple(preferences),
        notes={name: count for name, count in unusual.items() if count},
        unasked=tuple(unasked),
    )


def read_problems(path: Source | Path | str) -> list[Problem]:
    """The problems of a file.

    Raises:
        DataError: as `read_rows`, or the file's shape holds none, or some of its rows are no problems.
    """
    rows = read_rows(path)
    rows.refuse_mixed()
    if not rows.problems:
        hint = "problems are [question, answer] pairs, {question, answer} objects, or prompts"
        raise DataError(f"holds no problems: its rows are of the shape {rows.shape}", path=rows.path, hint=hint)
    return list(rows.problems)


def read_examples(path: Source | Path | str) -> list[Example]:
    """The training examples of a file.

    Raises:
        DataError: as `read_rows`, or its rows hold nothing to imitate (`pairs`: a task has to write the completions).
    """
    rows = read_rows(path)
    if not rows.examples:
        hint = "rows to imitate have prompt + completion(s), messages, or [question, answer, reasoning]"
        raise DataError(f"holds nothing to imitate: its rows are of the shape {rows.shape}", path=rows.path, hint=hint)
    return list(rows.examples)


def read_pairs(path: Source | Path | str, limit: int | None = None) -> list[Pair]:
    """The preference pairs of a source, or of its first `limit` rows; errors as for `pairs_of`."""
    return pairs_of(stream_rows(_limited(path, limit)))


def pairs_of(rows: RowStream) -> list[Pair]:
    """The preference pairs of rows that are all pairs.

    Raises:
        DataError: they cannot be used, or some are no pairs.
    """
    found, other = list[Pair](), None
    for row in rows:
        if row.decoded.pair is not None:
            found.append(row.decoded.pair)
        else:
            other = other or row
    if other is not None:
        missing = rows.count - rows.bad.count - len(found)
        raise DataError(
            f"{missing} of {rows.count} rows are no preference pairs (shapes: {' + '.join(rows.shapes)})",
            path=other.place.path,
            hint="pairs have prompt, chosen and rejected",
        )
    return found


def _limited(source: Source | Path | str, limit: int | None) -> Source:
    found = source if isinstance(source, Source) else Source(str(source))
    return found if limit is None else replace(found, limit=limit)


def _distinct(problem: Problem, used: dict[str, list[str]], place: Place, *, own_id: bool) -> Problem:
    """The problem with an id of its own: a repeated row gets `.2`, `.3`; an id given twice is an error."""
    sources = used.setdefault(problem.id, [])
    sources.append(place.source)
    if len(sources) == 1:
        return problem
    if own_id:
        raise place.error("id", problem.id, f"an id of its own (that of {sources[0]} is another problem's)")
    return replace(problem, id=f"{problem.id}.{len(sources)}")

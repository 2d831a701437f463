"""Rows from files: problems to answer, examples to imitate, with the shape they were found in.

rows = read_rows("train.json")
rows.shape        # "pairs"
rows.problems     # one a row, each with an id that follows from its content and a source `train.json:17`
rows.examples     # what the rows themselves give to imitate; empty for pairs, whose task writes the completion
rows.preferences  # chosen and rejected completions
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ramify.base.errors import DataError
from ramify.base.types import Example, Pair, Problem
from ramify.data.fields import Place
from ramify.data.files import read_values
from ramify.data.shapes import decode, shape_of


@dataclass(frozen=True, slots=True)
class Rows:
    """The content of one file.

    Attributes:
        shape: the shape of its rows (see `ramify.data.shapes`); several are joined with ` + `.
        count: rows in the file.
        problems: what can be asked.
        examples: what can be imitated.
        preferences: chosen and rejected completions.
        notes: how many rows are unusual, by what: `repeated_question`.
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


def read_rows(path: Path | str, limit: int | None = None) -> Rows:
    """Read a file of rows, or only the first `limit` of them.

    Raises:
        DataError: the file or a row cannot be used; one line with file, line, field, value and what is allowed.
    """
    path = Path(path)
    shapes: Counter[str] = Counter()
    problems: list[Problem] = []
    examples: list[Example] = []
    preferences: list[Pair] = []
    used: dict[str, list[str]] = {}
    unasked: list[str] = []
    values = read_values(path)[:limit]
    for line, value in values:
        place = Place(path, line)
        shape = shape_of(value, place)
        shapes[shape] += 1
        decoded = decode(value, shape, place)
        if decoded.problem is not None:
            problems.append(_distinct(decoded.problem, used, place, own_id=shape == "problem"))
        else:
            unasked.append(place.source)
        examples += decoded.examples
        if decoded.pair is not None:
            preferences.append(decoded.pair)
    repeated = len(problems) - len(used)
    notes = {"repeated_question": repeated} if repeated else {}
    return Rows(
        path=path,
        shape=" + ".join(shapes),
        count=len(values),
        problems=tuple(problems),
        examples=tuple(examples),
        preferences=tuple(preferences),
        notes=notes,
        unasked=tuple(unasked),
    )


def read_problems(path: Path | str) -> list[Problem]:
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


def read_examples(path: Path | str) -> list[Example]:
    """The training examples of a file.

    Raises:
        DataError: as `read_rows`, or its rows hold nothing to imitate (`pairs`: a task has to write the completions).
    """
    rows = read_rows(path)
    if not rows.examples:
        hint = "rows to imitate have prompt + completion(s), messages, or [question, answer, reasoning]"
        raise DataError(f"holds nothing to imitate: its rows are of the shape {rows.shape}", path=rows.path, hint=hint)
    return list(rows.examples)


def read_pairs(path: Path | str, limit: int | None = None) -> list[Pair]:
    """The preference pairs of a file.

    Raises:
        DataError: as `read_rows`, or some of its rows are no pairs.
    """
    rows = read_rows(path, limit)
    if len(rows.preferences) < rows.count:
        missing = rows.count - len(rows.preferences)
        raise DataError(
            f"{missing} of {rows.count} rows are no preference pairs (shapes: {rows.shape})",
            path=rows.path,
            hint="pairs have prompt, chosen and rejected",
        )
    return list(rows.preferences)


def _distinct(problem: Problem, used: dict[str, list[str]], place: Place, *, own_id: bool) -> Problem:
    """The problem with an id of its own: a repeated row gets `.2`, `.3`; an id given twice is an error."""
    sources = used.setdefault(problem.id, [])
    sources.append(place.source)
    if len(sources) == 1:
        return problem
    if own_id:
        raise place.error("id", problem.id, f"an id of its own (that of {sources[0]} is another problem's)")
    return replace(problem, id=f"{problem.id}.{len(sources)}")

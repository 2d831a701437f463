"""rubric_ratings.csv: which rating each student was given in each criterion.

    row 1      titles of the criteria, one over each of its columns
    row 3      titles of the ratings
    row 4      descriptions of the ratings; compared with the rubric's, which are the ones used
    row 7 on   a student's address, then a cell for each rating

The older export marks the rating given with 1 and the others with 0; a newer one has the assistant's comment in the
place of 1. So every cell that is neither empty nor 0 is a mark, and both may occur in one table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ramify.base.errors import nearest
from ramify.data.labs.files import fold, refuse_name, student_of
from ramify.data.labs.records import Criterion, Grade, Note, Reason, UnusableError

FILE = "rubric_ratings.csv"
HEADINGS = 6
_NOT_GIVEN = ("", "0", "0.0")


@dataclass(frozen=True, slots=True)
class Table:
    """The marks of a lab.

    Attributes:
        grades: of each student (folded name), one for each criterion of the rubric.
        addresses: first cells of the students' rows.
    """

    grades: Mapping[str, tuple[Grade, ...]]
    addresses: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(slots=True)
class _Columns:
    """Where the marks of each criterion stand: (column, rating); None for a criterion that cannot be used."""

    places: list[list[tuple[int, int]] | None]
    notes: list[Note] = field(default_factory=list)


def read_table(text: str, criteria: Sequence[Criterion], lab: str) -> Table:
    """The table of marks of a lab whose rubric is `criteria`.

    Raises:
        UnusableError: not CSV, too short, or no criterion of the rubric has columns.
    """
    rows = _rows(text, criteria)
    width = max(len(row) for row in rows[:HEADINGS])
    headings = [row + [""] * (width - len(row)) for row in rows[:HEADINGS]]
    columns = _columns(headings, criteria, lab)
    if not any(columns.places):
        detail = columns.notes[0].said if columns.notes else "no columns of marks"
        raise UnusableError(Reason.TABLE, f"none of its columns fits the rubric ({detail})", FILE)
    grades, addresses = _Grades(lab, criteria, columns.places), []
    for number, row in enumerate(rows[HEADINGS:], start=HEADINGS + 1):
        if any(cell.strip() for cell in row):
            addresses.append(row[0].strip())
            grades.add(number, row, width)
    return Table(grades.usable(), tuple(addresses), (*columns.notes, *grades.notes))


def _rows(text: str, criteria: Sequence[Criterion]) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text, criteria), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UnusableError(Reason.TABLE, f"not CSV: {error} in line {reader.line_num}", FILE) from None
    if len(rows) < HEADINGS or not any(rows[:HEADINGS]):
        raise UnusableError(Reason.TABLE, f"{HEADINGS} rows of headings are needed, found {len(rows)} rows", FILE)
    return rows


def _separator(text: str, criteria: Sequence[Criterion]) -> str:
    """What divides the cells: the first row has most titles of the rubric with it; without any, what occurs first."""
    titles = {fold(each.title) for each in criteria}

    def known(separator: str) -> int:
        with suppress(csv.Error):
            first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
            return sum(fold(cell) in titles for cell in first[1:])
        return 0

    first = text.partition("\n")[0]
    return max(sorted(",;\t", key=lambda each: each not in first), key=known)


def _columns(headings: Sequence[Sequence[str]], criteria: Sequence[Criterion], lab: str) -> _Columns:
    """The columns of each criterion. A blank title goes on with the one before it, as merged cells are written."""
    by_title = {fold(each.title): index for index, each in enumerate(criteria)}
    found = _Columns([[] for _ in criteria])
    unknown: dict[str, None] = {}
    title = ""
    for column in range(1, len(headings[0])):
        above, rating = headings[0][column].strip(), headings[2][column].strip()
        title = above or title
        if not above and not rating:
            continue
        index = by_title.get(fold(title))
        if index is None:
            unknown[title] = None
        else:
            _place(found, criteria, index, (column, rating, headings[3][column]), lab)
    for name in unknown:
        guess = nearest(name, [each.title for each in criteria])
        detail = repr(name) + (f", the nearest is {guess!r}" if guess else "")
        found.notes.append(Note(lab, Reason.CRITERION, FILE, detail=detail))
    for each, places in zip(criteria, found.places, strict=True):
        if places == []:
            found.notes.append(Note(lab, Reason.UNMARKED, FILE, detail=repr(each.title)))
    return found


def _place(found: _Columns, criteria: Sequence[Criterion], index: int, heading: tuple[int, str, str], lab: str) -> None:
    """Enter one column of criterion `index`; a column that does not fit takes the whole criterion out."""
    places, criterion = found.places[index], criteria[index]
    if places is None:
        return
    column, title, words = heading
    rating = next((at for at, each in enumerate(criterion.ratings) if fold(each.title) == fold(title)), None)
    if rating is None:
        trouble = f"its rating {title!r} is not in the rubric"
    elif any(rating == other for _, other in places):
        trouble = f"there are two columns for its rating {title!r}"
    else:
        places.append((column, rating))
        if words.strip() and fold(words) != fold(criterion.ratings[rating].description):
            note = Note(lab, Reason.WORDS, FILE, detail=f"{criterion.title!r}, {title}")
            found.notes.append(note)
        return
    found.places[index] = None
    found.notes.append(Note(lab, Reason.RATING, FILE, detail=f"{criterion.title!r}: {trouble}"))


@dataclass(slots=True)
class _Grades:
    """The students' rows, entered one by one."""

    lab: str
    criteria: Sequence[Criterion]
    places: Sequence[Sequence[tuple[int, int]] | None]
    found: dict[str, tuple[Grade, ...]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    contradicted: set[str] = field(default_factory=set)

    def usable(self) -> dict[str, tuple[Grade, ...]]:
        """Without the students whose rows contradict each other."""
        return {name: grades for name, grades in self.found.items() if name not in self.contradicted}

    def add(self, number: int, row: Sequence[str], width: int) -> None:
        """Enter row `number` of the table."""
        address = row[0].strip()
        try:
            refuse_name(address)
        except UnusableError as error:
            return self._note(Reason.ROW, number, "", f"its first cell is no student: {error.detail}")
        if any(cell.strip() for cell in row[width:]):
            return self._note(Reason.ROW, number, address, f"{len(row)} cells under {width} headings")
        name, grades = student_of(address), self._grades(number, row)
        if self.found.setdefault(name, grades) != grades:
            self.contradicted.add(name)
            self._note(Reason.ROW, number, address, "it contradicts an earlier row of the same student")

    def _grades(self, number: int, row: Sequence[str]) -> tuple[Grade, ...]:
        grades: list[Grade] = []
        for criterion, places in zip(self.criteria, self.places, strict=True):
            given = [rating for at, rating in places or () if at < len(row) and row[at].strip() not in _NOT_GIVEN]
            if len(given) > 1:
                titles = " and ".join(criterion.ratings[rating].title for rating in sorted(given))
                self._note(Reason.TWO_MARKS, number, row[0].strip(), f"{criterion.title!r}: {titles}")
            missing = Reason.RATING if places is None else Reason.UNMARKED if not places else Reason.NO_MARK
            grades.append(given[0] if len(given) == 1 else Reason.TWO_MARKS if given else missing)
        return tuple(grades)

    def _note(self, reason: Reason, number: int, student: str, detail: str) -> None:
        self.notes.append(Note(self.lab, reason, FILE, student, f"row {number}: {detail}"))

"""Read one lab folder: statement, rubric, marks and submissions, with a note on each thing that cannot be used."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ramify.data.labs import ratings, rubric
from ramify.data.labs.code import read_submission
from ramify.data.labs.files import clashing, entries, read_text, refuse_name, refuse_way_out, student_of
from ramify.data.labs.records import Choices, Criterion, Grade, Lab, Note, Reason, Statement, Student, UnusableError
from ramify.data.labs.scrub import Roster, Scrubber
from ramify.data.labs.wording import LONGEST_TITLE

SUBMISSIONS = "submissions"
_VERBOSE, _SHORT = ("ps.txt", "problemStatement.txt"), ("modified_ps.txt",)
_LARGEST_TABLE = 64 << 20  # it grows with the students and their comments
_REASONS = {rubric.FILE: Reason.RUBRIC, ratings.FILE: Reason.TABLE}


def read_lab(root: Path, name: str, choices: Choices) -> Lab:
    """The lab in the folder `name` of `root`.

    Raises:
        UnusableError: nothing of it can be used; says why.
    """
    refuse_name(name)
    refuse_way_out(root / name, root)
    reader = _Reader(root, name, choices)
    statement = reader.statement()
    criteria = rubric.read_rubric(reader.text(rubric.FILE))
    reader.notes += [
        Note(name, Reason.RATING, rubric.FILE, detail=f"{each.title!r}{_trouble(each)}")
        for each in criteria
        if _trouble(each)
    ]
    table = ratings.read_table(reader.text(ratings.FILE, _LARGEST_TABLE), criteria, name)
    reader.notes += table.notes
    folders = reader.submissions()
    roster = Roster.of({*map(student_of, folders), *map(student_of, table.addresses)} - {""}, statement)
    cleaned = Scrubber(roster).statement(statement)
    students = reader.students(folders, table, roster, criteria)
    return Lab(
        name=name,
        statement=cleaned.text,
        criteria=criteria,
        students=tuple(students),
        notes=(*reader.notes, *_repeated(name, students)),
        replaced=reader.replaced + cleaned.replaced,
        legacy=reader.legacy,
    )


@dataclass(slots=True)
class _Reader:
    """Reads the files of one lab and remembers what is to be said about them."""

    root: Path
    name: str
    choices: Choices
    notes: list[Note] = field(default_factory=list)
    replaced: int = 0
    legacy: int = 0

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def limit(self) -> int:
        return self.choices.max_file_kb * 1024

    def statement(self) -> str:
        """The statement asked for, or what stands in for it."""
        wanted, other = (_VERBOSE, _SHORT) if self.choices.statement is Statement.VERBOSE else (_SHORT, _VERBOSE)
        for file in (*wanted, *other):
            if os.path.lexists(self.folder / file):
                text = self.text(file).strip()
                if text:
                    if file in other:
                        self.note(Reason.STAND_IN, file)
                    return text
        raise UnusableError(Reason.STATEMENT, f"one of {', '.join((*wanted, *other))} is needed, with text")

    def text(self, file: str, limit: int | None = None) -> str:
        """A file of the lab's own.

        Raises:
            UnusableError: as `read_text`, with the file's name.
        """
        path = self.folder / file
        if not os.path.lexists(path):
            raise UnusableError(_REASONS.get(file, Reason.UNREADABLE), "no such file", file)
        try:
            text = read_text(path, self.root, self.limit if limit is None else limit)
        except UnusableError as error:
            raise UnusableError(error.reason, error.detail, file) from None
        if text.legacy:
            self.legacy += 1
            self.note(Reason.LEGACY, file)
        return text.content

    def submissions(self) -> list[str]:
        """Names of the submission folders.

        Raises:
            UnusableError: there are none.
        """
        folder = self.folder / SUBMISSIONS
        if os.path.lexists(folder):
            refuse_way_out(folder, self.root)
            names = entries(folder, folders=True)
            if names:
                return names
        raise UnusableError(Reason.EMPTY, file=SUBMISSIONS)

    def students(
        self, folders: Sequence[str], table: ratings.Table, roster: Roster, criteria: Sequence[Criterion]
    ) -> list[Student]:
        """Everyone with code and a row of marks."""
        found = []
        equal = _same_student(folders)
        unfit = [index for index, each in enumerate(criteria) if _trouble(each)]
        for name in folders:
            try:
                refuse_name(name)
                if name in equal:
                    raise UnusableError(Reason.NAME, "another folder belongs to the same student")
                grades = table.grades.get(student_of(name))
                if grades is None:
                    raise UnusableError(Reason.NO_ROW)
                found.append(self.student(name, _without(grades, unfit), roster))
            except UnusableError as error:
                where = name + (f"/{error.file}" if error.file else "")
                self.note(error.reason, student=where, detail=error.detail)
        self._absent(folders, table)
        return found

    def student(self, name: str, grades: tuple[Grade, ...], roster: Roster) -> Student:
        """One student's code with the grades.

        Raises:
            UnusableError: the code cannot be used.
        """
        student, submissions = student_of(name), self.folder / SUBMISSIONS
        handed_in = read_submission(submissions / name, submissions, Scrubber(roster, student), self.limit)
        self.replaced += handed_in.replaced
        self.legacy += len(handed_in.legacy)
        for file in handed_in.legacy:
            self.note(Reason.LEGACY, student=f"{name}/{file}")
        return Student(student, handed_in.code, handed_in.digest, grades)

    def note(self, reason: Reason, file: str = "", student: str = "", detail: str = "") -> None:
        """Remember a line."""
        self.notes.append(Note(self.name, reason, file, student, detail))

    def _absent(self, folders: Sequence[str], table: ratings.Table) -> None:
        """Rows of marks for students who have no folder."""
        there = set(map(student_of, folders))
        for address in table.addresses:
            if student_of(address) in table.grades and student_of(address) not in there:
                self.note(Reason.NO_CODE, student=address, detail="a row of marks, no folder of submissions")


def _same_student(folders: Sequence[str]) -> frozenset[str]:
    """Folders of which one cannot tell which one the marks belong to."""
    by_student: Mapping[str, list[str]] = _grouped((student_of(name), name) for name in folders)
    return clashing(folders) | {name for names in by_student.values() if len(names) > 1 for name in names}


def _grouped(items: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for key, item in items:
        found[key].append(item)
    return found


def _trouble(criterion: Criterion) -> str:
    """Why nobody can be graded in a criterion; empty where one can be."""
    if len(criterion.ratings) < 2:
        return f" has {len(criterion.ratings)} of at least 2 ratings"
    long = (each.title for each in criterion.ratings if len(each.title) > LONGEST_TITLE or ". " in each.title)
    return next((f": a letter or a short name is needed, its rating is called {title!r}" for title in long), "")


def _without(grades: tuple[Grade, ...], unfit: Sequence[int]) -> tuple[Grade, ...]:
    """The grades, without those in criteria in which nobody can be graded."""
    return tuple(Reason.RATING if index in unfit else grade for index, grade in enumerate(grades))


def _repeated(lab: str, students: Sequence[Student]) -> list[Note]:
    """A note on each student who handed in the same text as others; the text's own mark tells who belong together."""
    groups = _grouped((each.digest, each.name) for each in students)
    return [
        Note(lab, Reason.REPEATED, student=name, detail=f"text {digest[:8]}, by {len(names)} students")
        for digest, names in groups.items()
        if len(names) > 1
        for name in names
    ]

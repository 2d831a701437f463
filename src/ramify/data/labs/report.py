"""What a build found and wrote: counts for each lab and criterion, sizes of the splits, and all notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ramify.data.labs.files import student_of
from ramify.data.labs.records import Choices, Lab, Note, Reason, printable
from ramify.data.labs.rows import SPLITS, Grading, student_key


@dataclass(slots=True)
class CriterionCount:
    """One criterion of one lab.

    Attributes:
        students: with code and a row of marks.
        grades: of them.
        rows: written.
        ratings: how often each was given, in the rubric's order.
        skipped: why students have no grade here, and how many.
    """

    criterion: str
    students: int = 0
    grades: int = 0
    rows: int = 0
    ratings: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class LabCount:
    """One lab that could be used; `skipped`: why students or rows of marks are left out, and how many."""

    lab: str
    held_out: bool
    students: int
    replaced: int
    legacy: int
    skipped: dict[str, int]
    criteria: list[CriterionCount]


@dataclass(slots=True)
class SplitCount:
    """One side of the split; `students` are counted once."""

    students: int = 0
    grades: int = 0
    rows: int = 0


class Report:
    """Counts, filled while rows are written."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.labs: list[LabCount] = []
        self.notes: list[Note] = []
        self._splits = {name: SplitCount() for name in SPLITS}
        self._students: dict[str, set[str]] = {name: set() for name in SPLITS}

    def lab(self, lab: Lab, held_out: bool) -> None:
        """A lab whose rows come next."""
        skipped = Counter(note.reason.value for note in lab.notes if note.student and not note.reason.harmless)
        skipped.pop(Reason.TWO_MARKS.value, None)  # counted in its criterion: the student's other grades are used
        criteria = [_count(lab, index) for index in range(len(lab.criteria))]
        self.labs.append(
            LabCount(lab.name, held_out, len(lab.students), lab.replaced, lab.legacy, dict(skipped), criteria)
        )
        self.notes += lab.notes

    def grade(self, criterion: int, grading: Grading, rows: int) -> None:
        """A grade of the lab named last, and how many rows it became."""
        self.labs[-1].criteria[criterion].rows += rows
        split = self._splits[grading.split]
        split.grades += 1
        split.rows += rows
        self._students[grading.split].add(grading.student)

    @property
    def splits(self) -> dict[str, SplitCount]:
        """Sizes of the splits, by name."""
        return {name: replace(found, students=len(self._students[name])) for name, found in self._splits.items()}

    @property
    def totals(self) -> dict[str, int]:
        """Of all labs that could be used; a student in several labs is counted once."""
        criteria = [each for lab in self.labs for each in lab.criteria]
        return {
            "labs": len(self.labs),
            "labs left out": len({note.lab for note in self.notes} - {lab.lab for lab in self.labs}),
            "students": len(set().union(*self._students.values())),
            "grades": sum(each.grades for each in criteria),
            "rows": sum(each.rows for each in criteria),
            "names and addresses replaced": sum(lab.replaced for lab in self.labs),
            "files not in UTF-8": sum(lab.legacy for lab in self.labs),
            "submissions whose text occurs again": sum(note.reason is Reason.REPEATED for note in self.notes),
            "things left out": sum(not note.reason.harmless for note in self.notes),
        }

    def plain(self) -> dict[str, Any]:
        """The whole report, ready for JSON. Students appear as keys only."""
        return {
            "choices": _plain_choices(self.choices),
            "student_keys": "a key file" if self.choices.secret is not None else "the seed: who has it can find a name",
            "totals": self.totals,
            "splits": {name: asdict(found) for name, found in self.splits.items()},
            "labs": [asdict(each) for each in self.labs],
            "notes": sorted(
                (_plain_note(note, self.choices) for note in self.notes), key=lambda note: [*note.values()]
            ),
        }

    def table(self) -> list[tuple[str, ...]]:
        """Lines `lab / criterion, students, grades, rows, skipped` for a terminal, the totals last."""
        lines: list[tuple[str, ...]] = []
        for lab in self.labs:
            name = printable(lab.lab) + (" (held out)" if lab.held_out else "")
            lines.append((name, str(lab.students), "", "", _reasons(lab.skipped)))
            for each in lab.criteria:
                counts = (each.students, each.grades, each.rows)
                lines.append((f"  {printable(each.criterion)}", *map(str, counts), _reasons(each.skipped)))
        totals = self.totals
        return [*lines, ("all", *(str(totals[name]) for name in ("students", "grades", "rows")), "")]

    def sizes(self) -> list[tuple[str, ...]]:
        """Lines `split, students, grades, rows` for a terminal."""
        return [(name, *map(str, (each.students, each.grades, each.rows))) for name, each in self.splits.items()]


def _count(lab: Lab, index: int) -> CriterionCount:
    criterion = lab.criteria[index]
    grades = [student.grades[index] for student in lab.students]
    given = Counter(grade for grade in grades if isinstance(grade, int))
    return CriterionCount(
        criterion=criterion.title,
        students=len(grades),
        grades=given.total(),
        ratings={rating.title: given[at] for at, rating in enumerate(criterion.ratings)},
        skipped=dict(Counter(grade.value for grade in grades if isinstance(grade, Reason))),
    )


def _reasons(skipped: Mapping[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))


def _plain_choices(choices: Choices) -> dict[str, Any]:
    return {
        "as": choices.form.value,
        "pairs": choices.against.value,
        "statement": choices.statement.value,
        "train_split": choices.train_split,
        "eval_labs": sorted(choices.eval_labs),
        "shield_students": choices.shield_students,
        "seed": choices.seed,
        "system": choices.system,
        "strict": choices.strict,
        "max_file_kb": choices.max_file_kb,
    }


def _plain_note(note: Note, choices: Choices) -> dict[str, str]:
    """Without the names of students and of their files, which often hold them."""
    student = student_of(note.student.partition("/")[0])
    where = {"student": student_key(student, choices)} if student else {"file": note.file} if note.file else {}
    return {"lab": printable(note.lab), **where, "what": printable(note.said)}

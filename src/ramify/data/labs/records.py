"""What flows from a lab folder to rows: rubrics, students, notes on what cannot be used, and the choices of a build.

A lab is a folder:

    ps.txt, problemStatement.txt   the statement; modified_ps.txt is a shorter one
    rubrics.json                   criteria with their ratings, best first
    rubric_ratings.csv             one row a student, one column a rating of a criterion
    submissions/<name@…>/          source files; the student is the name before "@"
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ramify.base.errors import DataError


class Reason(Enum):
    """Why something of a lab is left out, or is worth knowing."""

    NAME = "the name is refused"  # control characters, ways into other folders, names equal but for case
    LINK = "a symbolic link that leads out of the folder is refused"
    STATEMENT = "no statement"
    RUBRIC = "the rubric cannot be used"
    TABLE = "the table of marks cannot be used"
    EMPTY = "no submissions"
    CRITERION = "the table has a criterion that the rubric lacks"
    RATING = "the criterion is left out"  # its columns and the rubric's ratings do not fit each other
    UNMARKED = "the table has no columns for the criterion"
    ROW = "the row of the table cannot be used"
    NO_ROW = "no row in the table of marks"
    NO_CODE = "no code"
    BINARY = "not a text file"
    SIZE = "above the size limit"
    UNREADABLE = "cannot be read"
    TWO_MARKS = "two marks in one criterion"
    NO_MARK = "no mark"  # not told in a line: students without a mark are usual, and counted
    LEGACY = "not UTF-8; read as UTF-16, Windows-1252 or Latin-1"
    WORDS = "the table describes a rating in other words than the rubric, whose words are used"
    STAND_IN = "the statement asked for is missing; the other one is used"
    REPEATED = "the same text was handed in more than once"

    @property
    def harmless(self) -> bool:
        """Whether everything is used nevertheless."""
        return self in (Reason.LEGACY, Reason.WORDS, Reason.STAND_IN, Reason.REPEATED)


@dataclass(frozen=True, slots=True)
class Note:
    """One line about a lab. Only `line` names a student.

    Attributes:
        file: of the lab, where one is meant.
        student: name as found in the folder or the table, where one is meant.
        detail: what was found; holds no student's name.
    """

    lab: str
    reason: Reason
    file: str = ""
    student: str = ""
    detail: str = ""

    @property
    def line(self) -> str:
        """`lab:student: reason: detail`, for the person who has the folder."""
        where = ":".join(part for part in (self.lab, self.student or self.file) if part)
        return printable(f"{where}: {self.said}")

    @property
    def said(self) -> str:
        """`reason: detail`."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


class UnusableError(DataError):
    """A lab, a student or a file cannot be used; `reason` says why, `detail` what was found."""

    def __init__(self, reason: Reason, detail: str = "", file: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason, self.detail, self.file = reason, detail, file


@dataclass(frozen=True, slots=True)
class Rating:
    """What can be given in a criterion: `A` and the words that go with it."""

    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a rubric; its ratings stand from best to worst."""

    title: str
    description: str
    ratings: tuple[Rating, ...]


Grade = int | Reason
"""Index of the rating given, or why there is none."""


@dataclass(frozen=True, slots=True)
class Student:
    """A student whose code and row of marks were found.

    Attributes:
        name: folded, the same in all labs; never written.
        code: as the prompt shows it, without names and addresses.
        digest: equal for texts that differ in white space only.
        grades: one for each criterion of the lab.
    """

    name: str
    code: str
    digest: str
    grades: tuple[Grade, ...]


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab, read.

    Attributes:
        replaced: names and addresses taken out of its texts.
        legacy: files that were not UTF-8.
        notes: a line for each thing left out, and for what is worth knowing.
    """

    name: str
    statement: str
    criteria: tuple[Criterion, ...]
    students: tuple[Student, ...]
    notes: tuple[Note, ...] = ()
    replaced: int = 0
    legacy: int = 0


class Statement(Enum):
    """Which statement stands in the prompt."""

    VERBOSE = "verbose"  # ps.txt, else problemStatement.txt, else the short one
    SHORT = "short"  # modified_ps.txt, else the verbose one


class Against(Enum):
    """Which ratings are rejected beside the one given."""

    ALL = "all"  # each other one
    ADJACENT = "adjacent"  # those next to it
    EXTREME = "extreme"  # the farthest from it; both ends when it stands in the middle


class Form(Enum):
    """What rows are written."""

    PAIRS = "pairs"  # the rating given against others, for preference training
    SFT = "sft"  # the rating given, to imitate
    PROBLEMS = "problems"  # the question, its options and the rating given, to be evaluated on


@dataclass(frozen=True, slots=True)
class Choices:
    """What a build is asked for.

    Attributes:
        train_split: share of the students, over all labs that are not held out, who train.
        eval_labs: names of the labs that are held out.
        system: text of a system turn, or None.
        shield_students: students of held-out labs never train.
        secret: what students' names are hashed with; None: the seed.
        strict: stop at the first thing that cannot be used.
        max_file_kb: largest statement, rubric or source file, and largest sum of a student's source files.
    """

    train_split: float = 0.7
    eval_labs: tuple[str, ...] = ()
    system: str | None = None
    statement: Statement = Statement.VERBOSE
    against: Against = Against.ALL
    form: Form = Form.PAIRS
    shield_students: bool = False
    seed: int = 0
    secret: bytes | None = None
    strict: bool = False
    max_file_kb: int = 128


DEFAULT = Choices()


def printable(text: str) -> str:
    """Characters that a terminal would act on, or that no file can hold, as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)

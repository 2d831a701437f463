"""From a folder of labs to rows of training and test data, one lab in memory at a time.

Labs are read twice: first for who may train, then for their rows, which are written as they are made. Nothing depends
on the order of directories: labs stand in order of their names, students in the order of their keys.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ramify.base.errors import ConfigError, DataError, unknown
from ramify.data.labs import rubric
from ramify.data.labs.files import clashing, entries
from ramify.data.labs.folder import SUBMISSIONS, read_lab
from ramify.data.labs.output import Output, refuse_taken
from ramify.data.labs.records import Choices, Lab, Note, Reason, Student, UnusableError
from ramify.data.labs.report import Report
from ramify.data.labs.rows import NEW_BOTH, NEW_LAB, NEW_STUDENT, TRAIN, gradings, rows, student_key
from ramify.data.labs.split import Links, train_students

Tell = Callable[[Note], None]


def build(
    labs: Path, out: Path, choices: Choices, *, overwrite: bool = False, tell: Tell = lambda note: None
) -> Report:
    """Write `train.jsonl`, `test.jsonl` and `report.json` to the folder `out`: all of them, or none.

    Args:
        tell: called with each note as labs are read, in order.

    Raises:
        DataError: `labs` is no folder of labs, no lab has the name of a held-out one, nothing can be used, or
            (`choices.strict`) something cannot.
        ConfigError: `out` lies within `labs`, or a share or limit is out of range.
        RunError: `out` is taken or cannot be written.
    """
    refuse_choices(choices)
    names = _names(labs, choices)
    if out.resolve().is_relative_to(labs.resolve()):
        raise ConfigError(f"out = {out} lies within the labs", hint="choose a folder beside them")
    refuse_taken(out, overwrite=overwrite)
    survey = _survey(labs, names, choices, tell)
    train = train_students(survey.links.groups(), choices.train_split, choices.seed, survey.shielded)
    report = Report(choices)
    report.notes += survey.lost
    with Output(out, overwrite=overwrite) as output:
        for name in survey.usable:
            _write_lab(_again(labs, name, choices), train, output, report)
        output.report(report.plain())
    return report


def refuse_choices(choices: Choices) -> None:
    """Refuse choices that no build could follow.

    Raises:
        ConfigError: a share outside 0 to 1, a limit below 1, an empty secret or system turn.
    """
    if not 0 <= choices.train_split <= 1:
        raise ConfigError(f"train_split = {choices.train_split}: 0 to 1 is allowed")
    if choices.max_file_kb < 1:
        raise ConfigError(f"max_file_kb = {choices.max_file_kb}: 1 or more is allowed")
    if choices.secret == b"":
        raise ConfigError("the key file is empty", hint="any bytes will do, for example 32 random ones")
    if choices.system is not None and not choices.system.strip():
        raise ConfigError("the system prompt is empty", hint="leave it out for prompts without a system turn")
    if choices.shield_students and not choices.eval_labs:
        raise ConfigError("shield_students does nothing without held-out labs", hint="name them with eval_labs")


@dataclass(frozen=True, slots=True)
class _Survey:
    """What the first reading found.

    Attributes:
        usable: names of labs with at least one grade, in order.
        lost: the notes on labs that cannot be used at all.
        shielded: students who must not train.
    """

    usable: list[str]
    lost: list[Note]
    links: Links
    shielded: set[str]


def _names(root: Path, choices: Choices) -> list[str]:
    """Names of the lab folders, sorted.

    Raises:
        DataError: there are none, or a held-out one is not among them.
    """
    if not root.is_dir():
        raise DataError("no such folder", path=root, hint="give the folder that holds the labs")
    if (root / rubric.FILE).exists() or (root / SUBMISSIONS).is_dir():
        raise DataError("is a lab itself", path=root, hint="give the folder above it")
    names = entries(root, folders=True)
    if not names:
        raise DataError("holds no lab folders", path=root)
    known = {unicodedata.normalize("NFC", name) for name in names}
    for name in choices.eval_labs:
        if unicodedata.normalize("NFC", name) not in known:
            raise DataError(unknown("held-out lab", name, known), path=root)
    return names


def _survey(root: Path, names: list[str], choices: Choices, tell: Tell) -> _Survey:
    survey = _Survey([], [], Links(), set())
    for name, found in _read(root, names, choices):
        notes = list(found.notes) if isinstance(found, Lab) else [found]
        if isinstance(found, Lab) and not any(map(_is_graded, found.students)):
            notes.append(Note(name, Reason.EMPTY, detail="none with a grade"))
        elif isinstance(found, Lab):
            survey.usable.append(name)
            _enter(found, _held_out(name, choices), choices, survey)
        if name not in survey.usable[-1:]:
            survey.lost.extend(notes)
        for note in notes:
            if choices.strict and not note.reason.harmless:
                raise DataError(note.line, hint="without --strict the rest is used")
            tell(note)
    if not survey.usable:
        raise DataError("no lab can be used", path=root, hint=survey.lost[0].line)
    return survey


def _read(root: Path, names: list[str], choices: Choices) -> Iterator[tuple[str, Lab | Note]]:
    """Each lab, or the note that says why there is none."""
    equal = clashing(names)
    for name in names:
        try:
            if name in equal:
                raise UnusableError(Reason.NAME, "differs from another lab's in case or Unicode form only")
            yield name, read_lab(root, name, choices)
        except UnusableError as error:
            yield name, Note(name, error.reason, error.file, detail=error.detail)


def _again(root: Path, name: str, choices: Choices) -> Lab:
    try:
        return read_lab(root, name, choices)
    except UnusableError as error:
        raise DataError(f"{name}: changed while it was read: {error.message}", path=root) from None


def _enter(lab: Lab, held_out: bool, choices: Choices, survey: _Survey) -> None:
    """Take a lab's students, and who handed in the same text, into the survey."""
    if held_out:
        survey.shielded.update(student.name for student in lab.students if choices.shield_students)
        return
    first: dict[str, str] = {}
    for student in lab.students:
        if _is_graded(student):
            survey.links.join(student.name, first.setdefault(student.digest, student.name))


def _is_graded(student: Student) -> bool:
    return any(isinstance(grade, int) for grade in student.grades)


def _write_lab(lab: Lab, train: frozenset[str], output: Output, report: Report) -> None:
    """Write the rows of one lab, its students in the order of their keys."""
    choices = report.choices
    held_out = _held_out(lab.name, choices)
    report.lab(lab, held_out)
    seen = not held_out and any(student.name in train and _is_graded(student) for student in lab.students)
    place = {criterion.title: index for index, criterion in enumerate(lab.criteria)}
    for student in sorted(lab.students, key=lambda student: student_key(student.name, choices)):
        split = _split(student.name in train, seen, held_out)
        for grading in gradings(lab, student, split, choices):
            made = list(rows(grading, choices))
            for row in made:
                output.row("train.jsonl" if split == TRAIN else "test.jsonl", row)
            report.grade(place[grading.criterion.title], grading, len(made))


def _split(trains: bool, seen_lab: bool, held_out: bool) -> str:
    if trains:
        return NEW_LAB if held_out else TRAIN
    return NEW_STUDENT if seen_lab else NEW_BOTH


def _held_out(name: str, choices: Choices) -> bool:
    wanted = {unicodedata.normalize("NFC", each) for each in choices.eval_labs}
    return unicodedata.normalize("NFC", name) in wanted

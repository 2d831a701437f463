"""The rows that one student's grades become, in each of the forms.

A pair's margin is the number of ratings between the one given and the one rejected. Every row says where it came from:
lab, student (a keyed hash), criterion, and on which side of the split it stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ramify.data.labs.records import Against, Choices, Criterion, Form, Lab, Student
from ramify.data.labs.wording import Prompt, answer, prompt, question, shared

TRAIN = "train"
NEW_STUDENT = "unseen student, seen lab"
NEW_BOTH = "unseen student, unseen lab"
NEW_LAB = "seen student, unseen lab"
SPLITS = (TRAIN, NEW_STUDENT, NEW_BOTH, NEW_LAB)
"""Where a row may stand; all but the first are test rows. A seen student in a seen lab always trains."""


def student_key(student: str, choices: Choices) -> str:
    """Twelve hex digits for a student's folded name: BLAKE2b (RFC 7693), keyed with the secret or else the seed."""
    secret = f"ramify labs {choices.seed}".encode() if choices.secret is None else choices.secret
    key = hashlib.blake2b(secret, digest_size=64).digest()
    return hashlib.blake2b(student.encode(), digest_size=6, key=key).hexdigest()


@dataclass(frozen=True, slots=True)
class Grading:
    """One grade: a student's code, a criterion and the rating given, with everything a row says about them."""

    lab: str
    student: str
    criterion: Criterion
    given: int
    split: str
    prompt: Prompt

    @property
    def source(self) -> str:
        """`lab/student/criterion`."""
        return f"{self.lab}/{self.student}/{self.criterion.title}"


def gradings(lab: Lab, student: Student, split: str, choices: Choices) -> Iterator[Grading]:
    """A student's grades in one lab, in the order of the rubric; criteria without a grade are passed over."""
    above, key = shared(lab.statement, student.code), student_key(student.name, choices)
    for criterion, grade in zip(lab.criteria, student.grades, strict=True):
        if isinstance(grade, int):
            text = prompt(above + question(criterion), choices.system)
            yield Grading(lab.name, key, criterion, grade, split, text)


def rows(grading: Grading, choices: Choices) -> Iterator[dict[str, Any]]:
    """The rows of one grade: one, or with pairs one for each rating it is held against."""
    about = {"lab": grading.lab, "student": grading.student, "criterion": grading.criterion.title}
    rest = {"split": grading.split, "source": grading.source}
    ratings = grading.criterion.ratings
    given = ratings[grading.given]
    if choices.form is Form.SFT:
        yield {"prompt": grading.prompt, "completion": answer(given), **about, "rating": given.title, **rest}
    elif choices.form is Form.PROBLEMS:
        yield {
            "id": grading.source,
            "prompt": grading.prompt,
            "answer": given.title,
            "options": [answer(each) for each in ratings],
            "category": f"{grading.lab} / {grading.criterion.title}",
            "source": grading.source,
            "meta": {**about, "split": grading.split},
        }
    else:
        for index in held_against(grading.given, len(ratings), choices.against):
            yield {
                "prompt": grading.prompt,
                "chosen": answer(given),
                "rejected": answer(ratings[index]),
                **about,
                "chosen_rating": given.title,
                "rejected_rating": ratings[index].title,
                "margin": abs(index - grading.given),
                **rest,
            }


def held_against(given: int, count: int, against: Against) -> Sequence[int]:
    """Which of `count` ratings are rejected when `given` is chosen, in order.

    >>> held_against(1, 4, Against.ALL), held_against(1, 4, Against.ADJACENT), held_against(1, 4, Against.EXTREME)
    ([0, 2, 3], [0, 2], [3])
    """
    others = [index for index in range(count) if index != given]
    if against is Against.ADJACENT:
        return [index for index in others if abs(index - given) == 1]
    if against is Against.EXTREME:
        farthest = max((abs(index - given) for index in others), default=0)
        return [index for index in others if abs(index - given) == farthest]
    return others

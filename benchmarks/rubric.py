"""Rubric pairs of real programs: each student is graded in four criteria of four ratings, which makes twelve pairs.

The programs are those of a file of labs, one JSON object a line: {"lab", "problem", "reference_with_statement": the
statement as the comment at its head, "submissions": [{"id", "code"}]}; a comment in which tests reported on a program
is left out. Rubric and grades are made here: the speed of training on a pair does not depend on whether its grade is
deserved.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD = re.compile(r"/\*(.*?)\*/", re.DOTALL)
_TEST_REPORT = re.compile(r"\A\s*/\*numPass.*?\*/", re.DOTALL)
_LETTERS = "ABCD"


@dataclass(frozen=True)
class Criterion:
    """A criterion of the rubric with the descriptions of its ratings, best first."""

    title: str
    description: str
    ratings: tuple[str, str, str, str]


@dataclass(frozen=True)
class TextPair:
    """A prompt and two answers, as text."""

    prompt: str
    chosen: str
    rejected: str


RUBRIC = (
    Criterion(
        "Correctness",
        "Does the program compute what the statement asks for, for all inputs that the statement allows?",
        (
            "The result is right for all allowed inputs, special cases included.",
            "The result is right for usual inputs; one special case is missed.",
            "The idea is right, but the result is wrong for some usual inputs.",
            "The program does not compile, does not end, or computes something else.",
        ),
    ),
    Criterion(
        "Input and output",
        "Does the program read its input and write its output exactly as the statement describes?",
        (
            "All input is read and all output is written as described.",
            "The output differs from the description in white space or wording only.",
            "Part of the input is not read, or part of the output is missing.",
            "Input or output has nothing to do with what is described.",
        ),
    ),
    Criterion(
        "Structure",
        "Is the program divided into steps that follow the problem, without repeated or unreachable code?",
        (
            "Each step has one place, and control flow is as simple as the problem allows.",
            "The structure is clear; a few lines are repeated.",
            "Several steps are mixed, or large parts are repeated.",
            "There is no recognisable structure.",
        ),
    ),
    Criterion(
        "Readability",
        "Do names, indentation and comments help somebody else to read the program?",
        (
            "Names say what they stand for, indentation is consistent, comments explain what is not obvious.",
            "Mostly readable; some names or some indentation get in the way.",
            "Names are single letters without meaning, or indentation misleads.",
            "The program can be read with great effort only.",
        ),
    ),
)


def students(path: Path) -> Iterator[tuple[TextPair, ...]]:
    """The twelve pairs of each student, in the order of the file; a program that stood there before is left out."""
    known = set()
    for line in path.read_text(encoding="utf-8").rstrip().split("\n"):
        lab = json.loads(line)
        head = _HEAD.search(lab["reference_with_statement"])
        for submission in lab["submissions"]:
            code = _TEST_REPORT.sub("", submission["code"]).strip()
            if head is not None and code not in known:
                known.add(code)
                yield tuple(_pairs(head.group(1).strip(), code))


def _pairs(statement: str, code: str) -> Iterator[TextPair]:
    for criterion in RUBRIC:
        answers = [_answer(letter, text) for letter, text in zip(_LETTERS, criterion.ratings, strict=True)]
        given = random.Random(f"{criterion.title}\n{code}").randrange(len(answers))
        for index, answer in enumerate(answers):
            if index != given:
                yield TextPair(_prompt(statement, code, criterion), answers[given], answer)


def _answer(letter: str, text: str) -> str:
    return json.dumps({"answer": f"{letter}. {text}"})


def _prompt(statement: str, code: str, criterion: Criterion) -> str:
    """What is shared stands first: the statement with all students, the code with all criteria."""
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(_LETTERS, criterion.ratings, strict=True))
    return (
        f"Context:\n{statement}\n\nCode:\n{code}\n\n"
        f"Task:\nGrade the code by one criterion. {criterion.title}: {criterion.description}\n\n"
        f'Options:\n{options}\n\nAnswer with JSON alone: {{"answer": "<letter>. <description>"}}\n\nResponse:\n'
    )

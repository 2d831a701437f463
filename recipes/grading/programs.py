"""Small C++ functions with known faults: three assignments, their rubric, and how a submission is written.

A submission is a right program or one with a known fault in its results, and its lines are explained or not, indented
or not. What was chosen is its grade, so a grade is a fact about the text: it can be found again by compiling and
running the program on the statement's examples, and by looking at the text. The programs are short, and most of what
is wrong with one shows in several places, so that a model as small as nano can learn to see it in minutes.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

Ratings = tuple[int, ...]
"""One number for each of `CRITERIA`: 0 is A, the best."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One line of a rubric: ratings from A (best) on, and how often each is drawn."""

    title: str
    description: str
    ratings: tuple[str, ...]
    weights: tuple[float, ...]


CRITERIA = (
    Criterion(
        "Results",
        "Are the results right?",
        ("All right.", "Some wrong: size.", "All wrong: return 0.", "Broken: no ;"),
        (0.3, 0.24, 0.22, 0.24),
    ),
    Criterion("Comments", "Are the lines explained?", ("With //.", "None."), (0.5, 0.5)),
    Criterion("Layout", "Are the lines indented?", ("Indented.", "Not indented."), (0.5, 0.5)),
)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is asked for, and the program that answers it.

    Attributes:
        name: of the lab's folder.
        task: the statement in one sentence.
        right: the lines of a right program; `{v}` is the list, `{s}` the result, `{x}` a number of the list.
        partly: lines that are right for lists of one number.
        examples: (list as in C++, result); a right program gets all of them right.
        names: words for the function.
    """

    name: str
    task: str
    right: str
    partly: str
    examples: tuple[tuple[str, int], ...]
    names: tuple[str, ...]


_START = "int {s} = 0; // start\n"
_LOOP = "for (int {x} : {v}) // all\n"
_END = "return {s}; // done"
_ONE = "if ({v}.size() == 1) // one\n"
_STUB = "return 0; // to do"
ASSIGNMENTS = (
    Assignment(
        name="lab1-sum",
        task="Write a function that returns the sum of a list.",
        right=_START + _LOOP + "    {s} += {x}; // add\n" + _END,
        partly=_ONE + "    return {v}[0]; // it\n" + _STUB,
        examples=(("{3, 1, 2}", 6), ("{5}", 5), ("{8, 0}", 8), ("{4, -3, 6}", 7)),
        names=("sum", "total", "addAll"),
    ),
    Assignment(
        name="lab2-max",
        task="Write a function that returns the max of a list.",
        right="int {s} = {v}[0]; // start\n" + _LOOP + "    if ({x} > {s}) {s} = {x}; // larger\n" + _END,
        partly=_ONE + "    return {v}[0]; // it\n" + _STUB,
        examples=(("{3, 9, 4}", 9), ("{-5, -2, -7}", -2), ("{8}", 8), ("{6, 4}", 6)),
        names=("largest", "biggest", "maximum"),
    ),
    Assignment(
        name="lab3-evens",
        task="Write a function that counts the even numbers of a list.",
        right=_START + _LOOP + "    if ({x} % 2 == 0) {s}++; // even\n" + _END,
        partly=_ONE + "    return {v}[0] % 2 == 0; // even\n" + _STUB,
        examples=(("{2, 4, 7}", 2), ("{6}", 1), ("{8, -2, 4}", 3), ("{5, -4, 9}", 1)),
        names=("evens", "countEven", "evenNumbers"),
    ),
)
LISTS, RESULTS = ("numbers", "values", "list", "data"), ("result", "answer", "output")
LETTERS = (tuple("fghkpq"), ("v",), tuple("rstm"))


def draw_ratings(g: random.Random) -> Ratings:
    """One of each criterion, from its weights."""
    return tuple(g.choices(range(len(each.ratings)), each.weights)[0] for each in CRITERIA)


@dataclass(frozen=True, slots=True)
class Style:
    """What stays the same in all programs of one student."""

    variable: str
    indent: str
    brace: str

    @classmethod
    def draw(cls, g: random.Random) -> Style:
        """One of eight styles."""
        return cls(g.choice("xe"), g.choice(("    ", "  ")), g.choice((" {", "\n{")))


def write(assignment: Assignment, ratings: Ratings, style: Style, g: random.Random) -> str:
    """A program that deserves these ratings."""
    results, comments, layout = ratings
    body = (assignment.right, assignment.partly, _STUB, assignment.right)[results]
    lines = body.replace("{x}", style.variable).split("\n")
    if comments:
        lines = [line.partition(" //")[0] for line in lines]
    if results == 3:
        lines = [re.sub(r";(?= //|$)", "", line) for line in lines]
    indent = "" if layout else style.indent
    inner = "\n".join(indent + line.replace("    ", indent) for line in lines)
    text = f"int {{f}}(vector<int> {{v}}){style.brace}\n{inner}\n}}\n"
    return _named(text, assignment, g)


def _named(text: str, assignment: Assignment, g: random.Random) -> str:
    sources = g.choice(((assignment.names, LISTS, RESULTS), LETTERS))
    for place, choices in zip(("{f}", "{v}", "{s}"), sources, strict=True):
        text = text.replace(place, g.choice(choices))
    return text

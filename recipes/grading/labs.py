"""Make lab folders with objective grades: `python recipes/grading/labs.py --out labs --seed 0`.

Each lab is what a teaching team has: a statement in two lengths, a rubric, a table of marks, and a folder of each
student's submission. The programs and their faults are those of `programs`; all names are made up. Half of the labs
have the older table of marks (1 and 0), half the newer one (the assistant's comment in the chosen cell).
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from programs import ASSIGNMENTS, CRITERIA, Assignment, Criterion, Ratings, Style, draw_ratings, write

from ramify.base import rng

FIRST = "Amelia Boris Carmen Dmitri Elena Farid Greta Hiroshi Ingrid Jorge Katya Leandro Mireille Niklas Olivia Pedro"
LAST = "Abebe Bergstrom Castillo Dubois Eriksen Fontaine Grabowski Hakimi Ivanova Jansen Kowalski Lindqvist Moreau"
REMARKS = ("No Comments", "see the rubric", "as discussed")


@dataclass(frozen=True, slots=True)
class Submission:
    """One student's program and the ratings it deserves."""

    student: str
    text: str
    ratings: Ratings


def students(count: int, seed: int) -> list[str]:
    """So many addresses, in alphabetical order."""
    everyone = [f"{a}.{b}@example.org".lower() for a in FIRST.split() for b in LAST.split()]
    return sorted(rng.generator("students", seed).sample(everyone, count))


def submissions(assignment: Assignment, who: Sequence[str], seed: int) -> Iterator[Submission]:
    """A program of each student. No two of them are equal up to white space: equal texts are drawn again."""
    seen: set[str] = set()
    for student in who:
        style = Style.draw(rng.generator("style", seed, student))
        g = rng.generator("submission", seed, assignment.name, student)
        while True:
            ratings = draw_ratings(g)
            text = write(assignment, ratings, style, g)
            if "".join(text.split()) not in seen:
                break
        seen.add("".join(text.split()))
        yield Submission(student, text, ratings)


def write_lab(folder: Path, assignment: Assignment, handed_in: Sequence[Submission], g: random.Random | None) -> None:
    """One lab folder; with `g`, the table of marks holds comments."""
    folder.mkdir(parents=True)
    (folder / "ps.txt").write_text(statement(assignment), encoding="utf-8")
    (folder / "modified_ps.txt").write_text(f"{assignment.task}\n", encoding="utf-8")
    rubric = [_rubric(criterion) for criterion in CRITERIA]
    (folder / "rubrics.json").write_text(json.dumps(rubric, indent=2) + "\n", encoding="utf-8")
    with (folder / "rubric_ratings.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(_marks(handed_in, g))
    for each in handed_in:
        place = folder / "submissions" / each.student
        place.mkdir(parents=True)
        (place / f"{assignment.name.partition('-')[2]}.cpp").write_text(each.text, encoding="utf-8")


def statement(assignment: Assignment) -> str:
    """The verbose statement; its examples decide what is right."""
    examples = "\n".join(f"{given} -> {result}" for given, result in assignment.examples)
    return (
        f"{assignment.task}\n\nIts one parameter is of the type vector<int>, its result is an int. For an empty list "
        "it returns 0.\nHand in the function alone. It is called as in these examples:\n\n"
        f"{examples}\n\nLines should be indented, and each explained by a comment.\n"
    )


def _rubric(criterion: Criterion) -> dict[str, object]:
    ratings = [{"title": letter, "description": text} for letter, text in _lettered(criterion)]
    return {"title": criterion.title, "description": criterion.description, "Ratings": ratings}


def _lettered(criterion: Criterion) -> Iterator[tuple[str, str]]:
    return zip("ABCD", criterion.ratings, strict=False)


def _marks(handed_in: Sequence[Submission], g: random.Random | None) -> Iterator[list[str]]:
    """Six rows above, then one a student; a column for each rating of each criterion."""
    columns = [(each, letter, text) for each in CRITERIA for letter, text in _lettered(each)]
    yield ["Student", *(each.title for each, _, _ in columns)]
    yield ["", *(each.description for each, _, _ in columns)]
    yield ["", *(letter for _, letter, _ in columns)]
    yield ["", *(text for _, _, text in columns)]
    yield ["", *("1" for _ in columns)]
    yield [""] * (len(columns) + 1)
    for each in handed_in:
        cells = [["0"] * len(criterion.ratings) for criterion in CRITERIA]
        for row, rating in zip(cells, each.ratings, strict=True):
            row[rating] = "1" if g is None else g.choice(REMARKS)
        yield [each.student, *(cell for row in cells for cell in row)]


def make(out: Path, count: int, seed: int) -> int:
    """All labs; how many grades were given."""
    who = students(count, seed)
    given = 0
    for number, assignment in enumerate(ASSIGNMENTS):
        handed_in = list(submissions(assignment, who, seed))
        remarks = rng.generator("remarks", seed, assignment.name) if number % 2 else None
        write_lab(out / assignment.name, assignment, handed_in, remarks)
        given += sum(len(each.ratings) for each in handed_in)
    return given


def main() -> None:
    """Read the options and write the folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the labs")
    parser.add_argument("--students", type=int, default=120, help="1 to 208; default 120")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    if not 1 <= a.students <= 208:
        sys.exit(f"error: --students {a.students}: 1 to 208 are allowed")
    if a.out.exists():
        sys.exit(f"error: {a.out} exists\nhint: choose a new folder")
    given = make(a.out, a.students, a.seed)
    print(f"{a.out}: {len(ASSIGNMENTS)} labs, {a.students} students, {given} grades")


if __name__ == "__main__":
    main()

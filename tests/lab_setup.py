"""Lab folders for tests, made file by file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Ratings = Mapping[str, Sequence[str]]
"""Descriptions of the ratings (A, B, …) of each criterion."""
RATINGS: Ratings = {
    "Correctness": ("All right.", "Some wrong.", "Most wrong.", "Fails."),
    "Style": ("Clear.", "Unclear."),
}
PROGRAM = "int main() {{\n    return {};\n}}\n"


def rubric(ratings: Ratings = RATINGS) -> list[dict[str, Any]]:
    return [
        {
            "title": title,
            "description": f"About {title.lower()}.",
            "Ratings": [{"title": a, "description": b} for a, b in zip("ABCDEFG", texts, strict=False)],
        }
        for title, texts in ratings.items()
    ]


def table(marks: Mapping[str, Sequence[int | None]], ratings: Ratings = RATINGS, comment: str = "1") -> list[list[str]]:
    """Six rows of headings, then a row of each address: indices of the ratings given, None without a mark."""
    columns = [(title, "ABCDEFG"[at], text) for title, texts in ratings.items() for at, text in enumerate(texts)]
    rows = [
        ["Student", *(title for title, _, _ in columns)],
        ["not read"],
        ["", *(letter for _, letter, _ in columns)],
        ["", *(text for _, _, text in columns)],
        ["not read", "1"],
        [],
    ]
    for address, given in marks.items():
        row = [address]
        for texts, mark in zip(ratings.values(), given, strict=True):
            row += [comment if at == mark else "0" for at in range(len(texts))]
        rows.append(row)
    return rows


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()


def write_lab(
    folder: Path,
    marks: Mapping[str, Sequence[int | None]],
    *,
    code: Mapping[str, str | bytes | Mapping[str, str | bytes]] | None = None,
    ratings: Ratings = RATINGS,
    comment: str = "1",
) -> Path:
    """A whole lab; the code of an address is a text, or files by name. Without, each student returns a number."""
    folder.mkdir(parents=True)
    (folder / "ps.txt").write_text(f"Write the program of {folder.name}.\n", encoding="utf-8")
    (folder / "modified_ps.txt").write_text("Write it.\n", encoding="utf-8")
    (folder / "rubrics.json").write_text(json.dumps(rubric(ratings)), encoding="utf-8")
    (folder / "rubric_ratings.csv").write_text(csv_text(table(marks, ratings, comment)), encoding="utf-8")
    (folder / "submissions").mkdir()
    for number, address in enumerate(marks):
        given = (code or {}).get(address, PROGRAM.format(number))
        for name, content in (given if isinstance(given, Mapping) else {"main.cpp": given}).items():
            path = folder / "submissions" / address / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def people(count: int) -> list[str]:
    return [f"person.{chr(97 + number // 26)}{chr(97 + number % 26)}@school.example" for number in range(count)]


def graded(count: int, criteria: int = 2) -> dict[str, list[int | None]]:
    """So many students, with all ratings of `RATINGS` in turn."""
    counts = (4, 2)
    return {who: [number % counts[at] for at in range(criteria)] for number, who in enumerate(people(count))}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

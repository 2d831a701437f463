"""Labs that something is wrong with: one line each, the rest is used, and nothing from outside the folder is read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from lab_setup import RATINGS, csv_text, graded, lines, rubric, table, write_lab

from ramify.base.errors import DataError
from ramify.data.labs.build import build
from ramify.data.labs.records import Choices, Note, Reason

ANN, BOB, EVE = "ann@x.org", "bob@x.org", "eve@x.org"
Spoil = Callable[[Path], object]


def removed(name: str) -> Spoil:
    return lambda lab: (lab / name).unlink()


def written(name: str, content: str | bytes) -> Spoil:
    def spoil(lab: Path) -> None:
        path = lab / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def linked(name: str, target: str) -> Spoil:
    """The file or folder replaced by a link to what `target` (from the lab) is."""

    def spoil(lab: Path) -> None:
        path = lab / name
        if path.is_file():
            path.unlink()
        os.symlink(lab / target, path)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    return lambda lab: [spoil(lab) for spoil in spoils]


def nobody(lab: Path) -> None:
    for folder in (lab / "submissions").iterdir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def marked(**changes: str) -> str:
    """A table of marks for the three students in which cells (row, column as `r7c2`) are other ones."""
    rows = table({ANN: [0, 0], BOB: [1, 1], EVE: [2, 0]})
    for place, value in changes.items():
        row, column = map(int, re.findall(r"\d+", place))
        rows[row - 1] += [""] * (column + 1 - len(rows[row - 1]))
        rows[row - 1][column] = value
    return csv_text(rows)


def rated(title: str, count: int) -> str:
    return json.dumps(rubric({**RATINGS, title: ["x"] * count}))


LOST_LABS = {
    "no statement": (both(removed("ps.txt"), removed("modified_ps.txt")), "no statement: one of ps.txt, problemS"),
    "blank statement": (both(written("ps.txt", " \n"), removed("modified_ps.txt")), "no statement"),
    "no rubric": (removed("rubrics.json"), "rubrics.json: the rubric cannot be used: no such file"),
    "half a rubric": (
        written("rubrics.json", "[{"),
        "rubrics.json: the rubric cannot be used: not valid JSON in line 1",
    ),
    "no list": (written("rubrics.json", "{}"), "rubrics.json: the rubric cannot be used: a list of criteria"),
    "deep": (written("rubrics.json", "[" * 9999), "rubrics.json: the rubric cannot be used: not valid JSON"),
    "no title": (
        written("rubrics.json", '[{"Ratings": []}]'),
        "rubrics.json: the rubric cannot be used: criterion 1: a",
    ),
    "half a letter": (
        written("rubrics.json", '[{"title": "\\ud800", "Ratings": []}]'),
        "rubrics.json: the rubric cannot",
    ),
    "twice": (
        written("rubrics.json", json.dumps(rubric() * 2)),
        "rubrics.json: the rubric cannot be used: criteria with",
    ),
    "no table": (removed("rubric_ratings.csv"), "rubric_ratings.csv: the table of marks cannot be used: no such file"),
    "open quote": (
        written("rubric_ratings.csv", marked() + '"'),
        "rubric_ratings.csv: the table of marks cannot be used",
    ),
    "short table": (written("rubric_ratings.csv", "a,b\n"), "rubric_ratings.csv: the table of marks cannot be used: 6"),
    "empty table": (written("rubric_ratings.csv", ""), "rubric_ratings.csv: the table of marks cannot be used: 6 rows"),
    "a photo": (written("rubric_ratings.csv", b"\x89PNG\0\0"), "rubric_ratings.csv: not a text file"),
    "other rubric": (
        written("rubrics.json", json.dumps(rubric({"Else": "xy"}))),
        "rubric_ratings.csv: the table of marks cannot be used: none of its columns fits",
    ),
    "nobody": (nobody, "submissions: no submissions"),
    "long statement": (written("ps.txt", "x" * 200_000), "ps.txt: above the size limit: 200,000 bytes, 131,072 are"),
    "statement elsewhere": (linked("ps.txt", "../../secret.txt"), "ps.txt: a symbolic link that leads out of"),
    "statement nowhere": (linked("ps.txt", "nowhere"), "ps.txt: cannot be read: a link that leads nowhere"),
    "marks elsewhere": (linked("rubric_ratings.csv", "../../secret.txt"), "rubric_ratings.csv: a symbolic link that"),
}


def spoilt(tmp_path: Path, spoil: Spoil) -> tuple[list[Note], list[dict[str, str]], Path]:
    """A good lab and a spoilt one: (notes, all rows, output folder)."""
    (tmp_path / "secret.txt").write_text("the secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "main.c").write_text("the secret")
    write_lab(tmp_path / "labs" / "good", graded(6))
    spoil(write_lab(tmp_path / "labs" / "bad", {ANN: [0, 0], BOB: [1, 1], EVE: [2, 0]}))
    notes: list[Note] = []
    out = tmp_path / "out"
    build(tmp_path / "labs", out, Choices(), tell=notes.append)
    assert "the secret" not in (out / "train.jsonl").read_text() + (out / "test.jsonl").read_text()
    with pytest.raises(DataError) if any(not note.reason.harmless for note in notes) else nullcontext():
        build(tmp_path / "labs", tmp_path / "strict", Choices(strict=True))
    return notes, lines(out / "train.jsonl") + lines(out / "test.jsonl"), out


@pytest.mark.parametrize("name", LOST_LABS)
def test_a_lab_that_cannot_be_used_is_one_line_and_stops_no_other(tmp_path: Path, name: str) -> None:
    spoil, said = LOST_LABS[name]
    notes, rows, out = spoilt(tmp_path, spoil)
    (note,) = notes
    assert re.sub("^bad:? ?", "", note.line).startswith(said)
    assert "\n" not in note.line
    assert {row["lab"] for row in rows} == {"good"}
    report = json.loads((out / "report.json").read_text())
    assert [each["lab"] for each in report["notes"]] == ["bad"]
    assert report["totals"]["labs left out"] == 1


LOST_STUDENTS = {
    "no code": (both(removed("submissions/bob@x.org/main.cpp")), "bob@x.org: no code"),
    "blank code": (written("submissions/bob@x.org/main.cpp", "\n \n"), "bob@x.org: no code"),
    "an image": (written("submissions/bob@x.org/main.cpp", b"\x7fELF\0"), "bob@x.org/main.cpp: not a text file"),
    "large": (
        written("submissions/bob@x.org/b.c", "x" * 140_000),
        "bob@x.org/b.c: above the size limit: 140,000 bytes",
    ),
    "large in all": (
        both(*(written(f"submissions/bob@x.org/{n}.c", "x" * 50_000) for n in range(3))),
        "bob@x.org: above the size limit: its source files together; 131,072 bytes are allowed",
    ),
    "file elsewhere": (
        linked("submissions/bob@x.org/more.c", "../../secret.txt"),
        "bob@x.org/more.c: a symbolic link that leads out of the folder is refused",
    ),
    "other's file": (
        linked("submissions/bob@x.org/main.cpp", "submissions/ann@x.org/main.cpp"),
        "bob@x.org/main.cpp: a symbolic link that leads out of the folder is refused",
    ),
    "folder elsewhere": (linked("submissions/bob@x.org/lib", "../../elsewhere"), "bob@x.org: a symbolic link that"),
    "file in two cases": (
        written("submissions/bob@x.org/Main.cpp", "int x;"),
        "bob@x.org: the name is refused: differs",
    ),
    "file with a line end": (
        written("submissions/bob@x.org/a\nb.c", "int x;"),
        "bob@x.org: the name is refused: control",
    ),
    "a backslash": (
        written("submissions/bob@x.org/a\\..\\x.c", "int x;"),
        "bob@x.org: the name is refused: a plain name",
    ),
    "too many cells": (
        written("rubric_ratings.csv", marked(r8c9="1")),
        "bob@x.org: the row of the table cannot be used",
    ),
    "path as address": (written("rubric_ratings.csv", marked(r8c0="../bob@x.org")), "rubric_ratings.csv: the row of"),
    "no address": (written("rubric_ratings.csv", marked(r8c0=" ")), "rubric_ratings.csv: the row of the table cannot"),
    "absolute": (written("rubric_ratings.csv", marked(r8c0="/etc/bob@x")), "rubric_ratings.csv: the row of the table"),
    "two rows": (
        written("rubric_ratings.csv", marked() + "BOB@x.org,0,0,1\n"),
        "BOB@x.org: the row of the table cannot be used: row 10: it contradicts an earlier row of the same student",
    ),
}


@pytest.mark.parametrize("name", LOST_STUDENTS)
def test_a_student_who_cannot_be_used_is_told_and_leaves_the_others(tmp_path: Path, name: str) -> None:
    spoil, said = LOST_STUDENTS[name]
    notes, rows, out = spoilt(tmp_path, spoil)
    assert notes[0].line.startswith(f"bad:{said}"), notes[0].line
    assert all(note.reason is Reason.NO_ROW for note in notes[1:])  # the folder of a row that is left out
    assert len({row["student"] for row in rows if row["lab"] == "bad"}) == 2
    report = json.loads((out / "report.json").read_text())
    (bad,) = (lab for lab in report["labs"] if lab["lab"] == "bad")
    assert bad["students"] == 2
    assert "bob" not in (out / "report.json").read_text().lower()


def test_two_folders_of_one_student_are_both_left_out(tmp_path: Path) -> None:
    spoil = both(written("submissions/Bob@x.org/main.c", "int x;"), written("submissions/bob@y.org/main.c", "int y;"))
    notes, rows, _ = spoilt(tmp_path, spoil)
    assert sorted(note.student for note in notes) == ["Bob@x.org", BOB, "bob@y.org"]
    assert {note.reason for note in notes} == {Reason.NAME}
    assert len({row["student"] for row in rows if row["lab"] == "bad"}) == 2


def test_two_marks_and_no_mark_cost_one_grade(tmp_path: Path) -> None:
    notes, rows, out = spoilt(tmp_path, written("rubric_ratings.csv", marked(r8c4="1", r9c5="0")))
    assert [note.line for note in notes] == [
        "bad:bob@x.org: two marks in one criterion: row 8: 'Correctness': B and D",
    ]
    grades = {(row["student"], row["criterion"]) for row in rows if row["lab"] == "bad"}
    assert len(grades) == 4
    bad = json.loads((out / "report.json").read_text())["labs"][0]
    assert [each["skipped"] for each in bad["criteria"]] == [{"two marks in one criterion": 1}, {"no mark": 1}]


LOST_CRITERIA = {
    "not in the rubric": (
        both(*(written("rubric_ratings.csv", marked(r1c5="Stile", r1c6="Stile")),)),
        ["the table has a criterion that the rubric lacks: 'Stile', the nearest is 'Style'", "no columns for the crit"],
    ),
    "rating not in the rubric": (
        written("rubric_ratings.csv", marked(r3c6="Z")),
        ["the criterion is left out: 'Style': its rating 'Z' is not in the rubric"],
    ),
    "a rating twice": (
        written("rubric_ratings.csv", marked(r3c6="A")),
        ["the criterion is left out: 'Style': there are two columns for its rating 'A'"],
    ),
}


@pytest.mark.parametrize("name", LOST_CRITERIA)
def test_a_criterion_that_cannot_be_used_leaves_the_others(tmp_path: Path, name: str) -> None:
    spoil, said = LOST_CRITERIA[name]
    notes, rows, _ = spoilt(tmp_path, spoil)
    assert len(notes) == len(said)
    assert all(each in note.line for each, note in zip(said, notes, strict=True))
    assert {row["criterion"] for row in rows if row["lab"] == "bad"} == {"Correctness"}


def test_a_criterion_with_one_rating_is_no_choice(tmp_path: Path) -> None:
    notes, rows, _ = spoilt(tmp_path, written("rubrics.json", rated("Luck", 1)))
    assert "'Luck' has 1 of at least 2 ratings" in notes[0].line
    assert {row["criterion"] for row in rows if row["lab"] == "bad"} == set(RATINGS)


@pytest.mark.parametrize("title", ["Full marks. Good", "A" * 61])
def test_a_rating_whose_title_no_answer_can_name_leaves_its_criterion_out(tmp_path: Path, title: str) -> None:
    spoil = both(
        written("rubrics.json", json.dumps(rubric()).replace('"title": "A"', f'"title": "{title}"', 1)),
        written("rubric_ratings.csv", marked(r3c1=title)),
    )
    notes, rows, _ = spoilt(tmp_path, spoil)
    assert [note.line for note in notes] == [
        "bad:rubrics.json: the criterion is left out: 'Correctness': a letter or a short name is needed, "
        f"its rating is called {title!r}"
    ]
    assert {row["criterion"] for row in rows if row["lab"] == "bad"} == {"Style"}


def test_other_words_in_the_table_are_told_and_the_rubrics_are_used(tmp_path: Path) -> None:
    notes, rows, _ = spoilt(tmp_path, written("rubric_ratings.csv", marked(r4c1="Perfect.")))
    assert [(note.reason, note.detail) for note in notes] == [(Reason.WORDS, "'Correctness', A")]
    assert not any("Perfect." in json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    ("encoding", "legacy"),
    [("utf-8", 0), ("utf-8-sig", 0), ("cp1252", 2), ("utf-16", 2)],
)
def test_encodings_are_read_and_counted(tmp_path: Path, encoding: str, legacy: int) -> None:
    spoil = both(
        written("submissions/bob@x.org/main.cpp", "// für später\r\nint x;\r\n".encode(encoding)),
        written("ps.txt", "Schreibe ein größeres Programm.".encode(encoding)),
    )
    notes, rows, out = spoilt(tmp_path, spoil)
    prompts = [row["prompt"] for row in rows if row["lab"] == "bad"]
    assert all(prompt.startswith("Context:\nSchreibe ein größeres Programm.\n") for prompt in prompts)
    assert sum("// für später\nint x;\n" in prompt for prompt in prompts) == 4
    assert len(notes) == legacy
    assert json.loads((out / "report.json").read_text())["totals"]["files not in UTF-8"] == legacy


def test_bytes_that_windows_lacks_are_latin_1(tmp_path: Path) -> None:
    notes, rows, _ = spoilt(tmp_path, written("submissions/bob@x.org/main.cpp", b"// \x81\xe9\nint x;"))
    assert [note.reason for note in notes] == [Reason.LEGACY]
    assert any("// \x81é\nint x;" in row["prompt"] for row in rows)


def test_a_student_of_the_table_without_a_folder_and_the_reverse(tmp_path: Path) -> None:
    spoil = both(
        written("rubric_ratings.csv", marked() + "zoe@x.org,1\n"), written("submissions/tom@x.org/a.c", "int t;")
    )
    notes, _, _ = spoilt(tmp_path, spoil)
    assert [(note.student, note.reason) for note in notes] == [
        ("tom@x.org", Reason.NO_ROW),
        ("zoe@x.org", Reason.NO_CODE),
    ]


def test_a_lab_without_a_grade_is_told(tmp_path: Path) -> None:
    blank = csv_text(table({ANN: [None, None], BOB: [None, None], EVE: [None, None]}))
    notes, rows, _ = spoilt(tmp_path, written("rubric_ratings.csv", blank))
    assert [note.line for note in notes] == ["bad: no submissions: none with a grade"]
    assert {row["lab"] for row in rows} == {"good"}


@pytest.mark.parametrize("name", ["a\tb", "a\x1b[31m", "a\\..\\x", "C:x", "\u202ecba"])
def test_names_of_labs_that_are_refused(tmp_path: Path, name: str) -> None:
    notes, rows, out = spoilt(tmp_path, lambda lab: lab.rename(lab.parent / name))
    (note,) = notes
    assert note.reason is Reason.NAME
    assert note.line.isprintable()
    assert json.loads((out / "report.json").read_text())["notes"][0]["lab"].isprintable()
    assert {row["lab"] for row in rows} == {"good"}


def test_labs_that_differ_in_case_only_are_both_refused(tmp_path: Path) -> None:
    notes, rows, _ = spoilt(tmp_path, lambda lab: write_lab(lab.parent / "BAD", {ANN: [0, 0]}))
    assert [(note.lab, note.reason) for note in notes] == [("BAD", Reason.NAME), ("bad", Reason.NAME)]
    assert {row["lab"] for row in rows} == {"good"}


def test_a_linked_lab_is_refused_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    other = write_lab(tmp_path / "other", {ANN: [0, 0]})

    def spoil(lab: Path) -> None:
        os.symlink(other, lab.parent / "linked")
        os.mkfifo(lab / "submissions" / BOB / "pipe.c")

    notes, rows, _ = spoilt(tmp_path, spoil)
    assert [(note.lab, note.reason) for note in notes] == [("bad", Reason.UNREADABLE), ("linked", Reason.LINK)]
    assert {row["lab"] for row in rows} == {"good", "bad"}


def test_a_link_within_the_students_folder_is_followed(tmp_path: Path) -> None:
    spoil = both(
        written("submissions/bob@x.org/notes.txt", "int linked;"),
        linked("submissions/bob@x.org/main.cpp", "submissions/bob@x.org/notes.txt"),
        linked("submissions/bob@x.org/round", "submissions/bob@x.org"),
    )
    notes, rows, _ = spoilt(tmp_path, spoil)
    assert notes == []
    assert sum("int linked;" in row["prompt"] for row in rows) == 4


def test_all_labs_bad_is_an_error_that_says_the_first(tmp_path: Path) -> None:
    removed("rubrics.json")(write_lab(tmp_path / "labs" / "bad", {ANN: [0, 0]}))
    with pytest.raises(DataError, match="no lab can be used") as error:
        build(tmp_path / "labs", tmp_path / "out", Choices())
    assert error.value.hint == "bad:rubrics.json: the rubric cannot be used: no such file"
    assert not (tmp_path / "out").exists()

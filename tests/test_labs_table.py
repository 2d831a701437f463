"""The table of marks and the rubric: both exports, any CSV writer, and nothing guessed."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_setup import RATINGS, csv_text, rubric, table

from ramify.data.labs.files import clashing, fold, refuse_name, student_of
from ramify.data.labs.ratings import Table, read_table
from ramify.data.labs.records import Criterion, Rating, Reason, UnusableError
from ramify.data.labs.rubric import read_rubric

CRITERIA = (
    Criterion("Correctness", "About it.", tuple(Rating(letter, f"{letter} words") for letter in "ABCD")),
    Criterion("Style", "", (Rating("A", "Clear."), Rating("B", "Unclear."))),
)
WORDS = {each.title: [rating.description for rating in each.ratings] for each in CRITERIA}


def read(rows: list[list[str]]) -> Table:
    return read_table(csv_text(rows), CRITERIA, "lab")


cells = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20)
comments = st.one_of(
    st.just("1"), st.just("No Comments"), cells.filter(lambda text: text.strip() not in ("", "0", "0.0"))
)


@given(
    marks=st.lists(st.tuples(st.none() | st.integers(0, 3), st.none() | st.integers(0, 1)), min_size=1, max_size=8),
    comment=comments,
    dialect=st.sampled_from([{"lineterminator": "\r\n"}, {"lineterminator": "\n"}, {"quoting": csv.QUOTE_ALL}]),
    trimmed=st.booleans(),
)
def test_every_mark_that_was_written_is_read(
    marks: list[tuple[int | None, int | None]], comment: str, dialect: dict[str, str], trimmed: bool
) -> None:
    given = {f"s{number}@x.org": mark for number, mark in enumerate(marks)}
    rows = table(given, WORDS, comment)
    if trimmed:  # exporters that leave out what is empty at the end of a row
        rows = [row[: max((at + 1 for at, cell in enumerate(row) if cell != "0"), default=0)] for row in rows]
    file = io.StringIO()
    csv.writer(file, **dialect).writerows(rows)
    found = read_table(file.getvalue(), CRITERIA, "lab")
    assert found.notes == ()
    expected = {
        f"s{number}": tuple(Reason.NO_MARK if each is None else each for each in mark)
        for number, mark in enumerate(marks)
    }
    assert found.grades == expected


@given(text=st.text(max_size=300))
def test_any_text_is_a_table_or_one_line(text: str) -> None:
    try:
        read_table(text, CRITERIA, "lab")
    except UnusableError as error:
        assert error.reason is Reason.TABLE
        assert "\n" not in error.message


@given(rows=st.lists(st.lists(cells, max_size=8), max_size=12))
def test_any_rows_below_the_headings_are_grades_or_lines(rows: list[list[str]]) -> None:
    found = read(table({}, WORDS) + rows)
    assert set(found.grades) <= {student_of(row[0].strip()) for row in rows if row}
    for note in found.notes:
        assert note.line.isprintable()


def test_columns_are_found_by_their_titles_in_any_order() -> None:
    rows = table({"a@x.org": (2, 1)}, WORDS)
    order = [0, 6, 3, 1, 5, 2, 4]
    found = read([[row[at] if at < len(row) else "" for at in order] for row in rows])
    assert found.grades == {"a": (2, 1)}


def test_titles_may_differ_in_case_and_space_and_be_merged_cells() -> None:
    rows = table({"a@x.org": (3, 0)}, WORDS)
    rows[0] = ["", "correctness ", "", "", "", "STYLE", ""]
    rows[2] = ["", "a", "b", "c", "d", " A", "B "]
    assert read(rows).grades == {"a": (3, 0)}


def test_columns_without_headings_are_passed_over() -> None:
    rows = [[*row, *[""] * (7 - len(row)), ""] for row in table({"a@x.org": (0, 0)}, WORDS)]
    found = read(rows)
    assert (found.grades, found.notes) == ({"a": (0, 0)}, ())


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_told_by_the_first_line(separator: str) -> None:
    text = csv_text(table({"a@x.org": (1, 1)}, WORDS)).replace(",", separator)
    assert read_table(text, CRITERIA, "lab").grades == {"a": (1, 1)}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("title", ["a;b;c;d", "Names, comments, style"])
def test_titles_with_other_separators_stay_titles(title: str, separator: str) -> None:
    criteria = (Criterion(title, "", (Rating("A", "x"), Rating("B", "y"))),)
    file = io.StringIO()
    csv.writer(file, delimiter=separator).writerows(table({"a@x.org": (1,)}, {title: ["x", "y"]}))
    assert read_table(file.getvalue(), criteria, "lab").grades == {"a": (1,)}


@pytest.mark.parametrize("cell", ["", " ", "0", "0.0"])
def test_what_is_no_mark(cell: str) -> None:
    rows = table({"a@x.org": (0, None)}, WORDS)
    rows[6][5] = rows[6][6] = cell
    assert read(rows).grades == {"a": (0, Reason.NO_MARK)}


def test_the_same_row_twice_is_one_student() -> None:
    rows = table({"a@x.org": (0, 1)}, WORDS)
    found = read([*rows, ["A@X.org", *rows[6][1:]], []])
    assert (found.grades, found.notes) == ({"a": (0, 1)}, ())


def test_students_are_what_stands_before_the_at() -> None:
    assert student_of("Jane.Doe@uni.example") == student_of("jane.doe@other.example") == "jane.doe"
    assert student_of("JOSE\u0301@x") == student_of("josé@y")
    assert clashing(["a", "A", "b", "ﬁ", "fi"]) == {"a", "A", "ﬁ", "fi"}


@given(st.text(max_size=12))
def test_folding_twice_is_folding_once(name: str) -> None:
    assert fold(fold(name)) == fold(name)


@pytest.mark.parametrize("name", ["..", ".", "", " ", "@x.org", "a/b", "a\\b", "C:a", "a\0b", "a\nb", "\u202eb"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UnusableError, match="the name is refused"):
        refuse_name(name)


def test_a_rubric_is_read_with_single_spaces() -> None:
    import json

    given = rubric({"Two  words": ["One\n line", "x"]})
    given[0]["Ratings"][1]["title"] = 2
    (found,) = read_rubric(json.dumps(given))
    assert found == Criterion("Two words", "About two words.", (Rating("A", "One line"), Rating("2", "x")))
    assert len(read_rubric(json.dumps(rubric(RATINGS)))) == 2


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["title", "description", "Ratings", "x"]), inner)
        ),
    )
)
def test_any_json_is_a_rubric_or_one_line(value: object) -> None:
    import json

    try:
        found = read_rubric(json.dumps(value))
    except UnusableError as error:
        assert error.reason is Reason.RUBRIC
        assert "\n" not in error.message
    else:
        assert all(each.title for each in found)

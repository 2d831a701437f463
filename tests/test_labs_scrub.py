"""Names and addresses leave comments and texts; programs go on meaning the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.data.labs.scrub import ENDINGS, Cleaned, Roster, Scrubber

ROSTER = Roster.of(["jane.doe", "max", "li42wang", "o'brien-smith", "anna_lee7"])


def clean(text: str, file: str = "a.cpp", student: str = "jane.doe") -> str:
    return Scrubber(ROSTER, student).code(text, file).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("// Jane Doe", "// student"),
        ("// DOE, jane", "// student"),
        ("/* by doe\n   and JANE */", "/* by student\n   and student */"),
        ("// jane.doe@uni.example, 1", "// address, 1"),
        ("// other.one@mail.example", "// address"),
        ("// jane.doe.cpp, jdoe", "// student.cpp, jdoe"),
        ("int jane_doe_sort(int a);", "int student_sort(int a);"),
        ("int janeDoe;", "int student;"),
        ('puts("Jane Doe");', 'puts("student");'),
        ('mail("jane.doe@uni.example");', 'mail("address");'),
        ("// helped by li42wang and Max", "// helped by student and Max"),
        ('x = "li42wang"; int li42wang;', 'x = "student"; int student;'),
        ("int jane = doe;", "int jane = doe;"),
        ('f("who@mail.example", "%d@%d", "a@b");', 'f("address", "%d@%d", "a@b");'),
        ('puts("// Jane"); // Jane', 'puts("// student"); // student'),
        ('puts("\\nJane Doe\\tdoe");', 'puts("\\nstudent\\tstudent");'),
        ('puts("helped by Max");', 'puts("helped by Max");'),
        ("char c = '\"'; // Jane", "char c = '\"'; // student"),
        ('puts("\\"// Jane");', 'puts("\\"// student");'),
        ("/* Jane", "/* student"),
        ("int janet; // Janet", "int janet; // Janet"),
    ],
)
def test_what_is_replaced_in_c(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_a_name_that_is_a_word_of_the_language_leaves_comments_only() -> None:
    text = "// Max: the max\nint m = std::max(a, b); return max;"
    assert clean(text, student="max") == "// student: the student\nint m = std::max(a, b); return max;"


def test_a_login_leaves_code_too() -> None:
    text = '#define AUTHOR "jsmith"\nint jsmith_sort(int jsmiths);'
    assert clean(text, student="jsmith") == '#define AUTHOR "student"\nint student_sort(int jsmiths);'


def test_the_logins_of_others_leave_comments() -> None:
    roster = Roster.of(["jsmith", "mlee", "max"])
    text = "// with JSmith, mlee and max\nint jsmith;"
    assert Scrubber(roster, "max").code(text, "a.c").text == "// with student, mlee and student\nint jsmith;"


def test_quoted_texts_keep_what_the_statement_shows() -> None:
    roster = Roster.of(["max.oak", "walker"], "Print `Max = ` and the Walker's address, who@mail.example.")
    text = 'printf("max = %d, oak, who@mail.example, me@mail.example"); int walker;'
    kept = 'printf("max = %d, student, who@mail.example, address"); int walker;'
    assert Scrubber(roster, "max.oak").code(text, "a.c") == Cleaned(kept, 2)
    assert Scrubber(roster, "walker").code("int walker; // walker", "a.c").text == "int walker; // student"


def test_a_short_name_that_spells_a_word_leaves_comments_and_needs_its_separator() -> None:
    assert (
        clean("int main() { return ma_in; } // ma.in", student="ma.in") == "int main() { return student; } // student"
    )


def test_numbers_as_names_stay_numbers_in_code() -> None:
    scrubber = Scrubber(Roster.of(["270010", "270011"]), "270010")
    found = scrubber.code("int x = 270010 + 270011; // 270010 with 270011, not 270012", "a.c")
    assert found == Cleaned("int x = 270010 + 270011; // student with student, not 270012", 2)


def test_numbers_of_students_leave_comments() -> None:
    assert clean("// no. 2041337\nint x = 2041337;", student="s2041337") == "// no. student\nint x = 2041337;"
    assert clean("// 42", student="li42wang") == "// 42"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.py", "# {}\nx = jane"),
        ("a.py", '"""{}"""'),
        ("a.rb", "x = 1 # {}"),
        ("a.sql", "SELECT 1 -- {}"),
        ("a.hs", "x = 1 {{- {} -}}"),
        ("a.s", "mov ax, 1 ; {}"),
        ("a.m", "x = a'; % {}"),
        ("a.ml", "(* {} *)"),
        ("a.f90", "x = 1 ! {}"),
        ("a.vb", "Dim x ' {}"),
        ("a.html", "<!-- {} -->"),
        ("a.php", "# {}"),
        ("A.JAVA", "/** {} */"),
    ],
)
def test_comments_of_other_languages(file: str, text: str) -> None:
    assert clean(text.format("Jane"), file) == text.format("student")


def test_counts_are_what_was_replaced() -> None:
    found = Scrubber(ROSTER, "jane.doe").code("// Jane Doe, a@b.example\n// jane", "a.c")
    assert found == Cleaned("// student, address\n// student", 3)
    assert Scrubber(ROSTER, "student.one").comment("student.one two") == Cleaned("student two", 1)
    assert Scrubber(ROSTER, "student").comment("student") == Cleaned("student", 0)


def test_statements_keep_addresses_that_are_no_students() -> None:
    found = Scrubber(ROSTER).statement("Ask prof@uni.example or jane.doe@x.org; Max is a word. See li42wang.")
    assert found == Cleaned("Ask prof@uni.example or address; Max is a word. See student.", 2)


names = st.from_regex(r"[a-z]{3,8}\.[a-z]{3,8}", fullmatch=True)


@given(name=names, file=st.sampled_from(sorted(ENDINGS)), text=st.text(max_size=80))
def test_no_text_makes_trouble_and_none_keeps_the_whole_name(name: str, file: str, text: str) -> None:
    roster = Roster.of([name])
    for whole in (text, f"{text}{name}@x.example {text}", f"{text} {name} {text}"):
        found = Scrubber(roster, name).code(whole, f"a{file}")
        assert not re.search(rf"(?<!\w){re.escape(name)}(?![\w.+-])", found.text, re.IGNORECASE)
        assert found.text == whole or found.replaced


@given(text=st.text(st.sampled_from("ab \"'/*#-\\\n;%{}()<!>"), max_size=60), file=st.sampled_from(sorted(ENDINGS)))
def test_texts_without_names_stay_as_they_are(text: str, file: str) -> None:
    assert clean(text, f"x{file}", student="jane.doe") == text


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "a." * 20_000, "a@" * 20_000, '"' * 100_000, "/*" * 50_000, "'\\" * 50_000]
)
def test_long_texts_of_one_kind_take_no_longer_than_others(text: str) -> None:
    """Quadratic patterns would take minutes here."""
    for file in ("a.c", "a.py", "a.hs", "a.m", "a.html"):
        assert clean(text, file) == text
        assert len(clean(f"// {text}", file)) <= 2 * len(text) + 3

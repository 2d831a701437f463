"""Letters: every form that models write is read, and no letter that the text does not name."""

from __future__ import annotations

import json
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.errors import DataError
from ramify.base.types import Message, Problem
from ramify.tasks.letters import letter_of, option_letters, read_letter

ABCD = ("A", "B", "C", "D")


def problem_of(*options: str, answer: str | None = "A") -> Problem:
    return Problem("p", (Message("user", "?"),), answer, source="rows.jsonl:3", options=options)


READ = [
    ('{"answer": "B. Mostly right"}', "B", ()),
    (' {"answer":"B"}\n', "B", ()),
    ('{"answer": "B: fine, it said \\"no\\" } and so on"}', "B", ()),
    ('{"answer": "(B) Mostly right"}', "B", ()),
    ('{"answer": "b. mostly right"}', "B", ("letter_case",)),
    ('```json\n{"answer": "B. Mostly right"}\n```', "B", ("code_fence",)),
    ('{"answer": "B. Mostly ri', "B", ("cut_off_json",)),
    ('{"answer": "B', "B", ("cut_off_json",)),
    ('{"answer": "B.', "B", ("cut_off_json",)),
    ("{'answer': 'B. It doesn't stop'}", "B", ("single_quotes",)),
    ("{'answer': \"B. It doesn't stop\"}", "B", ("single_quotes",)),
    ('Sure! {"answer": "B. Mostly right"} Anything else?', "B", ("text_around_json",)),
    ('{"answer": "B. x"}\n{"answer": "B. y"}', "B", ("text_around_json",)),
    ('{"reason": "The answer is C", "answer": "B"}', "B", ("text_around_json",)),
    ('{"answer": "B. The correct answer is C"}', "B", ()),
    ('{"answer": "B. x\\nC. y"}', "B", ()),
    ('{"Answer": "B"}', "B", ()),
    ("The correct answer is B", "B", ("sentence",)),
    ("The correct answer is B.", "B", ("sentence",)),
    ("The correct answer is: (B) Mostly right", "B", ("sentence",)),
    ("I think the answer is **B**!", "B", ("sentence",)),
    ("The correct answer is B because it loops", "B", ("sentence",)),
    ("The answer is option B, not C.", "B", ("sentence",)),
    ("Answer: B", "B", ("sentence",)),
    ("ANSWER:\nB. Mostly right", "B", ("sentence",)),
    ("Rating: B (mostly right)", "B", ("sentence",)),
    ('"answer": B', "B", ("sentence",)),
    ("{answer: B}", "B", ("sentence",)),
    ("The correct option is B", "B", ("sentence",)),
    ("Response: B", "B", ("sentence",)),
    ("B: Mostly right", "B", ("option_line",)),
    ("**B:** Mostly right", "B", ("option_line",)),
    ("B. Mostly right", "B", ("option_line",)),
    ("B.", "B", ("option_line",)),
    ("**B.** Mostly right", "B", ("option_line",)),
    ("(B) Mostly right", "B", ("option_line",)),
    ("My grade is:\n- B) Mostly right", "B", ("option_line",)),
    ("B.Mostly right", "B", ("option_line",)),
    ("B", "B", ("lone_letter",)),
    (" b \n", "B", ("lone_letter", "letter_case")),
    ("`B`", "B", ("lone_letter",)),
    ('{"B"}', "B", ("lone_letter",)),
]

UNREAD = [
    "",
    "A program that works",
    "A good answer",
    "The correct answer is A program that loops",
    "Answer: A loop is missing",
    "The answer is not B",
    "The answer isn't B",
    "The wrong answer is B",
    "The incorrect answer: B",
    "The answer is B or C",
    "The answer is B/C",
    "The answer is B, C",
    "Answer: B and C",
    '{"answer": "B or C"}',
    '{"answer": "A program"}',
    '{"answer": "E. Not offered"}',
    '{"answer": "It should print Answer: B"}',
    '{"answer": "I see\\nB. Mostly right"}',
    '{"answer": ""}',
    '{"answer": null}',
    '{"answer"',
    '{"ans',
    "E. Not offered",
    "Answer: E",
    "E",
    "Answer: A.cpp",
    "Answer: A+",
    "A.cpp is the file",
    "A::B is a name",
    "Options: A program",
    "C++ is the language",
    "Grade: C++",
    "my answers: B",
    "Because D is a letter",
]

SEVERAL = [
    '{"answer": "B. x"} {"answer": "C. y"}',
    "The correct answer is B. The correct answer is C.",
    "A. Works\nB. Mostly works",
]


@pytest.mark.parametrize(("text", "letter", "notes"), READ)
def test_every_form_is_read_and_told(text: str, letter: str, notes: tuple[str, ...]) -> None:
    found = read_letter(text, ABCD)
    assert (found.value, found.notes) == (letter, notes)


@pytest.mark.parametrize("text", UNREAD)
def test_what_names_no_letter_is_no_answer(text: str) -> None:
    assert read_letter(text, ABCD).value is None


@pytest.mark.parametrize("text", SEVERAL)
def test_two_letters_are_no_answer(text: str) -> None:
    found = read_letter(text, ABCD)
    assert (found.value, found.notes) == (None, ("several_letters",))


def test_only_offered_letters_are_read() -> None:
    assert read_letter("Answer: C", ("A", "B")).value is None
    assert read_letter("Answer: C", ABCD).value == "C"
    assert read_letter("Grade: A+", ("A+", "A")).value == "A+"
    assert read_letter("Grade: A", ("A+", "A")).value == "A"
    assert read_letter('{"answer": "Mostly. Some faults"}', ("Fully", "Mostly")).value == "Mostly"
    assert read_letter("Answer: mostly", ("Fully", "Mostly")).value is None
    assert read_letter("mostly", ("Fully", "Mostly")).value == "Mostly"


def test_letters_of_options() -> None:
    assert option_letters(problem_of('{"answer": "A. x. y"}', '{"answer": "B"}', "C. z")) == ("A", "B", "C")
    assert letter_of("Good") == "Good"
    assert letter_of("{'answer': 'B. It doesn't stop'}") == "B"
    assert letter_of('{"answer": "B. says "no""}') == "B"
    for options in ((), ("A. x",)):
        with pytest.raises(DataError, match=rf"rows\.jsonl:3: options: at least two .* found {len(options)}"):
            option_letters(problem_of(*options))
    with pytest.raises(DataError, match="letter of its own, found A, a"):
        option_letters(problem_of("A. x", "a. y"))


titles = st.text(st.sampled_from(string.ascii_letters + "+-"), min_size=1, max_size=6)
descriptions = st.text(max_size=60).filter(lambda text: text.isprintable() or "\n" in text)


@given(st.lists(titles, min_size=2, max_size=4, unique_by=str.casefold), st.data())
def test_every_option_written_as_asked_is_read_as_itself(letters: list[str], data: st.DataObject) -> None:
    options = [
        json.dumps({"answer": f"{letter}. {data.draw(descriptions)}"}, ensure_ascii=data.draw(st.booleans()))
        for letter in letters
    ]
    assert option_letters(problem_of(*options)) == tuple(letters)
    for letter, option in zip(letters, options, strict=True):
        found = read_letter(option, letters)
        assert (found.value, found.notes) == (letter, ())


@given(st.text(st.sampled_from("ABCDE abd.:\"'{}()answer\n`*"), max_size=40))
def test_a_letter_that_is_read_stands_in_the_text(text: str) -> None:
    found = read_letter(text, ABCD)
    if found.value is not None:
        assert re.search(rf"(?<![a-zA-Z]){found.value}(?![a-zA-Z])", text, re.IGNORECASE)
    assert read_letter(text, ()).value is None


@given(st.text(max_size=200), st.lists(titles, min_size=2, max_size=4, unique_by=str.casefold))
def test_any_text_is_read_without_failing(text: str, letters: list[str]) -> None:
    assert read_letter(text, letters).value in (None, *letters)


LONG = 200_000


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": "' * (LONG // 12),
        '{"answer": "A. x"}\n' * (LONG // 19),
        "Answer: A. " * (LONG // 11),
        "{'answer': '" + "\\" * LONG,
        "'answer': '" + "'a" * LONG,
        '"answer": "' + '\\"' * LONG,
        "answer is " * (LONG // 10),
        "answer:" + " " * LONG,
        "Answer" + '"' * LONG,
        " " * LONG + "B",
        "\n" * LONG,
        "*" * LONG + "B.",
        "(" * LONG,
        "```" * LONG,
        "A" * LONG,
        "A. " * LONG,
        "{" * LONG + '"answer": "A. x"',
    ],
)
def test_long_texts_end(text: str) -> None:
    """Linear patterns take well under a second each; a quadratic one would take hours."""
    read_letter(text, ABCD)
    letter_of(text)

"""From decoded rows to entries of a mix and back: nothing that is trained is lost, and nothing else becomes trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.config_mix import Evaluation
from ramify.data.fields import Place
from ramify.data.mix.overlap import Overlap, evaluated
from ramify.data.mix.records import Entry, Kind, entries_of
from ramify.data.shapes import decode, shape_of
from ramify.data.source import Source
from ramify.data.sources import Row

PLACE = Place(Path("rows.jsonl"), 1)
TEXT = st.text("ab ?", min_size=1, max_size=5).filter(str.strip)
WEIGHT = st.sampled_from([0.0, 0.5, 1.0])


def row(value: Any) -> Row:
    shape = shape_of(value, PLACE)
    return Row(PLACE, shape, decode(value, shape, PLACE))


def entry(value: Any) -> Entry:
    [found] = entries_of(row(value))
    return found


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Messages with weights, at least one trained."""
    turns: list[dict[str, Any]] = []
    if draw(st.booleans()):
        turns.append({"role": "system", "content": draw(TEXT)})
    for _ in range(draw(st.integers(1, 4))):
        turns.append({"role": "user", "content": draw(TEXT)})
        turns.append({"role": "assistant", "content": draw(TEXT), "weight": draw(WEIGHT)})
    turns[-1]["weight"] = draw(st.sampled_from([0.5, 1.0]))
    return turns


@given(conversations())
def test_a_conversation_comes_back_with_what_is_trained(messages: list[dict[str, Any]]) -> None:
    found = entry({"messages": messages})
    again = entry(found.plain())
    assert found == again
    assert found.examples() == again.examples()
    expected = [(turn["content"], turn["weight"]) for turn in messages if turn.get("weight")]
    assert [(each.completions[0].text, each.completions[0].weight) for each in found.examples()] == expected
    assert [turn.content for turn in found.turns] == [turn["content"] for turn in messages]


@given(conversations())
def test_rows_without_weights_train_every_answer(messages: list[dict[str, Any]]) -> None:
    bare = [{name: turn[name] for name in ("role", "content")} for turn in messages]
    found = entry({"messages": bare})
    assert found.plain() == {"messages": bare}
    assert len(found.examples()) == sum(turn["role"] == "assistant" for turn in bare)


def test_worked_turns_of_a_prompt_are_not_trained() -> None:
    worked = [
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "2?"},
    ]
    found = entry({"prompt": worked, "completion": "two"})
    assert [example.completions[0].text for example in found.examples()] == ["two"]
    assert found.plain()["messages"][1]["weight"] == 0
    assert [turn.content for turn in found.prompt] == ["1?", "one", "2?"]


def test_completions_of_one_prompt_are_rows_of_their_own() -> None:
    completions = ["A", {"text": "B", "weight": 0.5}, {"text": "C", "weight": 0}]
    found = entries_of(row({"prompt": "Which?", "completions": completions}))
    assert [(each.turns[-1].content, each.weights[-1]) for each in found] == [("A", 1), ("B", 0.5)]


def test_a_pair_comes_back() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    found = entry({"prompt": messages, "chosen": "So.", "rejected": "No."})
    assert (found.kind, found.system, found.answers) == (Kind.PAIR, "Be brief.", ("So.", "No."))
    assert entry(found.plain()) == found
    assert [turn.content for turn in found.prompt] == ["Why?"]


def test_a_pair_keeps_its_margin() -> None:
    found = entry({"prompt": "Why?", "chosen": "So.", "rejected": "No.", "margin": 0.5})
    assert found.plain()["margin"] == 0.5
    assert entry(found.plain()) == found


def test_a_plain_text_comes_back() -> None:
    found = entry({"text": "Once upon a time."})
    assert (found.kind, found.system, found.plain()) == (Kind.TEXT, None, {"text": "Once upon a time."})
    assert entry(found.plain()) == found


def test_a_problem_without_a_worked_answer_gives_nothing() -> None:
    assert entries_of(row(["How many?", 4])) == []


@pytest.mark.parametrize(
    ("asked", "question", "overlaps"),
    [
        ("one two three four", "zero ONE, two: three! five", True),
        ("one two three four", "one two four three", False),
        ("one two", "one two", True),
        ("one two", "One, two?", True),
        ("one two", "one two three", False),  # shorter than n: as a whole, or not at all
        ("one two three", "one two", False),
        ("Ünter der Brücke", "über ünter DER brücke", True),
        ("?!", "?!", False),  # no words, nothing to compare
    ],
)
def test_questions_overlap_by_words_in_a_row(asked: str, question: str, overlaps: bool) -> None:
    overlap = Overlap(3)
    overlap.add("test.jsonl", asked)
    found = entry({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": asked}]})
    assert overlap.find(found.turns) == ("test.jsonl" if overlaps else None)


def test_of_an_evaluation_the_test_split_is_meant() -> None:
    of_hub = Evaluation.model_validate({"from": "openai/gsm8k", "config": "main", "revision": "v1"})
    assert evaluated(of_hub) == Source("openai/gsm8k", config="main", revision="v1", default_split="test")
    columns = {"question": "asked"}
    of_file = Evaluation.model_validate({"from": "a.jsonl", "columns": columns, "shape": "question_answer"})
    assert evaluated(of_file) == Source("a.jsonl", columns=columns, shape="question_answer", default_split="test")


def test_every_user_turn_is_compared_and_nothing_else() -> None:
    overlap = Overlap(3)
    overlap.add("test.jsonl", "one two three")
    turns = [("system", "one two three"), ("user", "one two"), ("assistant", "three, one two three"), ("user", "So?")]

    def find(last: str) -> str | None:
        messages = [{"role": role, "content": text} for role, text in [*turns, ("assistant", "a"), ("user", last)]]
        return overlap.find(entry({"messages": [*messages, {"role": "assistant", "content": "b"}]}).turns)

    assert find("four") is None
    assert find("well: one two three") == "test.jsonl"

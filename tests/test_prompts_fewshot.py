"""Worked turns are data: shipped files are whole, and a file that is not gets one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ramify.base.config import Task
from ramify.base.errors import ConfigError
from ramify.base.types import Message
from ramify.prompts.fewshot import load_fewshot, shipped_fewshot
from ramify.tasks.math import parse_final
from ramify.tasks.numbers import parse_answer
from ramify.tasks.registry import TASKS, load_task

READERS = {"unit_conversion": parse_answer, "math": parse_final}


@pytest.mark.parametrize("name", ["unit_conversion", "math"])
def test_shipped_files_end_every_turn_in_an_answer_their_task_reads(name: str) -> None:
    turns = load_fewshot(name)
    assert turns[0].role == "system"
    assert [turn.role for turn in turns[1:]] == ["user", "assistant"] * (len(turns) // 2)
    answers = [READERS[name](turn.content) for turn in turns if turn.role == "assistant"]
    assert all(answer.value is not None and answer.notes == () for answer in answers)


def test_every_task_names_a_shipped_file_or_none() -> None:
    named = {name: load_task(Task(name=name)).fewshot for name in TASKS}
    assert named == {"unit_conversion": "unit_conversion", "math": "math", "grading": None, "chat": None}
    assert {name for name in named.values() if name is not None} <= set(shipped_fewshot())


def test_worked_sums_are_right() -> None:
    """Every `a op b = c` of the math file holds."""
    for turn in load_fewshot("math"):
        for line in turn.content.split("\n") if turn.role == "assistant" else []:
            left, equals, right = line.partition(" = ")
            if equals:
                terms = left.split(" ")
                start = len(terms)
                while (start and terms[start - 1].replace(".", "").isdigit()) or terms[start - 1] in "+-*/":
                    start -= 1
                value = float(right.split(" ")[0].rstrip("."))
                assert eval(" ".join(terms[start:])) == pytest.approx(value), line


def test_a_file_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("turns:\n  - user: |\n      Two\n      lines\n    assistant: '6'\n", encoding="utf-8")
    assert load_fewshot(path) == (Message("user", "Two\nlines"), Message("assistant", "6"))
    assert load_fewshot(str(path)) == load_fewshot(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r": a mapping with `turns` is needed, found NoneType"),
        ("- user: a", r": a mapping with `turns` is needed, found list"),
        ("turns: []", r": turns must be a list of .* with at least one entry"),
        ("system: a", r": turns must be a list"),
        ("turns: {user: a, assistant: b}", r": turns must be a list"),
        ("turn: []\nturns: []", r": unknown entry 'turn' \(allowed: system, turns\)"),
        ("turns:\n  - user: a", r": turn 1 must have exactly user and assistant, found user"),
        ("turns:\n  - {user: a, assistant: b}\n  - hello", r": turn 2 must have exactly .* found str"),
        ("turns:\n  - {user: a, assistant: 6}", r": turn 1, assistant: text is needed, found 6 \(hint: put quotes"),
        ("turns:\n  - {user: '', assistant: b}", r": turn 1, user: text is needed, found ''"),
        ("system: [a]\nturns:\n  - {user: a, assistant: b}", r": system: text is needed"),
        ("turns:\n  - {user: a, assistant: b", r":\d: not valid YAML: "),
        (b"\xff", r": cannot be read"),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=f"bad.yaml{message}") as caught:
        load_fewshot(path)
    assert "\n" not in str(caught.value)


def test_a_misspelled_name_gets_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"neither a file nor one of .*unit_conversion; did you mean 'unit_conversion'"
    ):
        load_fewshot("unit_convertion")

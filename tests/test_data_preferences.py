"""Preference rows: every way of writing them becomes the same pair, and one line says what is wrong with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ramify.base.errors import DataError
from ramify.base.types import Message, Pair
from ramify.data.sources import read_pairs, read_rows

SYSTEM, USER = Message("system", "Be brief."), Message("user", "How many g are in 6 kg?")
ANSWERS = {"chosen": "6000", "rejected": "600"}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def turns(*messages: Message) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def spoken(*messages: Message) -> list[dict[str, str]]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[message.role], "value": message.content} for message in messages]


def said(text: str) -> Message:
    return Message("assistant", text)


def sides(write: Any, *before: Message) -> dict[str, Any]:
    return {name: write(*before, said(text)) for name, text in ANSWERS.items()}


SAME = {
    "texts": {"prompt": USER.content, **ANSWERS},
    "prompt of messages": {"prompt": turns(USER), **ANSWERS},
    "answers as messages": {"prompt": turns(USER), **sides(turns)},
    "answers that repeat the prompt": {"prompt": USER.content, **sides(turns, USER)},
    "conversations alone": sides(turns, USER),
    "spoken prompt, one turn each": {
        "conversations": spoken(USER),
        **{name: spoken(said(text))[0] for name, text in ANSWERS.items()},
    },
    "spoken, lists of turns": {"conversations": spoken(USER), **sides(spoken)},
    "spoken conversations alone": sides(spoken, USER),
}


@pytest.mark.parametrize("name", SAME)
def test_every_way_of_writing_a_pair_is_the_same_pair(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, SAME[name])
    rows = read_rows(path)
    assert rows.shape == "preference" and rows.preferences == (Pair((USER,), "6000", "600", 0.0, f"{path}:1"),)
    assert (rows.problems, rows.examples) == ((), ())
    assert read_pairs(path) == list(rows.preferences)


@pytest.mark.parametrize("write", [turns, spoken])
def test_earlier_turns_are_part_of_the_prompt(tmp_path: Path, write: Any) -> None:
    before = (SYSTEM, Message("user", "Hello"), said("Hi."), USER)
    (alone,) = read_pairs(written(tmp_path, sides(write, *before)))
    (apart,) = read_pairs(written(tmp_path, {"prompt": write(*before), **ANSWERS}))
    assert alone == apart and alone.prompt == before


def test_margin_source_and_further_columns_are_kept(tmp_path: Path) -> None:
    row = {**SAME["texts"], "margin": "2", "source": "Lab-3/ab12/Structure", "lab": "Lab-3", "grade": 3, "note": None}
    (pair,) = read_pairs(written(tmp_path, row))
    assert (pair.margin, pair.source, pair.meta) == (2.0, "Lab-3/ab12/Structure", {"lab": "Lab-3", "grade": "3"})


def test_an_empty_or_equal_side_is_read_for_the_lint_to_tell(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "chosen": "", "rejected": "b"}, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    assert [(pair.chosen, pair.rejected) for pair in read_pairs(written(tmp_path, *rows))] == [("", "b"), ("b", "b")]


def test_only_the_first_pairs_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, *[{**SAME["texts"], "chosen": str(number)} for number in range(5)])
    assert [pair.chosen for pair in read_pairs(path, limit=2)] == ["0", "1"]


def test_files_of_other_rows_hold_no_pairs(tmp_path: Path) -> None:
    path = written(tmp_path, SAME["texts"], {"prompt": "a", "completion": "b"})
    with pytest.raises(
        DataError, match=r"1 of 2 rows are no preference pairs \(shapes: preference \+ prompt_completion"
    ):
        read_pairs(path)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None, **ANSWERS}, r"prompt: text that is not empty is needed, found None"),
    ({"conversations": [], **ANSWERS}, r"conversations: a list of .* with at least one entry"),
    ({"conversations": spoken(USER, said("Hi.")), **ANSWERS}, r"conversations: turns of user and assistant that alter"),
    ({"conversations": [{"from": "bot", "value": "a"}], **ANSWERS}, r"conversations\[0\]\.from: system, human or gpt"),
    ({"conversations": [{"from": ["a"], "value": "a"}], **ANSWERS}, r"conversations\[0\]\.from: system, human or gpt"),
    ({"conversations": [{"from": "human", "value": 3}], **ANSWERS}, r"conversations\[0\]\.content: text is needed"),
    ({"prompt": "a", "chosen": 3, "rejected": "b"}, r"chosen: a list of .* is needed, found 3"),
    ({"prompt": "a", "chosen": "b", "rejected": None}, r"rejected: a list of .* is needed, found None"),
    (
        {"prompt": "a", "chosen": {"from": "human", "value": "b"}, "rejected": "c"},
        r"chosen: a text, or messages that e",
    ),
    ({"prompt": "a", **sides(turns, USER)}, r"chosen: the answer alone, or the prompt and the answer"),
    ({"question": "a", **ANSWERS}, r"prompt: a prompt .* is needed, found \['question', 'chosen', 'rejected'\]"),
    ({"chosen": turns(said("a")), "rejected": turns(USER, said("b"))}, r"chosen: a user turn before the assistant's"),
    (
        {"chosen": turns(USER, said("a")), "rejected": turns(SYSTEM, USER, said("b"))},
        r"rejected: messages that begin as those of chosen do",
    ),
    ({"prompt": "a", **ANSWERS, "margin": "wide"}, r"margin: a finite number is needed, found 'wide'"),
]


@pytest.mark.parametrize(("row", "pattern"), BAD)
def test_a_bad_pair_gets_one_line_with_file_line_field_and_value(
    tmp_path: Path, row: dict[str, Any], pattern: str
) -> None:
    path = written(tmp_path, SAME["texts"], row)
    with pytest.raises(DataError, match=pattern) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}:2: ") and "\n" not in str(caught.value)


def test_published_pairs_are_read_whole(shared: Path) -> None:
    path = shared / "data" / "preferences" / "dpo_en_demo.json"
    if not path.is_file():
        pytest.skip("no published pairs here")
    raw = json.loads(path.read_text(encoding="utf-8"))
    pairs = read_pairs(path)
    assert [pair.chosen for pair in pairs] == [row["chosen"]["value"] for row in raw]
    assert [pair.rejected for pair in pairs] == [row["rejected"]["value"] for row in raw]
    assert [[turn.content for turn in pair.prompt] for pair in pairs] == [
        [turn["value"] for turn in row["conversations"]] for row in raw
    ]
    assert {turn.role for pair in pairs for turn in pair.prompt} == {"system", "user", "assistant"}
    assert all(pair.prompt[-1].role == "user" for pair in pairs)

"""Rows from JSON files: the first shapes, true lines, stable ids, and one line for what cannot be used."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.base.errors import DataError
from ramify.base.records import to_plain, write_jsonl
from ramify.base.types import Completion, Example, Lineage, Message, Problem
from ramify.data.fields import parse_gold
from ramify.data.sources import read_examples, read_problems, read_rows
from ramify.tasks.numbers import parse_number

USER = Message("user", "How many g are in 6 kg?")


def written(folder: Path, content: str | bytes | list[Any], name: str = "rows.json") -> Path:
    path = folder / name
    if isinstance(content, list):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_pairs_become_problems_with_numbers_as_golds(tmp_path: Path, name: str) -> None:
    rows = [["How many g are in 6 kg?", 5999.999999999999], ["What is 2 m in cm?", "200"], ["And 1 t in kg?", "1,000"]]
    found = read_rows(written(tmp_path, rows if name == "rows.json" else lines(*rows), name))
    assert (found.shape, found.count, found.examples) == ("pairs", 3, ())
    assert [problem.answer for problem in found.problems] == [5999.999999999999, 200.0, 1000.0]
    assert found.problems[0].prompt == (USER,)
    assert found.problems[0].solution is None


def test_triples_are_problems_and_examples(tmp_path: Path) -> None:
    chain = "1 kg is 1000 g. <answer>6000</answer>"
    found = read_rows(written(tmp_path, [[USER.content, 6000, chain]]))
    assert found.shape == "triples"
    assert found.problems[0].solution == chain
    assert found.examples[0].prompt == (USER,)
    assert found.examples[0].completions == (Completion(chain),)


def test_gsm8k_rows_give_the_number_and_the_whole_solution(tmp_path: Path) -> None:
    answer = "He has 2 * 600 = <<2*600=1200>>1200.\n#### 1,200"
    found = read_rows(written(tmp_path, lines({"question": "How many?", "answer": answer}), "rows.jsonl"))
    assert found.shape == "question_answer"
    assert (found.problems[0].answer, found.problems[0].solution) == (1200.0, answer)
    assert found.examples[0].completions[0].text == answer


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (6000, 6000.0),
        ("6,000", 6000.0),
        ("1,080", 1080.0),
        ("-1,234,567.5", -1234567.5),
        ("-$5", -5.0),
        ("1e3", 1000.0),
        ("40 %", 40.0),
        ("Paris", "Paris"),
        ("$5", 5.0),
        ("1,5", "1,5"),
        ("1,0800", "1,0800"),
        ("12,34", "12,34"),
    ],
)
def test_objects_of_question_and_answer_may_have_text_answers(tmp_path: Path, answer: Any, gold: Any) -> None:
    found = read_rows(written(tmp_path, [{"question": "?", "answer": answer, "extra": 1}]))
    assert found.problems[0].answer == gold
    assert found.examples == ()


@given(st.text(alphabet="0123456789,.$%+-eE ", max_size=14) | st.from_regex(r"[+-]?\$?[0-9]{1,4}(,[0-9]{3})?%?"))
def test_a_gold_text_is_the_number_that_graders_read_in_it(text: str) -> None:
    gold, read = parse_gold(text), parse_number(text).value
    assert gold is None or gold == read


def test_prompt_and_completion_as_texts_or_messages(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": USER.content}]
    rows = [
        {"prompt": USER.content, "completion": "6000"},
        {"prompt": turns, "completion": [{"role": "assistant", "content": "6000"}]},
    ]
    found = read_rows(written(tmp_path, rows))
    assert found.shape == "prompt_completion"
    assert found.examples[0].prompt == (USER,)
    assert found.examples[1].prompt == (Message("system", "Be brief."), USER)
    assert [example.completions for example in found.examples] == [(Completion("6000"),)] * 2


def test_several_completions_with_weights(tmp_path: Path) -> None:
    row = {"prompt": "?", "completions": ["a", {"text": "b", "weight": 0.5}]}
    (example,) = read_examples(written(tmp_path, [row]))
    assert example.completions == (Completion("a"), Completion("b", 0.5))


def test_every_trained_assistant_turn_becomes_an_example(tmp_path: Path) -> None:
    roles = ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    turns: list[dict[str, Any]] = [{"role": role, "content": f"{role} {at}"} for at, role in enumerate(roles)]
    turns[4]["weight"] = 0
    turns[6]["loss_weight"] = 0.25
    found = read_rows(written(tmp_path, lines({"messages": turns}), "rows.jsonl"))
    assert found.shape == "messages"
    assert [len(example.prompt) for example in found.examples] == [2, 6]
    assert [example.completions[0] for example in found.examples] == [
        Completion("assistant 2"),
        Completion("assistant 6", 0.25),
    ]


def test_content_may_be_a_list_of_text_parts(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "6 "}, {"type": "text", "value": "kg"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "6000 g"}]
    (example,) = read_examples(written(tmp_path, [{"messages": turns}]))
    assert example.prompt == (Message("user", "6 kg"),)


def test_conversations_that_wait_for_an_answer_are_problems(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": USER.content}]}, {"prompt": USER.content}, USER.content]
    found = read_rows(written(tmp_path, rows))
    assert found.shape == "messages + prompts"
    assert [problem.prompt for problem in found.problems] == [(USER,)] * 3
    assert {problem.answer for problem in found.problems} == {None}


def test_own_records_survive_writing_and_reading(tmp_path: Path) -> None:
    problem = Problem("p1", (Message("system", "Be brief."), USER), 6000.0, "chain", "train.json:7", "mass")
    lineage = Lineage("p1", 3, 42, "nano", 1)
    example = Example((USER,), (Completion("6000"), Completion("6e3", 0.5)), "train.json:7", lineage, {"kind": "rft"})
    write_jsonl(tmp_path / "problems.jsonl", [problem])
    write_jsonl(tmp_path / "examples.jsonl", [example])
    assert read_problems(tmp_path / "problems.jsonl") == [problem]
    assert read_examples(tmp_path / "examples.jsonl") == [example]


CONTENT = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@settings(max_examples=40)
@given(st.lists(st.tuples(CONTENT, st.floats(allow_nan=False, allow_infinity=False)), min_size=1, max_size=5))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, float]]) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [list(pair) for pair in pairs]
    for path in (
        written(folder, json.dumps(rows, ensure_ascii=False, indent=1)),
        written(folder, json.dumps(rows)),
        written(folder, lines(*rows), "rows.jsonl"),
        written(folder, lines(*rows), "lines.json"),
    ):
        found = read_rows(path)
        assert [(problem.prompt[0].content, problem.answer) for problem in found.problems] == pairs
        assert len({problem.id for problem in found.problems}) == len(pairs)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["question", "answer", "prompt", "completion", "completions", "messages", "id", "role", "content"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    for text in (json.dumps([value]), json.dumps(value), json.dumps([["q", 1], value])):
        path.write_text(text, encoding="utf-8")
        try:
            read_rows(path)
        except DataError as error:
            assert "\n" not in str(error)
            assert str(error).startswith(str(path))


def test_lines_are_true_for_json_lists_and_for_json_lines(tmp_path: Path) -> None:
    text = '\n[\n  ["a",\n   1],\n  ["b", 2], ["c", 3]\n]\n'
    assert [problem.source.rsplit(":", 1)[1] for problem in read_problems(written(tmp_path, text))] == ["3", "5", "5"]
    text = '["a", 1]\n\n["b", 2]\n'
    assert [problem.source.rsplit(":", 1)[1] for problem in read_problems(written(tmp_path, text))] == ["1", "3"]


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, b'\xef\xbb\xbf["a", 1]\r\n["b", 2]\r\n', "rows.jsonl")
    assert [problem.answer for problem in read_problems(path)] == [1.0, 2.0]


def test_ids_follow_from_content_not_from_place(tmp_path: Path) -> None:
    first = read_problems(written(tmp_path, [["a", 1], ["b", 2]], "one.json"))
    second = read_problems(written(tmp_path, [["b", 2], ["c", 3], ["a", 1]], "two.json"))
    assert [problem.id for problem in first] == [second[2].id, second[0].id]


def test_repeated_rows_are_kept_apart_and_counted(tmp_path: Path) -> None:
    found = read_rows(written(tmp_path, [["a", 1], ["a", 1], ["a", 2], ["a", 1]]))
    ids = [problem.id for problem in found.problems]
    assert ids == [ids[0], f"{ids[0]}.2", ids[2], f"{ids[0]}.3"]
    assert found.notes == {"repeated_question": 2}


BAD_ROWS: list[tuple[str, Any, str]] = [
    ("one_item", ["q"], r"row: \[question, answer\] or \[question, answer, reasoning\] is needed, found \['q'\]"),
    ("four_items", ["q", 1, "r", 2], r"row: .* is needed"),
    ("number_row", 7, r"row: a list or an object is needed, found 7"),
    ("null_row", None, r"row: a list or an object is needed, found None"),
    ("empty_question", ["  ", 1], r"question: text that is not empty is needed, found '  '"),
    ("number_question", [5, 1], r"question: text that is not empty is needed, found 5"),
    ("text_gold", ["q", "six"], r"answer: a finite number is needed, found 'six' \(hint: text answers go in objects"),
    ("bool_gold", ["q", True], r"answer: a finite number is needed, found True"),
    ("null_gold", ["q", None], r"answer: a finite number is needed, found None"),
    ("nested_gold", ["q", [6]], r"answer: a finite number is needed, found \[6\]"),
    ("comma_gold", ["q", "1,5"], r"answer: a finite number is needed, found '1,5'"),
    (
        "comma_gsm8k",
        {"question": "q", "answer": "#### 1,5"},
        r"answer after ####: a finite number is needed, found '1,5'",
    ),
    ("prompts_on_one_line", ["How?", "Why?"], r"answer: .* found 'Why\?' \(hint: .*; prompts stand one a line\)"),
    ("more_prompts", ["How?", "Why?", "Who?", "When?"], r"row: .*\(hint: prompts stand one a line\)"),
    ("nan_text_gold", ["q", "nan"], r"answer: a finite number is needed, found 'nan'"),
    ("huge_gold", ["q", 10**400], r"answer: a finite number is needed, found 1000"),
    ("empty_reasoning", ["q", 1, ""], r"reasoning: text that is not empty is needed, found ''"),
    ("number_reasoning", ["q", 1, 2], r"reasoning: text that is not empty is needed, found 2"),
    ("no_known_column", {"a": "b"}, r"columns: found a; rows need question \+ answer, .* \(hint: data.columns="),
    (
        "misspelled",
        {"qestion": "a", "answer": 1},
        r"columns: found qestion, answer; the nearest shape, question_answer, needs question \+ answer "
        r"\(hint: did you mean 'question' for 'qestion'\?",
    ),
    ("no_columns", {}, r"columns: found none; "),
    (
        "empty_gsm8k",
        {"question": "q", "answer": "so\n#### "},
        r"answer after ####: a finite number is needed, found ''",
    ),
    (
        "text_gsm8k",
        {"question": "q", "answer": "#### six"},
        r"answer after ####: a finite number is needed, found 'six'",
    ),
    ("no_question_text", {"question": None, "answer": 1}, r"question: text"),
    ("empty_answer", {"question": "q", "answer": " "}, r"answer: text that is not empty"),
    ("empty_completion", {"prompt": "q", "completion": ""}, r"completion: text that is not empty"),
    ("object_prompt", {"prompt": {"a": 1}, "completion": "x"}, r"prompt: text that is not empty is needed"),
    ("no_completions", {"prompt": "q", "completions": []}, r"completions: a list of texts with at least one entry"),
    ("untrained", {"prompt": "q", "completions": [{"text": "a", "weight": 0}]}, r"completions: at least one weight"),
    (
        "negative_weight",
        {"prompt": "q", "completions": [{"text": "a", "weight": -1}]},
        r"completions\[0\].weight: a num",
    ),
    ("unknown_part", {"prompt": "q", "completions": [{"txt": "a"}]}, r"completions\[0\]: text and weight"),
    ("broken_lineage", {"prompt": "q", "completions": ["a"], "lineage": 3}, r"lineage: problem_id, sample_index"),
    ("no_messages", {"messages": []}, r"messages: a list of \{role, content\} with at least one entry"),
    ("text_messages", {"messages": "hi"}, r"messages: a list of \{role, content\}"),
    ("no_role", {"messages": [{"content": "a"}]}, r"messages\[0\]: an object with role and content"),
    ("wrong_role", {"messages": [{"role": "bot", "content": "a"}]}, r"messages\[0\].role: system, user or assistant"),
    (
        "late_system",
        {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]},
        r"messages\[1\].role: user or assistant \(a system turn comes first\)",
    ),
    (
        "assistant_first",
        {"messages": [{"role": "assistant", "content": "a"}]},
        r"messages\[0\]: a user turn before the assistant's is needed",
    ),
    (
        "two_answers",
        {"messages": [{"role": role, "content": "a"} for role in ("user", "assistant", "assistant")]},
        r"messages\[2\]: turns of user and assistant that alternate",
    ),
    ("only_system", {"messages": [{"role": "system", "content": "a"}]}, r"messages: .*an assistant turn to train"),
    (
        "picture",
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]},
        r"messages\[0\].content\[0\]: a part",
    ),
    ("null_content", {"messages": [{"role": "user", "content": None}]}, r"messages\[0\].content: text is needed"),
    ("empty_id", {"id": "", "prompt": "q"}, r"id: a text is needed"),
]


@pytest.mark.parametrize(("row", "pattern"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS])
def test_a_bad_row_gets_one_line_with_file_line_field_and_value(tmp_path: Path, row: Any, pattern: str) -> None:
    good = ["What is 1 m in cm?", 100]
    for path in (written(tmp_path, lines(good, good, row), "rows.jsonl"), written(tmp_path, f"[\n{json.dumps(row)}]")):
        with pytest.raises(DataError) as caught:
            read_rows(path)
        line = 3 if path.suffix == ".jsonl" else 2
        assert str(caught.value).startswith(f"{path}:{line}: ")
        assert re.search(pattern, str(caught.value)), str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.line == line


BAD_FILES: list[tuple[str, str, str | bytes, str]] = [
    ("empty", "rows.jsonl", "", r": the file is empty \(hint: "),
    ("blank", "rows.json", " \n\n ", r": the file holds no rows"),
    ("no_rows", "rows.json", "[ ]", r": the file holds no rows"),
    ("utf16", "rows.jsonl", '["a", 1]'.encode("utf-16"), r": is UTF-16; UTF-8 is needed"),
    ("binary", "rows.jsonl", b"PK\x03\x04\0\0", r": is not a text file"),
    ("bad_utf8", "rows.jsonl", b'["a", 1]\n["\xff", 2]\n', r":2: not valid UTF-8 at byte 2 of the line"),
    ("cut_line", "rows.jsonl", '["a", 1]\n["b", ', r":2: not valid JSON: Expecting value at column"),
    ("cut_list", "rows.json", '[["a", 1],\n["b", 2]', r":2: not valid JSON: , or \] is needed .* found the end"),
    ("cut_list_in_row", "rows.json", '[["a", 1],\n["b', r":2: not valid JSON: Unterminated string"),
    ("trailing_comma", "rows.json", '[["a", 1],\n]', r":2: not valid JSON: a row is needed after the comma"),
    ("missing_comma", "rows.json", '[["a", 1]\n["b", 2]]', r":2: not valid JSON: , or \] is needed .* found '\['"),
    ("text_after_list", "rows.json", '[["a", 1]]\n[["b", 2]]', r":2: more text after the list of rows"),
    ("text_after_row", "rows.jsonl", '["a", 1],\n["b", 2]', r":1: more text after the row, at column 9"),
    ("single_quotes", "rows.jsonl", "['a', 1]\n", r":1: not valid JSON: Expecting value at column 2"),
    ("not_json", "rows.txt", "What is 1 m in cm?\n", r":1: not valid JSON"),
    ("csv", "rows.csv", "question,answer\na,1,2\n", r":2: fields: 2 are needed, found 3"),
    ("nan", "rows.jsonl", '["a", 1]\n["b", NaN]\n', r":2: NaN is not a number"),
    ("infinity", "rows.json", '[["a", 1],\n ["b", -Infinity]]', r":2: -Infinity is not a number"),
    ("object", "rows.json", '{"train":\n [["a", 1]]}', r":1: a list of rows is needed, found one JSON value: train"),
    ("deep", "rows.jsonl", "[" * 100_000, r":1: JSON nested too deeply"),
    ("deep_list", "rows.json", "[" * 100_000, r":1: JSON nested too deeply"),
    ("long_integer", "rows.jsonl", '["a", ' + "9" * 10_000 + "]", r":1: (not valid JSON: Exceeds|answer: a finite)"),
    ("own_id_twice", "rows.jsonl", '{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}', r":2: id: an id of its own"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "pattern"), [case[1:] for case in BAD_FILES], ids=[case[0] for case in BAD_FILES]
)
def test_a_bad_file_gets_one_line(tmp_path: Path, name: str, content: str | bytes, pattern: str) -> None:
    path = written(tmp_path, content, name)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert str(caught.value).startswith(str(path))
    assert re.match(pattern, str(caught.value)[len(str(path)) :]), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_get_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.json: no such file"):
        read_rows(tmp_path / "absent.json")
    with pytest.raises(DataError, match=r"holds no file of rows \(.jsonl, .json, .csv, .tsv, .parquet or .arrow"):
        read_rows(tmp_path)


def test_the_wrong_kind_of_rows_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no problems: its rows are of the shape prompt_completion"):
        read_problems(written(tmp_path, [{"prompt": "a", "completion": "b"}]))
    with pytest.raises(DataError, match="holds nothing to imitate: its rows are of the shape pairs"):
        read_examples(written(tmp_path, [["a", 1]]))


def test_rows_that_hold_no_problem_are_not_left_out_unsaid(tmp_path: Path) -> None:
    path = written(tmp_path, lines(["a", 1], {"prompt": "b", "completion": "c"}, ["d", 2]), "rows.jsonl")
    with pytest.raises(DataError, match=r"rows.jsonl: 1 of 3 rows hold no problem \(first: .*rows.jsonl:2; shapes: "):
        read_problems(path)
    assert len(read_rows(path).problems) == 2  # both kinds can be trained on


def test_plain_forms_of_own_records_are_recognised(tmp_path: Path) -> None:
    problem = to_plain(Problem("p", (USER,), "Paris"))
    assert read_rows(written(tmp_path, [problem])).shape == "problem"
    example = to_plain(Example((USER,), (Completion("a"),)))
    assert read_rows(written(tmp_path, [example])).shape == "prompt_completions"


@pytest.mark.parametrize(
    ("file", "shape", "problems", "examples"),
    [
        ("gsm8k/test.jsonl", "question_answer", 1319, 1319),
        ("gsm8k/train_first3000.jsonl", "question_answer", 3000, 3000),
        ("gsm8k_chat/chat_train.jsonl", "messages", 0, 449),
        ("instructions/v1_sft_demo.jsonl", "messages", 0, 500),
    ],
)
def test_real_files(shared: Path, file: str, shape: str, problems: int, examples: int) -> None:
    path = shared / "data" / file
    if not path.is_file():
        pytest.skip(f"{file} is not in the shared data")
    found = read_rows(path)
    assert found.shape == shape
    assert len(found.problems) == problems
    assert len(found.examples) >= examples > 0
    assert len({problem.id for problem in found.problems}) == problems

"""Every shape of row: what it becomes, how it is recognised, how settings override that, and what is said otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ramify.base.errors import ConfigError, DataError
from ramify.base.types import Completion, Conversation, Example, Message
from ramify.data.shapes import FIELDS, SHAPES
from ramify.data.source import Source
from ramify.data.sources import Row, read_rows, stream_rows


def written(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def only(folder: Path, row: Any, **settings: Any) -> Row:
    (found,) = stream_rows(Source(str(written(folder, row)), **settings))
    return found


def system(text: str) -> Message:
    return Message("system", text)


def user(text: str) -> Message:
    return Message("user", text)


def said(text: str) -> Message:
    return Message("assistant", text)


TURNS = [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
LABELLED = {"text": ["iron", "wood"], "label": ["A", "B"]}
OPTIONS = "Which rusts?\nA. iron\nB. wood"

IMITATED: dict[str, tuple[str, Any, Conversation, str]] = {
    "messages": (
        "messages",
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        (user("Q"),),
        "A",
    ),
    "messages, null weight and tools": (
        "messages",
        {
            "messages": [
                {"role": "user", "content": "Q", "weight": None, "tool_calls": None},
                {"role": "assistant", "content": "A", "weight": None, "tool_calls": []},
            ]
        },
        (user("Q"),),
        "A",
    ),
    "messages, system column": (
        "messages",
        {"system": "Be brief.", "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
        (system("Be brief."), user("Q")),
        "A",
    ),
    "sharegpt": ("conversations", {"conversations": TURNS}, (system("Be brief."), user("Q")), "A"),
    "sharegpt, equal system column": (
        "conversations",
        {"conversations": TURNS, "system": "Be brief."},
        (system("Be brief."), user("Q")),
        "A",
    ),
    "sharegpt, roles": (
        "conversations",
        {"conversations": [{"role": "human", "content": "Q"}, {"role": "gpt", "content": "A"}], "id": "x"},
        (user("Q"),),
        "A",
    ),
    "sharegpt, empty system": (
        "conversations",
        {"conversations": [{"from": "system", "value": ""}, *TURNS[1:]]},
        (user("Q"),),
        "A",
    ),
    "messages, blank system": (
        "messages",
        {
            "messages": [
                {"role": "system", "content": " \n"},
                {"role": "user", "content": "Q", "weight": 0},
                {"role": "assistant", "content": "A", "weight": None},
            ],
            "system": " ",
        },
        (user("Q"),),
        "A",
    ),
    "sharegpt, table with both kinds of fields": (
        "conversations",
        {"conversations": [{"role": None, "content": None, **turn} for turn in TURNS]},
        (system("Be brief."), user("Q")),
        "A",
    ),
    "alpaca": ("alpaca", {"instruction": "Add.", "input": "1 2", "output": "3"}, (user("Add.\n\n1 2"),), "3"),
    "alpaca, empty input": ("alpaca", {"instruction": "Add.", "input": "", "output": "3"}, (user("Add."),), "3"),
    "alpaca, all": (
        "alpaca",
        {"instruction": "Q", "input": None, "output": "A", "system": "Be brief.", "history": [["Q0", "A0"]]},
        (system("Be brief."), user("Q0"), said("A0"), user("Q")),
        "A",
    ),
    "dolly": (
        "alpaca",
        {"instruction": "Q", "context": "About.", "response": "A", "category": "open_qa"},
        (user("Q\n\nAbout."),),
        "A",
    ),
    "self-instruct": (
        "instances",
        {"id": "t0", "instruction": "Q", "instances": [{"input": "I", "output": "A"}], "is_classification": False},
        (user("Q\n\nI"),),
        "A",
    ),
    "metamath": (
        "query_response",
        {"query": "Q", "response": "A", "type": "GSM_Rephrased", "original_question": "Q0"},
        (user("Q"),),
        "A",
    ),
    "orca": (
        "query_response",
        {"id": "cot.1", "system_prompt": "Be brief.", "question": "Q", "response": "A"},
        (system("Be brief."), user("Q")),
        "A",
    ),
    "orca, no system": ("query_response", {"system_prompt": "", "question": "Q", "response": "A"}, (user("Q"),), "A"),
    "orca, two equal systems": (
        "query_response",
        {"system": "Be brief.", "system_prompt": "Be brief.", "question": "Q", "response": "A"},
        (system("Be brief."), user("Q")),
        "A",
    ),
    "query with system and history": (
        "query_response",
        {"system": "Be brief.", "query": "Q", "response": "A", "history": [["Q0", "A0"]]},
        (system("Be brief."), user("Q0"), said("A0"), user("Q")),
        "A",
    ),
    "question with context": (
        "question_answer",
        {"context": "C", "question": "Q", "answer": "6", "reasoning": "A", "system": "Be brief."},
        (system("Be brief."), user("C\n\nQ")),
        "A",
    ),
    "arc": (
        "multiple_choice",
        {
            "id": "Mercury_1",
            "question": "Which rusts?",
            "choices": {"text": ["iron", "wood"], "label": ["1", "2"]},
            "answerKey": "1",
        },
        (user(OPTIONS),),
        "A. iron",
    ),
    "commonsense_qa": (
        "multiple_choice",
        {"question": "Which rusts?", "question_concept": "rust", "choices": LABELLED, "answerKey": "B"},
        (user(OPTIONS),),
        "B. wood",
    ),
    "commonsense_qa, first form": (
        "multiple_choice",
        {
            "answerKey": "B",
            "question": {
                "stem": "Which rusts?",
                "choices": [{"label": "A", "text": "iron"}, {"label": "B", "text": "wood"}],
            },
        },
        (user(OPTIONS),),
        "B. wood",
    ),
    "mmlu": (
        "multiple_choice",
        {"question": "Which rusts?", "choices": ["iron", "wood"], "answer": 1, "subject": "chemistry"},
        (user(OPTIONS),),
        "B. wood",
    ),
    "squad": (
        "squad",
        {
            "id": "5",
            "title": "T",
            "context": "C",
            "question": "Q",
            "answers": {"text": ["A", "B"], "answer_start": [0, 4]},
        },
        (user("C\n\nQ"),),
        "A",
    ),
    "squad, list of answers": (
        "squad",
        {"context": "C", "question": "Q", "answers": [{"text": "A", "answer_start": 0}]},
        (user("C\n\nQ"),),
        "A",
    ),
    "gsm8k": ("question_answer", {"question": "Q", "answer": "so\n#### 6"}, (user("Q"),), "so\n#### 6"),
    "prompt of messages": (
        "prompt_completion",
        {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]},
        (user("Q"),),
        "A",
    ),
    "labelled true": ("prompt_completion", {"prompt": "Q", "completion": "A", "label": True}, (user("Q"),), "A"),
    "null label": ("prompt_completion", {"prompt": "Q", "completion": "A", "label": None}, (user("Q"),), "A"),
    "null columns": ("query_response", {"messages": None, "query": "Q", "response": "A"}, (user("Q"),), "A"),
}


@pytest.mark.parametrize(("shape", "row", "prompt", "text"), IMITATED.values(), ids=IMITATED)
def test_rows_to_imitate(tmp_path: Path, shape: str, row: Any, prompt: Conversation, text: str) -> None:
    found = only(tmp_path, row)
    place = f"{tmp_path / 'rows.jsonl'}:1"
    assert (found.shape, found.place.source) == (shape, place)
    assert found.decoded.examples == (Example(prompt, (Completion(text),), place),)
    assert only(tmp_path, row, shape=shape).decoded == found.decoded


def test_choices_are_options_to_be_scored_and_the_gold_answer_is_a_letter(tmp_path: Path) -> None:
    row = {"question": "Which rusts?", "choices": {"text": ["iron", "wood"], "label": ["x", "y"]}, "answerKey": "y"}
    problem = only(tmp_path, row).decoded.problem
    assert problem is not None
    assert (problem.prompt, problem.options) == ((user(OPTIONS),), ("A. iron", "B. wood"))
    assert (problem.answer, problem.solution) == ("B", "B. wood")


def test_a_multi_turn_conversation_is_one_row_with_an_example_a_trained_turn(tmp_path: Path) -> None:
    turns = [*TURNS, {"from": "human", "value": "Q2"}, {"from": "gpt", "value": "A2", "weight": 0.5}]
    found = only(tmp_path, {"conversations": turns})
    first, second = found.decoded.examples
    assert first.prompt == (system("Be brief."), user("Q"))
    assert second.prompt == (*first.prompt, said("A"), user("Q2"))
    assert second.completions == (Completion("A2", 0.5),)


def test_a_conversation_that_ends_in_a_question_trains_the_answers_before_it(tmp_path: Path) -> None:
    empty = {"from": "system", "value": ""}
    open_end = [empty, *TURNS[1:], {"from": "human", "value": "Q2"}]
    path = written(tmp_path, {"conversations": open_end}, {"conversations": TURNS}, {"conversations": TURNS[:2]})
    stream = stream_rows(path)
    first, _, last = stream
    assert first.decoded.examples == (Example((user("Q"),), (Completion("A"),), f"{path}:1"),)
    assert first.decoded.problem is not None
    assert first.decoded.problem.prompt == (user("Q"), said("A"), user("Q2"))
    assert (last.decoded.examples, last.decoded.unanswered) == ((), 0) and last.decoded.problem is not None
    assert stream.unanswered == 1
    assert stream.summary() == "3 rows of the shape conversations; 1 last user turns left out, which nothing answers"
    assert read_rows(path).notes == {"unanswered_turns": 1}


def test_without_a_trained_answer_a_conversation_that_ends_in_a_question_is_a_problem(tmp_path: Path) -> None:
    welcome = [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Q"}]
    context = [*welcome[1:], {"role": "assistant", "content": "A", "weight": 0}, *welcome[1:]]
    for turns in (welcome, context):
        decoded = only(tmp_path, {"messages": turns}).decoded
        assert decoded.problem is not None and len(decoded.problem.prompt) == len(turns)
        assert (decoded.examples, decoded.unanswered) == ((), 0)


def test_columns_that_mean_nothing_are_counted(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    path = written(
        tmp_path,
        {"messages": turns, "system": "S", "tools": [{"name": "t"}], "id": 0, "note": None},
        {"messages": turns, "tools": [], "id": 1, "note": ""},
        {"prompt": "Q", "chosen": "A", "rejected": "B", "lab": "3"},
    )
    stream = stream_rows(path)
    list(stream)
    assert dict(stream.ignored) == {"tools": 1, "id": 2}


def test_columns_that_are_named_are_read_and_many_others_are_counted_together(tmp_path: Path) -> None:
    rows = [{"q": {"text": "Q", "kind": "k"}, "completion": "A", f"extra {number}": 1} for number in range(120)]
    stream = stream_rows(Source(str(written(tmp_path, *rows)), columns={"prompt": "q.text"}))
    list(stream)
    assert len(stream.ignored) == 101 and stream.ignored["others"] == 20 and "q" not in stream.ignored


MARKED = {
    "zephyr": "<|user|>\nQ\n<|assistant|>\nA",
    "zephyr with ends": "<|user|>\nQ</s>\n<|assistant|>\nA</s>\n",
    "phi": "<|user|>\nQ<|end|>\n<|assistant|>\nA<|end|>\n<|endoftext|>",
    "chatml": "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n",
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>",
    "gemma": "<bos><start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n",
    "inst": "<s>[INST] Q [/INST] A </s>",
    "alpaca": "### Instruction:\nQ\n\n### Response:\nA",
    "guanaco": "### Human: Q### Assistant: A",
    "lines": "User: Q\nAssistant: A",
    "human": "\n\nHuman: Q\n\nAssistant: A",
}


@pytest.mark.parametrize("text", MARKED.values(), ids=MARKED)
def test_a_text_with_role_markers_is_a_conversation(tmp_path: Path, text: str) -> None:
    found = only(tmp_path, {"text": text})
    assert found.shape == "text"
    assert found.decoded.examples == (Example((user("Q"),), (Completion("A"),), found.place.source),)


MARKED_MORE = {
    "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA": (
        system("S"),
        user("Q"),
    ),
    "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nQ0 [/INST] A0 </s><s>[INST] Q [/INST] A": (
        system("S"),
        user("Q0"),
        said("A0"),
        user("Q"),
    ),
    "Below is an instruction.\n\n### Instruction:\nQ\n\n### Input:\nI\n\n### Response:\nA": (
        system("Below is an instruction."),
        user("Q\n\nI"),
    ),
    "System: S\nUser: Q, then\nmore: of it\nAssistant: A": (system("S"), user("Q, then\nmore: of it")),
}


@pytest.mark.parametrize("text", MARKED_MORE)
def test_marked_texts_keep_system_turns_inputs_and_earlier_turns(tmp_path: Path, text: str) -> None:
    *_, last = only(tmp_path, {"text": text}).decoded.examples
    assert (last.prompt, last.completions) == (MARKED_MORE[text], (Completion("A"),))


@pytest.mark.parametrize("text", ["Once upon a time.\n", "He said:\nUser: no marker here", " < s >"])
def test_a_text_without_markers_is_imitated_as_a_whole(tmp_path: Path, text: str) -> None:
    found = only(tmp_path, {"text": text})
    assert (found.shape, found.decoded.problem) == ("text", None)
    assert found.decoded.examples == (Example((), (Completion(text),), found.place.source),)


def test_a_marked_text_that_waits_for_an_answer_is_a_problem(tmp_path: Path) -> None:
    problem = only(tmp_path, {"text": "User: Q\n"}).decoded.problem
    assert problem is not None and problem.prompt == (user("Q"),)


def test_only_rewarded_completions_are_imitated_and_the_others_are_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"prompt": "Q", "completions": ["a", {"text": "b", "weight": 0.5}, "c"], "rewards": [0, 2.5, True]},
        {"prompt": "Q", "completions": ["a", "b"], "rewards": [-1, 0.0]},
        {"prompt": "Q", "completion": "a", "reward": 0},
        {"prompt": "Q", "completion": "a", "label": False},
        {"prompt": "Q", "completion": "a", "reward": 0.1},
    )
    stream = stream_rows(path)
    examples = [example for row in stream for example in row.decoded.examples]
    assert [example.completions for example in examples] == [
        (Completion("b", 0.5), Completion("c")),
        (Completion("a"),),
    ]
    assert (stream.count, stream.unwanted, stream.bad.count) == (5, 5, 0)
    assert stream.summary() == (
        "5 rows: 3 prompt_completion, 2 prompt_completions; 5 completions left out for their reward or label"
    )
    assert read_rows(path).notes == {"unwanted_completions": 5}


LABELS = {
    True: (True, 1, 1.0, "true", "True", "TRUE", " 1", "1.0"),
    False: (False, 0, 0.0, "false", "False", "FALSE", "0 ", "0.0"),
}


@pytest.mark.parametrize(("good", "label"), [(good, label) for good, labels in LABELS.items() for label in labels])
def test_a_label_says_whether_a_completion_is_imitated(tmp_path: Path, good: bool, label: Any) -> None:
    stream = stream_rows(written(tmp_path, {"prompt": "Q", "completion": "A", "label": label}))
    assert (len(list(stream)), stream.unwanted) == ((1, 0) if good else (0, 1))


def test_labels_and_rewards_of_tables_are_texts(tmp_path: Path) -> None:
    labels, rewards = tmp_path / "labels.csv", tmp_path / "rewards.csv"
    labels.write_text("prompt,completion,label\nQ,good,True\nQ,bad,False\nQ,worse,0\n")
    rewards.write_text('prompt,completion,reward\nQ,good,1.0\nQ,bad,0.0\nQ,worse,-1\nQ,best,"1,000"\n')
    for path, expected in ((labels, ["good"]), (rewards, ["good", "best"])):
        assert [example.completions[0].text for example in read_rows(path).examples] == expected


def test_preferences_in_the_form_of_a_hosted_service(tmp_path: Path) -> None:
    row = {
        "input": {"messages": [{"role": "user", "content": "Q"}]},
        "preferred_output": [{"role": "assistant", "content": "A"}],
        "non_preferred_output": [{"role": "assistant", "content": "B"}],
        "lab": "1",
    }
    pair = only(tmp_path, row).decoded.pair
    assert pair is not None
    assert (pair.prompt, pair.chosen, pair.rejected, pair.meta) == ((user("Q"),), "A", "B", {"lab": "1"})


def test_a_system_column_stands_before_any_prompt(tmp_path: Path) -> None:
    before = (system("Be brief."), user("Q"))
    column = {"system": "Be brief."}
    for row in ({"prompt": "Q", "completion": "A"}, {"prompt": "Q", "completions": ["A"]}):
        (example,) = only(tmp_path, row | column).decoded.examples
        assert example.prompt == before
    for asked in ({"prompt": "Q"}, {"id": "p", "prompt": "Q"}, {"question": "Q", "answer": 6}):
        problem = only(tmp_path, asked | column).decoded.problem
        assert problem is not None and problem.prompt == before
    hosted = {"input": "Q", "preferred_output": "A", "non_preferred_output": "B"}
    pair = only(tmp_path, hosted | column).decoded.pair
    assert pair is not None and pair.prompt == before
    pair = only(tmp_path, {"prompt": "Q", "chosen": "A", "rejected": "B"} | column).decoded.pair
    assert pair is not None and (pair.prompt, pair.meta) == (before, {})
    named = only(
        tmp_path, {"question": "Q", "chosen": "A", "rejected": "B"} | column, columns={"prompt": "question"}
    ).decoded.pair
    assert named == pair


def test_preferences_written_out_as_texts(tmp_path: Path) -> None:
    begin = "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Q\n\nAssistant: "
    pair = only(tmp_path, {"chosen": begin + "A", "rejected": begin + "B"}).decoded.pair
    assert pair is not None and (pair.chosen, pair.rejected) == ("A", "B")
    assert pair.prompt == (user("Hello"), said("Hi"), user("Q"))


BAD: list[tuple[Any, str]] = [
    ({"text": "Hello <|user|>\nQ"}, "text: a role marker at the beginning is needed, found 'Hello'"),
    ({"text": "<|im_start|>tool\nQ"}, "text: a marker of system, user or assistant is needed, found 'tool'"),
    ({"text": "<|user|>\nQ\n<|assistant|>\n"}, "text[1].content: text that is not empty is needed, found ''"),
    ({"text": "<|assistant|>\nA"}, "text[0]: a user turn before the assistant's is needed, found []"),
    ({"text": None}, "text: text that is not empty is needed, found None"),
    ({"conversations": "hi"}, "conversations: a list of {role, content} with at least one entry is needed, found 'hi'"),
    ({"conversations": [{"from": "human"}]}, "conversations[0]: an object with role and content is needed"),
    (
        {"conversations": [*TURNS, {"from": "function_call", "value": "{}"}]},
        "conversations[3].from: system, human or gpt is needed, found 'function_call'",
    ),
    ({"conversations": TURNS, "system": "Be long."}, "system: one system turn (the conversation begins with another"),
    ({"conversations": TURNS, "system": 3}, "system: text that is not empty is needed, found 3"),
    ({"instruction": "Q", "output": ""}, "output: text that is not empty is needed, found ''"),
    ({"instruction": "Q", "input": 3, "output": "A"}, "input: text that is not empty is needed, found 3"),
    ({"instruction": "Q", "output": "A", "history": ["a"]}, "history: a list of [question, answer] is needed"),
    ({"instruction": "Q", "output": "A", "history": [["a", None]]}, "history[0][1]: text that is not empty is needed"),
    ({"instruction": "Q", "instances": []}, "instances: a list of one {input, output}"),
    ({"instruction": "Q", "instances": [{"input": "I"}]}, "instances[0].output: text that is not empty is needed"),
    ({"query": "Q", "response": None}, "response: text that is not empty is needed, found None"),
    ({"question": "Q", "choices": LABELLED, "answerKey": "C"}, "answerKey: one of the labels A, B is needed"),
    ({"question": "Q", "choices": ["a", "b"], "answer": 2}, "answer: one of the labels A, B is needed, found 2"),
    ({"question": "Q", "choices": ["a"], "answer": 0}, "choices: 2 to 26 choices is needed"),
    ({"question": "Q", "choices": ["a", 3], "answer": 0}, "choices.text[1]: text that is not empty is needed, found 3"),
    (
        {"question": "Q", "choices": {"text": ["a"], "label": ["A", "B"]}, "answerKey": "A"},
        "choices: {text: [...], label: [...]} of one length, or a list of texts is needed",
    ),
    (
        {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "A"]}, "answerKey": "A"},
        "choices.label: a label of its own for each choice is needed, found ['A', 'A']",
    ),
    ({"question": {"stem": 3}, "answerKey": "A"}, "question: text that is not empty is needed, found 3"),
    (
        {"context": "C", "question": "Q", "answers": {"text": [], "answer_start": []}},
        "answers: {text: [...]} with at least one answer is needed",
    ),
    ({"context": "C", "question": "Q", "answers": None}, "answers: {text: [...]} with at least one answer is needed"),
    ({"prompt": "Q", "completions": ["a"], "rewards": [1, 2]}, "rewards: a list of 1 numbers, one a completion, is"),
    ({"prompt": "Q", "completions": ["a"], "rewards": ["a"]}, "rewards[0]: a finite number is needed, found 'a'"),
    ({"prompt": "Q", "completions": ["a"], "rewards": [""]}, "rewards[0]: a finite number is needed, found ''"),
    (
        {"prompt": "Q", "completion": "A", "label": "positive"},
        "label: true or false is needed, found 'positive' (hint: label says whether the completion is wanted",
    ),
    ({"prompt": "Q", "completion": "A", "label": 2}, "label: true or false is needed, found 2"),
    ({"prompt": "Q", "completion": "A", "label": ""}, "label: true or false is needed, found ''"),
    ({"prompt": "Q", "completion": "A", "label": [True]}, "label: true or false is needed, found [True]"),
    ({"messages": [{"role": "system", "content": " "}]}, "messages: a turn of user or assistant is needed"),
    (
        {"messages": [{"role": role, "content": "Q" * (role == "user")} for role in ("system", "user", "assistant")]},
        "messages[2].content: text that is not empty is needed, found ''",
    ),
    ({"context": {"text": "C"}, "question": "Q", "answer": "A"}, "context: text that is not empty is needed, found {"),
    ({"query": "Q", "response": "A", "history": [["a"]]}, "history: a list of [question, answer] is needed"),
    (
        {"query": "Q", "response": "A", "system": "S", "system_prompt": "T"},
        "system_prompt: one system turn (the conversation begins with another one) is needed, found 'T'",
    ),
    ({"prompt": "Q", "completions": ["a"], "rewards": [10**400]}, "rewards[0]: a finite number is needed, found 1000"),
    ({"prompt": "Q", "completions": ["a"], "labels": [True]}, "labels: completions that are answers of their own is"),
    ({"prompt": "Q", "completion": "A", "reward": "high"}, "reward: a finite number is needed, found 'high'"),
    (
        {"input": "Q", "preferred_output": "A", "non_preferred_output": 3},
        "non_preferred_output: a list of {role, content} with at least one entry is needed, found 3",
    ),
    (
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "tool_calls": [{}]}]},
        "messages[1].tool_calls: a turn without them is needed, found [{}] (hint: calls of tools are not trained",
    ),
    (
        {"messages": [{"role": "user", "content": "Q"}, {"role": "tool", "content": "A"}]},
        "messages[1].role: system, user or assistant is needed, found 'tool' (hint: calls of tools are not trained",
    ),
    (
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": " "}]},
        "messages[1].content: text that is not empty is needed, found ' '",
    ),
    (
        {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "weight": "x"}]},
        "messages[1].weight: a number from 0 up is needed, found 'x'",
    ),
    (
        {"question": "Q", "ground_truth": "A: 18"},
        "columns: found question, ground_truth; the nearest shape, question_answer, needs question + answer "
        "(hint: data.columns={answer: …} says which column it is)",
    ),
    (
        {"instructions": "Q", "output": "A"},
        "columns: found instructions, output; the nearest shape, alpaca, needs instruction + output or instruction + "
        "response (hint: did you mean 'instruction' for 'instructions'?)",
    ),
    ({"lab": "1", "tests": []}, "columns: found lab, tests; rows need question + answer, prompt + completion, "),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_row_that_does_not_fit_is_said_in_one_line(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        only(tmp_path, row)
    assert str(caught.value).startswith(f"{tmp_path / 'rows.jsonl'}:1: {message}")
    assert "\n" not in str(caught.value)


def test_columns_say_what_a_file_calls_its_fields(tmp_path: Path) -> None:
    row = {"my_q": "Q", "meta": {"gold": "so\n#### 7", "level": 3}, "answer": "no"}
    found = only(tmp_path, row, columns={"question": "my_q", "answer": "meta.gold"})
    assert found.shape == "question_answer"
    assert found.decoded.problem is not None and found.decoded.problem.answer == 7.0


def test_columns_win_over_the_shape_that_other_columns_would_give(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "no"}, {"role": "assistant", "content": "no"}]
    row = {"messages": turns, "q": "Q", "a": "A"}
    found = only(tmp_path, row, columns={"prompt": "q", "completion": "a"})
    assert found.shape == "prompt_completion"
    assert found.decoded.examples[0].prompt == (user("Q"),)


def test_a_row_that_has_the_field_itself_needs_no_column(tmp_path: Path) -> None:
    path = written(tmp_path, {"q": "Q1", "completion": "A"}, {"prompt": "Q2", "completion": "A"})
    rows = read_rows(Source(str(path), columns={"prompt": "q"}))
    assert [example.prompt[0].content for example in rows.examples] == ["Q1", "Q2"]


NULLS = {
    "prompt_completion": {"prompt": "Q", "completion": None, "messages": None},
    "preference": {"prompt": "Q", "chosen": "A", "rejected": None},
    "question_answer": {"question": None, "answer": 1},
}


@pytest.mark.parametrize("shape", NULLS)
def test_a_null_does_not_turn_a_row_into_a_smaller_one(tmp_path: Path, shape: str) -> None:
    stream = stream_rows(Source(str(written(tmp_path, NULLS[shape])), bad_rows=1.0))
    assert list(stream) == []
    (reason,) = stream.bad.reasons
    assert reason.startswith(next(name for name, value in NULLS[shape].items() if value is None))


def test_a_shape_is_forced(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "no"}], "prompt": "Q", "completion": "A"}
    assert only(tmp_path, row).shape == "messages"
    assert only(tmp_path, row, shape="prompt_completion").decoded.examples[0].prompt == (user("Q"),)
    assert only(tmp_path, ["Q", 6], shape="pairs").shape == "pairs"


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"prompt": "Q"}, {"shape": "alpaca"}, "columns: found prompt; the shape alpaca needs instruction + output"),
        (["Q", 6], {"shape": "alpaca"}, "row: one of the shape alpaca is needed, found ['Q', 6]"),
        ({"prompt": "Q"}, {"shape": "pairs"}, "row: one of the shape pairs is needed, found {'prompt': 'Q'}"),
        ({"q": "Q"}, {"columns": {"prompt": "p"}}, "columns: prompt: unknown column 'p' (allowed: q)"),
        ({}, {"columns": {"prompt": "p"}}, "columns: prompt: no column 'p': the row has none"),
        ("Q", {"columns": {"prompt": "p"}}, "row: an object with columns is needed, found 'Q'"),
        ({"q": "Q"}, {"columns": {"question": "q"}}, "columns: found question; the nearest shape, question_answer, "),
    ],
)
def test_rows_that_do_not_fit_the_settings(tmp_path: Path, row: Any, settings: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        only(tmp_path, row, **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": "alpacca"}, "unknown shape 'alpacca'; did you mean 'alpaca'?"),
        ({"columns": {"promt": "q"}}, "unknown field in columns 'promt'; did you mean 'prompt'?"),
        ({"shape": "alpaca", "columns": {"prompt": "q"}}, "unknown field of the shape alpaca in columns 'prompt'"),
        ({"columns": {"query": "q", "output": "a"}}, "columns: no shape has the fields query, output together"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path: Path, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stream_rows(Source(str(written(tmp_path, ["Q", 6])), **settings))
    assert str(caught.value).startswith(message)


def test_every_shape_is_named_in_its_module_and_in_the_documentation(root: Path) -> None:
    text = (root / "src" / "ramify" / "data" / "shapes.py").read_text(encoding="utf-8")
    page = (root / "docs" / "data.md").read_text(encoding="utf-8")
    for name in SHAPES:
        assert f"    {name} " in text and f"`{name}`" in page
    assert {"prompt", "completion", "question", "answer", "system"} <= FIELDS

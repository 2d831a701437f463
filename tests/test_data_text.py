"""Rows of one text: conversations with role markers are parsed and rendered again; `data.as_text` takes them whole.

The reference of the first is `apply_chat_template` of Transformers, that of the second TRL's trainer.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_tokenizers import byte_level, metaspace
from train_setup import model_folder
from trl_setup import assert_same_steps, both_train

from ramify.base.config import Data, RunConfig
from ramify.base.config_file import load_config
from ramify.base.errors import ConfigError, DataError
from ramify.base.types import Example
from ramify.cli.main import main
from ramify.data.fields import Place
from ramify.data.marked import marked_turns
from ramify.model.outline import load_outline
from ramify.prompts.many import encode_many
from ramify.prompts.renderer import Renderer
from ramify.train.rows import read_examples

__all__ = ["model_folder"]

# As TinyLlama has it: roles are plain text, and every turn ends in eos.
ZEPHYR = (
    "{% for message in messages %}\n{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
ONE = "<|user|>\nHow do I ask politely?\n<|assistant|>\nSay please first."
TWO = f"<|system|>\nBe kind.</s>\n{ONE}</s>\n<|user|>\nAnd then?</s>\n<|assistant|>\nSay thank you.</s>\n"
TURNS = {
    ONE: [("user", "How do I ask politely?"), ("assistant", "Say please first.")],
    TWO: [
        ("system", "Be kind."),
        ("user", "How do I ask politely?"),
        ("assistant", "Say please first."),
        ("user", "And then?"),
        ("assistant", "Say thank you."),
    ],
}


def rows_file(path: Path, *texts: str) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def imitated(path: Path, **data: Any) -> list[Example]:
    return read_examples(RunConfig(data=Data(train=path, **data)), "train")


def tokenizers() -> dict[str, Any]:
    return {
        "byte_level": byte_level(template=ZEPHYR),
        "metaspace": metaspace(bos=True, template=ZEPHYR),
        "nano": load_outline("nano").tokenizer,
    }


def reference(tokenizer: Any, turns: list[tuple[str, str]], *, generation: bool = False) -> list[int]:
    messages = [{"role": role, "content": text} for role, text in turns]
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=generation, return_dict=False)
    return [int(each) for each in found]


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "nano"])
@pytest.mark.parametrize("text", TURNS)
def test_a_marked_text_is_trained_as_the_models_own_template_writes_it(kind: str, text: str, tmp_path: Path) -> None:
    tokenizer = tokenizers()[kind]
    renderer = Renderer(tokenizer)
    turns = TURNS[text]
    examples = imitated(rows_file(tmp_path / "rows.jsonl", text))
    answers = [place for place, (role, _) in enumerate(turns) if role == "assistant"]
    assert len(examples) == len(answers)
    for place, example, [encoded] in zip(answers, examples, encode_many(renderer, examples), strict=True):
        asked = reference(tokenizer, turns[:place], generation=True)
        whole = reference(tokenizer, turns[: place + 1])
        end = max(at for at, token in enumerate(whole) if token == renderer.stop_id)  # white space follows it
        assert encoded.prompt.tolist() == asked
        assert encoded.prompt.tolist() + encoded.completion.tolist() == whole[: end + 1]
        assert encoded.completion[-1] == renderer.stop_id and encoded.weight == 1
        assert tokenizer.decode(encoded.completion[:-1]).strip() == turns[place][1]
        [sequence] = renderer.sequences(example)
        assert sequence.ids == (*encoded.prompt.tolist(), *encoded.completion.tolist())


AMID = {
    "<|user|>\nWhat does <|assistant|> mean?\n<|assistant|>\nIt is a marker, as <|user|> is.": (
        "What does <|assistant|> mean?",
        "It is a marker, as <|user|> is.",
    ),
    "<|user|> Q <|assistant|> A": ("Q", "A"),
    "<|user|>Q<|assistant|>\nA": ("Q", "A"),
    "<|user|>\nQ</s><|assistant|> A</s>": ("Q", "A"),
    "<|user|>\r\nQ\r\n  <|assistant|>\r\nA\r\n": ("Q", "A"),
    "<|im_start|>user\nWhy <|im_start|>user?<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n": (
        "Why <|im_start|>user?",
        "A",
    ),
    "<|user|>\nWhat is ChatML?\n<|assistant|>\nIt writes <|im_start|>user before a turn.": (
        "What is ChatML?",
        "It writes <|im_start|>user before a turn.",
    ),
    "### Question: What does <|user|> mean?\n### Answer: It is a marker.": (
        "What does <|user|> mean?",
        "It is a marker.",
    ),
    "<|user|>\nWrite code\n<|assistant|>\nprint('<|user|>')\nprint('x')": (
        "Write code",
        "print('<|user|>')\nprint('x')",
    ),
}


@pytest.mark.parametrize("text", AMID)
def test_a_marker_amid_a_line_is_text_where_markers_have_lines_of_their_own(text: str) -> None:
    turns = marked_turns(text, "text", Place(Path("rows.jsonl"), 1))
    assert turns is not None
    assert [(turn["role"], turn["content"]) for turn in turns] == list(
        zip(("user", "assistant"), AMID[text], strict=True)
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<|user|>\nQ", "1 of 1 rows hold nothing to imitate: no answer"),
        ("<|user|>\nQ <|assistant|> A", "1 of 1 rows hold nothing to imitate: no answer"),
        ("<|user|>\nQ\n<|assistant|>\n", "text[1].content: text that is not empty is needed"),
        ("<|user|>\nQ\n<|assistant|>\n</s>", "text[1].content: text that is not empty is needed"),
        ("<|user|>\nQ\n<|tool|>\nA", "text: a marker of system, user or assistant is needed, found 'tool'"),
    ],
)
def test_a_text_without_an_answer_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        imitated(rows_file(tmp_path / "rows.jsonl", text))
    assert message in str(caught.value) and str(caught.value).count("\n") == 0


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "nano"])
@pytest.mark.parametrize("text", [*TURNS, "No markers at all.\n", f"{ONE}</s>"])
def test_as_text_is_the_tokenizers_own_text_and_eos(kind: str, text: str, tmp_path: Path) -> None:
    tokenizer = tokenizers()[kind]
    [example] = imitated(rows_file(tmp_path / "rows.jsonl", text), as_text=True)
    [[encoded]] = encode_many(Renderer(tokenizer), [example])
    whole = tokenizer(text)["input_ids"]
    ended = whole if whole[-1] == tokenizer.eos_token_id else [*whole, tokenizer.eos_token_id]
    assert [*encoded.prompt.tolist(), *encoded.completion.tolist()] == ended
    assert (len(encoded.prompt), encoded.weight) == (1, 1.0)  # nothing predicts the first token
    [sequence] = Renderer(tokenizer).sequences(example)
    assert sequence.ids == tuple(ended) and sequence.trained == len(ended) - 1


def test_as_text_reads_the_column_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"body": ONE, "prompt": "a column of something else"}) + "\n")
    [example] = imitated(path, as_text=True, columns={"text": "body"})
    assert (example.prompt, example.completions[0].text) == ((), ONE)


@pytest.mark.parametrize(
    "row", [{"prompt": "Q", "completion": "A"}, {"messages": [{"role": "user", "content": "Q"}]}, "Q", ["Q", "A"]]
)
def test_as_text_refuses_rows_of_other_shapes(row: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"text") as caught:
        imitated(path, as_text=True)
    assert "rows.jsonl:1" in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["method=dpo", "method=rft", "data.train=task", "data.shape=messages", "data.turns=last"]
)
def test_as_text_is_refused_where_it_would_do_nothing(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.as_text = true trains whole texts"):
        load_config(None, ["data.as_text=true", "data.train=rows.jsonl", setting])


def test_data_show_tells_the_two_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rows_file(tmp_path / "rows.jsonl", ONE)
    shown = []
    for setting in ("data.as_text=false", "data.as_text=true"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["ramify", "data", "show", str(path), "model=nano", setting])
            with pytest.raises(SystemExit) as ended:
                main()
        assert not ended.value.code
        shown.append(capsys.readouterr().out)
    assert "<|im_start|>user" in shown[0] and "<|user|>" not in shown[0]
    assert "<|user|>" in shown[1] and "<|im_start|>" not in shown[1]
    counts = [tuple(map(int, (words[0], words[2]))) for words in (each.splitlines()[-1].split() for each in shown)]
    assert counts[0][0] < counts[0][1] - 1 and counts[1][0] == counts[1][1] - 1


@pytest.mark.filterwarnings("ignore")  # TRL's own
def test_as_text_trains_as_trl_trains_a_text(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="make bench-deps installs it")
    from trl import SFTConfig
    from trl.scripts import sft

    data, model = tmp_path / "data", tmp_path / "model"
    data.mkdir()
    texts = [f"<|user|>\nWhat is {n}?\n<|assistant|>\nIt is {n}{'!' * n}" for n in range(8)]
    rows_file(data / "train.jsonl", *texts)
    shutil.copytree(model_folder, model)
    line = (
        f"--model_name_or_path {model} --dataset_name {data} --learning_rate 1e-2 --per_device_train_batch_size 2 "
        "--gradient_accumulation_steps 4 --num_train_epochs 3 --logging_steps 1 --bf16 False --dtype float32 "
        "--use_cpu --report_to none --activation_checkpointing False"
    ).split()
    ours, theirs = both_train(line, sft.main, SFTConfig, tmp_path, monkeypatch, own=["data.as_text=true"])
    assert_same_steps(ours, theirs, steps=3)

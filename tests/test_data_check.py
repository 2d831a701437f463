"""What `ramify data check` counts: each finding on planted rows, its lengths against the renderer's, its memory."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from train_setup import model_folder
from typer.testing import CliRunner

from ramify.base.config import Prompting
from ramify.base.types import Completion, Example, Message
from ramify.cli.main import app
from ramify.data.checks import (
    Cut,
    Flaw,
    Lengths,
    RowCheck,
    Ruler,
    asked_key,
    cuts,
    pattern_flaws,
    prompt_key,
    row_key,
)
from ramify.prompts.renderer import Renderer
from tests.tiny_tokenizers import CHATML_TOKENS, byte_level

__all__ = ["model_folder"]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
ONE_BLOCK = (
    "{% for m in messages %}{% if loop.first or loop.previtem.role != m.role %}<|im_start|>{{ m.role }}\n{% endif %}"
    "{{ m.content }}{% if loop.last or loop.nextitem.role != m.role %}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FORGETS = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last else m.content.split('</think>')[-1] }}")
OPEN_END = CHATML.replace("<|im_end|>", "{% if not loop.last or m.role != 'assistant' %}<|im_end|>{% endif %}")
TWICE = "{{ bos_token }}{{ bos_token }}" + CHATML


def chat(*turns: str, system: str = "", source: str = "f:1") -> tuple[Example, ...]:
    """An example for each answer of a conversation."""
    said = [Message("user" if place % 2 == 0 else "assistant", text) for place, text in enumerate(turns)]
    start = [Message("system", system)] if system else []
    return tuple(
        Example((*start, *said[:place]), (Completion(turns[place]),), source) for place in range(1, len(turns), 2)
    )


def found_in(rows: list[tuple[Example, ...]], template: str = CHATML, limit: int = 100, bos: bool = False) -> Any:
    renderer = Renderer(byte_level(tokens=CHATML_TOKENS, template=template, bos=bos))
    check = RowCheck(Ruler(renderer, limit))
    check.add(rows)
    return dict(check.findings())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_those_of_numpy(lengths: list[int], share: float) -> None:
    expected = np.quantile(lengths, share, method="inverted_cdf")
    assert Lengths(Counter(lengths)).quantile(share) == expected


@pytest.mark.parametrize(
    ("prompt", "completion", "lost"),
    [
        (6, 4, None),
        (6, 5, (Cut.END_PART, Cut.START_PROMPT)),
        (9, 2, (Cut.END_PART, Cut.START_PROMPT)),
        (10, 1, (Cut.END_WHOLE, Cut.START_PROMPT)),
        (1, 11, (Cut.END_PART, Cut.START_COMPLETION)),
        (20, 30, (Cut.END_WHOLE, Cut.START_COMPLETION)),
    ],
)
def test_what_a_cut_would_lose(prompt: int, completion: int, lost: tuple[Cut, Cut] | None) -> None:
    """Held against cutting a list of letters."""
    assert cuts(prompt, completion, 10) == lost
    letters = "p" * prompt + "c" * completion
    end, start = letters[:10], letters[-10:]
    if lost is not None:
        assert (lost[0] is Cut.END_WHOLE) == ("c" not in end)
        assert (lost[1] is Cut.START_PROMPT) == (start.count("c") == completion)


def test_keys_fold_what_they_say() -> None:
    assert prompt_key((Message("user", "How  many?"),)) == prompt_key((Message("user", "how many? "),))
    assert prompt_key((Message("user", "How"),)) != prompt_key((Message("system", "How"),))
    assert row_key(chat("a  b", "c")) == row_key(chat("a b", "c ")) != row_key(chat("A b", "c"))
    assert row_key(chat("a", "b")) != row_key(chat("a", "b", "c", "d"))


def test_lengths_are_those_of_the_renderer() -> None:
    rows = [chat("short?", "a"), chat("longer? " * 3, "b", "and " * 4, "c")]
    renderer = Renderer(byte_level(tokens=CHATML_TOKENS, template=CHATML))
    lengths = sorted(len(one.ids) for turns in rows for each in turns for one in renderer.sequences(each))
    found = found_in(rows, limit=lengths[1])
    assert found["rows to imitate"] == 2 and found["of them conversations with several trained turns"] == 1
    assert str(found["tokens of a sequence: 50 % / 90 % / 99 % / longest"]) == (
        f"{lengths[1]} / {lengths[2]} / {lengths[2]} / {lengths[2]}"
    )
    assert found["tokens, and those trained"] == f"{sum(lengths)}, 6"
    assert found[f"sequences longer than {lengths[1]} tokens (first: f:1)"] == 1


def test_repetitions_and_other_answers() -> None:
    rows = [chat("a", "b", source="f:1"), chat("a ", "b", source="f:2"), chat("a", "c", source="f:3")]
    found = found_in(rows)
    assert found["rows that stand there before (first: f:2)"] == 1
    assert found["prompts that stand there before, with another answer (first: f:3)"] == 1


@pytest.mark.parametrize(
    ("template", "row", "flaw"),
    [
        (NO_SYSTEM, chat("a", "b", system="Be brief."), Flaw.DROPPED),
        (ONE_BLOCK, (Example((Message("user", "a"), Message("user", "b")), (Completion("c"),), "f:1"),), Flaw.MERGED),
        (FORGETS, chat("a", "<think>x</think>b", "c", "d"), Flaw.CHANGED),
        (OPEN_END, chat("a", "b"), Flaw.NO_STOP),
        (TWICE, chat("a", "b"), Flaw.DOUBLE_BOS),
    ],
)
def test_each_flaw_of_a_template_is_found_where_it_bites(template: str, row: tuple[Example, ...], flaw: Flaw) -> None:
    name = f"{flaw.value} (first: f:1)"
    assert found_in([row], template, bos=True)[name] == 1
    assert not [each for each in found_in([row], CHATML, bos=True) if each.startswith(flaw.value)]


def test_a_template_without_flaws_has_none_for_any_turns() -> None:
    rows = [chat("a", "b", "c", "d", system="Be brief."), chat("a", "b")]
    assert not [name for name in found_in(rows) for flaw in Flaw if name.startswith(flaw.value)]


def test_the_plain_form_is_not_held_to_a_template() -> None:
    renderer = Renderer(byte_level(), Prompting(chat_template="plain"))
    check = RowCheck(Ruler(renderer, 100))
    check.add([chat("a", "b", "c", "d")])
    assert not [name for name, _ in check.findings() for flaw in Flaw if name.startswith(flaw.value)]


def test_plain_texts_are_told_apart_by_themselves() -> None:
    texts = [
        Example((), (Completion(text),), f"f:{at}") for at, text in enumerate(("one text", "another", "one  text"))
    ]
    found = found_in([(text,) for text in texts], bos=True)
    assert found["rows that stand there before (first: f:2)"] == 1
    assert not [name for name in found for flaw in Flaw if name.startswith(flaw.value)]
    assert not [name for name in found if name.startswith("prompts that stand there before")]
    assert asked_key(texts[0]) == asked_key(texts[2]) != asked_key(texts[1])
    assert asked_key(chat("a", "b")[0]) == prompt_key((Message("user", "a"),))


def test_a_template_that_refuses_roles_has_no_flaws_of_its_own() -> None:
    refuses = "{{ raise_exception('never') if messages[0].role == 'system' }}" + CHATML
    renderer = Renderer(byte_level(tokens=CHATML_TOKENS, template=refuses))
    assert list(pattern_flaws(renderer, ("system", "user"))) == []
    found = found_in([chat("a", "b", system="c")], refuses)
    reason = "rows that cannot be rendered: chat template model refuses the turns system, user: never (first: f:1)"
    assert found[reason] == 1


def row(*turns: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]}


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_the_command_reads_both_splits(model_folder: Path, tmp_path: Path) -> None:
    train = written(tmp_path / "t.jsonl", [row("a", "b"), row("c", "d", "e", "f"), row("a", "b"), row("lone")])
    valid = written(tmp_path / "v.jsonl", [row("C", "d"), row("new", "d")])
    done = run("check", train, f"data.valid={valid}", f"model={model_folder}", "data.max_length=40")
    assert done.exit_code == 0, done.output
    lines = {" ".join(line.split()[:-1]): line.split()[-1] for line in done.output.splitlines() if line.strip()}
    assert lines["train: rows of the shape messages"] == "4"
    assert lines["train: rows to imitate"] == "3"
    assert lines[f"train: rows that hold nothing to imitate (first: {train}:4)"] == "1"
    assert lines[f"train: rows that stand there before (first: {train}:3)"] == "1"
    assert lines[f"valid: questions that also occur in train (first: {valid}:1)"] == "1"
    assert any(name.startswith("train: sequences longer than 40 tokens") for name in lines)


def test_without_a_model_lengths_are_in_characters(tmp_path: Path) -> None:
    done = run("check", written(tmp_path / "t.jsonl", [row("1234", "567")]))
    assert "characters of a sequence: 50 % / 90 % / 99 % / longest" in done.output and "7 / 7 / 7 / 7" in done.output


def test_near_duplicates_are_counted(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    text = "Please convert ten kilometres to miles for me and show every single step of the way"
    rows = [row(text, "six"), row(text + " now", "six"), row("Something else that nobody has asked before here", "x")]
    done = run("check", written(tmp_path / "t.jsonl", rows), "--near", "0.7")
    line = next(line for line in done.output.splitlines() if "resemble an earlier one" in line)
    assert line.split()[-1] == "1"


def test_likes_of_pairs_are_not_looked_for(tmp_path: Path) -> None:
    done = run(
        "check", written(tmp_path / "p.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}]), "--near", "0.8"
    )
    assert done.exit_code != 0 and "--near 0.8: preference pairs are not looked at" in str(done.exception)


def test_what_was_left_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(Path("t.jsonl"), [*(row(str(n), "b") for n in range(9)), {"messages": []}])
    done = run("check", path, "data.bad_rows=0.1")
    said = " ".join(done.output.split())
    assert done.exit_code == 0 and "train: rows left out: messages" in said and f"(first: {path}:10) 1" in said


def test_what_is_not_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{**row("a", "b"), "tools": "[]"}, {**row("a", "b", "c"), "tools": "[]", "id": 7}]
    done = run("check", written(Path("t.jsonl"), rows))
    lines = {" ".join(line.split()[:-1]): line.split()[-1] for line in done.output.splitlines() if line.strip()}
    assert lines["train: rows with a column that is not read: tools"] == "2"
    assert lines["train: rows with a column that is not read: id"] == "1"
    assert lines["train: last user turns left out, which nothing answers"] == "1"
    assert lines["train: rows to imitate"] == "2"


def test_a_folder_and_a_table_are_checked_too(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from datasets import Dataset

    rows = Dataset.from_list([row("a", "b"), row("c", "d")])
    rows.save_to_disk(str(tmp_path / "saved"))
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    for path in (tmp_path / "saved", tmp_path / "rows.parquet"):
        done = run("check", path)
        assert done.exit_code == 0, done.output
        assert "train: rows of the shape messages" in done.output


def test_the_first_rows_are_shown_without_reading_the_others(model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(row("a", "b", "c", "d")) + "\nbroken\n")
    done = run("show", path, f"model={model_folder}", "--n", "1")
    assert done.exit_code == 0, done.output
    assert done.output.count("tokens trained") == 1 and "4 of " in done.output  # two answers and their stop tokens

"""Sequences on disk are those that were written, and nothing of a row stays in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from train_setup import Watcher, make_config, model_folder

from ramify.base.config import Train
from ramify.base.errors import DataError
from ramify.base.types import Completion, Example, Message, TokenSequence
from ramify.model.load import load_model
from ramify.prompts.renderer import Renderer
from ramify.train import sft
from ramify.train.dryrun import dry_run
from ramify.train.grouping import Groups
from ramify.train.render import TrainingSet, render
from ramify.train.rows import Turns, read_turns
from ramify.train.schedule import Schedule
from ramify.train.store import TokenStore, new_store

__all__ = ["model_folder"]

ROW = st.tuples(
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9),
    st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9),
    st.sampled_from([1.0, 0.3, 2.5]),
)


def stored(rows: list[tuple[list[int], list[int], float]]) -> TokenStore:
    with new_store() as writer:
        for prompt, completion, weight in rows:
            writer.append(np.array(prompt, np.int32), np.array(completion, np.int32), weight)
        return writer.store()


@given(st.lists(ROW, max_size=8))
def test_what_is_written_is_read(rows: list[tuple[list[int], list[int], float]]) -> None:
    store = stored(rows)
    expected = [TokenSequence.of(tuple(prompt), tuple(completion), weight) for prompt, completion, weight in rows]
    assert list(store) == expected and len(store) == len(rows)
    assert store[1:] == expected[1:] and store[-1:] == expected[-1:]
    assert store.lengths.tolist() == [len(each.ids) for each in expected]
    assert (store.tokens, store.longest) == (sum(store.lengths.tolist()), max(store.lengths.tolist(), default=0))
    assert store.trained == pytest.approx(sum(each.trained for each in expected), rel=1e-12)
    with pytest.raises(IndexError):
        store[len(rows)]


@given(first=st.lists(ROW, max_size=4), second=st.lists(ROW, max_size=4))
def test_the_digest_is_that_of_the_content(
    first: list[tuple[list[int], list[int], float]], second: list[tuple[list[int], list[int], float]]
) -> None:
    assert (stored(first).digest == stored(second).digest) == (first == second)


def test_ids_lie_on_disk() -> None:
    store = stored([([1, 2], [3], 1.0)])
    assert isinstance(store.ids, np.memmap) and not store.ids.flags.writeable


@given(st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=9))
def test_groups_in_two_arrays_are_the_groups(lists: list[list[int]]) -> None:
    groups = Groups.of(lists)
    assert [list(group) for group in groups] == lists and len(groups) == len(lists)
    assert Groups.of(groups) is groups
    order = np.array(list(range(len(lists)))[::-1], np.int64)
    assert groups.joined(order).tolist() == [each for group in lists[::-1] for each in group]


def example(question: str, *answers: str, source: str = "") -> Example:
    return Example((Message("user", question),), tuple(map(Completion, answers)), source)


def rendered(model_folder: Path, rows: list[Turns], **data: object) -> TrainingSet:
    config = make_config(model_folder, "unused", Path("unused"), data=data)
    tokenizer = load_model(str(model_folder), dtype="fp32", device="cpu").tokenizer
    return render(rows, Renderer(tokenizer, config.prompt), 60, config.data, "rows")


def test_rendered_rows_are_those_of_the_renderer(model_folder: Path) -> None:
    rows: list[Turns] = [(example(f"{n}?", f"{n}", "no" * n),) for n in range(1, 20)]
    found = rendered(model_folder, rows)
    tokenizer = load_model(str(model_folder), dtype="fp32", device="cpu").tokenizer
    renderer = Renderer(tokenizer, make_config(model_folder, "unused", Path("unused")).prompt)
    assert list(found.sequences) == [one for turns in rows for each in turns for one in renderer.sequences(each)]
    assert list(found.groups) == [(2 * n, 2 * n + 1) for n in range(19)]
    assert (len(found), found.n_sequences) == (19, 38)


def test_the_turns_of_a_conversation_are_one_group_and_change_the_digest(model_folder: Path) -> None:
    first, second = example("a?", "b"), example("c?", "d")
    together, apart = rendered(model_folder, [(first, second)]), rendered(model_folder, [(first,), (second,)])
    assert list(together.groups) == [(0, 1)] and list(apart.groups) == [(0,), (1,)]
    assert list(together.sequences) == list(apart.sequences) and together.digest != apart.digest


def test_rows_that_cannot_be_rendered_stop_or_are_counted(model_folder: Path) -> None:
    rows: list[Turns] = [(example(f"{n}?", "a<|im_end|>b" if n == 3 else "b", source=f"f:{n}"),) for n in range(1, 11)]
    with pytest.raises(DataError, match=r"f:3: the completion holds the stop token"):
        rendered(model_folder, rows)
    with pytest.raises(DataError, match=r"rows: 1 of 10 rows cannot be rendered: f:3: the completion holds"):
        rendered(model_folder, rows, bad_rows=0.05)
    found = rendered(model_folder, rows, bad_rows=0.1)
    assert len(found) == 9 and found.unusable is not None and found.unusable.startswith("1 of 10 rows")


def messages(*turns: str) -> dict[str, object]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]}


def rows_file(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_which_turns_are_trained(model_folder: Path, tmp_path: Path) -> None:
    path = rows_file(tmp_path / "t.jsonl", [messages("a", "b", "c", "d"), messages("e", "f")])
    for turns, expected in (("all", [["b", "d"], ["f"]]), ("last", [["d"], ["f"]])):
        config = make_config(model_folder, path, tmp_path / "run", data={"turns": turns})
        found = [[each.completions[0].text for each in row] for row in read_turns(config, "train")]
        assert found == expected


def test_what_was_left_out_is_said(model_folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [messages(f"{n}", "b") for n in range(9)]
    path = rows_file(tmp_path / "t.jsonl", [*rows, {"messages": [{"role": "judge", "content": "a"}]}])
    config = make_config(model_folder, path, tmp_path / "run", data={"bad_rows": 0.1})
    assert any("messages[…].role" in note and "t.jsonl:10" in note for note in dry_run(config).notes)
    with pytest.raises(DataError, match=r"t\.jsonl:10: messages\[0\]\.role"):
        dry_run(make_config(model_folder, path, tmp_path / "run"))


def test_rows_left_out_for_any_reason_have_one_share(model_folder: Path, tmp_path: Path) -> None:
    """One of twenty that cannot be read and one that cannot be rendered are a tenth, not twice a twentieth."""
    rows: list[dict[str, object]] = [messages(f"{n}", "b") for n in range(18)]
    rows += [messages("x", "a<|im_end|>b"), {"messages": [{"role": "judge", "content": "a"}]}]
    path = rows_file(tmp_path / "t.jsonl", rows)
    found = dry_run(make_config(model_folder, path, tmp_path / "run", data={"bad_rows": 0.1}))
    assert found.rows == 18
    with pytest.raises(DataError, match=r"training rows: 2 of 20 rows cannot be used: .*role.*; .*stop token"):
        dry_run(make_config(model_folder, path, tmp_path / "run", data={"bad_rows": 0.06}))


def test_rows_that_give_nothing_to_imitate_are_said_too(model_folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [messages(f"{n}", "b") for n in range(17)]
    rows += [messages("waits"), {"prompt": "q", "completion": "a", "label": False}, messages("a", "b", "waits")]
    path = rows_file(tmp_path / "t.jsonl", rows)
    config = make_config(model_folder, path, tmp_path / "run", data={"bad_rows": 0.1})
    (note,) = [note for note in dry_run(config).notes if "imitate" in note]
    assert note == (
        "20 rows: 19 messages, 1 prompt_completion; 1 completions left out for their reward or label; 1 last user "
        f"turns left out, which nothing answers; 1 of them hold nothing to imitate (first: {path}:18)"
    )
    rows_file(path, [row for row in rows if row != messages("waits")])
    notes = dry_run(make_config(model_folder, path, tmp_path / "run")).notes
    assert any("1 completions left out for their reward or label; 1 last user turns" in note for note in notes)


def test_plain_texts_are_trained_as_wholes(model_folder: Path, tmp_path: Path) -> None:
    texts = [f"Story {n} of many, with an end." for n in range(8)]
    path = rows_file(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    valid = rows_file(tmp_path / "v.jsonl", [{"text": "story 3 of many,  with an end."}, {"text": "Another one."}])
    config = make_config(
        model_folder, path, tmp_path / "run", data={"valid": str(valid)}, train={"max_steps": 2, "batch_size": 8}
    )
    record = sft.run(config, progress=Watcher()).record
    assert record["data"]["rows"] == 8 and record["data"]["leaked"] == 1
    assert record["data"]["tokens_per_epoch"] == sum(len(text) + 1 for text in texts)  # a byte a token, and eos
    assert record["data"]["trained_tokens_per_epoch"] == sum(map(len, texts))


def test_the_order_of_an_epoch_is_that_of_a_shuffled_list() -> None:
    """The order does not depend on how groups are held."""
    from ramify.base.rng import generator

    groups = [tuple(range(start, start + 3)) for start in range(0, 60, 3)]
    plan = Schedule.of(groups, Train(batch_size=60), 5)
    shuffled = list(groups)
    generator(5, "epoch", 0).shuffle(shuffled)
    assert plan.indices(0) == tuple(index for group in shuffled for index in group)


def test_validation_rows_of_the_same_data_set(model_folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    parts = {"train": [messages(f"{n}?", "b") for n in range(6)], "test": [messages(f"{n}?", "b") for n in (5, 6)]}
    folder = tmp_path / "both"
    DatasetDict({name: Dataset.from_list(rows) for name, rows in parts.items()}).save_to_disk(str(folder))
    watcher = Watcher()
    run = sft.run(make_config(model_folder, folder, tmp_path / "run", data={"valid_split": "test"}), progress=watcher)
    assert run.record["data"]["rows"] == 6 and run.record["data"]["valid_rows"] == 2
    assert run.record["data"]["leaked"] == 1 and run.metrics("eval")


def test_reading_many_rows_is_told(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = rows_file(tmp_path / "t.jsonl", [messages(f"{n}", "b") for n in range(2_000)])
    config = make_config(model_folder, path, tmp_path / "run", train={"max_steps": 1})
    monkeypatch.setattr("ramify.train.render._MANY", 1024)
    watcher = Watcher()
    sft.run(config, progress=watcher)
    assert [stage for stage, _, _ in watcher.stages] == ["reading rows", "training"]
    assert [done for done, _ in watcher.updates] == [1024, 1536, 1] and watcher.closed == 2


PEAK = """
import sys
from ramify.base.config_file import parse_config
from ramify.train.dryrun import dry_run
values = dict(model=sys.argv[1], data=dict(train=sys.argv[2]), out=sys.argv[3])
assert dry_run(parse_config(values)).rows == int(sys.argv[4])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.proof
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="without /proc a peak begins at the size of the parent process, which hides what is measured here",
)
def test_memory_does_not_grow_with_the_rows(model_folder: Path, tmp_path: Path) -> None:
    """Forty thousand rows more, of which the store keeps 20 bytes each and the search for leaks 8."""
    peaks = []
    for rows in (20_000, 60_000):
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as file:
            file.writelines(
                json.dumps(messages(f"What is {n} times {n}?", f"It is {n * n}.")) + "\n" for n in range(rows)
            )
        command = [sys.executable, "-c", PEAK, str(model_folder), str(path), str(tmp_path / "run"), str(rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 40_000 * 28 + 8_000_000

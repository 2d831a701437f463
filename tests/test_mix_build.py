"""Mixes as they are made: the same bytes, what is left out, what a library and training read, and what resumes."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from mix_setup import LONG, chat, chats, config, content, made, pair, question, renderer, rows, write

from ramify.base.config_file import load_mix
from ramify.base.errors import ConfigError, DataError, RunError
from ramify.base.progress import NoProgress
from ramify.data.mix.build import mix
from ramify.data.mix.folder import MixFolder
from ramify.data.mix.report import Evaluated
from ramify.data.sources import read_examples, read_pairs

Sources = list[dict[str, Any]]


class Log(NoProgress):
    """Remembers stages and notes; interrupts at a stage."""

    def __init__(self, interrupt: str = "") -> None:
        self.interrupt = interrupt
        self.stages: list[str] = []
        self.notes: list[str] = []

    def start(self, stage: str, total: int | None, done: int = 0) -> None:
        """Remember, or interrupt as a user does."""
        self.stages.append(stage)
        if stage == self.interrupt:
            raise KeyboardInterrupt

    def note(self, message: str) -> None:
        """Remember."""
        self.notes.append(message)


@pytest.fixture
def two(tmp_path: Path) -> Sources:
    """Two sources of 40 and 12 rows, the first one with system turns."""
    write(tmp_path / "a.jsonl", chats("a", 40, LONG))
    write(tmp_path / "b.jsonl", chats("b", 12))
    return [{"name": name, "from": str(tmp_path / f"{name}.jsonl")} for name in "ab"]


def counts(folder: Path) -> Counter[str]:
    return Counter(row["source"] for row in rows(folder))


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("short", "expected"),
    [("cap", {"a": 20, "b": 12}), ("repeat", {"a": 20, "b": 20}), ("rebalance", {"a": 28, "b": 12})],
)
def test_shares_come_out_to_the_row(tmp_path: Path, two: Sources, short: str, expected: dict[str, int]) -> None:
    made(config(tmp_path, two, rows=40, short=short), tmp_path / "out")
    assert counts(tmp_path / "out") == expected
    times = Counter(row["key"] for row in rows(tmp_path / "out") if row["source"] == "b")
    assert Counter(times.values()) == ({2: 8, 1: 4} if short == "repeat" else {1: 12})


def test_without_a_size_the_mix_is_as_large_as_the_weights_allow(tmp_path: Path, two: Sources) -> None:
    made(config(tmp_path, two, "sources.a.weight=3"), tmp_path / "out")
    assert counts(tmp_path / "out") == {"a": 36, "b": 12}


def test_every_share_that_differs_has_its_reason(tmp_path: Path, two: Sources) -> None:
    absent = {"name": "c", "from": str(tmp_path / "absent.jsonl"), "weight": 3, "optional": True}
    mixes = {"whole": ([*two], 20), "capped": ([*two], 40), "failed": ([*two, absent], None)}
    found = {
        name: made(config(tmp_path, sources, rows=rows), tmp_path / name).report.why()
        for name, (sources, rows) in mixes.items()
    }
    capped = "b: has 12 of 20 rows that its weight asks for: all taken"
    assert (found["whole"], found["capped"]) == ([], ["a: its share is larger because less came of b", capped])
    assert found["failed"][:2] == [f"{name}: its share is larger because less came of c" for name in "ab"]
    assert "no such file" in found["failed"][2]


def test_shares_of_trained_tokens(tmp_path: Path, two: Sources) -> None:
    write(tmp_path / "b.jsonl", [chat(f"b asks {at}", f"{at} " + "long answer " * 20) for at in range(12)])
    found = made(config(tmp_path, two, tokens=400), tmp_path / "out").report
    trained = [part.amount.trained for part in found.parts]
    longest = max(len(answer["messages"][-1]["content"]) for answer in rows(tmp_path / "out"))
    assert all(abs(each - 200) <= longest for each in trained)
    assert found.parts[0].amount.rows > 3 * found.parts[1].amount.rows
    assert not any(part.why for part in found.parts)
    assert [part.share_of_trained for part in found.parts] == [round(each / sum(trained), 6) for each in trained]
    assert found.parts[0].share_of_rows > 0.75 > found.parts[0].share_of_trained


def test_the_same_settings_give_the_same_bytes(tmp_path: Path, two: Sources) -> None:
    chosen = config(tmp_path, two, rows=30, validation=0.2, erase={"mode": "drop", "share": 0.5})
    for name in ("one", "two"):
        made(chosen, tmp_path / name, jsonl=True)
    one = content(tmp_path / "one")
    assert one == content(tmp_path / "two")
    assert str(tmp_path).encode() not in b"".join(text for name, text in one.items() if name.endswith((".arrow", "l")))
    assert {name.split("/")[-1] for name in one} == {
        "data-00000-of-00001.arrow",
        "dataset_info.json",
        "state.json",
        "dataset_dict.json",
        "report.json",
        "report.md",
        "train.jsonl",
        "validation.jsonl",
    }


def test_the_order_of_rows_in_a_file_decides_nothing_but_their_lineage(tmp_path: Path, two: Sources) -> None:
    double = [*chats("a", 30, LONG), chat("a asks  for number 3 of many", "It is 21 for a.", LONG)]
    found = []
    for order in range(3):
        random.Random(order).shuffle(double)
        write(tmp_path / "a.jsonl", double)
        made(config(tmp_path, two, rows=20, validation=0.3), tmp_path / f"out{order}")
        found.append(
            [{**row, "row": ""} for split in ("train", "validation") for row in rows(tmp_path / f"out{order}", split)]
        )
    assert found[0] == found[1] == found[2]


def test_the_settings_in_the_report_make_the_same_mix(tmp_path: Path, two: Sources) -> None:
    made(config(tmp_path, two, "sources.b.erase=null", rows=30, erase={"mode": "drop"}), tmp_path / "one")
    (tmp_path / "again.json").write_text(json.dumps(report(tmp_path / "one")["settings"]), encoding="utf-8")
    made(load_mix(tmp_path / "again.json"), tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.parametrize("stage", ["reading b", "comparing", "writing"])
def test_an_interrupted_mix_goes_on_and_ends_the_same(tmp_path: Path, two: Sources, stage: str) -> None:
    chosen = config(tmp_path, two, rows=30, dedup="near" if stage == "comparing" else "exact")
    made(chosen, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        made(chosen, tmp_path / "out", watch=Log(stage))
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match="holds what an interrupted mix has set aside"):
        made(chosen, tmp_path / "out")
    log = Log()
    made(chosen, tmp_path / "out", watch=log, resume=True)
    assert "reading a" not in log.stages
    assert ("reading b" in log.stages) is (stage == "reading b")
    assert content(tmp_path / "out") == content(tmp_path / "straight")
    assert not (tmp_path / "out.partial").exists()


def test_an_erasure_in_another_order_is_the_same(tmp_path: Path, two: Sources) -> None:
    texts = {"Be brief.": 1, "Be kind.": 2, "": 3}
    one, other = (
        config(tmp_path, two, erase={"mode": "sample", "texts": dict(order)})
        for order in (texts.items(), reversed(texts.items()))
    )
    with pytest.raises(KeyboardInterrupt):
        made(one, tmp_path / "out", watch=Log("writing"))
    log = Log()
    made(other, tmp_path / "out", watch=log, resume=True)
    made(other, tmp_path / "straight")
    assert log.stages == ["writing"]
    assert content(tmp_path / "out") == content(tmp_path / "straight")


@pytest.mark.parametrize("changed", ["file", "settings", "seed of a drawn erasure", "evaluation file"])
def test_a_source_is_read_again_when_what_decided_it_has_changed(tmp_path: Path, two: Sources, changed: str) -> None:
    evaluation = write(tmp_path / "test.jsonl", chats("test", 3))
    values: dict[str, Any] = {"decontaminate": [str(evaluation)], "erase": {"mode": "drop", "share": 0.5}}
    with pytest.raises(KeyboardInterrupt):
        made(config(tmp_path, two, **values), tmp_path / "out", watch=Log("writing"))
    if changed == "file":
        write(tmp_path / "a.jsonl", chats("a", 41, LONG))
    elif changed == "settings":
        two[0]["limit"] = 7
    elif changed == "evaluation file":
        write(tmp_path / "test.jsonl", chats("test", 4))
    else:
        values["seed"] = 1
    log = Log()
    made(config(tmp_path, two, **values), tmp_path / "out", watch=log, resume=True)
    made(config(tmp_path, two, **values), tmp_path / "straight")
    assert "reading a" in log.stages
    assert ("reading b" in log.stages) is (changed in ("seed of a drawn erasure", "evaluation file"))
    assert content(tmp_path / "out") == content(tmp_path / "straight")


def test_overwriting_begins_anew(tmp_path: Path, two: Sources) -> None:
    with pytest.raises(KeyboardInterrupt):
        made(config(tmp_path, two), tmp_path / "out", watch=Log("writing"))
    log = Log()
    made(config(tmp_path, two), tmp_path / "out", watch=log, overwrite=True)
    assert log.stages == ["reading a", "reading b", "writing"]


def test_equal_rows_occur_once_and_the_first_source_keeps_them(tmp_path: Path, two: Sources) -> None:
    both = chats("both", 5)
    write(tmp_path / "a.jsonl", [*chats("a", 10), *both, *both[:2]])
    write(tmp_path / "b.jsonl", [*chats("b", 4), *both])
    found = made(config(tmp_path, two), tmp_path / "out").report
    assert [part.left_out for part in found.parts] == [{"duplicate": 2}, {"duplicate": 5}]
    assert [part.there for part in found.parts] == [15, 4]
    assert [part.there for part in made(config(tmp_path, two, dedup="none"), tmp_path / "all").report.parts] == [17, 9]


def test_rows_that_erasure_makes_equal_are_duplicates(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [chat("What is 2 + 2?", "4", system) for system in ("Be brief.", "Explain.")])
    source = [{"name": "a", "from": str(tmp_path / "a.jsonl")}]
    assert made(config(tmp_path, source), tmp_path / "kept").report.total.rows == 2
    found = made(config(tmp_path, source, erase={"mode": "drop"}), tmp_path / "out").report
    assert (found.total.rows, found.parts[0].left_out) == (1, {"duplicate": 1})


def test_near_duplicates_are_left_out(tmp_path: Path, two: Sources) -> None:
    words = [f"word{at}" for at in range(60)]
    near = [chat(" ".join([*words[:50], *words[at : at + 3]]), "Yes, that is so.") for at in range(50, 55)]
    write(tmp_path / "b.jsonl", [*chats("b", 3), *near])
    two[0]["from"] = str(write(tmp_path / "c.jsonl", [chat("Something else altogether", "Indeed it is.")]))
    found = made(config(tmp_path, two, dedup="near", similarity=0.7, rows=20), tmp_path / "out").report
    assert found.parts[1].left_out == {"near-duplicate": 4}
    strict = made(config(tmp_path, two, dedup="near", similarity=1.0, rows=20), tmp_path / "strict").report
    assert strict.parts[1].left_out == {}


def test_rows_that_ask_what_an_evaluation_asks_are_left_out(tmp_path: Path, two: Sources) -> None:
    long = "If a train leaves at nine and another one at ten which of them arrives first in the town"
    rows_ = [chat(f"Well: {long.upper()}, say?", "The first."), chat("Why?", "So."), chat("Why is that?", "So.")]
    write(tmp_path / "b.jsonl", [*chats("b", 4), *rows_])
    test = write(tmp_path / "test.jsonl", [{"question": f"{long}?", "answer": 1}, {"question": "Why?", "answer": "x"}])
    found = made(config(tmp_path, two, decontaminate=[str(test)]), tmp_path / "out").report
    assert found.parts[1].left_out == {"overlaps with an evaluation prompt": 2}
    assert found.parts[1].overlaps == {str(test): 2}
    assert found.evaluations == [Evaluated(str(test), "", 2, 2)]
    assert {question(row) for row in rows(tmp_path / "out")} & {each["messages"][0]["content"] for each in rows_} == {
        "Why is that?"
    }
    short = write(tmp_path / "short.jsonl", [{"question": "Why?", "answer": "x"}])
    loose = made(config(tmp_path, two, decontaminate=[str(short)], overlap=1), tmp_path / "loose").report
    assert loose.parts[1].left_out == {"overlaps with an evaluation prompt": 2}  # the two that hold the word


def test_of_an_evaluation_the_test_split_is_left_out_or_the_named_one(tmp_path: Path, two: Sources) -> None:
    asked = [{"asked": question(row), "answer": "x"} for row in chats("a", 40)]
    splits = {"train": asked[:25], "test": asked[25:]}
    folder = str(tmp_path / "exam")
    DatasetDict({name: Dataset.from_list(some) for name, some in splits.items()}).save_to_disk(folder)
    for given, split, count in (({}, "test", 15), ({"split": "train"}, "train", 25)):
        evaluation = {"from": folder, "columns": {"question": "asked"}, **given}
        found = made(config(tmp_path, two, decontaminate=[evaluation]), tmp_path / split).report
        name = f"{folder} ({split})" if given else folder
        assert found.evaluations == [Evaluated(name, split, count, count)]
        assert (name, split, str(count), str(count)) in found.decontamination()
        kept = {question(row) for row in rows(tmp_path / split) if row["source"] == "a"}
        assert kept.isdisjoint(row["asked"] for row in splits[split])
        page = (tmp_path / split / "report.md").read_text(encoding="utf-8")
        assert f"| {name} | {split} | {count} | {count} |" in page


def test_an_evaluation_that_cannot_be_compared_is_refused(tmp_path: Path, two: Sources) -> None:
    asked = Dataset.from_list([{"question": "Why?", "answer": "x"}])
    DatasetDict({"train": asked, "validation": asked}).save_to_disk(str(tmp_path / "exam"))
    with pytest.raises(DataError, match=r"decontaminate: .*exam: unknown split 'test'"):
        made(config(tmp_path, two, decontaminate=[str(tmp_path / "exam")]), tmp_path / "out")
    bad = write(tmp_path / "bad.jsonl", [{"prompt": "Why?", "completion": "So.", "reward": 0}])
    with pytest.raises(DataError, match=r"decontaminate: .*bad\.jsonl: holds no questions"):
        made(config(tmp_path, two, decontaminate=[str(bad)]), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"decontaminate: config = main: .*bad\.jsonl is no data set of the hub"):
        made(config(tmp_path, two, decontaminate=[{"from": str(bad), "config": "main"}]), tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_a_question_is_on_one_side_of_the_split_in_every_mix(tmp_path: Path, two: Sources) -> None:
    write(tmp_path / "b.jsonl", [chat(f"b asks {at // 3}", f"answer {at}") for at in range(60)])
    sides = {}
    for seed in (1, 2):
        made(config(tmp_path, two, validation=0.3, seed=seed), tmp_path / f"out{seed}")
        for split in ("train", "validation"):
            for row in rows(tmp_path / f"out{seed}", split):
                assert sides.setdefault(question(row), split) == split
    assert 0.1 < list(sides.values()).count("validation") / len(sides) < 0.5


def test_what_is_written_is_what_training_reads(tmp_path: Path, two: Sources) -> None:
    made(config(tmp_path, two, erase={"mode": "drop"}), tmp_path / "out", jsonl=True)
    row = rows(tmp_path / "out")[0]
    assert set(row) == {"messages", "source", "row", "key", "original_system"}
    from_folder, from_lines = (read_examples(tmp_path / "out" / name) for name in ("", "train.jsonl"))
    assert [each.prompt for each in from_folder] == [each.prompt for each in from_lines]
    assert len(from_folder) == 24 and all(each.prompt[0].role == "user" for each in from_folder)


def test_a_split_says_how_many_rows_it_has(tmp_path: Path, two: Sources) -> None:
    made(config(tmp_path, two, validation=0.3), tmp_path / "out")
    for split in ("train", "validation"):
        told = json.loads((tmp_path / "out" / split / "dataset_info.json").read_text(encoding="utf-8"))["splits"]
        assert told == {split: {"name": split, "num_examples": len(rows(tmp_path / "out", split))}}


def test_lineage_leads_back_to_the_row(tmp_path: Path, two: Sources) -> None:
    made(config(tmp_path, two, erase={"mode": "drop"}), tmp_path / "out")
    for row in rows(tmp_path / "out"):
        name, line = row["row"].split(":")
        original = json.loads((tmp_path / name).read_text(encoding="utf-8").splitlines()[int(line) - 1])["messages"]
        assert row["messages"] == original[-2:]
        assert row["original_system"] == (LONG if row["source"] == "a" else None)


def test_turns_keep_their_weights(tmp_path: Path, two: Sources) -> None:
    turns = [("user", "One?", 1), ("assistant", "1", 0), ("user", "Two?", 1), ("assistant", "2", 0.5)]
    messages = [{"role": role, "content": text, "weight": weight} for role, text, weight in turns]
    write(tmp_path / "b.jsonl", [{"messages": messages}])
    made(config(tmp_path, two), tmp_path / "out")
    by_source = {row["source"]: row["messages"] for row in rows(tmp_path / "out")}
    assert [turn["weight"] for turn in by_source["b"]] == [1, 0, 1, 0.5]
    assert [turn["weight"] for turn in by_source["a"]] == [1, 1, 1]
    examples = {each.prompt[-1].content: each.completions[0] for each in read_examples(tmp_path / "out")}
    assert (examples["Two?"].text, examples["Two?"].weight) == ("2", 0.5)
    assert "One?" not in examples


def test_completions_of_one_prompt_are_rows_of_their_own(tmp_path: Path, two: Sources) -> None:
    write(tmp_path / "b.jsonl", [{"prompt": "Why?", "completions": ["So.", {"text": "Thus.", "weight": 0.5}]}])
    made(config(tmp_path, two, rows=100), tmp_path / "out")
    answers = {row["messages"][-1]["content"]: row for row in rows(tmp_path / "out") if row["source"] == "b"}
    assert answers["Thus."]["messages"][-1]["weight"] == 0.5
    assert answers["So."]["messages"][-1]["weight"] == 1


def test_a_row_is_bad_once_and_each_completion_is_counted(tmp_path: Path, two: Sources) -> None:
    broken = [{"prompt": "Why?", "completions": [f"<|im_end|> {at}" for at in range(3)] + ["So."]}]
    unwanted = [{"prompt": "How?", "completions": ["Thus.", "So."], "rewards": [1, 0]}]
    write(tmp_path / "b.jsonl", [*broken, *unwanted, {"messages": 3}, *chats("b", 3)])
    found = made(config(tmp_path, two, bad_rows=0.5), tmp_path / "out").report.parts[1]
    assert (found.read, found.bad) == (6, 2)
    assert found.left_out == {"cannot be rendered": 3, "does not fit": 1, "not to be imitated": 1}
    assert found.entries == 10 == sum(found.left_out.values()) + found.there


def test_columns_that_are_not_read_are_counted(tmp_path: Path, two: Sources) -> None:
    write(tmp_path / "b.jsonl", [{**row, "topic": "sums"} for row in chats("b", 3)])
    assert [part.ignored for part in made(config(tmp_path, two), tmp_path / "out").report.parts] == [{}, {"topic": 3}]


def test_margins_of_pairs_are_kept(tmp_path: Path, two: Sources) -> None:
    write(tmp_path / "a.jsonl", [{**pair(at), "margin": at / 2} for at in range(4)])
    write(tmp_path / "b.jsonl", [pair(at) for at in range(4, 8)])
    made(config(tmp_path, two), tmp_path / "out")
    assert sorted(row["margin"] for row in rows(tmp_path / "out")) == [0, 0, 0, 0, 0, 0.5, 1, 1.5]
    assert sorted(each.margin for each in read_pairs(tmp_path / "out")) == [0, 0, 0, 0, 0, 0.5, 1, 1.5]


def test_pairs_are_mixed_too(tmp_path: Path, two: Sources) -> None:
    write(
        tmp_path / "a.jsonl", [{"prompt": chat("Why?", "x", LONG)["messages"][:2], "chosen": "So.", "rejected": "No."}]
    )
    write(tmp_path / "b.jsonl", [pair(at) for at in range(6)])
    found = made(config(tmp_path, two, rows=6, erase={"mode": "drop"}), tmp_path / "out").report
    assert (found.kind, found.total.rows) == ("preference pairs", 4)
    row = next(row for row in rows(tmp_path / "out") if row["source"] == "a")
    assert row["prompt"] == [{"role": "user", "content": "Why?"}]
    assert (row["chosen"], row["original_system"]) == ([{"role": "assistant", "content": "So."}], LONG)
    assert Counter(each.chosen for each in read_pairs(tmp_path / "out"))["So."] == 1


def test_plain_texts_are_mixed_too(tmp_path: Path, two: Sources) -> None:
    said = {name: [f"{name} tells story number {at} of many, and it is long" for at in range(40)] for name in "ab"}
    for name, texts in said.items():
        write(tmp_path / f"{name}.jsonl", [{"text": text} for text in texts])
    leaked = write(tmp_path / "test.jsonl", [{"question": "tells story number 3 of many", "answer": "x"}])
    values: dict[str, Any] = {"decontaminate": [str(leaked)], "overlap": 6, "dedup": "near", "similarity": 1.0}
    found = made(config(tmp_path, two, validation=0.3, **values), tmp_path / "out").report
    assert found.kind == "plain texts"
    assert [part.left_out for part in found.parts] == [{"overlaps with an evaluation prompt": 1}] * 2
    assert 8 < found.splits["validation"].rows < 40  # each text is a prompt of its own
    assert {row["text"] for split in ("train", "validation") for row in rows(tmp_path / "out", split)} == {
        text for texts in said.values() for text in texts if "number 3 of" not in text
    }
    examples = read_examples(tmp_path / "out")
    assert len(examples) == found.splits["train"].rows and not any(each.prompt for each in examples)
    with pytest.raises(ConfigError, match="system: a plain text has no turns"):
        made(config(tmp_path, two, "sources.a.system=Be brief."), tmp_path / "other")


def test_kinds_are_not_mixed(tmp_path: Path, two: Sources) -> None:
    write(tmp_path / "b.jsonl", [pair(1)])
    with pytest.raises(ConfigError, match=r"b\.jsonl:1: preference pairs in a mix of conversations"):
        made(config(tmp_path, two), tmp_path / "out")


def test_a_failing_source_ends_the_mix_unless_it_is_optional(tmp_path: Path, two: Sources) -> None:
    two[1]["from"] = str(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match=r"source b: .*no such file"):
        made(config(tmp_path, two), tmp_path / "out")
    log = Log()
    found = made(config(tmp_path, two, "sources.b.optional=true"), tmp_path / "out", watch=log, resume=True).report
    assert found.total.rows == 40
    assert "no such file" in found.parts[1].why
    assert log.notes and "source b is left out" in log.notes[0]


def test_a_source_that_cannot_be_read_is_no_mix_that_cannot_be_written(tmp_path: Path, two: Sources) -> None:
    """What ends the reading is an OSError, as a failing disk gives it, of a file that is there and may be opened."""
    two[1]["from"] = str(tmp_path / "b.jsonl.gz")
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"source b: .*b\.jsonl\.gz: cannot be unpacked"):
        made(config(tmp_path, two), tmp_path / "out")
    found = made(config(tmp_path, two, "sources.b.optional=true"), tmp_path / "out", resume=True).report
    assert "cannot be unpacked" in found.parts[1].why


def test_answers_that_are_not_worked_out_need_their_columns(tmp_path: Path, two: Sources) -> None:
    write(tmp_path / "b.jsonl", [{"asked": f"Which town is number {at}?", "answer": f"Town {at}"} for at in range(12)])
    two[1]["columns"] = {"question": "asked"}
    for bad_rows in (0.0, 0.5):
        with pytest.raises(DataError, match="nothing to imitate") as caught:
            made(config(tmp_path, two, bad_rows=bad_rows), tmp_path / "out", overwrite=True)
        assert caught.value.hint == "columns: {prompt: asked, completion: answer} imitates the answers as they stand"
    two[1]["columns"] = {"prompt": "asked", "completion": "answer"}
    assert made(config(tmp_path, two), tmp_path / "out", resume=True).report.parts[1].there == 12


def test_an_early_failure_leaves_nothing_to_resume(tmp_path: Path, two: Sources) -> None:
    two[0]["from"] = str(tmp_path / "absent.jsonl")
    with pytest.raises(DataError):
        made(config(tmp_path, two), tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("row", "said", "reason"),
    [
        ({"question": "How many?", "answer": 4}, "nothing to imitate", "nothing to imitate"),
        (chat("Why?", "Because <|im_end|> so."), "stop token", "cannot be rendered"),
        ({"messages": "none"}, "messages: ", "does not fit"),
    ],
)
def test_rows_that_cannot_be_used_count_against_the_share(
    tmp_path: Path, two: Sources, row: Any, said: str, reason: str
) -> None:
    write(tmp_path / "b.jsonl", [*chats("b", 12), row])
    with pytest.raises(DataError, match=f"source b: .*b.jsonl:13: .*{said}"):
        made(config(tmp_path, two), tmp_path / "out")
    with pytest.raises(DataError, match="1 of 13 rows"):
        made(config(tmp_path, two, bad_rows=0.05), tmp_path / "out", resume=True)
    found = made(config(tmp_path, two, bad_rows=0.1), tmp_path / "out", resume=True).report
    assert (found.parts[1].bad, found.parts[1].there) == (1, 12)
    assert found.parts[1].left_out == {reason: 1}


def test_one_prompt_can_leave_validation_empty_and_that_is_said(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [chat("Always the same?", f"Answer {at}") for at in range(9)])
    source = [{"name": "a", "from": str(tmp_path / "a.jsonl")}]
    found = made(config(tmp_path, source, validation=0.05), tmp_path / "out").report
    assert found.splits["validation"].rows == 0
    assert any("no validation split" in note for note in found.notes)
    assert not (tmp_path / "out" / "validation").exists()


def outcome(tmp_path: Path, sources: Sources, *overrides: str) -> Any:
    """What a mix is, without its lineage and its settings, or the line it is refused with."""
    try:
        chosen = config(tmp_path, sources, *overrides)
        found = mix(chosen, MixFolder(tmp_path / "out", overwrite=True), renderer(chosen.prompt)).report
    except (DataError, ConfigError) as error:
        return str(error)
    plain = {name: value for name, value in found.plain().items() if name != "settings"}
    splits = [split for split in ("train", "validation") if (tmp_path / "out" / split).exists()]
    return plain, [rows(tmp_path / "out", split) for split in splits]


CHANGES: dict[str, tuple[list[str], list[str]]] = {
    "seed": ([], ["seed=1"]),
    "rows": ([], ["rows=11"]),
    "tokens": (["rows=null"], ["tokens=300"]),
    "short": ([], ["short=repeat"]),
    "dedup": ([], ["dedup=none"]),
    "dedup near": ([], ["dedup=near"]),
    "similarity": (["dedup=near"], ["similarity=0.2"]),
    "decontaminate": ([], ["decontaminate=[{test}]"]),
    "split of an evaluation": (["decontaminate=[{test}]"], ["decontaminate=[{{from: {test}, split: test}}]"]),
    "config of an evaluation": (["decontaminate=[{test}]"], ["decontaminate=[{{from: {test}, config: main}}]"]),
    "revision of an evaluation": (["decontaminate=[{test}]"], ["decontaminate=[{{from: {test}, revision: v1}}]"]),
    "shape of an evaluation": (["decontaminate=[{test}]"], ["decontaminate=[{{from: {test}, shape: prompts}}]"]),
    "columns of an evaluation": (
        ["decontaminate=[{test}]"],
        ["decontaminate=[{{from: {test}, columns: {{messages: other}}}}]"],
    ),
    "overlap": (["decontaminate=[{test}]"], ["overlap=3"]),
    "validation": ([], ["validation=0.4"]),
    "bad_rows": (["sources.b.columns.prompt=x"], ["bad_rows=0.5"]),
    "max_length": ([], ["max_length=60"]),
    "erase": ([], ["erase.mode=drop"]),
    "erase.text": (["erase.mode=replace"], ["erase.text=Short."]),
    "erase.texts": (["erase={{mode: sample, texts: {{x: 1}}}}"], ["erase={{mode: sample, texts: {{y: 1}}}}"]),
    "erase.share": (["erase.mode=drop"], ["erase.share=0.5"]),
    "erase.when": (["erase.mode=drop"], ["erase.when=[Other.]"]),
    "weight": ([], ["sources.a.weight=0.5"]),
    "limit": ([], ["sources.a.limit=5"]),
    "system": ([], ["sources.b.system=Be brief."]),
    "erase of a source": ([], ["sources.a.erase.mode=drop"]),
    "shape": ([], ["sources.a.shape=preference"]),
    "columns": ([], ["sources.a.columns.messages=other"]),
    "config": ([], ["sources.a.config=main"]),
    "revision": ([], ["sources.a.revision=v1"]),
    "stream": ([], ["sources.a.stream=true"]),
    "split": ([], ["sources.a.split=test"]),
    "optional": (["sources.a.split=test"], ["sources.a.optional=true"]),
    "name": ([], ["sources.a.name=other"]),
    "prompt": ([], ["prompt.system=Be brief."]),
}
"""Each setting: where it is tried, and a change of it."""


@pytest.mark.parametrize("setting", CHANGES)
def test_every_setting_changes_something(tmp_path: Path, two: Sources, setting: str) -> None:
    other = chat("Another column?", "Yes.")["messages"]
    alike = [chat(" ".join(f"word{at}" for at in range(60)) + end, "Yes.", LONG) for end in (".", " more.")]
    many = [*chats("a", 40, LONG), *chats("a", 2, LONG), *alike]
    write(tmp_path / "a.jsonl", [{**row, "other": other} for row in many])
    test = write(tmp_path / "test.jsonl", [{**row, "other": other} for row in chats("b", 2)])
    start, change = ([each.format(test=test) for each in some] for some in CHANGES[setting])
    before = outcome(tmp_path, two, "rows=40", *start)
    assert outcome(tmp_path, two, "rows=40", *start, *change) != before

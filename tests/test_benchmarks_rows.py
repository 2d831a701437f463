"""The benchmark of many rows on a few: its file, its sides, its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import rows as many
from benchmarks.rows import SIDES, Work, compare, measured, show, write_rows
from ramify.data.sources import stream_rows


def test_the_file_is_the_same_each_time_and_longer_ones_begin_with_it(tmp_path: Path) -> None:
    for name, count in (("a", 50), ("b", 50), ("c", 80)):
        write_rows(tmp_path / name, count)
    first, again, longer = ((tmp_path / name).read_text() for name in "abc")
    assert first == again and longer.startswith(first)
    assert all(json.loads(line)["messages"][-1]["role"] == "assistant" for line in first.splitlines())


def test_rows_have_one_to_three_turns_and_their_lengths(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", 400)
    examples = [row.decoded.examples for row in stream_rows(tmp_path / "rows.jsonl")]
    assert {len(each) for each in examples} == {1, 2, 3}
    tokenizer = many._tokenizer()
    texts = [json.loads(line)["messages"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    lengths = [len(tokenizer.apply_chat_template(turns)["input_ids"]) for turns in texts]
    assert 60 < sum(lengths) / len(lengths) < 110


@pytest.mark.parametrize("kind", ["prepare", "check", "datasets"])
def test_a_side_reads_the_rows_it_is_given(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "rows.jsonl", 40)
    found = measured(Work(kind, str(tmp_path), 40))
    assert found["rows"] == 40 and found["rows_per_second"] == pytest.approx(40 / found["seconds"])
    assert found["memory"] > 0
    said = capsys.readouterr()
    if kind == "check":
        assert "train: rows of the shape messages" in said.out
    if kind == "prepare":
        assert said.err.startswith("40 rows, ")


@pytest.mark.proof
def test_all_sides_run_and_stay_below_two_gibibytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = compare(300, tmp_path)
    show(report)
    assert {*report.ours, *report.peers} == {*SIDES}
    assert 0 < report.ratio["memory_gib"] < 2
    assert (tmp_path / "run" / "rows.html").is_file() and (tmp_path / "mixed" / "train").is_dir()
    assert "x the rows/s of trl" in capsys.readouterr().out

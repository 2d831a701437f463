from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.errors import DataError, RunError
from ramify.base.records import (
    append_jsonl,
    json_line,
    problem_from_plain,
    read_jsonl,
    sample_from_plain,
    sha256_file,
    to_plain,
    verdict_from_plain,
    write_json,
    write_jsonl,
    write_text,
)
from ramify.base.types import Message, Problem, Reason, Sample, Stop, TokenSequence, Verdict

texts = st.text()
finite = st.floats(allow_nan=False, allow_infinity=False)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(
    st.builds(Sample, texts, st.integers(0), st.tuples(st.integers(0)), st.tuples(finite), texts, st.sampled_from(Stop))
)
def test_samples_survive_a_json_line(sample: Sample) -> None:
    assert sample_from_plain(json.loads(json_line(sample))) == sample


@given(
    st.builds(
        Verdict, texts, st.integers(0), finite, st.sampled_from(Reason), st.none() | texts | finite, st.tuples(texts)
    )
)
def test_verdicts_survive_a_json_line(verdict: Verdict) -> None:
    assert verdict_from_plain(json.loads(json_line(verdict))) == verdict


@given(
    st.builds(
        Problem, texts, st.tuples(st.builds(Message, texts, texts)), st.none() | texts | finite, st.none() | texts
    )
)
def test_problems_survive_a_json_line(problem: Problem) -> None:
    assert problem_from_plain(json.loads(json_line(problem))) == problem


def test_a_problem_needs_only_id_and_prompt() -> None:
    row = {"id": "a", "prompt": [{"role": "user", "content": "Why?"}]}
    assert problem_from_plain(row) == Problem("a", (Message("user", "Why?"),))


def test_plain_values(tmp_path: Path) -> None:
    assert to_plain({"a": (Stop.EOS, tmp_path), 1: [Message("user", "x")]}) == {
        "a": ["eos", str(tmp_path)],
        "1": [{"role": "user", "content": "x"}],
    }


def test_jsonl_keeps_every_character_and_one_line_a_row(tmp_path: Path) -> None:
    rows = [{"text": "a\nb\r\nc\u2028d\u0085e"}, {"text": "½ 中 🙂"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 2
    assert [row for _, row in read_jsonl(tmp_path / "rows.jsonl")] == rows


def test_empty_lines_are_skipped_and_line_numbers_stay_true(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf1\n\n  \n2\r\n3")
    assert list(read_jsonl(path)) == [(1, 1), (4, 2), (5, 3)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": }', "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b'"\xff"', "not valid UTF-8"),
        (b"[" * 10**5, "nested"),
        (b'["\\ud83d"]', "half of a surrogate"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"1\n\n" + line + b"\n4\n")
    rows = read_jsonl(path)
    assert next(rows) == (1, 1)
    with pytest.raises(DataError) as caught:
        next(rows)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert says in str(caught.value)
    assert caught.value.line == 3
    assert "\n" not in str(caught.value)


def test_escaped_letters_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(rb'"\u00bd \ud83d\ude42"')
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == [(1, "½ 🙂")]


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_jsonl(tmp_path / "absent.jsonl"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_jsonl(tmp_path))


def test_writing_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_json(path, {"a": 1})
    write_json(path, {"b": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": 2}
    assert files(path.parent) == ["file.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert files(tmp_path) == ["file.txt"]


def test_rows_that_fail_to_come_keep_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [1])

    def rows() -> Iterator[int]:
        yield 2
        raise KeyError("row")

    with pytest.raises(KeyError):
        write_jsonl(path, rows())
    assert list(read_jsonl(path)) == [(1, 1)]
    assert files(tmp_path) == ["rows.jsonl"]


def test_text_that_cannot_be_encoded_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert files(tmp_path) == ["file.txt"]


def test_a_folder_in_the_way_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "file", "x")
    (tmp_path / "plain").write_text("x", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be written"):
        write_text(tmp_path / "plain" / "file", "x")
    with pytest.raises(RunError, match="cannot be written"):
        append_jsonl(tmp_path / "absent" / "rows.jsonl", 1)


def test_appending_adds_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, {"a": 1})
    append_jsonl(path, {"a": 2})
    assert [row["a"] for _, row in read_jsonl(path)] == [1, 2]


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_token_sequences_check_themselves() -> None:
    sequence = TokenSequence.of((1, 2), (3, 4, 5), weight=0.5)
    assert sequence == TokenSequence((1, 2, 3, 4, 5), (0.0, 0.0, 0.5, 0.5, 0.5))
    assert sequence.trained == 1.5
    with pytest.raises(ValueError, match="2 ids but 1 weights"):
        TokenSequence((1, 2), (0.0,))
    with pytest.raises(ValueError, match="first token"):
        TokenSequence((1,), (1.0,))


def test_the_log_probability_of_a_sample_is_the_sum_of_its_tokens() -> None:
    assert Sample("a", 0, (1, 2), (-0.5, -0.25), "x", Stop.EOS).logprob == -0.75


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_say_are_refused(number: float, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finite"):
        json_line({"loss": number})
    write_json(tmp_path / "record.json", {"loss": 1.0})
    for write in (write_json, append_jsonl):
        with pytest.raises(RunError, match=r"not finite.*hint: write null"):
            write(tmp_path / "record.json", {"deep": [{"loss": number}]})
    assert json.loads((tmp_path / "record.json").read_text()) == {"loss": 1.0}

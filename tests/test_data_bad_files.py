"""Files that cannot be used: each gets its own clear line, and nothing that is in a file ends in a traceback."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ramify.base.errors import DataError
from ramify.cli.errors import BAD_INPUT, report
from ramify.cli.main import app
from ramify.data import delimited, files, json_text
from ramify.data.shapes import FIELDS as KNOWN
from ramify.data.source import Source
from ramify.data.sources import stream_rows

ROWS = [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(3)]
NOBODY = 65534
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
JSON_HINT = "a JSON list of rows, or one JSON row a line"
UNKNOWN = (
    "rows need question + answer, prompt + completion, messages, or prompt + chosen + rejected "
    "(hint: data.columns={prompt: …, completion: …} says what the columns mean)"
)
RAGGED = "(hint: a text with a delimiter, a quote or a line end in it stands in double quotes)"
NOT_EMPTY = "text that is not empty is needed"
CUT = "Compressed file ended before the end-of-stream marker was reached"


def turns(*roles: str) -> str:
    return json.dumps({"messages": [{"role": role, "content": role} for role in roles]})


def table(rows: list[Any], names: tuple[str, ...] = ()) -> bytes:
    sink = pa.BufferOutputStream()
    schema = pa.schema([(name, pa.string()) for name in names]) if names else None
    pq.write_table(pa.Table.from_pylist(rows, schema), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def stream(rows: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    made = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    content: bytes = sink.getvalue().to_pybytes()
    return content


MANY = [{"prompt": os.urandom(20).hex(), "completion": str(i)} for i in range(2000)]
MANY_LINES = "".join(json.dumps(row) + "\n" for row in MANY).encode()

# name of the file, its content, the line that is said behind the path
TEXT_FILES: dict[str, tuple[str, str | bytes, str]] = {
    "empty file": ("a.jsonl", "", f": the file is empty (hint: {JSON_HINT})"),
    "empty table": ("a.parquet", "", f": the file is empty (hint: {JSON_HINT})"),
    "only a byte order mark": ("a.jsonl", b"\xef\xbb\xbf", f": the file is empty (hint: {JSON_HINT})"),
    "blank lines": ("a.jsonl", "\n \n\t\n", ": the file holds no rows"),
    "empty list": ("a.json", "[]", ": the file holds no rows"),
    "names without rows": ("a.csv", "prompt,completion\n", ": the file holds no rows"),
    "only the first bytes of a table": ("a.parquet", b"PAR1", ": is not a whole Parquet file: …"),
    "table without rows": ("a.parquet", table([], names=("prompt", "completion")), ": the file holds no rows"),
    "truncated JSON line": (
        "a.jsonl",
        LINES[:-4],
        ":3: not valid JSON: Unterminated string starting at column 32",
    ),
    "truncated JSON list": (
        "a.json",
        json.dumps(ROWS)[:-1],
        ":1: not valid JSON: , or ] is needed after a row, found the end of the file",
    ),
    "truncated row of a list": (
        "a.json",
        json.dumps(ROWS, indent=1)[:-30],
        ":11: not valid JSON: Unterminated string starting at column 13",
    ),
    "comma behind the last row": (
        "a.json",
        '[{"prompt": "a"},\n]',
        ":2: not valid JSON: a row is needed after the comma, found ]",
    ),
    "no comma between rows": (
        "a.json",
        '[{"prompt": "a"}\n{"prompt": "b"}]',
        ":2: not valid JSON: , or ] is needed after a row, found '{'",
    ),
    "two lists": ("a.json", "[[1, 2]]\n[[3, 4]]", f":1: question: {NOT_EMPTY}, found 1"),
    "text behind the list": ("a.json", '[["a", 2]]\nx', ":2: more text after the list of rows"),
    "two rows on a line": (
        "a.jsonl",
        '{"prompt": "a"} {"prompt": "b"}\n',
        ":1: more text after the row, at column 16 (hint: one JSON row a line, nothing between them)",
    ),
    "rows inside an object": (
        "a.json",
        '{"data":\n [["a", 1]]}',
        ":1: a list of rows is needed, found one JSON value: data",
    ),
    "a number for a file": ("a.json", "17", ":1: row: a list or an object is needed, found 17"),
    "Python's quotes": (
        "a.jsonl",
        "{'prompt': 'a'}\n",
        ":1: not valid JSON: Expecting property name enclosed in double quotes at column 2 "
        "(hint: rows are a JSON list, or one JSON row a line)",
    ),
    "prose": (
        "a.txt",
        "Once upon a time\nthere was\n",
        ":1: not valid JSON: Expecting value at column 1 (hint: rows are a JSON list, or one JSON row a line)",
    ),
    "UTF-16": ("a.jsonl", LINES.encode("utf-16"), ": is UTF-16; UTF-8 is needed (hint: save it again as UTF-8)"),
    "bad UTF-8 in a line": (
        "a.jsonl",
        LINES.encode() + b'{"prompt": "\xe9t\xe9"}\n',
        ":4: not valid UTF-8 at byte 12 of the line",
    ),
    "bad UTF-8 in a list": ("a.json", b'[{"prompt": "a"},\n{"prompt": "\xe9"}]', ":2: not valid UTF-8"),
    "bad UTF-8 in a table": ("a.csv", b"prompt,completion\na,\xff\n", ":2: not valid UTF-8 at byte 2 of the line"),
    "zero bytes": ("a.jsonl", b"\0\0\0\0", f": is not a text file (hint: {JSON_HINT})"),
    "gzip by another name": (
        "a.jsonl",
        gzip.compress(b"x"),
        ": is not a text file (hint: it looks like gzip: name it .gz)",
    ),
    "Parquet by another name": (
        "a.json",
        table(ROWS),
        ": is not a text file (hint: it looks like Parquet: name it .parquet)",
    ),
    "zip file": ("a.json", b"PK\x03\x04\x14", ": is not a text file (hint: it looks like a zip file: unpack it)"),
    "NaN": (
        "a.jsonl",
        '["a", 1]\n["b", NaN]\n',
        ":2: NaN is not a number (hint: JSON has finite numbers only: leave such rows out)",
    ),
    "infinity in a list": (
        "a.json",
        '[["a", 1],\n["b", -Infinity]]',
        ":2: -Infinity is not a number (hint: JSON has finite numbers only: leave such rows out)",
    ),
    "duplicate keys": (
        "a.jsonl",
        '{"prompt": "a", "prompt": "b"}\n',
        ":1: 'prompt' is given twice in one object (hint: a name may stand in an object only once)",
    ),
    "duplicate keys inside": (
        "a.json",
        '[{"messages": [{"role": "user", "content": "a", "role": "system"}]}]',
        ":1: 'role' is given twice in one object (hint: a name may stand in an object only once)",
    ),
    "half a surrogate pair": (
        "a.jsonl",
        '{"prompt": "\\ud83d"}\n',
        ":1: half of a surrogate pair (\\ud800 to \\udfff) is no character",
    ),
    "deep nesting": ("a.jsonl", "[" * 100_000, ":1: JSON nested too deeply"),
    "deep nesting in a list": ("a.json", '[{"prompt":' + "[" * 100_000, ":1: JSON nested too deeply"),
    "nested lists": (
        "a.json",
        '[[["a", 1]]]',
        ":1: row: [question, answer] or [question, answer, reasoning] is needed, found [['a', 1]]",
    ),
    "an empty list for a row": (
        "a.jsonl",
        "[]\n",
        ":1: row: [question, answer] or [question, answer, reasoning] is needed, found []",
    ),
    "an empty object": ("a.jsonl", "{}\n", f":1: columns: found none; {UNKNOWN}"),
    "a null for a row": ("a.jsonl", LINES + "null\n", ":4: row: a list or an object is needed, found None"),
    "wrong type": ("a.jsonl", '{"prompt": 7, "completion": "b"}', f":1: prompt: {NOT_EMPTY}, found 7"),
    "null field": ("a.jsonl", '{"prompt": "a", "completion": null}', f":1: completion: {NOT_EMPTY}, found None"),
    "unknown columns": (
        "a.jsonl",
        '{"frage": "a", "antwort": "b"}',
        f":1: columns: found frage, antwort; {UNKNOWN}",
    ),
    "unknown columns of a table": (
        "a.csv",
        "How many?,6\nHow much?,7\n",
        f":2: columns: found How many?, 6; {UNKNOWN}",
    ),
    "misspelled column": (
        "a.csv",
        "promt,completion\na,b\n",
        ":2: columns: found promt, completion; the nearest shape, prompt_completion, needs prompt + completion "
        "(hint: did you mean 'prompt' for 'promt'?)",
    ),
    "mixed shapes": ("a.jsonl", LINES + '{"url": "x"}\n', f":4: columns: found url; {UNKNOWN}"),
    "assistant first": (
        "a.jsonl",
        turns("assistant"),
        ":1: messages[0]: a user turn before the assistant's is needed, found []",
    ),
    "assistant twice": (
        "a.jsonl",
        turns("user", "assistant", "assistant"),
        ":1: messages[2]: turns of user and assistant that alternate is needed, found ['user', 'assistant']",
    ),
    "system late": (
        "a.jsonl",
        turns("user", "system", "assistant"),
        ":1: messages[1].role: user or assistant (a system turn comes first) is needed, found 'system'",
    ),
    "unknown role": (
        "a.jsonl",
        turns("user", "narrator"),
        ":1: messages[1].role: system, user or assistant is needed, found 'narrator'",
    ),
    "tool turn": (
        "a.jsonl",
        turns("user", "assistant", "tool"),
        ":1: messages[2].role: system, user or assistant is needed, found 'tool' (hint: calls of tools are not "
        "trained; data.bad_rows says which share of such rows may be left out)",
    ),
    "no turns": (
        "a.jsonl",
        turns(),
        ":1: messages: a list of {role, content} with at least one entry is needed, found []",
    ),
    "empty turn": (
        "a.jsonl",
        '{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}',
        ":1: messages[0].content: text is needed, found ''",
    ),
    "empty answer": (
        "a.jsonl",
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}',
        f":1: messages[1].content: {NOT_EMPTY}, found ''",
    ),
    "a turn that is a text": (
        "a.jsonl",
        '{"messages": ["hello"]}',
        ":1: messages[0]: an object with role and content is needed, found 'hello'",
    ),
    "a picture": (
        "a.jsonl",
        '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
        """:1: messages[0].content[0]: a part {"type": "text", "text": …} is needed, found {'type': 'image'}""",
    ),
    "ragged table, short": ("a.csv", "prompt,completion\na,b\nc\n", f":3: fields: 2 are needed, found 1 {RAGGED}"),
    "ragged table, long": ("a.tsv", "prompt\tcompletion\na\tb\tc\n", f":2: fields: 2 are needed, found 3 {RAGGED}"),
    "quote not closed": (
        "a.csv",
        'prompt,completion\na,b\n"c,d\ne,f\n',
        ':3: a quoted field is not closed (hint: a quote inside quotes is "")',
    ),
    "quote inside quotes": ("a.csv", 'prompt,completion\n"a "b" c",d\n', ":2: not valid CSV: ',' expected after '\"'"),
    "column named twice": (
        "a.csv",
        "prompt,prompt\na,b\n",
        ":1: the column 'prompt' is named twice (hint: the first line names the columns: prompt,completion)",
    ),
    "truncated Parquet": ("a.parquet", table(ROWS)[:-10], ": is not a whole Parquet file: …"),
    "text as Parquet": ("a.parquet", LINES, ": is not a whole Parquet file: …"),
    "packed Parquet": (
        "a.parquet.gz",
        gzip.compress(table(ROWS)),
        ": a Parquet file cannot be read while it is unpacked (hint: unpack it; Parquet is compressed inside already)",
    ),
    "truncated Arrow": ("a.arrow", stream(MANY)[:-5000], ": is not a whole Arrow file: …"),
    "Arrow without its end": (
        "a.arrow",
        stream(ROWS)[:-8],
        ": is cut off: the mark that ends an Arrow stream is missing (hint: the file was not written whole, or a part "
        "of it is missing)",
    ),
    "text as Arrow": ("a.arrow", LINES, ": is not a whole Arrow file: …"),
    "text as gzip": ("a.jsonl.gz", LINES, ": cannot be unpacked as .gz: Not a gzipped file (b'{\"')"),
    "truncated gzip": ("a.jsonl.gz", gzip.compress(MANY_LINES)[:-500], f": cannot be unpacked as .gz: {CUT}"),
    "changed gzip": (
        "a.jsonl.gz",
        gzip.compress(LINES.encode())[:-8] + b"\0" * 8,
        ": cannot be unpacked as .gz: CRC check failed …",
    ),
    "text as bzip2": ("a.jsonl.bz2", LINES, ": cannot be unpacked as .bz2: Invalid data stream"),
    "truncated bzip2": ("a.jsonl.bz2", bz2.compress(MANY_LINES)[:-9], f": cannot be unpacked as .bz2: {CUT}"),
    "truncated xz": ("a.jsonl.xz", lzma.compress(MANY_LINES)[:-90], f": cannot be unpacked as .xz: {CUT}"),
    "text as zstd": ("a.jsonl.zst", LINES, ": cannot be unpacked as .zst: …"),
    "truncated zstd": (
        "a.jsonl.zst",
        pa.compress(MANY_LINES, codec="zstd", asbytes=True)[:-90],
        ": cannot be unpacked as .zst: …",
    ),
    "nothing packed": ("a.jsonl.gz", gzip.compress(b""), f": the file is empty (hint: {JSON_HINT})"),
}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def error_of(source: Source) -> DataError:
    with pytest.raises(DataError) as caught:
        for _ in stream_rows(source):
            pass
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(("name", "content", "line"), TEXT_FILES.values(), ids=TEXT_FILES)
def test_a_bad_file_gets_its_own_line(tmp_path: Path, name: str, content: str | bytes, line: str) -> None:
    path = written(tmp_path, name, content)
    said = str(error_of(Source(str(path))))
    if line.endswith("…"):  # another library's words, which change between its releases
        assert said.startswith(f"{path}{line[:-1]}")
    else:
        assert said == f"{path}{line}"


def saved(folder: Path) -> Path:
    splits = {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS)}
    datasets.DatasetDict(splits).save_to_disk(str(folder / "set"))
    return folder / "set"


def no_file(folder: Path) -> Source:
    return Source(str(folder / "absent.jsonl"))


def no_folder(folder: Path) -> Source:
    return Source(str(folder / "absent"))


def zero_byte_in_name(folder: Path) -> Source:
    return Source(f"{folder}/a\0b.jsonl")


def dangling_link(folder: Path) -> Source:
    (folder / "a.jsonl").symlink_to("gone.jsonl")
    return Source(str(folder / "a.jsonl"))


def folder_named_as_a_file(folder: Path) -> Source:
    (folder / "a.jsonl").mkdir()
    return Source(str(folder / "a.jsonl"))


def folder_without_rows(folder: Path) -> Source:
    written(folder, "README.md", "no rows")
    return Source(str(folder))


def folder_with_an_empty_file(folder: Path) -> Source:
    written(folder, "a.jsonl", LINES)
    written(folder, "b.jsonl", "")
    return Source(str(folder))


def link_out_of_the_folder(folder: Path) -> Source:
    written(folder, "outside.jsonl", LINES)
    (folder / "rows").mkdir()
    (folder / "rows" / "a.jsonl").symlink_to(folder / "outside.jsonl")
    return Source(str(folder / "rows"))


def linked_folder_out_of_the_folder(folder: Path) -> Source:
    written(folder, "outside/a.jsonl", LINES)
    written(folder, "rows/a.jsonl", LINES)
    (folder / "rows" / "more").symlink_to(folder / "outside")
    return Source(str(folder / "rows"))


def pipe(folder: Path) -> Source:
    os.mkfifo(folder / "a.jsonl")
    return Source(str(folder / "a.jsonl"))


def device(folder: Path) -> Source:
    return Source("/dev/zero")


def pipe_as_table(folder: Path) -> Source:
    os.mkfifo(folder / "a.parquet")
    return Source(str(folder / "a.parquet"))


def split_of_a_file(folder: Path) -> Source:
    return Source(str(written(folder, "a.jsonl", LINES)), split="test")


def split_of_a_folder_without(folder: Path) -> Source:
    written(folder, "a.jsonl", LINES)
    return Source(str(folder), split="test")


def unknown_split_of_a_folder(folder: Path) -> Source:
    for name in ("train.jsonl", "test.jsonl"):
        written(folder, name, LINES)
    return Source(str(folder), split="dev")


def unknown_split_of_a_saved_set(folder: Path) -> Source:
    return Source(str(saved(folder)), split="tset")


def saved_set_without_its_split(folder: Path) -> Source:
    path = saved(folder)
    (path / "train" / "state.json").unlink()
    return Source(str(path))


def saved_set_without_state(folder: Path) -> Source:
    path = saved(folder) / "train"
    (path / "state.json").unlink()
    return Source(str(path))


def saved_set_without_its_rows(folder: Path) -> Source:
    path = saved(folder) / "train"
    (path / "data-00000-of-00001.arrow").unlink()
    return Source(str(path))


def saved_set_with_a_broken_state(folder: Path) -> Source:
    path = saved(folder) / "train"
    (path / "state.json").write_text('{"_data_files": [{"filename": "../outside.arrow"}]}', encoding="utf-8")
    return Source(str(path))


def link_out_of_a_saved_set(folder: Path) -> Source:
    path = saved(folder) / "train"
    rows = path / "data-00000-of-00001.arrow"
    rows.rename(folder / "outside.arrow")
    rows.symlink_to(folder / "outside.arrow")
    return Source(str(path))


def split_linked_out_of_a_saved_set(folder: Path) -> Source:
    path = saved(folder)
    (path / "train").rename(folder / "outside")
    (path / "train").symlink_to(folder / "outside")
    return Source(str(path))


def state_linked_out_of_a_saved_set(folder: Path) -> Source:
    state = saved(folder) / "train" / "state.json"
    state.rename(folder / "outside.json")
    state.symlink_to(folder / "outside.json")
    return Source(str(folder / "set"))


def saved_set_with_a_cut_dict(folder: Path) -> Source:
    path = saved(folder)
    (path / "dataset_dict.json").write_text('{"splits": ["train"', encoding="utf-8")
    return Source(str(path))


def saved_set_with_no_splits(folder: Path) -> Source:
    path = saved(folder)
    (path / "dataset_dict.json").write_text('{"splits": []}', encoding="utf-8")
    return Source(str(path))


def split_of_a_set_without(folder: Path) -> Source:
    return Source(str(saved(folder) / "train"), split="train")


def table_of_other_columns(folder: Path) -> Source:
    return Source(str(written(folder, "a.parquet", table([{"text_id": 1, "score": 0.5}]))))


def table_with_a_null(folder: Path) -> Source:
    rows = [*ROWS, {"prompt": "a", "completion": None}]
    return Source(str(written(folder, "a.parquet", table(rows))))


PLACES: list[tuple[Callable[[Path], Source], str]] = [
    (no_file, "{folder}/absent.jsonl: no such file"),
    (no_folder, "{folder}/absent: no such file (hint: a data set of the hub is hub:NAME)"),
    (zero_byte_in_name, "{folder}/a\0b.jsonl: cannot be read: embedded null byte"),
    (dangling_link, "{folder}/a.jsonl: no such file: the link leads to gone.jsonl"),
    (
        folder_named_as_a_file,
        "{folder}/a.jsonl: holds no file of rows (.jsonl, .json, .csv, .tsv, .parquet or .arrow, also compressed)",
    ),
    (
        folder_without_rows,
        "{folder}: holds no file of rows (.jsonl, .json, .csv, .tsv, .parquet or .arrow, also compressed)",
    ),
    (folder_with_an_empty_file, f"{{folder}}/b.jsonl: the file is empty (hint: {JSON_HINT})"),
    (
        link_out_of_the_folder,
        "{folder}/rows/a.jsonl: the link leads out of the folder, to {folder}/outside.jsonl",
    ),
    (
        linked_folder_out_of_the_folder,
        "{folder}/rows/more: the link leads out of the folder, to {folder}/outside",
    ),
    (pipe, "{folder}/a.jsonl: is no regular file (hint: write the rows into a file first)"),
    (device, "/dev/zero: is no regular file (hint: write the rows into a file first)"),
    (pipe_as_table, "{folder}/a.parquet: is no regular file (hint: write the rows into a file first)"),
    (split_of_a_file, "{folder}/a.jsonl: split 'test': one file has no splits"),
    (split_of_a_folder_without, "{folder}: split 'test': the folder holds files without splits"),
    (unknown_split_of_a_folder, "{folder}: unknown split 'validation' (allowed: test, train)"),
    (unknown_split_of_a_saved_set, "{folder}/set: unknown split 'tset'; did you mean 'test'? (allowed: test, train)"),
    (
        saved_set_without_its_split,
        "{folder}/set: the split train is not there: train/state.json is missing "
        "(hint: the data set was not written whole; save it again)",
    ),
    (
        saved_set_without_state,
        "{folder}/set/train: state.json is missing (hint: the data set was not written whole; save it again)",
    ),
    (
        saved_set_without_its_rows,
        "{folder}/set/train: data-00000-of-00001.arrow is missing (hint: the data set is not whole; save it again)",
    ),
    (
        link_out_of_a_saved_set,
        "{folder}/set/train/data-00000-of-00001.arrow: the link leads out of the folder, to {folder}/outside.arrow",
    ),
    (
        split_linked_out_of_a_saved_set,
        "{folder}/set/train: the link leads out of the folder, to {folder}/outside",
    ),
    (
        state_linked_out_of_a_saved_set,
        "{folder}/set/train/state.json: the link leads out of the folder, to {folder}/outside.json",
    ),
    (saved_set_with_a_broken_state, "{folder}/set/train/state.json: names no files of rows"),
    (
        saved_set_with_a_cut_dict,
        "{folder}/set/dataset_dict.json: cannot be read: Expecting ',' delimiter: line 1 column 20 (char 19)",
    ),
    (saved_set_with_no_splits, "{folder}/set/dataset_dict.json: names no splits"),
    (split_of_a_set_without, "{folder}/set/train: split 'train': the folder was saved without splits"),
    (
        table_of_other_columns,
        f"{{folder}}/a.parquet:1: columns: found text_id, score; {UNKNOWN.replace('{', '{{').replace('}', '}}')}",
    ),
    (table_with_a_null, "{folder}/a.parquet:4: completion: text that is not empty is needed, found None"),
]


@pytest.mark.parametrize(("make", "line"), PLACES, ids=[make.__name__ for make, _ in PLACES])
def test_a_bad_place_gets_its_own_line(tmp_path: Path, make: Callable[[Path], Source], line: str) -> None:
    assert str(error_of(make(tmp_path))) == line.format(folder=tmp_path)


class Failing(io.BytesIO):
    """A file on a disk that fails."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_disk_that_fails_is_told_with_the_file() -> None:
    with pytest.raises(DataError) as caught:
        list(files.blocks(Failing(), Path("a.jsonl")))
    assert str(caught.value) == f"a.jsonl: cannot be read: [Errno {errno.EIO}] {os.strerror(errno.EIO)}"


def test_a_file_that_may_not_be_read() -> None:
    error_of(Source("missing.jsonl"))  # what is imported late is imported now, by whom may read it
    with tempfile.TemporaryDirectory() as name, nobody(Path(name)) as folder:
        path = written(folder, "a.jsonl", LINES)
        path.chmod(0)
        assert str(error_of(Source(str(path)))) == f"{path}: cannot be read: Permission denied"


@contextmanager
def nobody(folder: Path) -> Iterator[Path]:
    """The folder, given to a user without privileges, as whom the block runs: root may read everything."""
    if os.geteuid() != 0:
        yield folder
        return
    os.chown(folder, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("name", "begin", "fill", "line"),
    [
        ("a.jsonl", LINES + '{"prompt": "', "a", ":4: the line is longer than 1 MiB without an end"),
        ("a.json", '[{"prompt": "a"},\n{"prompt": "', "a", ":2: the row is longer than 1 MiB without an end"),
        ("a.json", '[{"prompt": "a"},\n[', '"a",', ":2: the row is longer than 1 MiB without an end"),
        ("a.csv", "prompt,completion\na,b\n", "a", ":3: the line is longer than 1 MiB without an end"),
        ("b.csv", 'prompt,completion\na,b\n"', "a\n", ":3: a field is longer than 1 MiB without an end"),
    ],
)
def test_a_row_without_an_end_is_not_read_to_the_end_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, begin: str, fill: str, line: str
) -> None:
    for module in (files, json_text, delimited):
        monkeypatch.setattr(module, "ROW_LIMIT", 1 << 20, raising=False)
        monkeypatch.setattr(module, "TOO_LONG", "longer than 1 MiB without an end", raising=False)
    path = written(tmp_path, name, begin + fill * (5_000_000 // len(fill)))
    assert str(error_of(Source(str(path)))).startswith(f"{path}{line}")


SAMPLE = ["truncated JSON line", "UTF-16", "duplicate keys", "ragged table, short", "truncated gzip", "tool turn"]


@pytest.mark.parametrize("case", SAMPLE)
def test_the_command_line_says_it_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    name, content, line = TEXT_FILES[case]
    path = written(tmp_path, name, content)

    def command() -> object:
        return app(["data", "check", f"data.train={path}"], standalone_mode=False)

    assert report(command) == BAD_INPUT
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {path}{line.partition(' (hint:')[0]}\n") and "Traceback" not in shown


def test_the_command_line_refuses_a_folder_without_rows(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["data", "check", f"data.train={tmp_path}"])
    assert isinstance(done.exception, DataError) and "holds no file of rows" in str(done.exception)


# Whatever a file holds: rows, or one line.


def reads_or_refuses(path: Path) -> None:
    for share in (0.0, 1.0):
        try:
            for row in stream_rows(Source(str(path), bad_rows=share)):
                assert row.place.line > 0
        except DataError as error:
            assert "\n" not in str(error)


GOOD = {
    "a.jsonl": LINES.encode(),
    "a.json": json.dumps(ROWS).encode(),
    "a.csv": b'prompt,completion\n"a, b",c\nd,e\n',
    "a.tsv": b"prompt\tcompletion\na\tb\n",
    "a.parquet": table(ROWS),
    "a.arrow": stream(ROWS),
    "a.jsonl.gz": gzip.compress(LINES.encode()),
    "a.jsonl.zst": pa.compress(LINES.encode(), codec="zstd", asbytes=True),
}
NAMES = st.sampled_from(sorted(GOOD))
FIELDS = st.sampled_from(sorted(KNOWN | {"role", "content", "from", "value", "weight", "label", "tool_calls"}))
SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(), max_size=6)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["user", "assistant", "system", "human", "gpt", "#### 5", "<|user|>a<|assistant|>b"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=14,
)


@given(NAMES, st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    reads_or_refuses(written(tmp_path_factory.getbasetemp() / "bytes", name, content))


@given(st.dictionaries(FIELDS, VALUES, min_size=1, max_size=5) | VALUES)
@settings(max_examples=250)
def test_any_values(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "values"
    reads_or_refuses(written(folder, "a.jsonl", json.dumps(value) + "\n" + LINES))
    reads_or_refuses(written(folder, "a.json", json.dumps([value, ROWS[0]])))


@given(NAMES, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2), st.binary(max_size=3)), max_size=3))
@settings(max_examples=250)
def test_any_edit_of_a_good_file(
    tmp_path_factory: pytest.TempPathFactory, name: str, edits: list[tuple[int, int, bytes]]
) -> None:
    content = GOOD[name]
    for at, cut, put in edits:
        at %= len(content) + 1
        content = content[:at] + put + content[at + cut :]
    reads_or_refuses(written(tmp_path_factory.getbasetemp() / "edits", name, content))

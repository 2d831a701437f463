"""The same rows from every kind of file, folder and data set; counts, places, shares of bad rows; bounded memory."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.base.config import Data
from ramify.base.errors import ConfigError, DataError
from ramify.data.bad_rows import BEYOND
from ramify.data.json_text import json_list
from ramify.data.source import Source, training_source
from ramify.data.sources import read_rows, stream_rows
from ramify.data.values import iter_values

ROWS = [
    {"prompt": "How many g are in 6 kg?", "completion": "6000"},
    {"prompt": 'Say "yes", twice,\nplease', "completion": "yes\r\nyes"},
    {"prompt": "¿Cuánto? \u2028 漢字 😀", "completion": "mucho\ttotal"},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
NESTED = [
    {"messages": [{"role": "user", "content": f"Q{i}"}, {"role": "assistant", "content": f"A{i}"}], "n": i}
    for i in range(2500)
]


def quoted(delimiter: str) -> bytes:
    cells = [["prompt", "completion"], *([row["prompt"], row["completion"]] for row in ROWS)]
    lines = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells]
    return ("\r\n".join(lines) + "\r\n").encode()


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def parquet(rows: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def arrow(rows: list[Any], writer: Callable[..., Any] = pa.ipc.new_stream) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows)
    with writer(sink, table.schema) as written:
        written.write_table(table, max_chunksize=1000)
    content: bytes = sink.getvalue().to_pybytes()
    return content


FILES = {
    "rows.jsonl": LINES,
    "rows.ndjson": LINES,
    "lines.json": LINES,
    "list.json": json.dumps(ROWS).encode(),
    "pretty.json": json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "rows.txt": LINES,
    "windows.jsonl": LINES.replace(b"}\n", b"}\r\n"),
    "unended.jsonl": LINES.rstrip(b"\n"),
    "mark.jsonl": b"\xef\xbb\xbf" + LINES,
    "mark.json": b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    "rows.csv": quoted(","),
    "mark.csv": b"\xef\xbb\xbf" + quoted(","),
    "rows.tsv": quoted("\t"),
    "rows.parquet": parquet(ROWS),
    "stream.arrow": arrow(ROWS),
    "file.arrow": arrow(ROWS, pa.ipc.new_file),
    "rows.jsonl.gz": gzip.compress(LINES),
    "rows.jsonl.bz2": bz2.compress(LINES),
    "rows.jsonl.xz": lzma.compress(LINES),
    "rows.jsonl.zst": zstd(LINES),
    "list.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "rows.csv.zst": zstd(quoted(",")),
    "stream.arrow.gz": gzip.compress(arrow(ROWS)),
    "RO WS.JSONL": LINES,
}


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_values(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, FILES[name])
    found = list(iter_values(Source(str(path))))
    assert [value for _, value in found] == ROWS
    assert all(place.path == path for place, _ in found)
    stream = stream_rows(path)
    assert [row.decoded.examples[0].completions[0].text for row in stream] == [row["completion"] for row in ROWS]
    assert (stream.count, dict(stream.shapes)) == (3, {"prompt_completion": 3})
    assert stream.summary() == "3 rows of the shape prompt_completion"


@pytest.mark.parametrize(
    ("name", "lines"),
    [("rows.jsonl", [1, 2, 3]), ("list.json", [1, 1, 1]), ("pretty.json", [2, 6, 10]), ("rows.csv", [2, 3, 6])],
)
def test_places_are_lines_of_text(tmp_path: Path, name: str, lines: list[int]) -> None:
    path = written(tmp_path, name, FILES[name])
    assert [place.line for place, _ in iter_values(Source(str(path)))] == lines


@pytest.mark.parametrize("content", [parquet(NESTED), arrow(NESTED), arrow(NESTED, pa.ipc.new_file)])
def test_tables_are_read_in_batches_and_numbered(tmp_path: Path, content: bytes) -> None:
    name = "rows.parquet" if content.startswith(b"PAR1") else "rows.arrow"
    found = list(iter_values(Source(str(written(tmp_path, name, content)))))
    assert [value for _, value in found] == NESTED
    assert [place.line for place, _ in found] == list(range(1, 2501))


@pytest.mark.parametrize("packed", [False, True])
def test_a_stream_without_the_mark_of_its_end_is_not_whole(tmp_path: Path, packed: bool) -> None:
    """Cut between two batches, it would be read as if that were all."""
    whole = arrow(NESTED)
    sink = pa.BufferOutputStream()
    reader = pa.ipc.open_stream(whole)
    with pa.ipc.new_stream(sink, reader.schema) as begin:
        begin.write_batch(reader.read_next_batch())
    first_batch = sink.getvalue().to_pybytes()[:-8]
    assert whole.startswith(first_batch) and len(first_batch) < len(whole)
    for content in (first_batch, *(whole[:-missing] for missing in range(1, 9))):
        packed_content = gzip.compress(content) if packed else content
        path = written(tmp_path, "rows.arrow.gz" if packed else "rows.arrow", packed_content)
        with pytest.raises(DataError, match=r"is cut off: the mark that ends|is not a whole Arrow file"):
            list(iter_values(Source(str(path))))
        assert len(list(iter_values(Source(str(path), limit=1000)))) == 1000


@pytest.mark.parametrize("kind", ["parquet", "arrow", "struct"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, kind: str) -> None:
    texts_of = pa.array(["a", "b"])
    if kind == "struct":
        turn = pa.StructArray.from_arrays([texts_of, texts_of], names=["role", "role"])
        data = pa.table({"messages": pa.ListArray.from_arrays([0, 1, 2], turn)})
    else:
        data = pa.Table.from_arrays([texts_of, texts_of, texts_of], names=["prompt", "completion", "prompt"])
    path = tmp_path / f"rows.{'parquet' if kind == 'parquet' else 'arrow'}"
    if kind == "parquet":
        pq.write_table(data, path)
    else:
        with pa.ipc.new_stream(str(path), data.schema) as stream:
            stream.write_table(data)
    twice = "role" if kind == "struct" else "prompt"
    with pytest.raises(DataError) as caught:
        list(iter_values(Source(str(path))))
    said = f"{path}: the column {twice!r} is named twice (hint: a name may stand in a row only once)"
    assert str(caught.value) == said


def test_json_columns_of_tables_are_decoded(tmp_path: Path) -> None:
    mixed = [[{"b": 0}, {"c": "x"}], [{"d": [1]}], None]
    features = datasets.Features({"a": datasets.List(datasets.Json()), "b": {"c": datasets.Json()}})
    saved = datasets.Dataset.from_dict({"a": mixed, "b": [{"c": {"d": 1}}, {"c": None}, {"c": [2]}]}, features=features)
    saved.save_to_disk(str(tmp_path / "saved"))
    found = [value for _, value in iter_values(Source(str(tmp_path / "saved")))]
    assert found == list(saved)


@pytest.mark.parametrize(
    ("name", "library", "line"),
    [
        ("rows.parquet", "pyarrow.parquet", "reading Parquet files needs pyarrow"),
        ("rows.arrow", "pyarrow", "reading Arrow files needs pyarrow"),
        ("rows.jsonl.zst", "pyarrow", "reading .zst files needs pyarrow"),
        ("hub:org/name", "datasets", "reading data sets of the hub needs datasets"),
    ],
)
def test_a_library_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, line: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # what Python takes for a module that is not there
    path = name if name.startswith("hub:") else str(written(tmp_path, name, LINES))
    with pytest.raises(DataError, match=f"^{line}") as caught:
        list(iter_values(Source(path)))
    assert caught.value.hint == "pip install 'ramify[data]'"


# Text is read in blocks; rows must not depend on where one ends.


@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
@settings(max_examples=200)
def test_a_list_reads_the_same_however_it_is_cut(
    rows: list[Any], indent: int | None, ascii_only: bool, sizes: list[int]
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode("utf-8", errors="replace")
    wanted = json.loads(text)
    assert [value for _, value in json_list(cut(text, sizes), Path("rows.json"))] == wanted


def cut(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        size = sizes[at % len(sizes)]
        yield content[at : at + size]
        at += size


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_rows_longer_than_a_block_are_read(tmp_path: Path, name: str) -> None:
    long = [{"prompt": "é" * 800_000 + "\n" + "x" * 1_500_000, "completion": str(i)} for i in range(3)]
    if name.endswith("l"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in long)
    elif name.endswith("json"):
        text = json.dumps(long, ensure_ascii=False)
    else:
        text = "prompt,completion\n" + "".join(f'"{row["prompt"]}",{row["completion"]}\n' for row in long)
    path = written(tmp_path, name, text.encode())
    assert [value for _, value in iter_values(Source(str(path)))] == long


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.arrow", "rows.jsonl.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    def peak(count: int) -> int:
        rows = [{"prompt": f"{i} " + "x" * 2000, "completion": "y" * 2000} for i in range(count)]
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        csv = "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in rows)
        content = {
            "rows.jsonl": lines,
            "rows.json": json.dumps(rows).encode(),
            "rows.csv": csv.encode(),
            "rows.parquet": parquet(rows),
            "rows.arrow": arrow(rows),
            "rows.jsonl.gz": gzip.compress(lines, 1),
        }[name]
        path = written(tmp_path, name, content)
        del rows, lines, csv, content
        tracemalloc.start()
        assert sum(1 for _ in stream_rows(path)) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    small, large = peak(2_000), peak(6_000)  # 8 and 24 MB
    assert large < small * 1.3 + 1_000_000


def test_a_stream_reads_no_further_than_it_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", LINES * 100_000 + b"{")
    assert len(list(islice(stream_rows(path), 5))) == 5
    assert read_rows(path, limit=4).count == 4
    assert len(read_rows(Source(str(path), limit=2)).examples) == 2


# Folders.


def saved_splits(folder: Path) -> Path:
    splits = {"train": ROWS[:2], "validation": ROWS[2:]}
    made = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(str(folder / "mix"))
    return folder / "mix"


def texts(source: Source) -> list[str]:
    return [value["prompt"] for _, value in iter_values(source)]


PROMPTS = [row["prompt"] for row in ROWS]


def test_a_saved_data_set_in_several_files(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    found = list(iter_values(Source(str(tmp_path / "saved"))))
    assert [value for _, value in found] == ROWS
    assert [place.source for place, _ in found] == [
        f"{tmp_path / 'saved' / f'data-{at:05}-of-00003.arrow'}:1" for at in range(3)
    ]


def test_a_selection_is_saved_as_it_was_selected(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).select([2, 0]).save_to_disk(str(tmp_path / "saved"))
    assert texts(Source(str(tmp_path / "saved"))) == [PROMPTS[2], PROMPTS[0]]


def counted(folder: Path, entry: dict[str, Any]) -> Source:
    """A saved data set of three rows beside which a count is written."""
    datasets.Dataset.from_list(ROWS, split="train").save_to_disk(str(folder / "saved"))
    info = folder / "saved" / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "splits": {"train": {"name": "train", **entry}}}))
    return Source(str(folder / "saved"))


def test_a_saved_data_set_has_as_many_rows_as_were_written(tmp_path: Path) -> None:
    assert texts(counted(tmp_path, {"num_examples": 3})) == PROMPTS
    source = counted(tmp_path, {"num_examples": 4})
    with pytest.raises(DataError) as caught:
        texts(source)
    assert str(caught.value) == (
        f"{tmp_path / 'saved'}: 3 rows are there, 4 were written (hint: the data set is not whole; save it again)"
    )
    assert len(datasets.load_from_disk(source.name)) == 3


def test_counts_of_the_data_set_that_rows_were_selected_from_mean_nothing(tmp_path: Path) -> None:
    source = counted(tmp_path, {"num_examples": 3})
    selected = datasets.load_from_disk(source.name).select([2, 0])
    selected.save_to_disk(str(tmp_path / "selected"))
    info = json.loads((tmp_path / "selected" / "dataset_info.json").read_text())
    assert info["splits"]["train"]["num_examples"] == 3
    assert texts(Source(str(tmp_path / "selected"))) == [PROMPTS[2], PROMPTS[0]]


def test_splits_of_a_saved_data_set(tmp_path: Path) -> None:
    folder = str(saved_splits(tmp_path))
    assert texts(Source(folder)) == PROMPTS[:2]
    assert texts(Source(folder, split="validation")) == PROMPTS[2:]


def test_files_of_a_folder_in_the_order_of_their_names(tmp_path: Path) -> None:
    one = [json.dumps(row).encode() for row in ROWS]
    written(tmp_path, "b.jsonl", one[1])
    written(tmp_path, "a/z.jsonl.gz", gzip.compress(one[0]))
    written(tmp_path, "c.csv", b"prompt,completion\nlast,1\n")
    for name in ("README.md", ".hidden.jsonl", ".git/x.jsonl", "dataset_info.json"):
        written(tmp_path, name, b"no rows")
    os.symlink(tmp_path / "b.jsonl", tmp_path / "d.jsonl")
    assert texts(Source(str(tmp_path))) == [PROMPTS[0], PROMPTS[1], "last", PROMPTS[1]]


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "test.jsonl", "valid.jsonl"),
        ("train/0.jsonl", "test/0.jsonl", "validation/0.jsonl"),
        ("data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl", "data/dev-00000-of-00001.jsonl"),
        ("chat_train.jsonl", "chat_test.jsonl", "chat_val.jsonl"),
    ],
)
def test_splits_of_a_folder_of_files(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, row in zip(names, ROWS, strict=True):
        written(tmp_path, name, json.dumps(row).encode())
    found = {split: texts(Source(str(tmp_path), split=split)) for split in ("train", "test", "validation", None)}
    assert found == {"train": PROMPTS[:1], "test": PROMPTS[1:2], "validation": PROMPTS[2:], None: PROMPTS[:1]}


def test_a_folder_without_a_training_split_is_read_whole(tmp_path: Path) -> None:
    for name, row in zip(("a_test.jsonl", "b.jsonl"), ROWS, strict=False):
        written(tmp_path, name, json.dumps(row).encode())
    assert texts(Source(str(tmp_path))) == PROMPTS[:2]
    assert texts(Source(str(tmp_path), split="test")) == PROMPTS[:1]


# Data sets of the hub: a repository on disk, under a name of the hub, is read by the same calls as one there.


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "repository"
    load = datasets.load_dataset

    def load_dataset(name: str, *settings: Any, **named: Any) -> Any:
        return load(str(folder) if name == "somebody/units" else name, *settings, **named)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    written(folder, "data/train-00000-of-00001.parquet", parquet(ROWS[:2]))
    written(folder, "data/test-00000-of-00001.parquet", parquet(ROWS[2:]))
    written(folder, "other/train-00000-of-00001.parquet", parquet(NESTED))
    card = (
        "---\nconfigs:\n- config_name: main\n  default: true\n  data_files:\n  - split: train\n    path: data/train-*\n"
        "  - split: test\n    path: data/test-*\n- config_name: chat\n  data_files: other/*\n---\n"
    )
    written(folder, "README.md", card.encode())
    return folder


@pytest.mark.parametrize("stream", [False, True])
def test_a_hub_data_set_with_config_and_split(repository: Path, stream: bool) -> None:
    name = "hub:somebody/units"
    assert texts(Source(name, stream=stream)) == PROMPTS[:2]
    assert texts(Source(name, split="test", stream=stream)) == PROMPTS[2:]
    found = list(iter_values(Source(name, config="chat", stream=stream)))
    assert [value for _, value in found] == NESTED
    assert [place.line for place, _ in found] == list(range(1, 2501))
    assert len(texts(Source(name, limit=1, stream=stream))) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"split": "dev"}, ("dev", "train", "test")), ({"config": "extra"}, ("extra", "main", "chat"))],
)
def test_what_a_hub_data_set_lacks_is_one_line(repository: Path, settings: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"the hub data set cannot be read: ") as caught:
        texts(Source("somebody/units", **settings))
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


def test_a_hub_that_cannot_be_reached_is_one_line(repository: Path) -> None:
    with pytest.raises(DataError, match=r"^nobody/nothing: the hub data set cannot be read: ") as caught:
        texts(Source("nobody/nothing"))
    assert caught.value.hint is not None and "\n" not in str(caught.value)


def test_a_path_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "org/name", LINES)
    assert Source("org/name").hub_id is None and texts(Source("org/name")) == PROMPTS
    assert Source("hub:org/name").hub_id == "org/name"
    assert Source("other/name").hub_id == "other/name"
    for path in ("org/nane", "other/rows.jsonl", "./other/name", "squad", "a/b/c", "/other/name"):
        assert Source(path).hub_id is None
    assert Source("hub:squad").hub_id == "squad"


@pytest.mark.parametrize("name", ["org/name", "name"])
def test_a_path_is_not_read_as_a_data_set_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, f"{name}/rows.jsonl", LINES)
    with pytest.raises(DataError) as caught:
        texts(Source(f"hub:{name}"))
    assert str(caught.value).startswith(f"hub:{name}: there is a path {name} here, which would be read instead (hint: ")


@pytest.mark.parametrize("name", ["", "/", "a/b/c", "../rows", "a b", "https://huggingface.co/datasets/a/b", "-a"])
def test_what_is_no_id_of_the_hub_is_refused(name: str) -> None:
    with pytest.raises(DataError) as caught:
        texts(Source(f"hub:{name}"))
    assert str(caught.value) == f"hub:{name}: is no id of a hub data set (hint: hub:org/name, or hub:name)"


def test_settings_of_the_hub_mean_nothing_for_a_file(tmp_path: Path) -> None:
    path = str(written(tmp_path, "rows.jsonl", LINES))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"config": "main"}, "config = main"),
        ({"revision": "v1"}, "revision = v1"),
        ({"stream": True}, "stream = true"),
    ]
    for given_settings, shown in cases:
        with pytest.raises(ConfigError) as caught:
            texts(Source(path, **given_settings))
        assert str(caught.value).startswith(f"{shown}: {path} is no data set of the hub")


# Sources of a run.


def test_training_and_validation_sources_from_settings(tmp_path: Path) -> None:
    data = Data(
        train="org/set",
        config="main",
        split="train_sft",
        valid_split="test_sft",
        revision="v1",
        stream=True,
        columns={"prompt": "q"},
        shape="prompt_completion",
        bad_rows=0.1,
        limit=5,
    )
    train = training_source(data, "train")
    same: dict[str, Any] = {"columns": {"prompt": "q"}, "shape": "prompt_completion", "bad_rows": 0.1}
    hub: dict[str, Any] = {"config": "main", "revision": "v1", "stream": True}
    assert train == Source("org/set", split="train_sft", limit=5, **same, **hub)
    valid = training_source(data, "valid")
    also = {**same, "default_split": "validation"}
    assert valid == Source("org/set", split="test_sft", **also, **hub)
    path = written(tmp_path, "valid.jsonl", LINES)
    apart = training_source(data.model_copy(update={"valid": path, "valid_split": None}), "valid")
    assert apart == Source(str(path), **also)


def test_validation_rows_of_a_folder_are_never_those_of_its_training_split(tmp_path: Path) -> None:
    saved = saved_splits(tmp_path)
    assert texts(training_source(Data(train=saved, valid=saved), "valid")) == PROMPTS[2:]
    assert texts(training_source(Data(train=saved, valid=saved, valid_split="train"), "valid")) == PROMPTS[:2]
    for name, row in zip(("rows/train.jsonl", "rows/test.jsonl"), ROWS, strict=False):
        written(tmp_path, name, json.dumps(row).encode())
    folder = tmp_path / "rows"
    assert texts(training_source(Data(train=folder), "train")) == PROMPTS[:1]
    assert texts(training_source(Data(train=folder, valid_split="test"), "valid")) == PROMPTS[1:2]
    with pytest.raises(DataError, match=r"rows: unknown split 'validation' \(allowed: test, train\)"):
        texts(training_source(Data(train=folder, valid=folder), "valid"))


def test_a_run_with_selected_rows_is_a_source(tmp_path: Path) -> None:
    written(tmp_path, "run.json", b"{}")
    path = written(tmp_path, "rows.jsonl", LINES)
    assert training_source(Data(train=tmp_path), "train").name == str(path)


def test_sources_that_are_missing_or_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.train is not set"):
        training_source(Data(), "train")
    with pytest.raises(ConfigError, match=r"data.valid is not set"):
        training_source(Data(train="a"), "valid")
    with pytest.raises(ConfigError, match=r"data.valid_split = train: this split is trained on"):
        training_source(Data(train="a", valid_split="train"), "valid")


# Rows that do not fit.


def mixed(folder: Path, good: int, bad: list[str]) -> Path:
    lines = [json.dumps(ROWS[0])] * good + bad
    return written(folder, "rows.jsonl", "\n".join(lines).encode())


BROKEN = [
    '{"prompt": "a", "completion": ""}',
    "{",
    '{"prompt": "a", "completion": null}',
    '{"prompt": 3, "completion": "a"}',
]


def test_rows_that_do_not_fit_are_counted_with_reason_and_place(tmp_path: Path) -> None:
    path = mixed(tmp_path, 16, BROKEN)
    stream = stream_rows(Source(str(path), bad_rows=0.2))
    assert [row.place.line for row in stream] == list(range(1, 17))
    assert (stream.count, stream.bad.count) == (20, 4)
    reasons = {name: (reason.count, reason.first.line) for name, reason in stream.bad.reasons.items()}
    assert reasons == {
        "completion: text that is not empty is needed": (2, 17),
        "not valid JSON: Expecting property name enclosed in double quotes at column 2": (1, 18),
        "prompt: text that is not empty is needed": (1, 20),
    }
    assert stream.summary() == (
        "16 rows of the shape prompt_completion; 4 left out (completion: text that is not empty is needed: 2, first at "
        f"{path}:17; not valid JSON: Expecting property name enclosed in double quotes at column 2: 1, first at "
        f"{path}:18; prompt: text that is not empty is needed: 1, first at {path}:20)"
    )
    assert read_rows(Source(str(path), bad_rows=0.2)).notes == {"left_out": 4}


def test_more_than_the_share_stops_the_run(tmp_path: Path) -> None:
    path = mixed(tmp_path, 15, BROKEN)
    with pytest.raises(DataError) as caught:
        list(stream_rows(Source(str(path), bad_rows=0.2)))
    assert str(caught.value).startswith(
        f"{path}: 4 of 19 rows (21.1%) do not fit, more than the 20.0% that bad_rows allows: completion: text that is "
        f"not empty is needed: 2, first at {path}:16; not valid JSON"
    )


def test_without_a_share_the_first_bad_row_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r":4: completion: text that is not empty is needed, found ''"):
        list(stream_rows(mixed(tmp_path, 3, BROKEN)))


def test_a_file_of_bad_rows_is_not_read_to_its_end(tmp_path: Path) -> None:
    stream = stream_rows(Source(str(mixed(tmp_path, 0, BROKEN * 1000)), bad_rows=0.1))
    with pytest.raises(DataError, match=r"112 of 112 rows \(100.0%\) do not fit, more than the 10.0%"):
        list(stream)
    assert stream.count == 112 and stream.bad.count > BEYOND


def test_counts_begin_anew_with_each_pass(tmp_path: Path) -> None:
    stream = stream_rows(Source(str(mixed(tmp_path, 16, BROKEN)), bad_rows=0.5))
    first = (len(list(stream)), stream.summary())
    assert (len(list(stream)), stream.summary()) == first


def test_ragged_lines_of_tables_and_bad_utf8_are_bad_rows_too(tmp_path: Path) -> None:
    csv = written(tmp_path, "rows.csv", b"prompt,completion\na,b\na\na,b,c\na,b\n")
    stream = stream_rows(Source(str(csv), bad_rows=0.5))
    assert [row.place.line for row in stream] == [2, 5] and stream.bad.count == 2
    lines = written(tmp_path, "rows.jsonl", LINES + b'{"prompt": "\xff"}\n' + LINES)
    stream = stream_rows(Source(str(lines), bad_rows=0.5))
    assert [row.place.line for row in stream] == [1, 2, 3, 5, 6, 7]
    assert list(stream.bad.reasons) == ["not valid UTF-8 at byte 12 of the line"]


# Published files.

COUNTS = {
    "flan_t0_templates": ("prompt_completion", 4600),
    "gsm8k/test.jsonl": ("question_answer", 1319),
    "gsm8k/test_socratic_first600.jsonl": ("question_answer", 600),
    "gsm8k/train_first3000.jsonl": ("question_answer", 3000),
    "gsm8k": ("question_answer", 3000),
    "gsm8k_chat": ("messages", 449),
    "gsm8k_chat/chat_validation.jsonl": ("messages", 50),
    "instructions/alpaca_seed_tasks.jsonl": ("instances", 175),
    "instructions/user_oriented_instructions.jsonl": ("instances", 252),
    "instructions/identity.json": ("alpaca", 91),
    "instructions/v1_sft_demo.jsonl": ("messages", 500),
    "orca_dpo_pairs/validation.jsonl": ("preferred_output", 284),
    "orca_dpo_pairs/derived_slimorca_shape.jsonl": ("conversations", 284),
    "preferences/dpo_en_demo.json": ("preference", 300),
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_rows_are_recognised_and_counted(shared: Path, name: str) -> None:
    path = shared / "data" / name
    if not path.exists():
        pytest.skip(f"{name} is not in the shared data")
    stream = stream_rows(path)
    used = sum(1 for _ in stream)
    assert (dict(stream.shapes), used, stream.bad.count) == ({COUNTS[name][0]: COUNTS[name][1]}, COUNTS[name][1], 0)


def test_published_rows_under_other_names(shared: Path) -> None:
    path = shared / "data" / "gsm8k" / "example_model_solutions.jsonl"
    if not path.exists():
        pytest.skip("the solutions are not in the shared data")
    named = stream_rows(Source(str(path), columns={"answer": "ground_truth"}))
    assert sum(1 for _ in named) == 1319 and dict(named.shapes) == {"question_answer": 1319}
    inner = Source(str(path), columns={"prompt": "question", "completion": "6b_finetuning.solution"}, bad_rows=0.05)
    rows = read_rows(inner)
    assert rows.shape == "prompt_completion" and rows.count + rows.notes.get("left_out", 0) == 1319


@pytest.mark.parametrize(("name", "count"), [("itsp_c/labs.jsonl", 9), ("menagerie_java/submissions.jsonl", 36)])
def test_published_files_of_other_things_are_read_as_values_and_refused_as_rows(
    shared: Path, name: str, count: int
) -> None:
    path = shared / "data" / name
    if not path.exists():
        pytest.skip(f"{name} is not in the shared data")
    assert sum(1 for _ in iter_values(Source(str(path)))) == count
    with pytest.raises(DataError, match=r":1: columns: found "):
        list(stream_rows(path))


def test_a_published_table_is_read(shared: Path) -> None:
    path = shared / "data" / "menagerie_java" / "grades.csv"
    if not path.exists():
        pytest.skip("the grades are not in the shared data")
    values = [value for _, value in iter_values(Source(str(path)))]
    assert len(values) == 4480 and {value["skill"] for value in values} >= {"Readability", "Correctness"}

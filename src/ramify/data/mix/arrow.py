"""A `DatasetDict` folder as `datasets.load_from_disk` reads it: one Arrow stream a split, and three small JSON files.

Written with pyarrow alone and without anything that differs from run to run: equal rows give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from ramify.base.records import sha256_file, write_json
from ramify.data.files import library
from ramify.data.mix.records import Kind

_FILE = "data-00000-of-00001.arrow"
_AT_ONCE = 1000
_PURPOSE = "writing a mix"


@dataclass(frozen=True)
class Columns:
    """What the rows of a mix have.

    Attributes:
        weighted: turns have a weight.
        erased: rows have the system turn they came with.
        graded: pairs have a margin.
    """

    kind: Kind
    weighted: bool
    erased: bool
    graded: bool = False

    @cached_property
    def types(self) -> dict[str, Any]:
        """Each column with its type: a name of Arrow's, or what a turn holds in a list."""
        turn = {"role": "string", "content": "string"}
        if self.kind is Kind.PAIR:
            said: dict[str, Any] = {"prompt": turn, "chosen": turn, "rejected": turn}
            said |= {"margin": "float64"} if self.graded else {}
        elif self.kind is Kind.TEXT:
            said = {"text": "string"}
        else:
            said = {"messages": turn | ({"weight": "float64"} if self.weighted else {})}
        lineage = ("source", "row", "key", *(("original_system",) if self.erased else ()))
        return said | dict.fromkeys(lineage, "string")

    def row(self, source: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """A row with all its columns, from an entry that was set aside."""
        row = {name: entry.get(name) for name in self.types} | {"source": source}
        if self.weighted:
            row["messages"] = [{**turn, "weight": turn.get("weight", 1.0)} for turn in entry["messages"]]
        if self.graded:
            row["margin"] = entry.get("margin", 0.0)
        return row


def require() -> None:
    """Refuse to begin what needs pyarrow where it is not installed.

    Raises:
        DataError: it is not.
    """
    library("pyarrow", _PURPOSE)


def write_split(folder: Path, split: str, columns: Columns, rows: Iterable[Mapping[str, Any]]) -> None:
    """One split of the data set: its rows, and what `datasets` wants to know of them."""
    pyarrow, ipc = library("pyarrow", _PURPOSE), library("pyarrow.ipc", _PURPOSE)
    folder.mkdir(parents=True)
    schema = pyarrow.schema([(name, _arrow_type(pyarrow, kind)) for name, kind in columns.types.items()])
    waiting, count = iter(rows), 0
    with pyarrow.OSFile(str(folder / _FILE), "wb") as file, ipc.new_stream(file, schema) as stream:
        while some := list(islice(waiting, _AT_ONCE)):
            stream.write_batch(pyarrow.RecordBatch.from_pylist(some, schema=schema))
            count += len(some)
    write_json(folder / "dataset_info.json", _info(columns, split, count))
    write_json(folder / "state.json", _state(split, sha256_file(folder / _FILE)[:16]))


def write_splits(folder: Path, splits: Iterable[str]) -> None:
    """What makes the folders of splits one data set."""
    write_json(folder / "dataset_dict.json", {"splits": list(splits)})


def _arrow_type(pyarrow: Any, kind: Any) -> Any:
    if isinstance(kind, str):
        return getattr(pyarrow, kind)()
    return pyarrow.list_(pyarrow.struct([(name, _arrow_type(pyarrow, each)) for name, each in kind.items()]))


def _info(columns: Columns, split: str, rows: int) -> dict[str, Any]:
    return {
        "citation": "",
        "description": "",
        "features": {name: _feature(kind) for name, kind in columns.types.items()},
        "homepage": "",
        "license": "",
        "splits": {split: {"name": split, "num_examples": rows}},
    }


def _feature(kind: Any) -> dict[str, Any]:
    if isinstance(kind, str):
        return {"dtype": kind, "_type": "Value"}
    return {"feature": {name: _feature(each) for name, each in kind.items()}, "_type": "List"}


def _state(split: str, fingerprint: str) -> dict[str, Any]:
    return {
        "_data_files": [{"filename": _FILE}],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }

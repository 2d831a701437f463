"""Folders of rows: what `datasets` saved to disk, or any files, read in the order of their names.

A folder of files may have splits: a file or a folder inside whose name has `train`, `validation` (also `valid`, `val`,
`dev`) or `test` as a word of its own belongs to that split. Files of other kinds, and hidden ones, are passed over; a
link that leads out of the folder is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from ramify.base.errors import DataError, unknown
from ramify.data.files import kind_of

_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_DESCRIPTIONS = (_DICT, _STATE, _INFO, "dataset_infos.json")
"""JSON files about the data, without rows in them."""
_SHARD = re.compile(r"data-\d{5}-of-\d{5}\.arrow")
_WORD = re.compile(r"[^a-zA-Z]+")


class Files(NamedTuple):
    """Files of rows.

    Attributes:
        paths: in the order in which they are read.
        rows: how many rows they have together, where that is written beside them.
    """

    paths: list[Path]
    rows: int | None = None


def folder_files(folder: Path, split: str | None, default: str = "train") -> Files:
    """The files of a folder whose rows are meant, in the order in which they are read.

    Args:
        split: the split asked for.
        default: the one that is meant where there are several and none is asked for.

    Raises:
        DataError: the folder holds no rows, was not written whole, has not this split, or leads out of itself.
    """
    if (folder / _DICT).is_file():
        return _of_dict(folder, split, default)
    if (folder / _STATE).is_file():
        _refuse_split(folder, split, "was saved without splits")
        return _saved(folder, folder)
    return Files(_of_files(folder, split, default))


def _of_dict(folder: Path, split: str | None, default: str) -> Files:
    splits = _json(folder / _DICT).get("splits")
    if not _are_names(splits):
        raise DataError("names no splits", path=folder / _DICT)
    wanted = splits[0] if split is None and len(splits) == 1 else _known(folder, split or default, splits)
    _refuse_leading_out([folder / wanted], folder)
    if not (folder / wanted / _STATE).is_file():
        raise DataError(
            f"the split {wanted} is not there: {wanted}/{_STATE} is missing",
            path=folder,
            hint="the data set was not written whole; save it again",
        )
    return _saved(folder / wanted, folder)


def _known(folder: Path, split: str, splits: Collection[str]) -> str:
    if split not in splits:
        raise DataError(unknown("split", split, splits), path=folder)
    return split


def _saved(folder: Path, home: Path) -> Files:
    """The Arrow files that a state names, which are not all that may lie beside it; no link leads out of `home`."""
    _refuse_leading_out([folder / _STATE], home)
    state = _json(folder / _STATE)
    files = state.get("_data_files")
    names = [each.get("filename") for each in files if isinstance(each, dict)] if isinstance(files, list) else []
    if not _are_names(names):
        raise DataError("names no files of rows", path=folder / _STATE)
    found = [folder / name for name in names]
    missing = next((path for path in found if not path.is_file()), None)
    if missing is not None:
        raise DataError(f"{missing.name} is missing", path=folder, hint="the data set is not whole; save it again")
    _refuse_leading_out(found, home)
    return Files(found, _rows_of(folder, state.get("_split")))


def _rows_of(folder: Path, split: Any) -> int | None:
    """How many rows a split was written with.

    `datasets` carries the counts of a data set along when rows are selected from it, always with a size in bytes: such
    a count says nothing about what was saved. A mix writes the count alone.
    """
    splits = _json(folder / _INFO).get("splits") if (folder / _INFO).is_file() else None
    written = splits.get(split) if isinstance(splits, dict) and isinstance(split, str) else None
    rows = written.get("num_examples") if isinstance(written, dict) and "num_bytes" not in written else None
    return rows if type(rows) is int else None


def _refuse_leading_out(paths: Iterable[Path], home: Path) -> None:
    """Refuse what lies elsewhere than in a folder, by a link."""
    inside = os.path.realpath(home)
    for path in paths:
        found = Path(os.path.realpath(path))
        if not found.is_relative_to(inside):
            raise DataError(f"the link leads out of the folder, to {found}", path=path)


def _are_names(found: Any) -> TypeGuard[list[str]]:
    """Whether these are names of things inside a folder, and nothing that leads out of it."""
    return (
        isinstance(found, list)
        and bool(found)
        and all(isinstance(name, str) and name == os.path.basename(name) and name not in ("", "..") for name in found)
    )


def _of_files(folder: Path, split: str | None, default: str) -> list[Path]:
    files = _rows_inside(folder)
    if any(_SHARD.fullmatch(path.name) for path in files):
        raise DataError(f"{_STATE} is missing", path=folder, hint="the data set was not written whole; save it again")
    if not files:
        endings = ".jsonl, .json, .csv, .tsv, .parquet or .arrow"
        raise DataError(f"holds no file of rows ({endings}, also compressed)", path=folder)
    splits: dict[str, list[Path]] = {}
    for path in files:
        splits.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    named = [name for name in splits if name]
    if split is None and (len(splits) == 1 or not {"train", default}.intersection(named)):
        return files
    if not named:
        _refuse_split(folder, split, "holds files without splits")
    wanted = split or default
    return splits[_known(folder, _SPLITS.get(wanted, wanted), named)]


def _rows_inside(folder: Path) -> list[Path]:
    """Files of rows at any depth, sorted.

    Raises:
        DataError: one is a link that leads out of the folder, or nowhere.
    """
    found: list[Path] = []
    try:
        for where, inner, names in os.walk(folder, onerror=_raise):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            paths = [Path(where) / name for name in names if not name.startswith(".")]
            paths = [path for path in paths if kind_of(path) is not None and path.name not in _DESCRIPTIONS]
            links = [path for path in [*paths, *(Path(where) / name for name in inner)] if path.is_symlink()]
            _refuse_leading_out(links, folder)
            found += paths
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=folder) from None
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _split_of(path: Path) -> str:
    words = [word.lower() for part in path.parts for word in _WORD.split(part)]
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def _refuse_split(folder: Path, split: str | None, why: str) -> None:
    if split is not None:
        raise DataError(f"split {split!r}: the folder {why}", path=folder)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", path=path) from None
    if not isinstance(value, dict):
        raise DataError("an object is needed", path=path)
    return value


def _raise(error: OSError) -> None:
    raise error

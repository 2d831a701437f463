"""The values of a source, one at a time, each with the place where it stands; what they mean is not asked here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ramify.base.errors import DataError
from ramify.data.delimited import delimited_rows
from ramify.data.fields import Place
from ramify.data.files import Kind, kind_of, opened, text_blocks
from ramify.data.folders import folder_files
from ramify.data.hub import hub_rows
from ramify.data.json_text import Numbered, json_lines, json_rows
from ramify.data.source import Source
from ramify.data.tables import arrow_rows, parquet_rows


def iter_values(source: Source) -> Iterator[tuple[Place, Any]]:
    """(place, value) of every row, in order, in bounded memory.

    Raises:
        ConfigError: a setting of hub data sets is given for a path.
        DataError: a file or a row cannot be read, or a file holds no rows; one line with file and line.
    """
    for place, value in iter_readable(source):
        if isinstance(value, DataError):
            raise value
        yield place, value


def iter_readable(source: Source) -> Iterator[tuple[Place, Any]]:
    """As `iter_values`, but a row that cannot be read is given as its `DataError` where the file goes on behind it.

    Raises:
        ConfigError: a setting of hub data sets is given for a path.
        DataError: a file cannot be read any further, or holds no rows.
    """
    return islice(_all_values(source), source.limit)


def _all_values(source: Source) -> Iterator[tuple[Place, Any]]:
    if source.hub_id is not None:
        yield from _placed(hub_rows(source), Path(source.name))
        return
    path = source.path
    if path.is_dir():
        yield from _of_folder(path, source)
        return
    if source.split is not None:
        raise DataError(f"split {source.split!r}: one file has no splits", path=path)
    yield from _placed(_file_rows(path), path)


def _of_folder(folder: Path, source: Source) -> Iterator[tuple[Place, Any]]:
    files = folder_files(folder, source.split, source.default_split)
    count = 0
    for path in files.paths:
        for placed in _placed(_file_rows(path), path):
            count += 1
            yield placed
    if files.rows is not None and count != files.rows:
        hint = "the data set is not whole; save it again"
        raise DataError(f"{count:,} rows are there, {files.rows:,} were written", path=files.paths[0].parent, hint=hint)


def _placed(rows: Numbered, path: Path) -> Iterator[tuple[Place, Any]]:
    line = 0
    for line, value in rows:
        yield Place(path, line), value
    if not line:
        raise DataError("the file holds no rows", path=path)


def _file_rows(path: Path) -> Numbered:
    kind = kind_of(path)
    if kind is Kind.PARQUET:
        yield from parquet_rows(path)
    elif kind is Kind.ARROW:
        yield from arrow_rows(path)
    else:
        with opened(path) as stream:
            found = text_blocks(stream, path)
            if kind in (Kind.CSV, Kind.TSV):
                yield from delimited_rows(found, path, "," if kind is Kind.CSV else "\t")
            else:
                yield from (json_lines if kind is Kind.LINES else json_rows)(found, path)

"""Rows of Parquet and Arrow files, batch by batch; each is an object, numbered from 1."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ramify.base.errors import DataError
from ramify.data.files import check_regular, first_line, library, opened, packing
from ramify.data.json_text import Numbered

_BATCH = 1000
"""Rows turned into objects at once."""


def parquet_rows(path: Path) -> Numbered:
    """The rows of a Parquet file.

    Raises:
        DataError: it is none, is cut off, or has two columns of one name; or pyarrow is not installed.
    """
    parquet = library("pyarrow.parquet", "reading Parquet files")
    if packing(path):
        raise DataError(
            "a Parquet file cannot be read while it is unpacked",
            path=path,
            hint="unpack it; Parquet is compressed inside already",
        )
    check_regular(path)
    with _explained(path, "a whole Parquet file"), parquet.ParquetFile(str(path), memory_map=False) as file:
        _refuse_repeated(file.schema_arrow, path)
        yield from _numbered(file.iter_batches(batch_size=_BATCH, use_threads=False), file.schema_arrow)


def arrow_rows(path: Path) -> Numbered:
    """The rows of an Arrow file, of the stream form (which `datasets` writes) or the file form.

    Raises:
        DataError: it is none, is cut off, or has two columns of one name; or pyarrow is not installed.
    """
    arrow = library("pyarrow", "reading Arrow files")
    ipc = library("pyarrow.ipc", "reading Arrow files")
    with opened(path) as stream, _explained(path, "a whole Arrow file"):
        is_file = not packing(path) and stream.read(6) == b"ARROW1"
        if not packing(path):
            stream.seek(0)
        bytes_read = _Watched(stream)
        source = arrow.PythonFile(bytes_read, mode="r")
        if is_file:
            reader = ipc.open_file(source)
            batches: Iterable[Any] = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            reader = batches = ipc.open_stream(source)
        _refuse_repeated(reader.schema, path)
        yield from _numbered(_checked(batches), reader.schema)
        if not is_file and bytes_read.ended:
            hint = "the file was not written whole, or a part of it is missing"
            raise DataError("is cut off: the mark that ends an Arrow stream is missing", path=path, hint=hint)


class _Watched:
    """A file that knows whether its end was met: pyarrow takes that for the end of the rows.

    Attributes:
        ended: whether nothing was left when it was last read.
    """

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self.ended = False

    def read(self, size: int = -1) -> bytes:
        """As of the file."""
        found = self._file.read(size)
        self.ended = not found and size != 0
        return found

    def close(self) -> None:
        """Whoever opened the file closes it."""


def _numbered(batches: Iterable[Any], schema: Any) -> Numbered:
    decoders = {field.name: found for field in schema if (found := _json_columns(field.type)) is not None}
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH):
            for row in batch.slice(start, _BATCH).to_pylist():
                number += 1
                for name, decode in decoders.items():
                    row[name] = decode(row[name])
                yield number, row


def _checked(batches: Iterable[Any]) -> Iterator[Any]:
    """Arrow files are read without a look at their offsets; broken ones would lead out of the file."""
    for batch in batches:
        batch.validate(full=True)
        yield batch


def _refuse_repeated(fields: Iterable[Any], path: Path) -> None:
    """Refuse columns, and fields of a struct, of one name: rows as objects would keep the last one only."""
    names = [field.name for field in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"the column {twice!r} is named twice", path=path, hint="a name may stand in a row only once")
    for field in fields:
        _refuse_repeated(_fields_inside(field.type), path)


def _fields_inside(kind: Any) -> list[Any]:
    """Of a struct, or of the structs in a list."""
    arrow_types = library("pyarrow.types", "reading Arrow files")
    while arrow_types.is_list(kind) or arrow_types.is_large_list(kind):
        kind = kind.value_type
    return list(kind) if arrow_types.is_struct(kind) else []


@contextmanager
def _explained(path: Path, wanted: str) -> Iterator[None]:
    """Whatever the library raises on bytes it cannot read becomes one line."""
    try:
        yield
    except (DataError, GeneratorExit):
        raise
    except Exception as error:
        raise DataError(f"is not {wanted}: {first_line(error)}", path=path) from None


def _json_columns(kind: Any) -> Any:
    """What turns a column of this type into its values, where JSON texts are in it; else None."""
    if str(kind) == "extension<arrow.json>":
        return lambda value: None if value is None else json.loads(value)
    arrow_types = library("pyarrow.types", "reading Arrow files")
    if arrow_types.is_list(kind) or arrow_types.is_large_list(kind):
        inner = _json_columns(kind.value_type)
        return None if inner is None else lambda value: None if value is None else [inner(each) for each in value]
    if arrow_types.is_struct(kind):
        found = {field.name: inner for field in kind if (inner := _json_columns(field.type)) is not None}
        return _struct_decoder(found) if found else None
    return None


def _struct_decoder(found: dict[str, Any]) -> Any:
    def decoded(value: Any) -> Any:
        return value if value is None else value | {name: decode(value[name]) for name, decode in found.items()}

    return decoded

"""Files of rows as streams of bytes: which kind a name says, how it is unpacked, and why one cannot be read.

Compressed files (.gz .bz2 .xz .zst) are unpacked while they are read. Whatever is no regular file is refused before it
is opened: a pipe or a device would keep the reader waiting.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, Any, cast

from ramify.base.errors import DataError

BLOCK = 1 << 20
"""Bytes read at once."""
ROW_LIMIT = 64 << 20
"""Longest row in bytes; what is longer is no row, but a file with a bracket, a quote or a line end missing."""
TOO_LONG = f"longer than {ROW_LIMIT >> 20} MiB without an end"


class Kind(Enum):
    """What a file's ending says about its rows."""

    LINES = "lines"  # JSON, one row a line
    JSON = "json"  # a JSON list of rows, or JSON lines: told apart by content
    CSV = "csv"  # commas, a line of names first
    TSV = "tsv"  # tabs, a line of names first
    PARQUET = "parquet"
    ARROW = "arrow"


_KINDS = {
    ".jsonl": Kind.LINES,
    ".ndjson": Kind.LINES,
    ".json": Kind.JSON,
    ".csv": Kind.CSV,
    ".tsv": Kind.TSV,
    ".parquet": Kind.PARQUET,
    ".arrow": Kind.ARROW,
}
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_SIGNS = {
    b"\x1f\x8b": "gzip: name it .gz",
    b"\x28\xb5\x2f\xfd": "zstd: name it .zst",
    b"\xfd7zXZ": "xz: name it .xz",
    b"BZh": "bzip2: name it .bz2",
    b"PAR1": "Parquet: name it .parquet",
    b"ARROW1": "Arrow: name it .arrow",
    b"PK\x03\x04": "a zip file: unpack it",
}
_ROWS = "a JSON list of rows, or one JSON row a line"


def kind_of(path: Path) -> Kind | None:
    """The kind that a name says, packed or not; None: it says none."""
    name = path.with_suffix("") if packing(path) else path
    return _KINDS.get(name.suffix.lower())


def packing(path: Path) -> str | None:
    """The ending of a compressed file, or None."""
    suffix = path.suffix.lower()
    return suffix if suffix in _PACKED else None


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked.

    Raises:
        DataError: the file is missing, empty, a folder, or no regular file.
    """
    check_regular(path)
    try:
        stream = _unpacked(path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None
    with stream:
        yield stream


def check_regular(path: Path) -> None:
    """Refuse what is no file with something in it.

    Raises:
        DataError: the file is missing, empty, a folder, or no regular file.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot be read: {said}", path=path) from None
    if stat.S_ISDIR(found.st_mode):
        raise DataError("is a folder", path=path, hint="give a file of rows")
    if not stat.S_ISREG(found.st_mode):
        raise DataError("is no regular file", path=path, hint="write the rows into a file first")
    if found.st_size == 0:
        raise DataError("the file is empty", path=path, hint=_ROWS)


def _missing(path: Path) -> DataError:
    if path.is_symlink():
        return DataError(f"no such file: the link leads to {os.readlink(path)}", path=path)
    hint = "a data set of the hub is hub:NAME" if kind_of(path) is None else None
    return DataError("no such file", path=path, hint=hint)


def blocks(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """The bytes in blocks of about `BLOCK`.

    Raises:
        DataError: they cannot be unpacked, or read.
    """
    failures = (EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)
    while True:
        try:
            block = stream.read(BLOCK)
        except failures as error:
            packed = packing(path)
            what = f"cannot be unpacked as {packed}" if packed else "cannot be read"
            raise DataError(f"{what}: {first_line(error)}", path=path) from None
        if not block:
            return
        yield block


def text_blocks(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """As `blocks`, of a file that is text in UTF-8; a byte order mark is left out.

    Raises:
        DataError: it is UTF-16, or no text, or holds nothing.
    """
    found = blocks(stream, path)
    first = next(found, b"")
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("is UTF-16; UTF-8 is needed", path=path, hint="save it again as UTF-8")
    sign = next((said for sign, said in _SIGNS.items() if first.startswith(sign)), None)
    if sign is not None or b"\0" in first[:4096]:
        raise DataError("is not a text file", path=path, hint=f"it looks like {sign}" if sign else _ROWS)
    first = first.removeprefix(b"\xef\xbb\xbf")
    if not first:
        raise DataError("the file is empty", path=path, hint=_ROWS)
    yield first
    yield from found


def library(name: str, what_for: str) -> Any:
    """A module of the `data` extra, loaded when it is needed.

    Raises:
        DataError: it is not installed; says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise DataError(f"{what_for} needs {package}", hint="pip install 'ramify[data]'") from None


def first_line(error: BaseException) -> str:
    """What another library says about a failure, in one line."""
    said = str(error).strip().split("\n", 1)[0]
    return said[:200] or type(error).__name__


def _unpacked(path: Path) -> IO[bytes]:
    packed = packing(path)
    if packed is None:
        return path.open("rb", buffering=0)
    if packed == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if packed == ".bz2":
        return bz2.open(path, "rb")
    if packed == ".xz":
        return lzma.open(path, "rb")
    arrow = library("pyarrow", "reading .zst files")
    stream: IO[bytes] = arrow.input_stream(str(path), compression="zstd", buffer_size=BLOCK)
    return stream

"""Rows of CSV and TSV files: a line of names, then a row a record. Every value is a text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from ramify.base.errors import DataError
from ramify.data.files import ROW_LIMIT, TOO_LONG, first_line
from ramify.data.json_text import Numbered, whole_lines

_HINT = "the first line names the columns: prompt,completion"


def delimited_rows(found: Iterator[bytes], path: Path, delimiter: str) -> Numbered:
    """Each record as an object, with the line it begins on; a record of another length than the names is its error.

    Raises:
        DataError: the names are missing or repeated, a quote is not closed, or the text is not UTF-8.
    """
    csv.field_size_limit(ROW_LIMIT)  # the module's own limit, 128 KiB, is shorter than texts are
    reader = csv.reader(_lines(found, path), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    begun = 1
    while True:
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise _broken(error, path, begun) from None
        if record is None:
            return
        if record and names is None:
            names = _names(record, path, begun)
        elif record and names is not None:
            yield begun, _row(record, names, path, begun)
        begun = reader.line_num + 1


def _row(record: list[str], names: list[str], path: Path, line: int) -> dict[str, str] | DataError:
    if len(record) == len(names):
        return dict(zip(names, record, strict=True))
    hint = "a text with a delimiter, a quote or a line end in it stands in double quotes"
    return DataError(f"fields: {len(names)} are needed, found {len(record)}", path=path, line=line, hint=hint)


def _names(record: list[str], path: Path, line: int) -> list[str]:
    names = [name.strip() for name in record]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"the column {twice!r} is named twice", path=path, line=line, hint=_HINT)
    return names


def _lines(found: Iterator[bytes], path: Path) -> Iterator[str]:
    """Lines with their ends: inside quotes they belong to the text."""
    number = 1
    for block in whole_lines(found, path):
        try:
            text = block.decode()
        except UnicodeDecodeError as error:
            line = number + block.count(b"\n", 0, error.start)
            column = error.start - (block.rfind(b"\n", 0, error.start) + 1)
            raise DataError(f"not valid UTF-8 at byte {column} of the line", path=path, line=line) from None
        number += block.count(b"\n")
        yield from _ended_by_newline(text)


def _ended_by_newline(text: str) -> list[str]:
    """`splitlines` would also cut at the line ends of other alphabets, which are characters of a text."""
    lines = text.split("\n")
    last = lines.pop()
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def _broken(error: csv.Error, path: Path, line: int) -> DataError:
    said = str(error)
    if "unexpected end of data" in said:
        return DataError("a quoted field is not closed", path=path, line=line, hint='a quote inside quotes is ""')
    if "field larger than" in said:
        return DataError(f"a field is {TOO_LONG}", path=path, line=line, hint='a quote inside quotes is ""')
    return DataError(f"not valid CSV: {first_line(error)}", path=path, line=line)

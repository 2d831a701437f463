"""Files of JSON rows: a JSON list or JSON lines, told apart by content, every row with its line number.

NaN and Infinity, which Python's JSON reader lets through, are refused: they are not JSON, and no answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ramify.base.errors import DataError

_SPACE = " \t\r\n"


def read_values(path: Path) -> list[tuple[int, Any]]:
    """(line, value) of every row, in order; lines count from 1.

    Raises:
        DataError: the file is missing, a folder, not text, not JSON, not a list of rows, or without rows.
    """
    text = _read_text(path)
    if not text.strip():
        raise DataError("the file is empty", path=path, hint="a JSON list of rows, or one JSON row a line")
    rows = list(_rows(text, path))
    if not rows:
        raise DataError("the file holds no rows", path=path)
    return rows


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise DataError("is a folder", path=path, hint="give a .json or .jsonl file")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such file", path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("is UTF-16; UTF-8 is needed", path=path, hint="save it again as UTF-8")
    if b"\0" in raw[:4096]:
        raise DataError("is not a text file", path=path, hint="a JSON list of rows, or one JSON row a line")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1)
        raise DataError(f"not valid UTF-8 at byte {column} of the line", path=path, line=line) from None


def _rows(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    if path.suffix.lower() not in (".jsonl", ".ndjson") and _is_list_of_rows(text):
        return _list_rows(text, path)
    return _line_rows(text, path)


def _is_list_of_rows(text: str) -> bool:
    """Whether the whole text is one document; `["question", 5]` on a line of its own is a row, not a list of rows."""
    first = text.lstrip().split("\n", 1)[0].strip()
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        # Broken JSON: several lines that look finished are JSON lines, anything else is one document.
        return not first.endswith(("]", "}")) or first.startswith(("[[", "[{"))
    is_row = not isinstance(value, list) or (bool(value) and not isinstance(value[0], list | dict))
    return not is_row


def _line_rows(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            value, end = _decode(line, len(line) - len(line.lstrip()), path, number)
            if line[end:].strip():
                hint = "one JSON row a line, nothing between them"
                raise DataError(f"more text after the row, at column {end + 1}", path=path, line=number, hint=hint)
            yield number, value


def _list_rows(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    at, line, counted = _skip_space(text, 0), 1, 0
    if text[at] != "[":
        value, _ = _decode(text, at, path, 1)
        found = ", ".join(list(value)[:6]) if isinstance(value, dict) else type(value).__name__
        raise DataError(f"a list of rows is needed, found one JSON value: {found}", path=path, line=1)
    at = _skip_space(text, at + 1)
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, at = _decode(text, at, path, line)
        yield line, value
        at = _next_row(text, at, path)
    if text[at + 1 :].strip():
        raise _at("more text after the list of rows", text, _skip_space(text, at + 1), path)


def _next_row(text: str, at: int, path: Path) -> int:
    """Where the next row, or the list's end, stands behind a row that ends at `at`."""
    at = _skip_space(text, at)
    if text[at : at + 1] == "]":
        return at
    if text[at : at + 1] != ",":
        seen = repr(text[at]) if at < len(text) else "the end of the file"
        raise _at(f"not valid JSON: , or ] is needed after a row, found {seen}", text, at, path)
    at = _skip_space(text, at + 1)
    if text[at : at + 1] == "]":
        raise _at("not valid JSON: a row is needed after the comma, found ]", text, at, path)
    return at


def _at(message: str, text: str, at: int, path: Path) -> DataError:
    return DataError(message, path=path, line=text.count("\n", 0, at) + 1)


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _decode(text: str, at: int, path: Path, line: int) -> tuple[Any, int]:
    """The JSON value that starts at `at`, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        below = text.count("\n", at, error.pos)
        column = error.pos - (text.rfind("\n", 0, error.pos) + 1) + 1
        hint = "rows are a JSON list, or one JSON row a line" if line + below == 1 else None
        raise DataError(
            f"not valid JSON: {error.msg} at column {column}", path=path, line=line + below, hint=hint
        ) from None
    except _ConstantError as error:
        hint = "JSON has finite numbers only: leave such rows out"
        raise DataError(f"{error} is not a number", path=path, line=line, hint=hint) from None
    except RecursionError:
        raise DataError("JSON nested too deeply", path=path, line=line) from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError(f"not valid JSON: {str(error).split(';')[0]}", path=path, line=line) from None


class _ConstantError(Exception):
    """NaN or Infinity was read."""


def _refuse_constant(name: str) -> NoReturn:
    raise _ConstantError(name)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)

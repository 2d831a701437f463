"""JSON rows in text: one row a line, or a list of rows; read as a stream, every row with the line it begins on.

What Python's JSON reader lets through and is no answer is refused: NaN and Infinity, which are not JSON; an object that
has a name twice, of which all but the last would be lost; half of a surrogate pair, which no file can hold.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from json import JSONDecodeError
from pathlib import Path
from typing import Any, NoReturn

from ramify.base.errors import DataError
from ramify.data.files import BLOCK, ROW_LIMIT, TOO_LONG

Numbered = Iterator[tuple[int, Any]]
"""(line, row) of each row. A row that cannot be read is its `DataError`, where the file goes on behind it."""
_SPACE = " \t\r\n"
_OF_ROWS = re.compile(r"\[\s*[\[{]")


def json_rows(found: Iterator[bytes], path: Path) -> Numbered:
    """Rows of a JSON list or of JSON lines, told apart by how the text begins.

    Raises:
        DataError: as `json_lines` and `json_list`.
    """
    first = b""
    for block in found:
        first += block
        if b"\n" in first.lstrip() or len(first) >= BLOCK:
            break
    reader = json_list if _begins_a_list(first) else json_lines
    return reader(chain([first], found), path)


def json_lines(found: Iterator[bytes], path: Path) -> Numbered:
    """One row a line; blank lines are none. A line that is not UTF-8 or not JSON is its error.

    Raises:
        DataError: a line is longer than a row may be.
    """
    scan = vars(_DECODER)["scan_once"]  # `raw_decode` without its own two lines of Python
    number = 0
    for block in whole_lines(found, path):
        for line in _split(block):
            number += 1
            try:
                value, end = scan(line, 0)
                if (end != len(line) and not line[end:].isspace()) or "\\ud" in line or "\\uD" in line:
                    value = _line_value(line, path, number)
            except Exception:  # whatever it is, reading the line again says so
                if not line or line.isspace():
                    continue
                value = _or_error(line, path, number)
            yield number, value


def json_list(found: Iterator[bytes], path: Path) -> Numbered:
    """The rows of one JSON list, which is never held as a whole.

    Raises:
        DataError: the text is not UTF-8, not JSON, or no list.
    """
    text = _Text(found, path)
    if text.after_space() != "[":
        value = text.value()
        names = ", ".join(list(value)[:6]) if isinstance(value, dict) else type(value).__name__
        raise DataError(f"a list of rows is needed, found one JSON value: {names}", path=path, line=1)
    text.skip()
    seen = text.after_space()
    while seen != "]":
        line = text.line
        yield line, text.value()
        seen = text.after_space()
        if seen not in (",", "]"):
            shown = repr(seen) if seen else "the end of the file"
            raise text.error(f"not valid JSON: , or ] is needed after a row, found {shown}")
        if seen == ",":
            text.skip()
            if text.after_space() == "]":
                raise text.error("not valid JSON: a row is needed after the comma, found ]")
    text.skip()
    if text.after_space():
        raise text.error("more text after the list of rows")


def whole_lines(found: Iterator[bytes], path: Path) -> Iterator[bytes]:
    """Blocks that end where a line ends.

    Raises:
        DataError: a line is longer than a row may be.
    """
    rest = bytearray()
    number = 1
    for block in found:
        cut = block.rfind(b"\n") + 1
        if cut:
            whole = bytes(rest) + block[:cut] if rest else block[:cut]
            number += whole.count(b"\n")
            yield whole
            rest.clear()
        rest += block[cut:]
        if len(rest) > ROW_LIMIT:
            raise DataError(f"the line is {TOO_LONG}", path=path, line=number)
    if rest:
        yield bytes(rest)


def _begins_a_list(first: bytes) -> bool:
    """Whether the text is one document; `["question", 5]` on a line of its own is a row, not a list of rows."""
    line, ended, _ = first.decode("utf-8", errors="replace").lstrip().partition("\n")
    if not line:
        return False
    begins = _OF_ROWS.match(line) is not None
    if not ended and len(first) >= BLOCK:
        return begins
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        # Broken JSON: several lines that look finished are JSON lines, anything else is one document.
        return begins or not line.rstrip().endswith(("]", "}"))
    is_row = not isinstance(value, list) or (bool(value) and not isinstance(value[0], list | dict))
    return not is_row


def _split(block: bytes) -> Sequence[str | bytes]:
    """Lines without their ends; those that are not UTF-8 stay bytes."""
    lines: Sequence[str | bytes]
    try:
        lines = block.decode().split("\n")
    except UnicodeDecodeError:
        lines = [_text_or_bytes(line) for line in block.split(b"\n")]
    return lines if lines[-1] else lines[:-1]


def _text_or_bytes(line: bytes) -> str | bytes:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line


def _or_error(line: str | bytes, path: Path, number: int) -> Any:
    try:
        return _line_value(line, path, number)
    except DataError as error:
        return error


def _line_value(line: str | bytes, path: Path, number: int) -> Any:
    if isinstance(line, bytes):
        try:
            line = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"not valid UTF-8 at byte {error.start} of the line", path=path, line=number) from None
    value, end = decode_json(line, len(line) - len(line.lstrip()), path, number)
    if line[end:].strip():
        hint = "one JSON row a line, nothing between them"
        raise DataError(f"more text after the row, at column {end + 1}", path=path, line=number, hint=hint)
    return value


def decode_json(text: str, at: int, path: Path, line: int) -> tuple[Any, int]:
    """The JSON value that starts at `at` on the line given, and where it ends.

    Raises:
        DataError: there is none.
    """
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        below = text.count("\n", at, error.pos)
        column = error.pos - (text.rfind("\n", 0, error.pos) + 1) + 1
        hint = "rows are a JSON list, or one JSON row a line" if line + below == 1 else None
        said = error.msg.removesuffix(" at")
        raise DataError(f"not valid JSON: {said} at column {column}", path=path, line=line + below, hint=hint) from None
    except _RefusedError as error:
        raise DataError(str(error), path=path, line=line, hint=error.hint) from None
    except RecursionError:
        raise DataError("JSON nested too deeply", path=path, line=line) from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError(f"not valid JSON: {str(error).split(';')[0]}", path=path, line=line) from None
    _refuse_surrogates(text, at, end, value, path, line)
    return value, end


def _refuse_surrogates(text: str, at: int, end: int, value: Any, path: Path, line: int) -> None:
    if text.find("\\ud", at, end) < 0 and text.find("\\uD", at, end) < 0:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise DataError("half of a surrogate pair (\\ud800 to \\udfff) is no character", path=path, line=line) from None


class _Text:
    """Text that is decoded as far as it is needed, and forgotten as far as it was read."""

    def __init__(self, found: Iterator[bytes], path: Path) -> None:
        self.line = 1
        self._found = found
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._ended = False

    def after_space(self) -> str:
        """The character behind white space, which is passed over; empty: there is none."""
        while True:
            at, text = self._at, self._text
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self.line += text.count("\n", self._at, at)
            self._at = at
            if at < len(text):
                return text[at]
            if not self._more(1):
                return ""

    def skip(self) -> None:
        """Pass over one character."""
        self._at += 1

    def value(self) -> Any:
        """The JSON value that begins here."""
        while True:
            try:
                value, end = decode_json(self._text, self._at, self._path, self.line)
            except DataError:
                if not self._may_be_cut():
                    raise
            else:
                # A number may go on where the text read so far ends: `1` and `1e+` are the beginning of `1e+5`.
                if self._ended or len(self._text) - end > 4:
                    self.line += self._text.count("\n", self._at, end)
                    self._at = end
                    return value
            rest = len(self._text) - self._at
            if rest > ROW_LIMIT:
                raise self.error(f"the row is {TOO_LONG}")
            self._more(max(rest, 1))

    def error(self, message: str) -> DataError:
        """An error on the current line."""
        return DataError(message, path=self._path, line=self.line)

    def _may_be_cut(self) -> bool:
        """Whether what is not JSON here may be the beginning of a value that goes on in the next block."""
        if self._ended:
            return False
        try:
            _DECODER.raw_decode(self._text, self._at)
        except JSONDecodeError as error:
            return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 16
        except Exception:
            return False
        return True

    def _more(self, at_least: int) -> bool:
        """Read on by that many characters, or to the end; whether there were any."""
        parts = [self._text[self._at :]]
        self._at = 0
        got = 0
        while got < at_least and not self._ended:
            block = next(self._found, None)
            self._ended = block is None
            parts.append(self._decode(block or b"", parts))
            got += len(parts[-1])
        self._text = "".join(parts)
        return got > 0

    def _decode(self, block: bytes, before: list[str]) -> str:
        try:
            return self._decoder.decode(block, final=self._ended)
        except UnicodeDecodeError as error:
            line = self.line + sum(part.count("\n") for part in before) + error.object.count(b"\n", 0, error.start)
            raise DataError("not valid UTF-8", path=self._path, line=line) from None


class _RefusedError(Exception):
    """JSON's reader found something that is no answer."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not a number", "JSON has finite numbers only: leave such rows out")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"{twice!r} is given twice in one object", "a name may stand in an object only once")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)

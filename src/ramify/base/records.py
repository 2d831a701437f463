"""Records on disk: JSON lines and whole files, written so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from ramify.base.errors import DataError, RunError
from ramify.base.types import SPARSE, Message, Problem, Reason, Sample, Stop, Verdict

_SAMPLED, _BLOCK = 64, 4096


def to_plain(value: Any) -> Any:
    """A record as JSON-ready values: dataclasses to mappings, enums to their values, tuples to lists.

    A field that most records do without is left out where it holds nothing.
    """
    if is_dataclass(value) and not isinstance(value, type):
        held = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: to_plain(each) for field, each in held if each or SPARSE not in field.metadata}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def write_text(path: Path, text: str) -> None:
    """Write a whole file of text or nothing, see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: a temporary file beside it, flushed to disk, then renamed.

    Raises:
        RunError: the disk is full or the folder cannot be written; an older file stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, whole or not at all.

    Raises:
        RunError: the file cannot be written, or a number is not finite.
    """
    write_text(path, _json(value, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write records as JSON lines, whole or not at all.

    Raises:
        RunError: the file cannot be written, or a number is not finite.
    """
    write_text(path, "".join(json_line(row) for row in rows))


def json_line(row: Any) -> str:
    """One record as one line of JSON with its line end.

    Raises:
        RunError: a number is not finite.
    """
    return _json(row) + "\n"


def _json(value: Any, indent: int | None = None) -> str:
    """JSON has no NaN and no infinity: Python would write them, and other readers would refuse the file."""
    try:
        return json.dumps(to_plain(value), ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError as error:
        raise RunError(f"a record holds a number that is not finite: {error}", hint="write null instead") from None


def append_jsonl(path: Path, row: Any) -> None:
    """Append one record as one line.

    Raises:
        RunError: the line cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json_line(row))
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of each non-empty line.

    Raises:
        DataError: the file is missing or unreadable, or a line is not JSON; names file and line.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield number, _parse_line(raw, path, number)
    except FileNotFoundError:
        raise DataError("no such file", path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None


def _parse_line(raw: bytes, path: Path, number: int) -> Any:
    try:
        value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()  # half of an escaped pair is text that no file can hold
        return value
    except UnicodeEncodeError:
        raise DataError("holds half of a surrogate pair (\\ud800 to \\udfff)", path=path, line=number) from None
    except UnicodeDecodeError as error:
        raise DataError(f"not valid UTF-8 at byte {error.start} of the line", path=path, line=number) from None
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON: {error.msg} at column {error.colno}", path=path, line=number) from None
    except RecursionError:
        raise DataError("JSON nested too deeply", path=path, line=number) from None


def sample_from_plain(row: dict[str, Any]) -> Sample:
    """A `Sample` from its JSON form."""
    return Sample(
        problem_id=row["problem_id"],
        index=row["index"],
        token_ids=tuple(row["token_ids"]),
        logprobs=tuple(row["logprobs"]),
        text=row["text"],
        stop=Stop(row["stop"]),
        policy=row.get("policy", ""),
        seed=row.get("seed", 0),
    )


def verdict_from_plain(row: dict[str, Any]) -> Verdict:
    """A `Verdict` from its JSON form."""
    return Verdict(
        problem_id=row["problem_id"],
        sample_index=row["sample_index"],
        reward=row["reward"],
        reason=Reason(row["reason"]),
        answer=row.get("answer"),
        notes=tuple(row.get("notes", ())),
    )


def problem_from_plain(row: dict[str, Any]) -> Problem:
    """A `Problem` from its JSON form."""
    prompt = tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"])
    optional = {name: row[name] for name in ("answer", "solution", "source", "category", "meta") if name in row}
    options, rules = (tuple(row.get(name, ())) for name in ("options", "rules"))
    return Problem(id=row["id"], prompt=prompt, options=options, rules=rules, **cast(dict[str, Any], optional))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_sha256(path: Path) -> str:
    """Hex SHA-256 of a file's size and of 64 blocks spread over it: milliseconds, whatever the size.

    Training changes every number of what it trains, and that is noticed; a single number changed by hand may not be.
    """
    size = path.stat().st_size
    found = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        for number in range(_SAMPLED):
            file.seek(number * max(0, size - _BLOCK) // (_SAMPLED - 1))
            found.update(file.read(_BLOCK))
    return found.hexdigest()

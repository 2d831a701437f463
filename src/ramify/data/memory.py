"""Rows in memory: the JSON lines they become, and the row that cannot be used, by its number."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ramify.base.config import Data
from ramify.base.errors import DataError
from ramify.base.records import to_plain, write_text
from ramify.data.source import training_source
from ramify.data.sources import read_rows


def json_lines(rows: Iterable[Any]) -> str:
    """Rows as lines of JSON; scalars of NumPy and PyTorch become plain numbers.

    Raises:
        DataError: a row holds something that JSON has no form for; says which row.
    """
    return "".join(_line(row, number) for number, row in enumerate(rows, start=1))


def check_rows(text: str, data: Data | None = None) -> None:
    """Refuse lines of JSON that a file of rows could not have.

    Args:
        data: how a run reads its rows; None: rows of any shape, every one of which has to fit.

    Raises:
        ConfigError: a setting means nothing for rows in memory.
        DataError: as `read_rows`, with the row's number for file and line.
    """
    settings = Data() if data is None else data
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_text(path, text)
        try:
            read_rows(training_source(settings.model_copy(update={"train": path, "limit": None}), "train"))
        except DataError as error:
            where = "rows: " if error.line is None else f"row {error.line}: "
            said = error.message.removeprefix(f"{path}:{error.line}: ").removeprefix(f"{path}: ")
            raise DataError(where + said.replace(f"{path}:", "row "), hint=error.hint) from None


def _line(row: Any, number: int) -> str:
    try:
        line = json.dumps(to_plain(row), ensure_ascii=False, default=_plain_number) + "\n"
        line.encode()  # half of a surrogate pair is text that no file can hold
        return line
    except (TypeError, ValueError) as error:
        hint = "rows are made of texts, numbers, lists and mappings"
        raise DataError(f"row {number}: cannot be written as JSON: {error}", hint=hint) from None


def _plain_number(value: Any) -> Any:
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    raise TypeError(f"found {type(value).__name__}")

"""Fields of a row: what each may be, and the one line that says so when it is not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.base.errors import DataError

# 6  -6.5  1,080  1,080.5  $5  40%  1e3; a comma stands between groups of three digits or the text is no number.
_SPELLED = re.compile(
    r"(?P<sign>[+-]?)\s*(?:\$\s*)?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*%?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands; makes its errors.

    Attributes:
        path: its file, or the id of its data set.
        line: of a text file; of a table the number of the row. Both count from 1.
    """

    path: Path
    line: int

    @property
    def source(self) -> str:
        """`file:line`."""
        return f"{self.path!s}:{self.line}"

    def error(self, field: str, value: object, allowed: str, hint: str | None = None) -> DataError:
        """`file:line: field: allowed is needed, found value`."""
        seen = repr(value)
        seen = seen if len(seen) <= 60 else f"{seen[:57]}..."
        return DataError(f"{field}: {allowed} is needed, found {seen}", path=self.path, line=self.line, hint=hint)


def text_field(value: Any, field: str, place: Place) -> str:
    """A text with more than white space.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise place.error(field, value, "text that is not empty")
    return value


def optional_text(row: Mapping[str, Any], field: str, place: Place) -> str | None:
    """The text of a column that may be absent; null and the blank text of a table's cell are as good as absent.

    Raises:
        DataError: it is no text.
    """
    value = row.get(field)
    return None if value is None or (isinstance(value, str) and not value.strip()) else text_field(value, field, place)


def weight_field(value: Any, field: str, place: Place) -> float:
    """A finite number from 0 up.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise place.error(field, value, "a number from 0 up")
    return float(value)


def number_field(value: Any, field: str, place: Place, hint: str | None = None) -> float:
    """A finite number, or a text that is one (`1,000`, `$5`, `40%`); `hint` is for texts that are none.

    Raises:
        DataError: it is something else.
    """
    number = parse_gold(value)
    if number is None:
        raise place.error(field, value, "a finite number", hint if isinstance(value, str) else None)
    return number


def parse_gold(value: Any) -> float | None:
    """The finite number that a value is or spells, or None. What a text spells is what graders read in it."""
    if isinstance(value, str):
        spelled = _SPELLED.fullmatch(value.strip())
        if spelled is None:
            return None
        value = spelled["sign"] + spelled["digits"].replace(",", "")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None

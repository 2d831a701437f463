"""What the columns of a file mean, where their names do not say it: `columns` and `shape` of the settings.

A mapping `{question: my_q, answer: meta.gold}` names a column for each field; a dot goes into an object. A row that has
the field itself and not the column is read as it is, so that files of both kinds may stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ramify.base.errors import ConfigError, DataError, unknown
from ramify.data.decoded import Decoded
from ramify.data.fields import Place
from ramify.data.shapes import FIELDS, SHAPES, check_fits, decode, first_fitting, shape_of, unread, whole_text

_ABSENT = object()


class Recognised(NamedTuple):
    """A row that was understood.

    Attributes:
        unread: columns that hold something and mean nothing in the row's shape.
    """

    shape: str
    decoded: Decoded
    unread: list[str]


class Recognition:
    """How rows are recognised.

    Args:
        columns: column of each field that is not under its own name.
        shape: the shape of all rows; None: that of each is recognised.
        as_text: all rows are of the shape text, each to be imitated as it stands.

    Raises:
        ConfigError: a field or the shape is unknown, or the fields belong to no shape together.
    """

    def __init__(
        self, columns: Mapping[str, str] | None = None, shape: str | None = None, *, as_text: bool = False
    ) -> None:
        self._decode = whole_text if as_text else decode
        shape = "text" if as_text else shape
        if shape is not None and shape not in SHAPES:
            raise ConfigError(unknown("shape", shape, SHAPES))
        self._columns = dict(columns or {})
        self._opened = {column.partition(".")[0] for column in self._columns.values()}
        self._shape = shape
        allowed = FIELDS if shape is None else SHAPES[shape].fields
        for name in self._columns:
            if name not in allowed:
                of = "" if shape is None else f" of the shape {shape}"
                raise ConfigError(unknown(f"field{of} in columns", name, allowed))
        self._candidates = [name for name, each in SHAPES.items() if each.fields.issuperset(self._columns)]
        if not self._candidates:
            raise ConfigError(f"columns: no shape has the fields {', '.join(self._columns)} together")

    def read(self, value: Any, place: Place) -> Recognised:
        """Shape and content of a row, and what of it is not read.

        Raises:
            DataError: it does not fit; names file, line, field, value and what is allowed.
        """
        if not self._columns and self._shape is None:
            shape = shape_of(value, place)
        else:
            value = self._renamed(value, place) if self._columns else value
            shape = self._shape_of(value, place)
        rest = unread(value, shape)
        if self._columns:
            rest = [name for name in rest if name not in self._opened]
        return Recognised(shape, self._decode(value, shape, place), rest)

    def _shape_of(self, value: Any, place: Place) -> str:
        if self._shape is not None:
            check_fits(value, self._shape, place)
            return self._shape
        first = first_fitting(value)
        if first in self._candidates:
            return str(first)
        return next((name for name in self._candidates if SHAPES[name].fits(value)), None) or shape_of(value, place)

    def _renamed(self, value: Any, place: Place) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise place.error("row", value, "an object with columns")
        found: dict[str, Any] = {}
        for name, column in self._columns.items():
            held = _pick(value, column)
            if held is _ABSENT:
                if name not in value:
                    raise _no_column(name, column, value, place)
                held = value[name]
            found[name] = held
        used = set(self._columns.values())
        return found | {name: held for name, held in value.items() if name not in used and name not in found}


def _pick(row: dict[str, Any], column: str) -> Any:
    """What stands in a column, or under `outer.inner` in an object."""
    if column in row:
        return row[column]
    held: Any = row
    for part in column.split("."):
        if not isinstance(held, dict) or part not in held:
            return _ABSENT
        held = held[part]
    return held


def _no_column(name: str, column: str, row: dict[str, Any], place: Place) -> DataError:
    message = unknown("column", column, map(str, row)) if row else f"no column {column!r}: the row has none"
    return DataError(f"columns: {name}: {message}", path=place.path, line=place.line)

"""Rows that do not fit: how many there are, why, where the first of each kind stands, and when there are too many."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ramify.base.errors import DataError
from ramify.data.fields import Place

BEYOND = 100
"""Reading stops early when this many more rows do not fit than the share allows of those read so far."""
_KINDS = 100
_OTHER = "other reasons"
_INDEX = re.compile(r"\[\d+\]")


@dataclass(slots=True)
class Reason:
    """How many rows do not fit for one reason, and where the first of them stands."""

    count: int
    first: Place


class BadRows:
    """The rows of one pass that do not fit.

    Attributes:
        allowed: the share of rows that may be left out; with 0 the first one is an error.
        count: how many there are.
        reasons: the same by reason: the message without the value found; indices are left open.
    """

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed
        self.count = 0
        self.reasons: dict[str, Reason] = {}

    def add(self, error: DataError, place: Place, read: int) -> None:
        """Count one.

        Args:
            read: rows read so far, this one included.

        Raises:
            DataError: none may be left out, or there are far more than may be.
        """
        if not self.allowed:
            raise error
        self.count += 1
        name = _reason(error)
        if name not in self.reasons and len(self.reasons) >= _KINDS:
            name = _OTHER
        found = self.reasons.setdefault(name, Reason(0, place))
        found.count += 1
        if self.count > self.allowed * read + BEYOND:
            raise self._too_many(read, str(place.path))

    def check(self, read: int, name: str) -> None:
        """Refuse, at the end, more than the share.

        Args:
            read: all rows.
            name: of the source, for the message.

        Raises:
            DataError: there are more; says how many, their share and the first reasons.
        """
        if self.count > self.allowed * read:
            raise self._too_many(read, name)

    def summary(self) -> str:
        """`3 left out (reason: 2, first at file:17; …)`, the most frequent reasons first."""
        return f"{self.count:,} left out ({self._first_reasons()})"

    def _first_reasons(self) -> str:
        ordered = sorted(self.reasons.items(), key=lambda entry: -entry[1].count)
        said = [f"{name}: {reason.count:,}, first at {reason.first.source}" for name, reason in ordered[:3]]
        return "; ".join([*said, "…"] if len(ordered) > 3 else said)

    def _too_many(self, read: int, name: str) -> DataError:
        share = f"{self.count:,} of {read:,} rows ({self.count / read:.1%}) do not fit"
        return DataError(
            f"{share}, more than the {self.allowed:.1%} that bad_rows allows: {self._first_reasons()}", path=name
        )


def _reason(error: DataError) -> str:
    """The message without its place, without what was found, and with open indices."""
    said = error.message.removeprefix(f"{error.path}:{error.line}: ")
    return _INDEX.sub("[…]", said.partition(", found ")[0])

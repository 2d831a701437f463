"""What a caller adds to a report: sentences, measured rates, tables of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ramify.evaluate.compare.facts import Table


@dataclass(frozen=True, slots=True)
class Extras:
    """What a caller adds to a report.

    Attributes:
        notes: sentences under the verdicts.
        speed: measured rates: name -> (value, unit), shown as a table.
        tables: further sections by title, each a table: its columns, and its rows as words.
    """

    notes: Sequence[str] = ()
    speed: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = field(default_factory=dict)

    @property
    def sections(self) -> dict[str, Table]:
        """Its tables by title, that of speed first; one without rows is not shown."""
        rates = [[name, _rate(value), unit] for name, (value, unit) in self.speed.items()]
        speed = Table(["", "measured", "unit"], rows=rates, words=(2,))
        return {"Speed": speed, **{title: Table(*each) for title, each in self.tables.items()}}


def _rate(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"

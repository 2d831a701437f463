"""The second pass, second half: the chosen entries are written in their order, and the report beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ramify.base.progress import Progress
from ramify.base.records import write_json, write_text
from ramify.data.mix import arrow
from ramify.data.mix.choose import Picks
from ramify.data.mix.folder import PAGE, REPORT, MixFolder
from ramify.data.mix.records import Kind
from ramify.data.mix.report import Report
from ramify.data.mix.shelf import Reader, Taken

SPLITS = ("train", "validation")
_TOLD_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted besides the data set.

    Attributes:
        jsonl: each split as a file of JSON lines too.
        show: so many rows whose system turn was erased, to look at.
    """

    jsonl: bool = False
    show: int = 0


NOTHING_ELSE = Wishes()


@dataclass(frozen=True, slots=True)
class Made:
    """A mix that is there.

    Attributes:
        shown: rows whose system turn was erased, the first ones of the mix.
    """

    report: Report
    shown: list[dict[str, Any]]


def write(
    folder: MixFolder, taken: Sequence[Taken], picks: Picks, report: Report, wishes: Wishes, watch: Progress
) -> Made:
    """Write the folder of a mix, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    columns = arrow.Columns(
        kind=Kind(report.kind),
        weighted=any(each.counts.weighted for each in taken),
        erased=any(each.counts.outcomes for each in taken),
        graded=any(each.counts.graded for each in taken),
    )
    written = [split for split in SPLITS if report.splits[split].rows]
    watch.start("writing", len(picks))
    with folder.making() as made, ExitStack() as files:
        readers = [files.enter_context(Reader(each)) for each in taken]
        rows = _Rows(columns, taken, readers, picks, wishes, watch)
        for split in written:
            with ExitStack() as lines:
                to = lines.enter_context(_open(made / f"{split}.jsonl")) if wishes.jsonl else None
                arrow.write_split(made / split, split, columns, rows.of(split, to))
        arrow.write_splits(made, written)
        write_json(made / REPORT, report.plain())
        write_text(made / PAGE, report.markdown())
    watch.close()
    return Made(report, rows.shown)


@dataclass(slots=True)
class _Rows:
    """Reads the rows of the mix, in order; remembers those to show."""

    columns: arrow.Columns
    taken: Sequence[Taken]
    readers: Sequence[Reader]
    picks: Picks
    wishes: Wishes
    watch: Progress
    shown: list[dict[str, Any]] = field(default_factory=list)
    done: int = 0

    def of(self, split: str, lines: TextIO | None) -> Iterator[dict[str, Any]]:
        """Each row of a split; it is also written as a line of JSON where that is wanted."""
        for number in np.flatnonzero(self.picks.validation == (split == "validation")):
            row = self._row(int(number))
            if lines is not None:
                lines.write(f"{json.dumps(row, ensure_ascii=False)}\n")
            if len(self.shown) < self.wishes.show and row.get("original_system") is not None:
                self.shown.append(row)
            self.done += 1
            if self.done % _TOLD_EVERY == 0:
                self.watch.update(self.done)
            yield row

    def _row(self, number: int) -> dict[str, Any]:
        source = int(self.picks.source[number])
        entry = self.readers[source].read(int(self.picks.entry[number]))
        return self.columns.row(self.taken[source].source.name, entry)


def _open(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="\n")

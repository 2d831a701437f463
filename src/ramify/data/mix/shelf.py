"""What the first pass sets aside: a folder for each source, with its entries, an index, and a marker once it is whole.

rows.jsonl   entries, ready to be written to the mix
rows.npy     a record of `ROW` for each
done.json    counts, and a hash of all that decided them, by which a resumed mix knows the source again
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ramify.base.config_mix import MixSource
from ramify.base.records import write_json

ROW = np.dtype(
    [
        ("key", "<u8"),  # of the entry as it was read
        ("text", "<u8"),  # of the entry as it is written, white space folded: equal ones are duplicates
        ("prompt", "<u8"),  # of what it asks, case and white space folded: decides its side of the split
        ("start", "<i8"),  # where its line begins in rows.jsonl
        ("size", "<i4"),  # and how long it is, in bytes
        ("tokens", "<i4"),  # of the whole conversation; of a pair, of the prompt and both answers
        ("trained", "<i4"),  # of them
    ]
)
Index = npt.NDArray[Any]
"""[entries] of `ROW`."""
MARKER = "done.json"
_ROWS, _INDEX = "rows.jsonl", "rows.npy"
_COUNTED = ("shapes", "ignored", "dropped", "outcomes", "overlaps")


@dataclass(slots=True)
class Counts:
    """What was found in a source.

    Attributes:
        read: its rows.
        bad: those of them that cannot be used, or not whole.
        shapes: how many rows were read as each shape.
        ignored: columns that mean nothing in the shape of their row, with the number of such rows.
        dropped: entries left out, by `Drop`; a row that gives none counts as one.
        outcomes: what erasure did, by `Outcome`.
        overlaps: contaminated entries, by evaluation.
        kind: what its entries are; empty without any.
        weighted: whether some assistant turn has another weight than 1.
        graded: whether some pair has a margin.
        said: in a line: rows, shapes, and what was left out with reasons and places.
    """

    read: int = 0
    bad: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    overlaps: Counter[str] = field(default_factory=Counter)
    kind: str = ""
    weighted: bool = False
    graded: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """One source after the first pass.

    Attributes:
        index: of its entries, in the order they were read.
        folder: where they stand.
        failed: why nothing of it can be used (of an optional source), or empty.
    """

    source: MixSource
    counts: Counts
    index: Index
    folder: Path
    failed: str = ""


def nothing(source: MixSource, why: str) -> Taken:
    """An optional source of which nothing can be used."""
    return Taken(source, Counts(), np.zeros(0, ROW), Path(), why)


class Shelf:
    """Writes the entries of one source. A context manager; `finish` marks it as whole."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._at = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).unlink(missing_ok=True)
        self._file: BinaryIO = (folder / _ROWS).open("wb")

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()

    def put(self, entry: Mapping[str, Any]) -> tuple[int, int]:
        """Where the entry stands: first byte and number of bytes."""
        line = f"{json.dumps(entry, ensure_ascii=False)}\n".encode()
        self._file.write(line)
        self._at += len(line)
        return self._at - len(line), len(line)

    def finish(self, source: MixSource, settings: str, counts: Counts, index: Index) -> Taken:
        """Everything is there.

        Args:
            settings: hash of what decided the outcome.
        """
        self._file.close()
        np.save(self._folder / _INDEX, index)
        write_json(self._folder / MARKER, {"settings": settings, "counts": counts})
        return Taken(source, counts, index, self._folder)


def finished(folder: Path, source: MixSource, settings: str) -> Taken | None:
    """A source whose first pass ended with the same settings and content, or None."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        if marker["settings"] != settings:
            return None
        found: dict[str, Any] = marker["counts"]
        found |= {name: Counter(found[name]) for name in _COUNTED}
        index = np.load(folder / _INDEX)
        whole = int(index["size"].sum()) == (folder / _ROWS).stat().st_size
        return Taken(source, Counts(**found), index, folder) if whole else None
    except (OSError, EOFError, ValueError, KeyError, TypeError):  # no marker, or one of another version
        return None


class Reader:
    """Entries of one source by number, in any order. A context manager."""

    def __init__(self, taken: Taken) -> None:
        self._index, self._path = taken.index, taken.folder / _ROWS
        self._file: BinaryIO | None = None

    def __enter__(self) -> Reader:
        self._file = self._path.open("rb") if len(self._index) else None
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, number: int) -> dict[str, Any]:
        """The entry that `Shelf.put` was given as the one of that number."""
        if self._file is None:
            raise IndexError(number)
        self._file.seek(int(self._index["start"][number]))
        found: dict[str, Any] = json.loads(self._file.read(int(self._index["size"][number])))
        return found

"""Run folders as they are found, also while somebody writes to them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeGuard

from ramify.base.errors import ConfigError, RunError
from ramify.base.runs import EXPORT, Run, is_run
from ramify.evaluate.stages import Stage, stage

_PARTS = ("adapter", "merged", "model", "tokenizer")
"""Folders of a run that hold no runs."""
_DEEP = 4
_SHOWN = 300
"""Most points of a curve: a chart is 310 units wide."""

Point = tuple[float, float]


def find_runs(root: Path) -> list[str]:
    """Runs in a folder and below it, as paths within it, the newest first. A run's own evaluation is a part of it."""
    found = sorted(_runs(root, 0), key=_age)
    return [path.relative_to(root).as_posix() for path in found]


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    if depth == _DEEP:
        return
    try:
        inner = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in inner:
        own = is_run(folder) and name.split("-")[0] == "eval"
        if not name.startswith((".", "checkpoint-")) and name not in _PARTS and not own:
            yield from _runs(folder / name, depth + 1)


def _age(run: Path) -> float:
    """What sorts the run that was written to last in front."""
    return -max((_stamp(run / name)[0] for name in ("run.json", "metrics.jsonl")), default=0.0)


def _stamp(path: Path) -> tuple[float, int]:
    try:
        found = path.stat()
    except OSError:
        return 0.0, 0
    return found.st_mtime, found.st_size


def run_inside(root: Path, name: str | None) -> Path:
    """The folder of a run that was chosen from the list.

    Raises:
        ConfigError: none is chosen, or it is not below the root.
        RunError: there is no run of that name any more.
    """
    if not name:
        raise ConfigError("choose a run first")
    folder = (root / name).resolve()
    if not folder.is_relative_to(root.resolve()):
        raise ConfigError(f"{name}: not in {root}")
    if not is_run(folder):
        raise RunError(f"{name}: there is no run any more")
    return root / name


def state(folder: Path) -> tuple[tuple[float, int], ...]:
    """What changes whenever anything that is shown of a run does."""
    parts = [folder / name for name in ("run.json", "metrics.jsonl", "scores.json")]
    return tuple(map(_stamp, [*parts, *sorted(folder.glob("eval*/scores.json")), *_beside(folder)]))


def evaluations(folder: Path) -> list[Stage]:
    """The finished evaluations of a run, its own first, or the one that the folder is."""
    if (folder / "scores.json").is_file():
        return [stage(folder)]
    return [stage(path.parent) for path in sorted(folder.glob("eval*/scores.json"))]


def exports(folder: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Exports of a run, in its folder or beside it, with the content of export.json; damaged ones are left out."""
    found = [(path.parent, row) for path in _beside(folder) if (row := _row(_content(path))) is not None]
    return [(path, record) for path, record in found if _is_source(record.get("source"), folder)]


def _beside(folder: Path) -> list[Path]:
    return sorted({*folder.glob(f"*/{EXPORT}"), *folder.parent.glob(f"*/{EXPORT}")})


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _is_source(source: Any, folder: Path) -> bool:
    """Whether an export says that it was made of this run: its path was written where the command was typed."""
    return isinstance(source, str) and (Path(source).resolve() == folder.resolve() or folder.match(source))


@dataclass
class _Tail:
    """How far a file was read, and what was in it."""

    place: int = 0
    key: tuple[int, int] = (0, 0)
    rows: list[Mapping[str, Any]] = field(default_factory=list)


class Metrics:
    """Lines of metrics files; of a file that grows only what is new is read. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._tails: dict[Path, _Tail] = {}

    def rows(self, folder: Path) -> Sequence[Mapping[str, Any]]:
        """All complete lines of a run's metrics.jsonl; a line that is being written, or is broken, is left out."""
        path = folder / "metrics.jsonl"
        with self._lock:
            try:
                tail = self._read(path)
            except OSError:
                self._tails.pop(path, None)
                return ()
            return tuple(tail.rows)

    def _read(self, path: Path) -> _Tail:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            tail = self._tails.get(path, _Tail())
            if tail.key != (found.st_dev, found.st_ino) or found.st_size < tail.place:  # a resumed run writes it anew
                tail = _Tail(key=(found.st_dev, found.st_ino))
            file.seek(tail.place)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        tail.place += len(whole)
        tail.rows += [row for line in whole.splitlines() if (row := _row(line)) is not None]
        self._tails[path] = tail
        return tail


def _row(line: bytes) -> Mapping[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def curve(rows: Sequence[Mapping[str, Any]], kind: str, name: str) -> list[Point]:
    """(step, value) of one kind of line, thinned out to what a chart can show; the last point stays."""
    pairs = [(row.get("step"), row.get(name)) for row in rows if row.get("kind") == kind]
    points = [(float(step), float(value)) for step, value in pairs if _is_number(step) and _is_number(value)]
    every = -(-len(points) // _SHOWN) or 1
    thin = points[::every]
    return thin if not points or thin[-1] == points[-1] else [*thin, points[-1]]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def record_of(folder: Path) -> Mapping[str, Any]:
    """run.json; empty where it cannot be read."""
    try:
        return Run(folder).record
    except RunError:
        return {}

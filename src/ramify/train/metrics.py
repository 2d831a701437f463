"""What a run writes down while it trains: metrics.jsonl, and TensorBoard events of the same numbers."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ramify.base.progress import Progress
from ramify.base.records import write_text
from ramify.base.runs import Run


class Metrics(Protocol):
    """Takes what a run measures."""

    def log(self, kind: str, step: int, **values: float | None) -> None:
        """Write one event."""

    def close(self) -> None:
        """Nothing follows."""


class NoMetrics:
    """Of the processes beside the main one: nothing is written."""

    def log(self, kind: str, step: int, **values: float | None) -> None:
        """Forget it."""

    def close(self) -> None:
        """Nothing to close."""


class MetricLog:
    """Writes each event to metrics.jsonl and, when asked and installed, to TensorBoard.

    Args:
        run: the run folder.
        step: the step training starts from; later lines of an interrupted run are removed.
        tensorboard: whether events are wanted.
        progress: where to say that TensorBoard is not installed, or that its events cannot be written.
    """

    def __init__(self, run: Run, step: int, tensorboard: bool, progress: Progress) -> None:
        self._run = run
        _drop_lines_after(run, step)
        self._progress = progress
        self._events = self._open(step) if tensorboard else None

    def log(self, kind: str, step: int, **values: float | None) -> None:
        """Write one event. Scalars appear in TensorBoard as `kind/name`; None is null, and no scalar.

        Raises:
            RunError: the line cannot be written. Events that cannot be are given up, which is said once.
        """
        self._run.log(kind, step=step, **values)
        if self._events is None:
            return
        try:
            self._events.write(step, {f"{kind}/{name}": value for name, value in values.items() if value is not None})
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file of events."""
        if self._events is not None:
            self._events.close()

    def _open(self, step: int) -> _Events | None:
        try:
            return _Events(self._run.folder, step)
        except ImportError:
            self._progress.note("tensorboard is not installed, so no events are written (pip install tensorboard)")
        except OSError as error:
            self._give_up(error)
        return None

    def _give_up(self, error: OSError) -> None:
        self.close()
        self._events = None
        reason = error.strerror or error
        self._progress.note(f"TensorBoard events cannot be written any more: {reason}; metrics.jsonl has all numbers")


class _Events:
    """A file of TensorBoard events, written where it is called.

    TensorBoard's own writer has a thread, where a full disk ends in a traceback that nobody can catch.

    Args:
        folder: where the file goes.
        step: the step training starts from; later events of an interrupted run are hidden.

    Raises:
        ImportError: TensorBoard is not installed.
        OSError: the file cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2
        from torch.utils.tensorboard import RecordWriter  # optional, and slow to import

        records: Any = RecordWriter
        self._kinds: Any = event_pb2
        name = f"events.out.tfevents.{time.time_ns() // 1000:020d}.{socket.gethostname()}"
        self._file = (folder / name).open("wb", buffering=0)  # nothing is left to be written on closing
        self._records: Any = records(self._file)
        self._add(file_version="brain.Event:2")
        if step:
            kind = self._kinds.SessionLog
            self._add(step=step + 1, session_log=kind(status=kind.START))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars by name."""
        values = [{"tag": name, "simple_value": value} for name, value in scalars.items()]
        self._add(step=step, summary={"value": values})

    def close(self) -> None:
        """Close the file, whatever state it is in."""
        with suppress(OSError):
            self._file.close()

    def _add(self, **content: Any) -> None:
        self._records.write(self._kinds.Event(wall_time=time.time(), **content).SerializeToString())


def _drop_lines_after(run: Run, step: int) -> None:
    """Remove lines of steps that will be done again, and a last line that was cut off in writing."""
    path = run.folder / "metrics.jsonl"
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("step", 0) <= step and step > 0:
            kept.append(line)
    write_text(path, "".join(kept))

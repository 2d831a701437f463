"""What a run writes down while it trains: metrics.jsonl, and TensorBoard events of the same numbers."""

from __future__ import annotations

import json
from typing import Any

from ramify.base.errors import RunError
from ramify.base.records import write_text
from ramify.base.runs import Run
from ramify.train.progress import Progress


class MetricLog:
    """Writes each event to metrics.jsonl and, when asked and installed, to TensorBoard.

    Args:
        run: the run folder.
        step: the step training starts from; later lines of an interrupted run are removed.
        tensorboard: whether events are wanted.
        progress: where to say that TensorBoard is not installed.
    """

    def __init__(self, run: Run, step: int, tensorboard: bool, progress: Progress) -> None:
        self._run = run
        _drop_lines_after(run, step)
        self._writer = _writer(run, step, progress) if tensorboard else None

    def log(self, kind: str, step: int, **values: float) -> None:
        """Write one event. Scalars appear in TensorBoard as `kind/name`."""
        self._run.log(kind, step=step, **values)
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            raise RunError(f"{self._run.folder}: TensorBoard events cannot be written: {error}") from None

    def close(self) -> None:
        """Flush the events."""
        if self._writer is not None:
            self._writer.close()


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


def _writer(run: Run, step: int, progress: Progress) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import
    except ImportError:
        progress.note("tensorboard is not installed, so no events are written (pip install tensorboard)")
        return None
    return SummaryWriter(str(run.folder), purge_step=step + 1 if step else None)

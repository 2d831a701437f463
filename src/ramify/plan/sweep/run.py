"""A sweep: many runs that differ in a few settings, each a normal run folder, and what can be said of them together.

    sweep.json     what was asked, every run with its outcome, the highest setting and how certain that is
    sweep.html     the same as a page
    r4-lr1e-4/ …   the runs, each with its evaluation
    sweep/         what the processes were asked and said, their logs, and what the runs share

The same command goes on with a sweep that was stopped: finished runs are kept, stopped ones are resumed.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramify.base.errors import ConfigError, RunError, TrainingError
from ramify.base.records import write_json, write_text
from ramify.base.runs import Run, is_run
from ramify.evaluate.settings import evaluation_config
from ramify.evaluate.stages import Stage
from ramify.plan.sweep.page import sweep_page
from ramify.plan.sweep.processes import Ended, Office, run_all, threads_for
from ramify.plan.sweep.results import Row, SweepResult, record_of, result_of
from ramify.plan.sweep.runs import SweepRun
from ramify.train.folder import Opening, finished_run
from ramify.train.interrupt import terminable

RECORD, PAGE = "sweep.json", "sweep.html"
_OFFICE = "sweep"


@dataclass(frozen=True)
class Listener:
    """Who is told how far a sweep is: of each run that begins, and of each that has ended."""

    started: Callable[[SweepRun], None]
    ended: Callable[[Row], None]


def sweep(runs: Sequence[SweepRun], out: Path, jobs: int | None, listener: Listener) -> SweepResult:
    """Carry out what is not finished of the runs, and write record and page, anew after each of them.

    Args:
        jobs: processes side by side; None: one, and then as many as memory holds.
        listener: is shown every run, those that were finished before too.

    Raises:
        RunError: the folder holds something else, or cannot be written.
        ConfigError: a launcher has started this process as one of several.
        KeyboardInterrupt: the user stopped it; the same command goes on.
    """
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise ConfigError("a sweep starts its own processes", hint="start it without torchrun; --jobs says how many")
    check_folder(out)
    with _alone(out):
        return _carry_out(runs, out, jobs, listener)


def _carry_out(runs: Sequence[SweepRun], out: Path, jobs: int | None, listener: Listener) -> SweepResult:
    office = Office(out / _OFFICE, jobs, threads_for(jobs))
    book = _Book(out, office, {run.name: _before(run) for run in runs})
    for row in book.rows.values():
        if row.status != "waiting":
            listener.ended(row)
    waiting = [row.run for row in book.rows.values() if row.status == "waiting"]

    def ended(run: SweepRun, found: Ended) -> None:
        book.rows[run.name] = _after(run, found)
        book.write("running")
        listener.ended(book.rows[run.name])

    book.write("running")
    try:
        with terminable():
            run_all(waiting, office, listener.started, ended)
    except KeyboardInterrupt as interrupt:
        with suppress(RunError):
            book.write("stopped")
        done = sum(row.status == "finished" for row in book.rows.values())
        raise type(interrupt)(f"stopped with {done} of {len(runs)} runs finished: {out}") from None
    return book.write("failed" if any(row.error for row in book.rows.values()) else "finished")


def check_folder(out: Path) -> None:
    """Refuse a folder that a sweep cannot go to.

    Raises:
        RunError: it is a file, a run, or holds anything but a sweep.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file, a folder is needed", hint="choose another one with --out")
    if is_run(out):
        raise RunError(f"{out}: holds a run, not a sweep", hint="choose another folder with --out")
    if out.exists() and any(each.name != _OFFICE for each in out.iterdir()) and not (out / RECORD).is_file():
        raise RunError(f"{out}: holds something that is not a sweep", hint="choose another folder with --out")


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Inside the block no other sweep works in the folder, where the system has locks on files.

    Raises:
        RunError: another one does, or the folder cannot be written.
    """
    try:
        (out / _OFFICE).mkdir(parents=True, exist_ok=True)
        lock = (out / _OFFICE / ".lock").open("w")
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    with lock:
        try:
            with suppress(ImportError):
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the process ends, in whatever way
        except OSError:
            raise RunError(f"{out}: another sweep works in this folder", hint="wait for it, or choose --out") from None
        yield


@dataclass
class _Book:
    """The rows of a sweep as they become known."""

    out: Path
    office: Office
    rows: dict[str, Row]

    def write(self, status: str) -> SweepResult:
        """Write record and page."""
        result = result_of(list(self.rows.values()))
        asked: dict[str, Any] = {
            "command": shlex.join(sys.argv),
            "status": status,
            "jobs": self.office.jobs,
            "threads": self.office.threads,
        }
        write_json(self.out / RECORD, {**asked, **record_of(result)})
        write_text(self.out / PAGE, sweep_page(self.out.name, result))
        return result


def _before(run: SweepRun) -> Row:
    """What an earlier call has left of a run: finished, begun with other settings, or to be done."""
    try:
        done = finished_run(run.config, Opening(resume=True))
        return Row(run) if done is None else _measured(run, Row(run))
    except (TrainingError, RunError) as error:
        return Row(run, error=str(error))


def _after(run: SweepRun, found: Ended) -> Row:
    """What a run's process has left."""
    if found.error is not None:
        return Row(run, error=found.error, seconds=found.seconds, peak=found.peak)
    row = _measured(run, Row(run, peak=found.peak))
    return row if row.stage is not None else replace(row, error="it left no evaluation")


def _measured(run: SweepRun, row: Row) -> Row:
    """The row with the run's evaluation, where there is one."""
    try:
        folder = evaluation_config(str(run.folder)).out
    except ConfigError as error:
        return replace(row, error=str(error))
    if folder is None or not (folder / "scores.json").is_file():
        return row
    seconds = Run(run.folder).record.get("seconds")
    return replace(row, stage=Stage(run.name, folder, run.folder), seconds=seconds)

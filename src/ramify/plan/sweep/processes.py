"""Processes of a sweep: as many side by side as were asked for, or as memory allows once the first one is measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramify.base.machine import cores
from ramify.base.records import write_json
from ramify.plan.sweep.runs import SweepRun

SHARE = 0.8
"""Of the free memory that runs side by side may take together."""
_CONTEXT = 6e8
"""Bytes that a process takes of a GPU besides its tensors."""
_WORKER = "ramify.plan.sweep.worker"
_LOOK = 0.1
_LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_LONGEST = 300


@dataclass(frozen=True)
class Ended:
    """How a run's process ended.

    Attributes:
        error: why it failed; None: it is finished.
        peak, free: bytes, as `worker.Told`; None where it did not say.
        threads: that it used.
    """

    error: str | None
    seconds: float | None = None
    peak: int | None = None
    free: float | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Office:
    """Where a sweep keeps what its processes are asked and say.

    Attributes:
        folder: with a file for each run, its log, and what runs share.
        jobs: most processes at once; None: what memory allows.
        threads: of each process; None: torch's own number.
    """

    folder: Path
    jobs: int | None
    threads: int | None

    @property
    def shared(self) -> Path:
        """What runs share."""
        return self.folder / "shared"

    def log(self, run: SweepRun) -> Path:
        """What a run's process has printed."""
        return self.folder / f"{run.name}.log"


def threads_for(jobs: int | None) -> int | None:
    """Threads of each process: the cores shared out, so that a result does not depend on who else is running.

    None, torch's own number, where one runs at a time, memory decides, or OMP_NUM_THREADS says it.
    """
    if jobs is None or jobs == 1 or os.environ.get("OMP_NUM_THREADS"):
        return None
    return max(1, cores() // jobs)


def run_all(
    runs: Sequence[SweepRun],
    office: Office,
    started: Callable[[SweepRun], None],
    ended: Callable[[SweepRun, Ended], None],
) -> None:
    """Carry out runs in order; those that fail do not stop the others.

    Without a number of processes the first one runs alone, and what it took decides how many follow side by side.

    Raises:
        KeyboardInterrupt: the processes were asked to stop and have; their checkpoints are kept.
    """
    waiting = list(runs)
    pace = Pace(office.jobs)
    with _stopped_at_the_end() as running:
        while waiting or running:
            while waiting and len(running) < pace.jobs:
                run = waiting.pop(0)
                running[_start(run, office)] = run
                started(run)
            for process, run in list(running.items()):
                if process.poll() is None:
                    continue
                del running[process]
                found = _told(process, run, office)
                pace.learn(found, run.config.train.device)
                ended(run, found)
            time.sleep(_LOOK)


class Pace:
    """How many processes go side by side.

    Args:
        asked: so many; None: one, until a run that went alone is finished and says what runs take.
    """

    def __init__(self, asked: int | None) -> None:
        self.jobs = asked or 1
        self._is_fixed = asked is not None
        self._measured: Ended | None = None

    def learn(self, found: Ended, device: str) -> None:
        """A run has ended. The largest one counts against the memory that was free when nothing else ran.

        One that failed says nothing: it may have ended before it took what it needs.
        """
        if self._is_fixed or found.error is not None:
            return
        first = self._measured or found
        self._measured = replace(first, peak=max(first.peak or 0, found.peak or 0))
        self.jobs = jobs_that_fit(self._measured, device)


def jobs_that_fit(found: Ended, device: str) -> int:
    """How many runs like a measured one go side by side: as many as memory holds, and on the CPU as cores feed."""
    if not found.peak or found.free is None:
        return 1
    on_cpu = device == "cpu" or (device == "auto" and not _has_gpu())
    by_memory = int(SHARE * found.free // (found.peak + (0 if on_cpu else _CONTEXT)))
    by_cores = cores() // (found.threads or 1) if on_cpu else by_memory
    return max(1, min(by_memory, by_cores))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _start(run: SweepRun, office: Office) -> subprocess.Popen[bytes]:
    asked = _asked(run, office)
    told = asked.with_suffix(".told.json")
    told.unlink(missing_ok=True)
    settings: dict[str, Any] = {
        "config": run.config.model_dump(mode="json"),
        "shared": str(office.shared),
        "parent": os.getpid(),
        "threads": office.threads,
    }
    write_json(asked, settings)
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER}
    environment["PYTHONPATH"] = os.pathsep.join(each for each in sys.path if each)
    if office.threads is not None:
        environment["OMP_NUM_THREADS"] = str(office.threads)
    with office.log(run).open("wb") as log:
        # In a group of its own: Ctrl-C reaches it once, from the sweep, and a second signal would end it at once.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", _WORKER, str(asked)],
            env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _asked(run: SweepRun, office: Office) -> Path:
    return office.folder / f"{run.name}.json"


def _told(process: subprocess.Popen[bytes], run: SweepRun, office: Office) -> Ended:
    """What a process that has ended left."""
    try:
        values = json.loads(_asked(run, office).with_suffix(".told.json").read_text(encoding="utf-8"))
        return Ended(**values)
    except (OSError, ValueError, TypeError):
        pass
    lines = [line for line in _tail(office.log(run)) if line.strip()]
    said = lines[-1].strip()[:_LONGEST] if lines else "it said nothing"
    if process.returncode < 0:
        return Ended(f"its process was ended by {signal.Signals(-process.returncode).name}: {said}")
    return Ended(f"its process ended with code {process.returncode}: {said}")


def _tail(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
    except OSError:
        return []


@contextmanager
def _stopped_at_the_end() -> Iterator[dict[subprocess.Popen[bytes], SweepRun]]:
    """Processes under way; those still there when the block is left are asked to stop, and waited for.

    A second Ctrl-C ends them without asking.
    """
    running: dict[subprocess.Popen[bytes], SweepRun] = {}
    try:
        yield running
    finally:
        for process in running:
            with suppress(OSError):
                process.terminate()
        try:
            for process in running:
                process.wait()
        except KeyboardInterrupt:
            for process in running:
                process.kill()
                process.wait()
            raise

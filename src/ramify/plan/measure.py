"""The rehearsal of a run in a process of its own, seen from the process that plans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ramify.base import errors
from ramify.base.config import RunConfig
from ramify.base.errors import RamifyError, RunError, TrainingError
from ramify.base.records import write_json
from ramify.plan.measured import Measured
from ramify.train.folder import run_folder
from ramify.train.interrupt import terminable

_MODULE = "ramify.plan.rehearse"
ASKED, FOUND = "asked.json", "found.json"
"""Files through which the two processes speak."""
_SECONDS = 18.0
"""For the steps: with imports, model and rows a plan stays under a minute."""
_KILLED = (-9, 137)
"""How a process ends that the system took for want of memory."""


def measure(config: RunConfig, memory: float) -> Measured | None:
    """Try a run out; None when there was not memory enough.

    Files are written beside the run folder, on the disk that the run will use, and removed.

    Args:
        memory: bytes that the run may have.

    Raises:
        RamifyError: what the run itself would refuse.
        TrainingError: the process ended in another way.
        KeyboardInterrupt: the user stopped it; the process is ended, and its files are removed.
    """
    there = run_folder(config).absolute()
    beside = next(each for each in there.parents if os.path.exists(each))
    with terminable(), ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=".ramify-plan-", dir=beside))
        except OSError as error:
            raise RunError(f"{there}: cannot be written: {error.strerror or error}") from None
        return _measured(Path(folder), config, memory)


def _measured(folder: Path, config: RunConfig, memory: float) -> Measured | None:
    asked = {
        "config": config.model_dump(mode="json"),
        "seconds": _SECONDS,
        "memory": min(memory, 1e18),
        "spawned": time.time(),
    }
    write_json(folder / ASKED, asked)
    command = [sys.executable, "-P", "-m", _MODULE, str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if (folder / FOUND).is_file():
        return read_found(folder)
    if done.returncode in _KILLED:
        return None
    said = done.stderr.strip().splitlines()
    raise TrainingError(f"the run could not be tried out: {said[-1] if said else f'exit code {done.returncode}'}")


def read_found(folder: Path) -> Measured | None:
    """What the other process wrote into the folder; None when it ran out of memory.

    Raises:
        RamifyError: the one that it ended with.
    """
    found = json.loads((folder / FOUND).read_text(encoding="utf-8"))
    if "error" in found:
        raise _error(found["error"])
    return None if found["measured"] is None else Measured.of(found["measured"])


def _error(said: dict[str, Any]) -> RamifyError:
    """The error that the other process ended with."""
    kind: type[RamifyError] = getattr(errors, said["kind"], RamifyError)
    return kind(said["message"], hint=said["hint"])

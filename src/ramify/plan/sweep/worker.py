"""One run of a sweep, in a process of its own: trained, evaluated as `ramify eval RUN` would, and told in one file.

    python -m ramify.plan.sweep.worker FILE     reads `Asked` from FILE, and writes `Told` beside it

A run that was stopped goes on, one that is finished is left as it is. The process asks itself to stop when the sweep's
process is gone, and never works in a folder that another one still works in.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import RamifyError
from ramify.base.progress import LogProgress
from ramify.base.records import write_json
from ramify.evaluate.run import evaluate
from ramify.evaluate.settings import evaluation_config
from ramify.model.load import choose_device
from ramify.plan.beforehand import refuse_what_cannot_fit
from ramify.plan.peak import peak_memory
from ramify.sample.weights import free_memory
from ramify.train import dpo, rft, sft
from ramify.train.interrupt import terminable
from ramify.train.shared import alone, shared_in

TELLING = ".told.json"
"""What the name of `Told`'s file ends in, where that of `Asked` ends in .json."""
_METHODS = {"sft": sft.run, "rft": rft.run, "dpo": dpo.run}
_LOOK = 1.0
"""Seconds between looks at whether the sweep's process is still there."""


@dataclass(frozen=True)
class Asked:
    """What a process is to do: train with these settings, with so many threads (None: torch's own number).

    Attributes:
        shared: the folder that runs of the sweep share.
        parent: the sweep's process.
    """

    config: dict[str, Any]
    shared: str
    parent: int
    threads: int | None


@dataclass(frozen=True)
class Told:
    """What came of it.

    Attributes:
        error: why it failed, with a hint; None: it is finished, or was stopped.
        peak: largest memory in bytes, of the GPU where there is one; free: what was free of it at the beginning.
        threads: that torch used.
    """

    error: str | None
    seconds: float
    peak: int
    free: float | None
    threads: int


def carry_out(asked: Asked) -> Told:
    """Train and evaluate.

    Raises:
        KeyboardInterrupt: it was asked to stop; what is done is kept.
    """
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    config = parse_config(asked.config)
    began, error = time.perf_counter(), None
    device: torch.device | None = None
    free = None
    try:
        device = choose_device(config.train.device)
        left = free_memory(device)
        free = None if left == float("inf") else left
        _run(config, Path(asked.shared))
    except RamifyError as found:
        error = str(found)
    except (RuntimeError, MemoryError, OSError) as found:  # no memory left, a disk that is full, a broken driver
        error = " ".join(f"{type(found).__name__}: {found}".split())
    peak = 0 if device is None else peak_memory(device)
    return Told(error, round(time.perf_counter() - began, 3), peak, free, torch.get_num_threads())


def _run(config: RunConfig, shared: Path) -> None:
    folder = config.out
    assert folder is not None
    with alone(shared / f"run-{folder.name}"), shared_in(shared):
        refuse_what_cannot_fit(config)
        _METHODS[config.method](config, resume=True, progress=LogProgress())
        measured = evaluation_config(str(folder))
        if measured.out is None or not (measured.out / "scores.json").is_file():
            evaluate(measured)


def _follow(parent: int) -> None:
    """Ask this process to stop, as SIGTERM does, when it is no longer the child of that one."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


def main(path: Path) -> int:
    """Do what the file asks, and write what came of it."""
    asked = Asked(**json.loads(path.read_text(encoding="utf-8")))
    threading.Thread(target=_follow, args=(asked.parent,), daemon=True).start()
    try:
        with terminable():
            told = carry_out(asked)
    except KeyboardInterrupt as interrupt:
        print(f"stopped: {interrupt}", flush=True)
        return 130
    write_json(path.with_suffix(TELLING), asdict(told))
    return 1 if told.error else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

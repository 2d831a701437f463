"""What `ramify train` checks by itself before it loads a model: whether weights, optimizer and disk can fit at all."""

from __future__ import annotations

from pathlib import Path

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, RunError
from ramify.base.machine import free_disk
from ramify.base.runs import is_run
from ramify.model.load import choose_device
from ramify.plan.advice import smaller_model
from ramify.plan.amounts import gigabytes
from ramify.plan.footprint import Footprint, footprint
from ramify.sample.weights import free_memory
from ramify.train.folder import run_folder


def refuse_what_cannot_fit(config: RunConfig) -> Footprint:
    """The footprint of a run, when memory and disk have room for it. Takes no weight into memory.

    A model divided among processes (`train.shard`) is not held against the memory of one.

    Raises:
        ConfigError: weights and optimizer state alone are more than the free memory.
        RunError: the disk has no room for the checkpoints that are kept.
        ModelError: the model is not known, or has not the layers asked for.
    """
    found = footprint(config)
    room = free_memory(choose_device(config.train.device))
    shortage = memory_shortage(config, found, room)
    if shortage is not None:
        raise ConfigError(shortage, hint=smaller_model(config, found, room))
    shortage = disk_shortage(config, found.disk)
    if shortage is not None:
        raise RunError(shortage, hint="free some room, train.keep=1, or out=FOLDER on another disk")
    return found


def memory_shortage(config: RunConfig, found: Footprint, room: float) -> str | None:
    """A line when weights and optimizer state alone need more than so many bytes, or None."""
    if found.memory <= room or config.train.shard != "none":
        return None
    return (
        f"weights and optimizer state alone take {gigabytes(found.memory)}, and {gigabytes(room)} of memory are free "
        f"({found.parameters:,} parameters in {found.dtype}; {found.trained:,} numbers are trained)"
    )


def disk_shortage(config: RunConfig, needed: int) -> str | None:
    """A line when the disk has no room for so many bytes, or None.

    A run that is in the folder is gone on with or replaced, so that its files make room for the new ones.
    """
    folder = run_folder(config)
    left = free_disk(folder) + (_bytes(folder) if is_run(folder) else 0)
    if needed <= left:
        return None
    return f"{folder}: checkpoints take {gigabytes(needed)}, and {gigabytes(left)} of disk are free"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

"""Files and folders that appear whole or not at all, and the room that they need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ramify.base.errors import RunError
from ramify.base.machine import free_disk

_SPARE = 16 << 20
"""Bytes left free beside what is written: headers, tokenizer, and whoever else writes there."""


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it becomes `target` when the block ends well, and is gone when it does not.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    beside = _beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        _flush(beside)
        os.replace(beside, target)
    except OSError as error:
        raise RunError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder beside `target`; it becomes `target` when the block ends well, and is gone when it does not.

    Args:
        overwrite: a folder that is there is replaced; it comes back when the new one cannot take its place.

    Raises:
        RunError: `target` holds something and may not be replaced, the folder cannot be written, or the disk is full.
    """
    if not overwrite:
        refuse_occupied(target)
    target = target.resolve()
    beside = _beside(target)
    before = beside.with_suffix(".old")
    try:
        beside.mkdir(parents=True)
        yield beside
        for file in sorted(beside.rglob("*")):
            if file.is_file():
                _flush(file)
        if not overwrite:
            refuse_occupied(target)  # it may have come in the meantime
        if target.is_dir():
            os.replace(target, before)
        os.replace(beside, target)
    except OSError as error:
        raise RunError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if before.is_dir() and not target.exists():
            os.replace(before, target)
        shutil.rmtree(before, ignore_errors=True)


def refuse_occupied(target: Path) -> None:
    """Refuse to write where something is.

    Raises:
        RunError: `target` is a file, or a folder that is not empty.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise RunError(f"{target}: exists already", hint="give another folder, or remove this one")


def require_space(target: Path, needed: int) -> None:
    """Refuse before anything is written when the disk has not the room.

    Args:
        target: what will be written; its folder need not exist yet.
        needed: bytes.

    Raises:
        RunError: fewer bytes are free; says how many are needed.
    """
    free = free_disk(target)
    if free < needed + _SPARE:
        raise RunError(
            f"{target}: needs {(needed + _SPARE) / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            hint="free some room, or give a folder on another disk",
        )


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.tmp")


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())

"""A folder that several runs share: what one has computed, the others find there instead of computing it again.

    with shared_in(folder):
        dpo.run(config)         # its reference is taken from the folder, or computed and left there

Whatever is in the folder lies there under a digest of everything that decides it. Files are linked, where the file
system can, so that they lie on the disk once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path
from typing import Any

from ramify.base.runs import versions

_folder: ContextVar[Path | None] = ContextVar("shared", default=None)


@contextmanager
def shared_in(folder: Path) -> Iterator[None]:
    """Inside the block runs share what lies in this folder."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def place_of(kind: str, key: Mapping[str, Any]) -> Path | None:
    """Where something of this kind that was decided by `key` lies, there or not; None: nothing is shared.

    Versions of the packages are part of every key: what another version has left is not taken.
    """
    folder = _folder.get()
    if folder is None:
        return None
    decided = json.dumps({**key, "versions": versions()}, sort_keys=True)
    return folder / f"{kind}-{sha256(decided.encode()).hexdigest()[:32]}"


@contextmanager
def alone(place: Path | None) -> Iterator[None]:
    """Inside the block no other process is in a block of the same place: the second one finds what the first has made.

    Where the system has no locks on files, both compute, and the result is the same.
    """
    if place is None:
        yield
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f".{place.name}.lock").open("w") as lock:
        with suppress(ImportError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, however the process ends
        yield


def link(source: Path, target: Path) -> bool:
    """Let `target` be the same file, or a copy on file systems without links; whether it is there now.

    What `target` was before is replaced. A disk that is full is no error: the file is then computed again.
    """
    if not source.is_file():
        return False
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError:
        return False
    finally:
        with suppress(OSError):  # a link to the file that it would replace stays behind
            temporary.unlink(missing_ok=True)
    return True

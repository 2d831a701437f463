"""What this machine has, as far as the standard library knows: cores, and room on a disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_disk(folder: Path) -> int:
    """Bytes that may still be written where a folder is, or will be made."""
    # os.path: pathlib raises where a folder on the way may not be looked into.
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.isdir(each))
    return shutil.disk_usage(there).free

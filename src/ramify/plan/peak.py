"""The largest memory that a process has had."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> int:
    """Bytes: of the allocator of CUDA or MPS where the device is theirs, else the largest resident size; 0: unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()  # it gives nothing back, so that this is the largest
    status = Path("/proc/self/status")
    if status.exists():  # the peak of getrusage starts at the size of the parent process
        return _line(status, "VmHWM")
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_memory() -> int:
    """Bytes that this process holds now; 0 where the system does not say."""
    status = Path("/proc/self/status")
    return _line(status, "VmRSS") if status.exists() else 0


def _line(status: Path, name: str) -> int:
    found = next(each for each in status.read_text().splitlines() if each.startswith(f"{name}:"))
    return int(found.split()[1]) * 1024

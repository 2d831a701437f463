"""The machine in findings: torch and its accelerator, measured rates, cores, memory, and the disks that runs need."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ramify.base.machine import cores, free_disk
from ramify.plan.amounts import gigabytes
from ramify.plan.doctor.findings import Finding, note, ok, problem
from ramify.plan.doctor.imports import Failure, Trial

_TORCH, _MEMORY, _DISK = "torch", "memory", "disk"
_TEMPORARY = "temporary files"
_PROBE = "ramify.plan.doctor.probe"
_LITTLE_MEMORY, _LITTLE_DISK, _NO_DISK = 2e9, 5e9, 2e8
"""Bytes: below the first two it is said, below the third nothing can be written to speak of."""
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Accelerator:
    """A GPU: its torch name, its maker's name, and its memory in bytes where it says so."""

    name: str
    model: str
    total: float | None
    free: float | None


@dataclass(frozen=True)
class Machine:
    """What torch finds (see `doctor.probe`).

    Attributes:
        built_for: the accelerator that torch was built for; None: none.
        device: what `train.device=auto` means here.
        threads: of torch, on the CPU.
        free: bytes that may still be taken, control groups counted; None: the system does not say.
        core_rates: GFLOP/s of matrix products on one core, by type; device_rates: on the whole device.
        native_bf16: whether products in bf16 are worth computing in it; None: RAMIFY_NATIVE cannot be read.
    """

    torch: str
    built_for: str | None
    device: str
    accelerators: tuple[Accelerator, ...]
    threads: int
    free: float | None
    core_rates: dict[str, float]
    device_rates: dict[str, float]
    native_bf16: bool | None


def start(then: Sequence[str]) -> Trial:
    """A process that looks at the machine, and then tries to import these modules (see `failed_imports`)."""
    return Trial(_PROBE, *then)


def look(trial: Trial) -> Machine | Failure:
    """What torch finds, or why it finds nothing."""
    values = next(trial.rows(), None)
    if values is None or "module" in values:
        return Failure(trial.how_it_ended(), trial.is_late)
    values["accelerators"] = tuple(Accelerator(**each) for each in values["accelerators"])
    return Machine(**values)


def machine_findings(found: Machine | Failure) -> list[Finding]:
    """Findings about torch, its accelerator, rates, cores and memory."""
    if isinstance(found, Failure) and found.late:
        again = "ramify doctor again, when nothing else runs"
        return [note(_TORCH, "torch", f"whether it can be used is not known: {found.reason}", again)]
    if isinstance(found, Failure):
        advice = "pip install --force-reinstall torch; nothing can be trained or sampled without it"
        return [problem(_TORCH, "torch", f"cannot be used: {found.reason}", advice)]
    return [*_accelerator(found), *_rates(found), _cores(found), _memory(found)]


def disk_findings(runs: Path) -> list[Finding]:
    """Findings about the folders that runs, the hub's cache and temporary files go to.

    Args:
        runs: where runs go; it need not exist.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    found = [_disk("runs", runs), _disk("models from the hub", Path(HF_HUB_CACHE))]
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError:
        advice = "let TMPDIR name a folder on a disk with room"
        return [*found, problem(_DISK, _TEMPORARY, "no folder for them can be written to", advice)]
    return [*found, _disk(_TEMPORARY, place), *_in_memory(place)]


def _accelerator(found: Machine) -> Iterator[Finding]:
    build = f"{found.torch}, built for {found.built_for or 'the CPU'}; train.device=auto is {found.device}"
    yield ok(_TORCH, "torch", build)
    for each in found.accelerators:
        room = "" if each.total is None else f", {gigabytes(each.free or 0)} of {gigabytes(each.total)} free"
        yield ok(_TORCH, each.name, f"{each.model}{room}")
    if found.accelerators:
        return
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        yield note(_TORCH, "GPU", f"hidden by CUDA_VISIBLE_DEVICES={hidden!r}", "unset it to use one")
    elif _DRIVER.is_file() and (found.built_for or "").startswith("CUDA"):
        advice = f"update the driver to one for {found.built_for}, or install a torch built for an older CUDA"
        yield problem(_TORCH, "GPU", f"torch cannot use it; driver: {_driver()}", advice)
    elif _DRIVER.is_file():
        advice = "install a torch that is built for CUDA (see https://pytorch.org)"
        yield note(_TORCH, "GPU", f"there is one, and this torch is built for the CPU; driver: {_driver()}", advice)
    else:
        yield ok(_TORCH, "GPU", "none; everything is computed on the CPU")


def _driver() -> str:
    try:
        return " ".join(_DRIVER.read_text(encoding="utf-8", errors="replace").splitlines()[0].split())[:120]
    except (OSError, IndexError):
        return "unknown"


def _rates(found: Machine) -> Iterator[Finding]:
    core = ", ".join(f"{name} {rate:.0f}" for name, rate in found.core_rates.items())
    yield ok(_TORCH, "products on one core", f"{core} GFLOP/s")
    whole = ", ".join(f"{name} {_flops(rate)}" for name, rate in found.device_rates.items())
    yield ok(_TORCH, f"products on {found.device}", whole)
    if found.native_bf16 is None:
        return
    if found.native_bf16:
        yield ok(_TORCH, "bf16", "fast here; frozen weights are kept and multiplied in it")
    elif found.device == "cpu":
        yield ok(_TORCH, "bf16", "slow here; bf16 weights are multiplied in fp32, block by block")
    else:
        yield ok(_TORCH, "bf16", f"not native on {found.device}; another type is taken")


def _flops(rate: float) -> str:
    return f"{rate / 1000:.1f} TFLOP/s" if rate >= 1000 else f"{rate:.0f} GFLOP/s"


def _cores(found: Machine) -> Finding:
    count, allowed = cores(), cpu_share()
    seen = f"{count} cores, torch uses {found.threads} threads"
    if allowed is not None and found.threads > allowed + 0.5:
        seen += f", and the control group allows {allowed:g} cores"
        return note(_MEMORY, "processor", seen, f"OMP_NUM_THREADS={max(1, round(allowed))}: more threads only wait")
    if found.threads < count / 2:  # hyper-threading: torch counts physical cores
        return note(_MEMORY, "processor", seen, "OMP_NUM_THREADS and the like decide that; unset them to use all")
    return ok(_MEMORY, "processor", seen)


def cpu_share(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many cores the control group allows (version 2, or 1); None: no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        return None if float(quota) <= 0 else float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # `max`
        return None


def _memory(found: Machine) -> Finding:
    if found.free is None:
        return ok(_MEMORY, "free memory", "this system does not say")
    if found.free < _LITTLE_MEMORY:
        advice = "close other programs; a smaller train.micro_tokens and sample.live need less, for the same result"
        return note(_MEMORY, "free memory", gigabytes(found.free), advice)
    return ok(_MEMORY, "free memory", gigabytes(found.free))


def _disk(name: str, place: Path) -> Finding:
    # os.path: pathlib raises where a folder on the way may not be looked into.
    there = next(each for each in (place, *place.absolute().parents) if os.path.exists(each))
    if there == place and not os.path.isdir(place):
        return problem(_DISK, name, f"{place} is a file", "a folder is needed there")
    if not os.access(there, os.W_OK | os.X_OK):
        return problem(
            _DISK, name, f"{place}: nothing can be written in {there}", "choose another folder, or its rights"
        )
    free = free_disk(place)
    seen = f"{gigabytes(free)} free in {place}"
    if free < _NO_DISK:
        return problem(_DISK, name, seen, "free some space: a run stops when the disk is full")
    return (
        note(_DISK, name, seen, "a model and its checkpoints may need more")
        if free < _LITTLE_DISK
        else ok(_DISK, name, seen)
    )


def _in_memory(place: Path, mounts: Path = Path("/proc/mounts")) -> Iterator[Finding]:
    """Whether temporary files lie in memory: rendered rows of a run go there so that they do not."""
    try:
        rows = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return
    around = [row for row in rows if len(row) > 2 and place.resolve().is_relative_to(row[1])]
    if around and max(around, key=lambda row: len(row[1]))[2] in ("tmpfs", "ramfs"):
        advice = "TMPDIR names a folder on a disk; rows of a large data set lie there while they are trained on"
        yield note(_DISK, _TEMPORARY, f"{place} lies in memory", advice)

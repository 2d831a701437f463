"""What torch finds on this machine, and how fast it is: measured in a process of its own, as torch may end it.

    python -m ramify.plan.doctor.probe peft

prints one JSON line, a `Machine`, and then tries to import the modules that it is given. Rates are those of products of
square matrices: of one core by its own processor time (see `model.rates`), and of the whole device by the clock.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict

import torch

from ramify.base.errors import ConfigError
from ramify.model.rates import native, product_rates
from ramify.plan.doctor.imports import try_imports
from ramify.plan.doctor.machine import Accelerator, Machine
from ramify.sample.weights import free_memory

_KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SIZES = {"cpu": 768, "cuda": 4096, "mps": 2048}
_LONG_ENOUGH = 0.3
"""Seconds of one rate."""


def probe() -> Machine:
    """Everything about this machine that torch has to be asked for."""
    accelerators = _accelerators()
    device = torch.device(accelerators[0].name if accelerators else "cpu")
    free = free_memory()
    return Machine(
        torch=torch.__version__,
        built_for=_built_for(),
        device=str(device),
        accelerators=accelerators,
        threads=torch.get_num_threads(),
        free=None if free == float("inf") else free,
        core_rates=product_rates(),
        device_rates=device_rates(device),
        native_bf16=_native_bf16(device),
    )


def device_rates(device: torch.device) -> dict[str, float]:
    """GFLOP/s of products of square matrices on the whole device, for fp32 and bf16."""
    return {name: _rate(device, kind) for name, kind in _KINDS.items()}


def _rate(device: torch.device, kind: torch.dtype) -> float:
    size = _SIZES[device.type]
    left, right = (torch.ones(size, size, dtype=kind, device=device) for _ in range(2))
    torch.mm(left, right)
    _wait(device)
    began, count, seconds = time.perf_counter(), 0, 0.0
    while seconds < _LONG_ENOUGH:
        torch.mm(left, right)
        _wait(device)
        count, seconds = count + 1, time.perf_counter() - began
    return 2e-9 * size**3 * count / seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _built_for() -> str | None:
    """The accelerator that this torch was built for; None: a build for the CPU alone."""
    version = torch.version
    if version.cuda is not None:
        return f"CUDA {version.cuda}"
    hip = getattr(version, "hip", None)
    return f"ROCm {hip}" if hip else "MPS" if torch.backends.mps.is_built() else None


def _accelerators() -> tuple[Accelerator, ...]:
    if torch.backends.mps.is_available():
        return (Accelerator("mps", "Apple GPU", None, None),)
    found = []
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(number)
        found.append(Accelerator(f"cuda:{number}", torch.cuda.get_device_name(number), total, free))
    return tuple(found)


def _native_bf16(device: torch.device) -> bool | None:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        return device.type == "cpu" and native(torch.bfloat16)
    except ConfigError:  # RAMIFY_NATIVE cannot be read, which is told of the environment
        return None


if __name__ == "__main__":
    print(json.dumps(asdict(probe())), flush=True)
    try_imports(sys.argv[1:])
    os._exit(0)  # nothing is left to write; taking torch down takes its time

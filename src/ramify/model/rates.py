"""How fast matrix products are here, by measurement, and which type to compute them in.

A CPU without bf16 instructions multiplies bf16 matrices several times slower than fp32 ones. Frozen bf16 weights are
then turned to fp32 block by block right before each product, which is faster and more exact. The measurement takes
tenths of a second and is made once a process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch

from ramify.base.errors import ConfigError

_KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_ROWS, _SIZE = 64, 512
_ROUNDS = 2
_LONG_ENOUGH = 0.02
"""Seconds of processor time that a measurement takes: some clocks tick every 15.6 ms only."""
_WORTHWHILE = 1.2
"""How many times faster than fp32 a smaller type must be to count as native; below, exactness wins."""
_VARIABLE = "RAMIFY_NATIVE"
_assumed: ContextVar[frozenset[torch.dtype] | None] = ContextVar("assumed", default=None)


@cache
def product_rates() -> dict[str, float]:
    """Measured rate of matrix products in GFLOP/s on one CPU core, for fp32, bf16 and fp16.

    One thread's own processor time is taken, so a busy machine does not change which type is fastest.
    """
    problems = {name: _problem(kind) for name, kind in _KINDS.items()}
    best = dict.fromkeys(_KINDS, float("inf"))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(_ROUNDS):
            for name, (left, right, out) in problems.items():
                best[name] = min(best[name], _seconds(left, right, out))
    finally:
        torch.set_num_threads(n_threads)
    return {name: 2e-9 * _ROWS * _SIZE * _SIZE / seconds for name, seconds in best.items()}


def _problem(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    left, right = torch.ones(_ROWS, _SIZE, dtype=kind), torch.ones(_SIZE, _SIZE, dtype=kind)
    return left, right.t(), torch.empty(_ROWS, _SIZE, dtype=kind)


def _seconds(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
    """Processor time of one product: from tick to tick of the clock, divided by how many products went in between."""
    start = _next_tick()
    count, seconds = 0, 0.0
    while seconds < _LONG_ENOUGH:
        torch.mm(left, right, out=out)
        count += 1
        seconds = time.thread_time() - start
    return seconds / count


def _next_tick() -> float:
    before = time.thread_time()
    while (now := time.thread_time()) == before:
        pass
    return now


def native(dtype: torch.dtype) -> bool:
    """Whether CPU products of this type are worth computing in it; fp32 always is.

    Decided by `product_rates`, unless the environment variable RAMIFY_NATIVE lists the native types (`bf16,fp16`,
    or `none`) or `assume_native` is in force.

    Raises:
        ConfigError: the variable holds an unknown type.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return True
    assumed = _assumed.get()
    if assumed is None:
        assumed = _from_environment()
    return dtype in (_measured() if assumed is None else assumed)


@cache
def _measured() -> frozenset[torch.dtype]:
    rates = product_rates()
    return frozenset(kind for name, kind in _KINDS.items() if rates[name] > _WORTHWHILE * rates["fp32"])


def _from_environment() -> frozenset[torch.dtype] | None:
    text = os.environ.get(_VARIABLE, "").strip()
    if not text:
        return None
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in _KINDS:
            raise ConfigError(f"{_VARIABLE}={text!r}: unknown type {name!r} (allowed: none, or of {', '.join(_KINDS)})")
    return frozenset(_KINDS[name] for name in names)


@contextmanager
def assume_native(*dtypes: torch.dtype) -> Iterator[None]:
    """Inside the block exactly these types (and fp32) count as native on the CPU, whatever was measured."""
    token = _assumed.set(frozenset(dtypes))
    try:
        yield
    finally:
        _assumed.reset(token)


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The type in which products with this weight are computed: its own, or fp32 on a CPU that is slow in its own."""
    if tensor.device.type != "cpu" or native(tensor.dtype):
        return tensor.dtype
    return torch.float32


def exact_device(device: torch.device) -> torch.device:
    """Where to sum in fp64 what lies on a device: there, or on the CPU, as Apple's GPUs (MPS) have no fp64."""
    return torch.device("cpu") if device.type == "mps" else device


def fastest_dtype(device: torch.device) -> torch.dtype:
    """The type for frozen weights and activations that multiplies fastest on a device.

    bf16 where it is native, fp16 on older CUDA devices, fp32 elsewhere.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and native(torch.bfloat16):
        return torch.bfloat16
    return torch.float32

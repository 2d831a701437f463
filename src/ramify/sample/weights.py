"""Weights in the type that multiplies fastest, for as long as sampling lasts.

A CPU without bf16 instructions multiplies bf16 matrices several times slower than fp32 ones. Every decode step reads
every weight once, so turning them once for the whole run is faster than turning them for each product, and the
result is closer to exact.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ramify.model.rates import product_dtype

SPARE = 0.4
"""Share of the free memory that a copy of the weights may take; the rest is for keys and values."""


@contextmanager
def fast_weights(network: nn.Module) -> Iterator[None]:
    """Inside the block, weights that are slow here are fp32, where memory allows it; afterwards they are as before."""
    slow = [tensor for tensor in _tensors(network) if product_dtype(tensor) != tensor.dtype]
    if sum(tensor.numel() for tensor in slow) * 4 > SPARE * free_memory():
        slow = []
    before = [tensor.data for tensor in slow]
    try:
        for tensor in slow:
            tensor.data = tensor.data.to(product_dtype(tensor))
        yield
    finally:
        for tensor, data in zip(slow, before, strict=True):
            tensor.data = data


def _tensors(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers that are real numbers, tied ones once."""
    found = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return [tensor for tensor in found.values() if tensor.is_floating_point()]


def free_memory() -> float:
    """Bytes of free main memory; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")

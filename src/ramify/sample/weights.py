"""What sampling puts into memory: weights in the type that multiplies fastest, and as many slots as there is room for.

A CPU without bf16 instructions multiplies bf16 matrices several times slower than fp32 ones. Every decode step reads
every weight once, so turning them once for the whole run is faster than turning them for each product, and the
result is closer to exact.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ramify.model.load import LoadedModel
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


def slots_that_fit(loaded: LoadedModel, capacity: int) -> int:
    """How many slots of this many tokens half of the free memory holds, at least one."""
    config = loaded.network.config
    queries = int(config.num_attention_heads)
    heads = int(getattr(config, "num_key_value_heads", None) or queries)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // queries)
    token = 2 * 4 * heads * size * int(config.num_hidden_layers)  # keys and values, at most fp32
    return max(1, int(min(free_memory(loaded.device) / 2, 1e15) // (token * capacity)))


def free_memory(device: torch.device | None = None) -> float:
    """Bytes of free memory, on the CPU unless a device is given; infinite where the system does not say."""
    if device is not None and device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")

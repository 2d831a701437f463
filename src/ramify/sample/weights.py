"""What sampling puts into memory: weights in the type that multiplies fastest, and as many slots as there is room for.

A CPU without bf16 instructions multiplies bf16 matrices several times slower than fp32 ones. Every decode step reads
every weight once, so turning them once for the whole run is faster than turning them for each product, and the
result is closer to exact. Where the copy would not fit, each layer is turned while it is computed: free memory
decides how fast sampling is and how many sequences are decoded at once, never what is drawn.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ramify.model.rates import product_dtype

if TYPE_CHECKING:
    from ramify.model.load import LoadedModel

_log = logging.getLogger("ramify")

SPARE = 0.4
"""Share of the free memory that a copy of the weights may take; the rest is for keys and values."""

_ENOUGH = 1e15
_CGROUPS = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Controller, limit and use, in version 2 and version 1 of control groups."""


@contextmanager
def fast_weights(network: nn.Module) -> Iterator[None]:
    """Inside the block, weights that are slow here are multiplied in fp32; afterwards they are as before."""
    slow = _slow(network)
    with ExitStack() as stack:
        if sum(tensor.numel() for tensor in slow) * 4 <= SPARE * free_memory():
            stack.callback(_restore, _widen(slow))
        else:
            for block in _blocks(network):
                _widen_while_computed(block, stack)
        yield


def multiplied_as_stored(network: nn.Module) -> bool:
    """Whether products with all weights are computed in the type that they have now."""
    return not _slow(network)


def _slow(network: nn.Module) -> list[Tensor]:
    """Parameters and buffers, tied ones once, that are multiplied in another type than they have."""
    found = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return [each for each in found.values() if each.is_floating_point() and product_dtype(each) != each.dtype]


def _widen(slow: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Turn these tensors in place; what they held before."""
    before = [(tensor, tensor.data) for tensor in slow]
    for tensor in slow:
        tensor.data = tensor.data.to(product_dtype(tensor))
    return before


def _restore(before: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, data in before:
        tensor.data = data


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a network, and the modules outside them."""
    if isinstance(module, nn.ModuleList):
        yield from module
    elif next(module.children(), None) is None:
        yield module
    else:
        for child in module.children():
            yield from _blocks(child)


def _widen_while_computed(block: nn.Module, stack: ExitStack) -> None:
    """Until the stack is closed, turn the block's weights for each of its forwards."""
    before: list[tuple[Tensor, Tensor]] = []

    def start(_module: nn.Module, _inputs: object) -> None:
        before[:] = _widen(_slow(block))

    def stop(_module: nn.Module, _inputs: object, _output: object) -> None:
        _restore(before)

    stack.callback(block.register_forward_pre_hook(start).remove)
    stack.callback(block.register_forward_hook(stop, always_call=True).remove)


def slots_that_fit(loaded: LoadedModel, capacity: int, wanted: int) -> int:
    """How many of the wanted slots of this many tokens half of the free memory holds, at least one."""
    found = max(1, tokens_that_fit(loaded, 0.5) // capacity)
    if found < wanted:
        _say_once(f"memory has room for {found} of {wanted} sequences at once; sampling takes longer, draws the same")
    return min(found, wanted)


def tokens_that_fit(loaded: LoadedModel, share: float) -> int:
    """Of how many tokens this share of the free memory holds keys and values."""
    config = loaded.network.config
    queries = int(config.num_attention_heads)
    heads = int(getattr(config, "num_key_value_heads", None) or queries)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // queries)
    token = 2 * 4 * heads * size * int(config.num_hidden_layers)  # keys and values, at most fp32
    return int(min(free_memory(loaded.device) * share, _ENOUGH) // token)


@cache
def _say_once(message: str) -> None:
    _log.warning("%s", message)


def free_memory(device: torch.device | None = None) -> float:
    """Bytes that may still be taken, on the CPU unless a device is given; infinite where the system does not say."""
    if device is not None and device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + cached)
    return min(_available(), _left_in_cgroup())


def _available(source: Path = Path("/proc/meminfo")) -> float:
    """Free memory and the file cache that gives way to programs: a file that was just read takes no room."""
    try:
        lines = source.read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024
    except (OSError, StopIteration):
        pass
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def _left_in_cgroup(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """What the limits of this process's control group and of those above it leave; infinite without limits."""
    try:
        paths = dict(line.split(":", 2)[1:] for line in own.read_text().splitlines())
    except (OSError, ValueError):
        return float("inf")
    left = float("inf")
    for controller, limit, use in _CGROUPS:
        place = Path(paths.get(controller, "/").lstrip("/"))
        for group in (place, *place.parents):
            left = min(left, _left(root / controller / group, limit, use))
    return left


def _left(group: Path, limit: str, use: str) -> float:
    try:
        used = int((group / use).read_text()) - _file_cache(group)
        return float(int((group / limit).read_text()) - used)
    except (OSError, ValueError):  # no such group, or its limit is `max`
        return float("inf")


def _file_cache(group: Path) -> int:
    """Bytes of files that were read and can be dropped; they count as used."""
    rows = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))

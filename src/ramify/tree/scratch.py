"""Memory that is written over again and again: a fresh tensor costs the system a page at a time, a kept one nothing."""

from __future__ import annotations

import threading
from math import prod

import torch
from torch import Tensor

_LARGEST = 32 << 20
"""Bytes; what is larger is made anew, so that little memory stays taken."""
_kept = threading.local()


def scratch(
    name: str, shape: tuple[int, ...], kind: torch.dtype, device: torch.device, largest: float = _LARGEST
) -> Tensor:
    """An uninitialised tensor that the next call of this thread with the same name overwrites.

    For what does not leave a function. Devices other than the CPU keep freed memory themselves.

    Args:
        largest: bytes; a larger tensor is made anew.
    """
    size = prod(shape)
    if device.type != "cpu" or size * kind.itemsize > largest:
        return torch.empty(shape, dtype=kind, device=device)
    place = f"{name} {kind}"
    buffer: Tensor | None = getattr(_kept, place, None)
    if buffer is None or buffer.numel() < size:
        with torch.inference_mode(False):
            buffer = torch.empty(size, dtype=kind)
        setattr(_kept, place, buffer)
    return buffer[:size].view(shape)

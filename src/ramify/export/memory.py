"""What of a model fits into memory at once."""

from __future__ import annotations

from ramify.sample.weights import free_memory

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_SHARE = 0.85
"""Of the free memory that weights may take; the rest is for activations and logits."""


def fits(parameters: int, dtype: str) -> bool:
    """Whether so many weights of this type fit into the memory that is free."""
    return parameters * _BYTES[dtype] <= _SHARE * free_memory()

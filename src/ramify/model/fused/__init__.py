"""Hand-written decoder layers: fewer passes over memory, fewer tensors kept, the same numbers."""

from __future__ import annotations

from ramify.model.fused.layers import FAMILIES, fuse, is_fused, unfuse

__all__ = ["FAMILIES", "fuse", "is_fused", "unfuse"]

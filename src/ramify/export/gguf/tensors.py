"""Tensors on their way into a GGUF file: rows rearranged, norms shifted, encoded, a block of rows at a time.

    f32, f16, bf16   cast, rounding to the nearest
    q8_0             32 numbers share one f16 scale, each is a byte

Vectors (norms, biases) stay f32, as llama.cpp wants them. Rows that q8_0 cannot cut into blocks of 32 become f16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf, isfinite, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramify.base.errors import ConfigError, ModelError, unknown
from ramify.export.gguf.layout import Expected
from ramify.export.stored import Floats, Stored

Encoded = NDArray[Any]
_BLOCK = 16 << 20
"""Bytes of fp32 that are held at once."""
_GROUP = 32
"""Numbers of a row that share a scale in q8_0."""


class Kind(Enum):
    """What the numbers of a GGUF file are written as; values are the names that users write."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    Q8_0 = "q8_0"

    @property
    def file_type(self) -> int:
        """What `general.file_type` says."""
        return {Kind.F32: 0, Kind.F16: 1, Kind.BF16: 32, Kind.Q8_0: 7}[self]

    @property
    def group_bytes(self) -> int:
        """Bytes of 32 numbers; a scale of q8_0 is two of them."""
        return {Kind.F32: 128, Kind.F16: 64, Kind.BF16: 64, Kind.Q8_0: 34}[self]


_LARGEST = {Kind.F16: 65504.0, Kind.Q8_0: 65504.0 * 127}
"""Values beyond which f16, of a number or of a scale, is infinite."""


def kind_named(name: str) -> Kind:
    """The kind of that name.

    Raises:
        ConfigError: it is none of those written directly.
    """
    try:
        return Kind(name)
    except ValueError:
        allowed = [kind.value for kind in Kind]
        raise ConfigError(unknown("kind of GGUF", name, allowed), hint="others: llama.cpp makes them of f16") from None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a GGUF file.

    Attributes:
        name: llama.cpp's.
        source: where its values lie, or the values.
        heads: within how many heads its rows change places; 0: they do not.
        offset: added to every value, before `factor`.
        factor: every value is multiplied by it.
    """

    name: str
    source: Stored | Floats
    kind: Kind
    heads: int = 0
    offset: float = 0.0
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """As Transformers has it; GGUF counts the other way round."""
        return self.source.shape

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        return prod(self.shape) * self.kind.group_bytes // _GROUP

    def blocks(self) -> Iterator[Encoded]:
        """The tensor's bytes in order, as arrays.

        Raises:
            ModelError: a value is not finite, or does not fit the type; the file cannot be read.
        """
        unit = self.shape[0] // self.heads if self.heads else 1
        width = prod(self.shape[1:])
        rows = max(1, _BLOCK // (4 * width * unit)) * unit
        source = self.source.blocks(rows) if isinstance(self.source, Stored) else [self.source]
        for block in source:
            yield _encode(self._changed(block), self)

    def _changed(self, block: Floats) -> Floats:
        if self.heads:
            block = interleave(block, block.shape[0] * self.heads // self.shape[0])
        if self.offset:
            block = block + np.float32(self.offset)
        return block if self.factor == 1.0 else block * np.float32(self.factor)


def interleave(rows: Floats, heads: int) -> Floats:
    """Rows of each head from (first half, second half) to neighbours: 0, d/2, 1, d/2 + 1, …

    Transformers rotates number i of a head with number i + d/2, llama.cpp's Llama rotates 2i with 2i + 1.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def planned(each: Expected, source: Stored, kind: Kind) -> Tensor:
    """How an expected tensor is written in a file of this kind."""
    return Tensor(each.name, source, fitting(source.shape, kind), each.heads, each.offset)


def fitting(shape: tuple[int, ...], kind: Kind) -> Kind:
    """The kind that a tensor of this shape has in a file of that kind."""
    if len(shape) < 2:
        return Kind.F32
    return Kind.F16 if kind is Kind.Q8_0 and shape[-1] % _GROUP else kind


def _encode(block: Floats, tensor: Tensor) -> Encoded:
    import gguf

    largest = max(float(block.max()), -float(block.min()))
    if not isfinite(largest):
        raise ModelError(f"{tensor.name}: holds values that are not finite", hint="see the report of its training")
    if largest > _LARGEST.get(tensor.kind, inf):
        raise ModelError(f"{tensor.name}: {largest:.4g} does not fit {tensor.kind.value}", hint="use bf16 or f32")
    with np.errstate(over="ignore", invalid="ignore"):  # groups of q8_0 that are all but zero
        return np.asarray(gguf.quantize(block, gguf.GGMLQuantizationType[tensor.kind.name]))

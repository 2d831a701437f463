"""GGUF files made smaller by llama.cpp: one table of kinds.

K-quants store rows in blocks of 256. Tensors whose rows cannot be divided so (576, 896 or 960 wide: SmolLM2,
Qwen2.5-0.5B) fall back to a kind with blocks of 32, tensor by tensor; how many did is part of what is returned.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ramify.base.errors import ConfigError, ModelError, unknown
from ramify.sample.llamacpp.header import Header, read_header
from ramify.sample.llamacpp.runtime import installed

TYPES: Mapping[int, str] = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    6: "q5_0",
    7: "q5_1",
    8: "q8_0",
    10: "q2_k",
    11: "q3_k",
    12: "q4_k",
    13: "q5_k",
    14: "q6_k",
    20: "iq4_nl",
    23: "iq4_xs",
    30: "bf16",
}
"""ggml's tensor types by number, those that can occur here."""
_WHOLE = ("f32", "f16", "bf16")


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to quantise a file.

    Attributes:
        number: llama.cpp's file type.
        mix: tensor types that it gives to matrices by design; another type is a fallback.
    """

    number: int
    mix: tuple[str, ...]


KINDS: Mapping[str, Kind] = {
    "q8_0": Kind(7, ("q8_0",)),
    "q6_k": Kind(18, ("q6_k",)),
    "q5_k_m": Kind(17, ("q5_k", "q6_k")),
    "q5_k_s": Kind(16, ("q5_k", "q6_k")),
    "q5_1": Kind(9, ("q5_1", "q6_k")),
    "q5_0": Kind(8, ("q5_0", "q6_k")),
    "q4_k_m": Kind(15, ("q4_k", "q5_k", "q6_k")),
    "q4_k_s": Kind(14, ("q4_k", "q5_k", "q6_k")),
    "q4_1": Kind(3, ("q4_1", "q6_k")),
    "q4_0": Kind(2, ("q4_0", "q4_1", "q6_k")),
    "iq4_nl": Kind(25, ("iq4_nl", "q5_k", "q6_k")),
    "iq4_xs": Kind(30, ("iq4_xs", "q5_k", "q6_k")),
    "q3_k_l": Kind(13, ("q3_k", "q4_k", "q5_k", "q6_k")),
    "q3_k_m": Kind(12, ("q3_k", "q4_k", "q5_k", "q6_k")),
    "q3_k_s": Kind(11, ("q3_k", "q4_k", "q5_k", "q6_k")),
    "q2_k": Kind(10, ("q2_k", "q3_k", "q4_k", "q6_k")),
}
"""What `quantize` makes, from large to small."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What was written.

    Attributes:
        size: in bytes.
        types: how many matrices have each tensor type.
        fallbacks: matrices with another type than the kind is made of, because their rows do not fit its blocks.
    """

    path: Path
    kind: str
    size: int
    types: Mapping[str, int]
    fallbacks: int


def quantize(source: Path, target: Path, kind: str, threads: int | None = None) -> Quantised:
    """Write a smaller copy of a GGUF file.

    Args:
        source: in f32, f16 or bf16.
        target: appears whole or not at all.
        kind: one of `KINDS`.
        threads: that compute; None: as many as torch uses.

    Raises:
        ConfigError: an unknown kind, or llama.cpp is not installed.
        ModelError: the source is no GGUF, is quantised already, or llama.cpp refuses it.
    """
    if kind not in KINDS:
        raise ConfigError(unknown("kind of quantisation", kind, KINDS))
    header = read_header(source)
    coarse = sorted(set(matrix_types(header)) - set(_WHOLE))
    if coarse:
        raise ModelError(
            f"{source}: is quantised already ({', '.join(coarse)})", hint="quantise the f16, bf16 or f32 file instead"
        )
    part = target.with_name(target.name + ".part")
    try:
        _quantize(source, part, KINDS[kind].number, threads or torch.get_num_threads())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    types = matrix_types(read_header(target))
    fallbacks = sum(count for name, count in types.items() if name not in KINDS[kind].mix)
    return Quantised(target, kind, target.stat().st_size, types, fallbacks)


def check_backend() -> None:
    """Refuse early what needs llama.cpp.

    Raises:
        ConfigError: no package brings it; with the line that installs one.
    """
    installed()


def matrix_types(header: Header) -> Counter[str]:
    """How many matrices of a file have each tensor type; vectors stay f32 always."""
    kinds = (tensor.kind for tensor in header.tensors if sum(size > 1 for size in tensor.shape) > 1)
    return Counter(TYPES.get(kind, f"type {kind}") for kind in kinds)


def _quantize(source: Path, target: Path, number: int, threads: int) -> None:
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    if installed() == "cyllama":
        from ramify.sample.llamacpp.cyllama_runtime import quantize_cyllama

        quantize_cyllama(source, target, number, threads)
    else:
        from ramify.sample.llamacpp.python_runtime import quantize_llama_cpp

        quantize_llama_cpp(source, target, number, threads)

"""A vocabulary as a file that opens: the tokenizer of a GGUF file around a model of one empty layer.

It is how a tokenizer is opened without its weights, or where there are none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ramify.sample.llamacpp.header import MAGIC, Header

_WIDTH = 2  # the least that rotary positions allow
_ALIGNMENT = 32
_UINT32, _FLOAT32, _STRING = 4, 6, 8
_SIZES = {
    "context_length": 8,
    "embedding_length": _WIDTH,
    "block_count": 1,
    "feed_forward_length": _WIDTH,
    "attention.head_count": 1,
    "rope.dimension_count": _WIDTH,
}
_VECTORS = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


@contextmanager
def shell(header: Header) -> Iterator[Path]:
    """A file with the tokenizer of `header`; it is gone behind the block."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / header.path.name
        tokens = len(header.metadata.get("tokenizer.ggml.tokens", ()))
        keys, tensors = _keys(header), _tensors(max(tokens, 1))
        described, size = _described(tensors)
        start = MAGIC + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + described
        with path.open("wb") as file:
            file.write(start)
            file.truncate(_aligned(len(start)) + size)  # the weights are zeros that take no disk
        yield path


def _keys(header: Header) -> list[bytes]:
    data = header.path.read_bytes()
    found = [data[begin:end] for name, (begin, end) in header.places.items() if name.startswith("tokenizer.")]
    found.append(_text("general.architecture") + struct.pack("<I", _STRING) + _text("llama"))
    found += [_text(f"llama.{name}") + struct.pack("<II", _UINT32, size) for name, size in _SIZES.items()]
    name = "llama.attention.layer_norm_rms_epsilon"
    return [*found, _text(name) + struct.pack("<If", _FLOAT32, 1e-5)]


def _tensors(tokens: int) -> dict[str, tuple[int, ...]]:
    return {
        "token_embd.weight": (_WIDTH, tokens),
        **{f"{name}.weight": (_WIDTH,) for name in _VECTORS},
        **{f"blk.0.{name}.weight": (_WIDTH, _WIDTH) for name in _MATRICES},
    }


def _described(tensors: dict[str, tuple[int, ...]]) -> tuple[bytes, int]:
    """The descriptions of these tensors in fp32, and the bytes of their data."""
    found, offset = b"", 0
    for name, shape in tensors.items():
        numbers = 1
        for size in shape:
            numbers *= size
        found += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset)
        offset += _aligned(4 * numbers)
    return found, offset


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT

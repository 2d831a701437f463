"""How large a context is worth opening: what prompts and completions take, and what memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ramify.sample.llamacpp.cache import common
from ramify.sample.llamacpp.engine import CacheType
from ramify.sample.llamacpp.header import Header
from ramify.sample.weights import free_memory

_BYTES = {"f16": 2, "f32": 4}


def cells_for(prompts: Sequence[Sequence[int]], lines: int, new_tokens: int) -> int:
    """Cells that keep so many completions going, of prompts in the order of their tokens (see `in_order`)."""
    longest = max(map(len, prompts))
    own = [len(ids) - common(before, ids) for before, ids in pairwise(prompts)]
    tail = max(own, default=0)
    return longest + new_tokens + lines * (tail + new_tokens)


def in_order(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Numbers of the prompts such that each shares with the one before it all that it shares with any before it."""
    return sorted(range(len(prompts)), key=lambda number: tuple(prompts[number]))


def cells_that_fit(header: Header, kv: CacheType) -> int:
    """Cells that half of the free memory holds."""
    return max(256, int(free_memory() / 2 / max(1, cell_bytes(header, kv))))


def cell_bytes(header: Header, kv: CacheType) -> int:
    """Bytes of keys and values of one token in all layers; 0 where the header does not say."""
    heads = header.own("attention.head_count", 0)
    groups = header.own("attention.head_count_kv", heads)
    layers = int(header.own("block_count", 0))
    total = sum(groups) if isinstance(groups, list) else int(groups) * layers
    most = max(heads) if isinstance(heads, list) else int(heads)
    size = int(header.own("embedding_length", 0)) // max(1, most)
    widths = int(header.own("attention.key_length", size)) + int(header.own("attention.value_length", size))
    return total * widths * _BYTES[kv]

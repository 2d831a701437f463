"""Tree attention on a GPU: FlexAttention with the one-line rule as its block mask (Dong et al. 2024, arXiv 2412.05496).

Rows are padded to whole blocks; a padding row is a root of its own that sees itself only. Compiled once for all
lengths (dynamic shapes).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention
from torch.nn.functional import pad
from torch.utils._triton import has_triton

from ramify.tree.layout import Layout
from ramify.tree.scoring import Scoring

BLOCK = 128
_NARROWEST = 16  # FlexAttention refuses smaller heads
_SPECIALISATIONS = 64  # graphs kept for one function: layers differ in window, cap and sinks, never in length


def compiles(width: int, value_width: int) -> bool:
    """Whether FlexAttention can be compiled for a GPU here, for heads of these sizes."""
    return min(width, value_width) >= _NARROWEST and has_triton()


def cuda_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring, sinks: Tensor | None
) -> Tensor:
    """Tree attention by FlexAttention; arguments and result as in `attention.tree_attention`."""
    window = layout.window(scoring.window)
    block_mask = layout.plan(("blocks", window), lambda tree: _block_mask(tree, window))
    length = query.shape[2]
    query, key, value = (pad(x, (0, 0, 0, -length % BLOCK)) for x in (query, key, value))
    out, aux = _flex(query.device.type)(
        query,
        key,
        value,
        score_mod=_cap(scoring.softcap),
        block_mask=block_mask,
        scale=scoring.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    if sinks is not None:  # softmax with one more logit that attends to nothing
        out = out * torch.sigmoid(aux.lse - sinks.view(1, -1, 1).to(aux.lse.dtype))[..., None].to(out.dtype)
    result: Tensor = out[:, :, :length].transpose(1, 2).contiguous()
    return result


def _block_mask(layout: Layout, window: int | None) -> BlockMask:
    length = len(layout)
    padded = length + -length % BLOCK
    rows = torch.arange(padded, device=layout.end.device)
    end = torch.cat([layout.end, rows[length:] + 1])
    position = torch.cat([layout.position, torch.zeros_like(rows[length:])])

    limit = None if window is None else torch.tensor(window, device=rows.device)

    def visible(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        seen = (k <= q) & (q < end[k])
        return seen if limit is None else seen & (position[q] - position[k] < limit)

    return create_block_mask(visible, None, None, padded, padded, device=str(rows.device), BLOCK_SIZE=BLOCK)


@lru_cache
def _cap(softcap: float | None) -> Callable[..., Tensor] | None:
    """A score function of one identity for each cap: another identity would be compiled again.

    The cap is captured as text: under dynamic shapes a captured number becomes a symbol, which FlexAttention cannot
    compile; text is a constant, and so is the number read from it.
    """
    if softcap is None:
        return None
    text = repr(float(softcap))

    def capped(score: Tensor, _batch: Tensor, _head: Tensor, _q: Tensor, _k: Tensor) -> Tensor:
        cap = float(text)
        return cap * torch.tanh(score / cap)

    return capped


@lru_cache
def _flex(device: str) -> Callable[..., Any]:
    """Compiled on a GPU; elsewhere the plain (slow) form, with which the tests check this module."""
    if device != "cuda":
        return flex_attention
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SPECIALISATIONS)
    return torch.compile(flex_attention, dynamic=True)

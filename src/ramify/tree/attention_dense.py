"""The reference: attention under the written-out mask, on any device, differentiated by autograd."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ramify.tree.layout import Layout
from ramify.tree.scoring import Scoring


def dense_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring, sinks: Tensor | None
) -> Tensor:
    """Tree attention with a [T, T] mask; arguments and result as in `attention.tree_attention`."""
    window = layout.window(scoring.window)
    mask = layout.plan(("mask", window, query.dtype), lambda tree: _mask(tree, window, query.dtype))
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    if scoring.softcap is None and sinks is None:
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scoring.scaling)
    else:
        out = _probabilities(query, key, mask, scoring, sinks).to(value.dtype) @ value
    return out.transpose(1, 2).contiguous()


def _mask(layout: Layout, window: int | None, dtype: torch.dtype) -> Tensor:
    """[1, 1, T, T]: 0 where the key is visible, -inf elsewhere. Every row sees itself, so none is all -inf."""
    mask = torch.zeros(len(layout), len(layout), dtype=dtype, device=layout.end.device)
    return mask.masked_fill_(~layout.visible(window), -torch.inf)[None, None]


def _probabilities(query: Tensor, key: Tensor, mask: Tensor, scoring: Scoring, sinks: Tensor | None) -> Tensor:
    scores = query @ key.transpose(2, 3) * scoring.scaling
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    scores = scores + mask
    if scores.dtype != torch.float64:
        scores = scores.float()
    if sinks is None:
        return scores.softmax(-1)
    sink = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(len(scores), -1, scores.shape[2], 1)
    return torch.cat([scores, sink], -1).softmax(-1)[..., :-1]

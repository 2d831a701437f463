"""The attention of sampling, as a Transformers attention function: keys and values live in storage of our own.

Two passes use it. A *prefill* pass computes a chunk of rows of the prompt tree: its rows see each other by the tree's
rule and the open path above the chunk, computed before. A *decode* pass computes one token of each live sequence:
shared spans are read once for all sequences below them, and enter the softmax over a sequence's own keys as one
*virtual key* each, whose score is the span's log-sum-exp and whose value is the span's output. Sinks are virtual keys
of value zero. Nothing is concatenated to a cache.

Shapes: T rows, H key-value heads, G queries per key-value head, D head size, L keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "ramify_sample"

HIDDEN = -1e30
"""Score of what must not be seen: finite, so that a row that sees nothing of a span gets no NaN, and weight 0."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """What a layer does to its scores.

    Attributes:
        scale: factor of query · key.
        softcap: scores become softcap * tanh(score / softcap), or None.
        window: a query at position p sees positions above p - window, or None.
        sinks: [Hq] extra logits that take weight and give nothing, or None.
    """

    scale: float
    softcap: float | None
    window: int | None
    sinks: Tensor | None


class Pass(Protocol):
    """One forward of the network, as its attention layers see it."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """query [T, H, G, D], key and value [T, H, D] of the new rows -> output [T, H, G, D]; keeps key and value."""
        ...


_current: ContextVar[tuple[Pass, dict[int, int]] | None] = ContextVar("ramify_sample_pass", default=None)


@contextmanager
def running(current: Pass, layers: dict[int, int]) -> Iterator[None]:
    """Inside the block, forwards of a network with our attention compute this pass.

    Args:
        current: the pass.
        layers: numbers of attention modules by `id`; modules that are not in it yet are added in order of call.
    """
    token = _current.set((current, layers))
    try:
        yield
    finally:
        _current.reset(token)


def attention_forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """What Transformers calls: query [1, Hq, T, D], key and value [1, H, T, D] -> ([1, T, Hq, D], None).

    A family that puts its window into the mask alone (qwen2_moe) passes no `sliding_window`: it is the module's.
    """
    found = _current.get()
    if found is None:
        raise RuntimeError(f"attention {NAME!r} works inside a sampling pass only")
    current, layers = found
    layer = layers.setdefault(id(module), len(layers))
    heads, rows, groups = key.shape[1], query.shape[2], query.shape[1] // key.shape[1]
    folded = query[0].transpose(0, 1).reshape(rows, heads, groups, query.shape[-1])
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = settings.get("sliding_window", getattr(module, "sliding_window", None))
    scoring = Scoring(scale, softcap, window, s_aux)
    out = current.attend(layer, folded, key[0].transpose(0, 1), value[0].transpose(0, 1), scoring)
    return out.reshape(1, rows, heads * groups, value.shape[-1]), None


def register() -> None:
    """Make the attention known to Transformers under `NAME`. Calling it again changes nothing."""
    AttentionInterface.register(NAME, attention_forward)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_: Any, **__: Any) -> None:
    """Transformers must build no mask: its packed-sequence detection would cut completions from their prompts."""


def partial(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention of all rows on one run of keys.

    Args:
        query: [T, H, G, D].
        key, value: [H, L, D].
        scoring: scale and soft cap are applied here.
        mask: [T, L] to be added to the scores, or None when all is seen.

    Returns:
        output [T, H, G, D] and log-sum-exp [T, H, G] fp32.
    """
    rows, heads, groups, size = query.shape
    length = key.shape[1]
    if mask is not None:
        mask = mask[None, None]
    if query.device.type != "cpu" or scoring.softcap is not None or value.shape[-1] != size:
        return _dense(query, key, value, scoring, mask)
    if mask is None:  # more rows in a call make larger blocks
        stacked = query.transpose(0, 1).reshape(1, heads, rows * groups, size)
        out, lse = _flash(stacked, key[None], value[None], scoring.scale, None)
        return out[0].view(heads, rows, groups, size).transpose(0, 1), lse.view(heads, rows, groups).transpose(0, 1)
    wide = (heads, groups, length, size)
    spread = query.permute(1, 2, 0, 3)
    out, lse = _flash(spread, key[:, None].expand(wide), value[:, None].expand(wide), scoring.scale, mask)
    return out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)


def _flash(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, lse = kernel(query, key, value, 0.0, False, attn_mask=mask, scale=scale)
    return out, lse


def _dense(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    spread = query.permute(1, 2, 0, 3)
    scores = torch.matmul(spread, key[:, None].transpose(-1, -2)).float() * scoring.scale
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    if mask is not None:
        scores = scores + mask
    lse = torch.logsumexp(scores, dim=-1)
    out = torch.matmul(torch.exp(scores - lse[..., None]).to(value.dtype), value[:, None])
    return out.permute(2, 0, 1, 3), lse.permute(2, 0, 1)


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Attention on two runs of keys as attention on both."""
    both = torch.logaddexp(lse, more_lse)
    mine, other = torch.exp(lse - both)[..., None], torch.exp(more_lse - both)[..., None]
    return out * mine.to(out.dtype) + more * other.to(out.dtype), both

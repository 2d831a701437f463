"""Attention on a packed prefix tree, behind one function and under one name in Transformers.

A query q sees a key k when `k <= q < end[k]` (and, in a windowed layer, when it is fewer than `window` positions
behind). Backends: `dense` (the reference), `cpu` (tiles, made for CPUs and right on any device), `cuda`
(FlexAttention, which has to be compiled); the device chooses, `with backend("dense"):` overrides.

Transformers calls `ATTENTION` for every layer of a model whose attention implementation has that name. The layout of
the tree comes as the keyword `tree_layout` through the model's forward, or, where a family drops keywords, from
`with tree_layout(layout):`. A call without a layout is an ordinary one and computes what `sdpa` does, so a model can
stay on this implementation. Transformers' own detection of packed rows never runs: it would cut completions from
their prompts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Literal

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ramify.base.errors import ModelError
from ramify.tree.attention_cpu import cpu_attention
from ramify.tree.attention_cuda import compiles, cuda_attention
from ramify.tree.attention_dense import dense_attention
from ramify.tree.layout import Layout
from ramify.tree.scoring import Scoring

_log = logging.getLogger("ramify")

ATTENTION = "ramify_tree"
"""The name in Transformers' attention registry."""

Backend = Literal["dense", "cpu", "cuda"]
_BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor, Layout, Scoring, Tensor | None], Tensor]] = {
    "dense": dense_attention,
    "cpu": cpu_attention,
    "cuda": cuda_attention,
}
_forced: ContextVar[Backend | None] = ContextVar("ramify_attention_backend", default=None)
_current: ContextVar[Layout | None] = ContextVar("ramify_tree_layout", default=None)


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Use one backend inside the block, whatever the device."""
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


@contextmanager
def tree_layout(layout: Layout) -> Iterator[None]:
    """Forward passes inside the block attend on this layout, also in families that drop keywords."""
    token = _current.set(layout)
    try:
        yield
    finally:
        _current.reset(token)


def tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scaling: float,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Exact attention of a packed tree.

    Args:
        query: [B, Hq, T, D].
        key: [B, Hkv, T, D]; Hkv divides Hq.
        value: [B, Hkv, T, Dv].
        layout: of the T packed tokens.
        scaling: factor on the products of queries and keys.
        softcap: scores become softcap · tanh(score / softcap).
        window: keys `window` or more positions behind are not seen.
        sinks: [Hq] logits that take part in each softmax and attend to nothing.

    Returns:
        [B, T, Hq, Dv] in the type of `query`.
    """
    scoring = Scoring(scaling, softcap, window)
    name = _forced.get() or backend_for(query.device.type, query.shape[-1], value.shape[-1])
    return _BACKENDS[name](query, key, value, layout, scoring, sinks)


def backend_for(device: str, width: int, value_width: int) -> Backend:
    """The backend of a device type (`cpu`, `cuda`, `mps`, …) for heads of these sizes."""
    if device != "cuda":
        return "cpu"
    if compiles(width, value_width):
        return "cuda"
    _say_once(
        f"FlexAttention cannot be compiled here for heads of {width} (it needs Triton, and heads of 16 or more): "
        "attention is computed tile by tile, which is slower"
    )
    return "cpu"


@cache
def _say_once(message: str) -> None:
    _log.warning("%s", message)


def register() -> None:
    """Make `ATTENTION` known to Transformers. Calling it again changes nothing."""
    AttentionInterface.register(ATTENTION, _attention_forward)
    AttentionMaskInterface.register(ATTENTION, _mask)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """No mask under a layout: it says everything. Otherwise the one that `sdpa` gets."""
    return None if _current.get() is not None else sdpa_mask(*args, **kwargs)


def _attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **settings: Any,
) -> tuple[Tensor, None]:
    """The signature that Transformers calls; `settings` hold window, softcap, sinks, layout, where there are any.

    A family that puts its window into the mask alone (qwen2_moe) says it on the module.
    """
    layout = settings.pop("tree_layout", None)
    if layout is None:
        layout = _current.get()
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **settings
        )
    _refuse_inexact(module, dropout, settings)
    out = tree_attention(
        query,
        key,
        value,
        layout,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=settings.get("softcap"),
        window=settings.get("sliding_window", getattr(module, "sliding_window", None)),
        sinks=settings.get("s_aux"),
    )
    return out, None


def _refuse_inexact(module: nn.Module, dropout: float, settings: dict[str, Any]) -> None:
    """Settings that tree attention would have to ignore."""
    if dropout > 0:
        raise ModelError(
            f"attention dropout is {dropout}, but what is computed once cannot be dropped once for each sequence",
            hint="load the model with its attention dropout set to 0",
        )
    if not getattr(module, "is_causal", True) or settings.get("is_causal") is False:
        raise ModelError("attention that looks ahead cannot be computed as a tree")
    if settings.get("position_bias") is not None:
        raise ModelError("attention with a position bias cannot be computed as a tree")

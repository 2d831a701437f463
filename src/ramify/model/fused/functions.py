"""The three parts of a decoder layer around attention, each with a hand-written backward pass.

What they keep for it, T tokens, hidden size H, feed-forward size F: the layer's input and the input of the feed-forward
part [T, H], attention's output [T, H], gate and up [T, 2 F], and products of the adapters' rank. All of it is kept in
the type of the network, whatever type the products are computed in; the rest is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ramify.model.fused.elementwise import (
    Rotary,
    apply_norm,
    gate,
    gate_backward,
    normalise,
    normalise_backward,
    silu,
)
from ramify.model.fused.linears import Linears
from ramify.tree.scratch import scratch


@dataclass(frozen=True)
class Settings:
    """What a part needs besides tensors.

    Attributes:
        kind: the type of the products and of the residual stream.
        stored: the type in which tensors are kept for the backward pass.
        keeps: whether a backward pass may follow.
        scales: the adapters' factors, one a linear layer.
        eps: of the norms.
        head_dim: width of an attention head.
        rotary: cos and sin, or None for a layer without positions.
        attention: the type that attention is given.
    """

    kind: torch.dtype
    stored: torch.dtype
    keeps: bool
    scales: tuple[float, ...]
    eps: float = 0.0
    head_dim: int = 0
    rotary: Rotary | None = None
    attention: torch.dtype = torch.float32


class Projections(Function):
    """Norm; queries, keys and values; their norms where the family has them; rotary positions.

    In: x [T, H], the norm's weight [H], the query and key norms' weights [D] or None, settings, four tensors for each
    of q, k, v. Out: query [T, Hq, D], key and value [T, Hkv, D] in the type of the products, and x for the residual
    branch, so that the two gradients of x meet here and are added in place.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm: Tensor,
        query_norm: Tensor | None,
        key_norm: Tensor | None,
        settings: Settings,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, key, value, x."""
        linears = Linears.of(tensors, settings.scales, settings.kind)
        normed, inverse = normalise(x, norm, settings.eps)
        heads = linears.forward(normed).view(x.shape[0], -1, settings.head_dim)
        n_queries, n_keys = (columns.stop // settings.head_dim for columns in linears.columns[:2])
        ready = heads[:, :n_keys]
        raw = None
        if query_norm is not None and key_norm is not None:
            raw = _kept(ready, settings.stored) if settings.keeps else None
            ready = _norm_heads(ready, n_queries, (query_norm, key_norm), settings)
        if settings.rotary is not None:
            ready = settings.rotary.turn(ready, torch.empty_like(ready, memory_format=torch.contiguous_format))
        ctx.settings = settings
        if settings.keeps:
            ctx.save_for_backward(_kept(x, settings.stored), norm, query_norm, key_norm, inverse, raw, *tensors)
        parts = (ready[:, :n_queries], ready[:, n_queries:], heads[:, n_keys:])
        # Copies where the type changes or where a view would keep the whole product alive until the backward pass.
        query, key, value = (part.to(settings.attention) for part in parts)
        return query, key, value.contiguous(), x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, residual: Tensor) -> tuple[Any, ...]:
        """Gradients of all inputs."""
        x, norm, query_norm, key_norm, inverse, raw, *tensors = ctx.saved_tensors
        settings: Settings = ctx.settings
        needs = ctx.needs_input_grad
        linears = Linears.of(tensors, settings.scales, settings.kind)
        slopes = residual.new_empty((x.shape[0], linears.columns[-1].stop))
        edges = [query.shape[1], query.shape[1] + key.shape[1]]
        heads = slopes.view(x.shape[0], -1, settings.head_dim).tensor_split(edges, dim=1)
        for part, arriving in zip(heads[:2], (query, key), strict=True):
            if settings.rotary is None:
                part.copy_(arriving)
            else:
                settings.rotary.turn_back(arriving.to(settings.kind), part)
        heads[2].copy_(value)
        of_norms: list[Tensor | None] = [None, None]
        if raw is not None:
            raw = raw.to(settings.kind)
            of_norms = _norm_heads_backward(heads[:2], raw, (query_norm, key_norm), settings, needs[2:4])
        x = x.to(torch.float32)
        normed = apply_norm(x, norm, inverse)
        of_normed, of_tensors = linears.backward(slopes, normed.to(settings.kind), needs[5:], needs[0] or needs[1])
        of_x, of_norm = None, None
        if of_normed is not None:
            of_x, of_norm = normalise_backward(of_normed, x, normed, norm, inverse, needs[1])
            of_x.add_(residual)
        return (of_x, of_norm, *of_norms, None, *of_tensors)


class Output(Function):
    """residual + the output projection of attention's result.

    In: attended [T, Hq · D], residual [T, H], settings, four tensors. Out: [T, H].
    """

    @staticmethod
    def forward(ctx: Any, attended: Tensor, residual: Tensor, settings: Settings, *tensors: Tensor | None) -> Tensor:
        """The residual stream after attention."""
        linears = Linears.of(tensors, settings.scales, settings.kind)
        ctx.settings = settings
        if settings.keeps:
            ctx.save_for_backward(_kept(attended, settings.stored), *tensors)
        ctx.arrived = attended.dtype
        return linears.forward(attended.to(settings.kind)).add_(residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Any, ...]:
        """Gradients of all inputs."""
        attended, *tensors = ctx.saved_tensors
        settings: Settings = ctx.settings
        linears = Linears.of(tensors, settings.scales, settings.kind)
        needs = ctx.needs_input_grad
        of_attended, of_tensors = linears.backward(slopes, attended.to(settings.kind), needs[3:], needs[0])
        if of_attended is not None:
            of_attended = of_attended.to(ctx.arrived)
        return (of_attended, slopes, None, *of_tensors)


class FeedForward(Function):
    """x + down(silu(gate(n)) · up(n)) with n the normed x.

    In: x [T, H], the norm's weight, settings, four tensors for each of gate, up, down. Out: [T, H].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, settings: Settings, *tensors: Tensor | None) -> Tensor:
        """The residual stream after the feed-forward part."""
        first, last = _feed_forward(tensors, settings)
        normed, inverse = normalise(x, norm, settings.eps)
        is_copied = settings.kind != settings.stored or not settings.keeps
        both = first.forward(normed, _both(x.shape[0], first, x) if is_copied else None)
        ctx.settings = settings
        if settings.keeps:
            ctx.save_for_backward(_kept(x, settings.stored), norm, inverse, _kept(both, settings.stored), *tensors)
        return last.forward(gate(both)).add_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Any, ...]:
        """Gradients of all inputs."""
        x, norm, inverse, kept, *tensors = ctx.saved_tensors
        settings: Settings = ctx.settings
        needs = ctx.needs_input_grad
        first, last = _feed_forward(tensors, settings)
        # A copy made by the cast may be overwritten; what was saved may not.
        out = _both(x.shape[0], first, slopes)
        both = kept if kept.dtype == settings.kind else out.copy_(kept)
        half = both.shape[1] // 2
        passed, product, of_product = scratch("feed forward", (3, x.shape[0], half), settings.kind, x.device)
        silu(both, passed)
        torch.mul(passed, both[:, half:], out=product)
        _, of_last = last.backward(slopes, product, needs[11:], out=of_product)
        of_both = gate_backward(of_product, both, passed, spare=product, out=out)
        x = x.to(torch.float32)
        normed = apply_norm(x, norm, inverse)
        of_normed, of_first = first.backward(of_both, normed.to(settings.kind), needs[3:11], needs[0] or needs[1])
        of_x, of_norm = None, None
        if of_normed is not None:
            of_x, of_norm = normalise_backward(of_normed, x, normed, norm, inverse, needs[1])
            of_x.add_(slopes)
        return (of_x, of_norm, None, *of_first, *of_last)


# torch leaves `apply` untyped; these are the parts as functions of their inputs.
project: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = Projections.apply
put_out: Callable[..., Tensor] = Output.apply
feed_forward: Callable[..., Tensor] = FeedForward.apply


def _feed_forward(tensors: Any, settings: Settings) -> tuple[Linears, Linears]:
    first = Linears.of(tensors[:8], settings.scales[:2], settings.kind)
    return first, Linears.of(tensors[8:], settings.scales[2:], settings.kind)


def _both(n_rows: int, linears: Linears, like: Tensor) -> Tensor:
    """[T, 2 F] for gate and up."""
    return scratch("gate and up", (n_rows, linears.columns[-1].stop), like.dtype, like.device)


def _kept(tensor: Tensor, kind: torch.dtype) -> Tensor:
    """As it is saved for the backward pass: in the type of the network, without what lies beside it."""
    return tensor.to(kind).contiguous()


def _norm_heads(heads: Tensor, n_queries: int, norms: tuple[Tensor, Tensor], settings: Settings) -> Tensor:
    query, _ = normalise(heads[:, :n_queries], norms[0], settings.eps)
    key, _ = normalise(heads[:, n_queries:], norms[1], settings.eps)
    return torch.cat([query, key], dim=1)


def _norm_heads_backward(
    parts: Sequence[Tensor], raw: Tensor, norms: tuple[Tensor, Tensor], settings: Settings, needs: tuple[bool, ...]
) -> list[Tensor | None]:
    """Overwrite the gradients at the normed queries and keys by those before the norms; gradients of the weights."""
    found: list[Tensor | None] = []
    halves = raw.tensor_split([parts[0].shape[1]], dim=1)
    for part, before, norm, need in zip(parts, halves, norms, needs, strict=True):
        before = before.to(torch.float32)
        normed, inverse = normalise(before, norm, settings.eps)
        of_before, of_norm = normalise_backward(part.contiguous(), before, normed, norm, inverse, need)
        part.copy_(of_before)
        found.append(of_norm)
    return found

"""Exact tree attention without a compiler: softmax over matrix products, tile by tile, with a hand-written backward.

Made for CPUs; it runs on any device, for GPUs on which FlexAttention cannot be compiled.

For each tile (see `tiles`) the scores of its rows against all keys above them and themselves fit the cache: one
softmax, no merging, no copies of keys. The heads of a group are folded into the rows, so keys and values are never
repeated. All arithmetic is fp32 whatever the model's type, so scores keep their accuracy. Only q, k and v are kept
for the backward, which computes the probabilities again (as in Dao et al. 2022, arXiv 2205.14135).

Shape legend: H key heads, N of them at once, G query heads a key head, T packed tokens, D head dimension,
r rows of a tile, R = G·r, K its score columns: its keys, and one more where there are sinks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ramify.tree.layout import Layout
from ramify.tree.scoring import Scoring
from ramify.tree.scratch import scratch
from ramify.tree.tiles import Tile, plan_tiles

_SCORES = 1 << 19  # scores held at once (2 MiB): more key heads at a time would fall out of the cache


def cpu_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring, sinks: Tensor | None
) -> Tensor:
    """Tree attention by tiles; arguments and result as in `attention.tree_attention`."""
    if len(query) != 1:
        rows = zip(query, key, value, strict=True)
        return torch.cat([cpu_attention(q[None], k[None], v[None], layout, scoring, sinks) for q, k, v in rows])
    window = layout.window(scoring.window)
    tiles = layout.plan(("tiles", window), lambda tree: _plan(tree, window))
    attend: Callable[..., Tensor] = _TreeAttention.apply  # untyped in torch
    return attend(query, key, value, sinks, tiles, scoring)


def _plan(layout: Layout, window: int | None) -> tuple[Tile, ...]:
    """Planned on the CPU; the masks lie where the layout does."""
    tiles = plan_tiles(layout.nodes, layout.position.cpu().numpy(), layout.end.cpu().numpy(), window)
    return tuple(replace(tile, mask=tile.mask.to(layout.end.device)) for tile in tiles)


class _TreeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        tiles: tuple[Tile, ...],
        scoring: Scoring,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, sinks)
        ctx.tiles, ctx.scoring = tiles, scoring
        group = query.shape[1] // key.shape[1]
        k, v = _plain(key).mul_(scoring.scaling), _plain(value)
        result = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
        out = _grouped(result.transpose(1, 2), group)
        for tile, heads, buffer in _blocks(tiles, _grouped(query, group), sinks, 1):
            q = _rows(query, tile, heads, group)
            probs = _probabilities(tile, q, k[heads], buffer[0], scoring, _sinks_of(sinks, heads, q, group))[0]
            part = _times_spans(tile, probs, v[heads])
            out[heads, :, tile.start : tile.stop] = part.view(len(q), group, -1, part.shape[-1])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sinks = ctx.saved_tensors
        scoring, group = ctx.scoring, query.shape[1] // key.shape[1]
        k, v = _plain(key).mul_(scoring.scaling), _plain(value)
        d_k, d_v = torch.zeros_like(k), torch.zeros_like(v)
        d_query = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        d_q_out, d_out = _grouped(d_query, group), grads[0].transpose(1, 2)
        d_sinks = None if sinks is None else k.new_zeros(len(k), group)
        for tile, heads, buffer in _blocks(ctx.tiles, _grouped(query, group), sinks, 2):
            q, d_o = _rows(query, tile, heads, group), _rows(d_out, tile, heads, group)
            sink = _sinks_of(sinks, heads, q, group)
            probs, slope = _probabilities(tile, q, k[heads], buffer[0], scoring, sink)
            _add_to_spans(tile, probs, d_o, d_v[heads])
            d_scores = buffer[1][: probs.numel()].view_as(probs)
            _products(tile, d_o, v[heads], d_scores)
            if d_sinks is not None:
                d_scores[..., tile.n_keys] = 0  # a sink attends to nothing
            torch.ops.aten._softmax_backward_data.out(d_scores, probs, -1, probs.dtype, grad_input=d_scores)
            if d_sinks is not None:
                d_sinks[heads] += d_scores[..., tile.n_keys].view(len(q), group, -1).sum(-1)
            if slope is not None:
                d_scores[..., : tile.n_keys].mul_(slope)
            part = _times_spans(tile, d_scores, k[heads])
            d_q_out[heads, :, tile.start : tile.stop] = part.view(len(q), group, -1, part.shape[-1])
            _add_to_spans(tile, d_scores, q, d_k[heads])
        d_k.mul_(scoring.scaling)
        if d_sinks is not None:
            d_sinks = d_sinks.view(-1).to(sinks.dtype)
        return d_query, d_k[None].to(key.dtype), d_v[None].to(value.dtype), d_sinks, None, None


def _blocks(
    tiles: tuple[Tile, ...], query: Tensor, sinks: Tensor | None, buffers: int
) -> Iterator[tuple[Tile, slice, Tensor]]:
    """Each tile with some key heads at a time, as many as keep the scores in the cache, and room for their scores."""
    n_heads, group = query.shape[:2]
    kind = torch.float64 if query.dtype == torch.float64 else torch.float32
    sizes = [(tile.stop - tile.start) * group * (tile.n_keys + (sinks is not None)) for tile in tiles]
    steps = [max(1, min(n_heads, _SCORES // size)) for size in sizes]
    room = max((size * step for size, step in zip(sizes, steps, strict=True)), default=0)
    buffer = scratch("scores", (buffers, room), kind, query.device)
    for tile, step in zip(tiles, steps, strict=True):
        for first in range(0, n_heads, step):
            yield tile, slice(first, first + step), buffer


def _probabilities(
    tile: Tile, q: Tensor, k: Tensor, buffer: Tensor, scoring: Scoring, sink: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """[N, R, K] softmax of the masked scores, in the buffer; and the slope of the soft cap at each score."""
    columns = tile.n_keys + (sink is not None)
    scores = buffer[: q.shape[0] * q.shape[1] * columns].view(*q.shape[:2], columns)
    slope = None
    _products(tile, q, k, scores)
    if scoring.softcap is not None:
        capped = scores[..., : tile.n_keys].div_(scoring.softcap).tanh_()
        slope = capped.square().neg_().add_(1)
        capped.mul_(scoring.softcap)
    rows, masked = tile.mask.shape
    scores.view(-1, rows, columns)[..., tile.n_keys - masked : tile.n_keys].add_(tile.mask)
    if sink is not None:
        scores[..., tile.n_keys] = sink
    return torch.softmax(scores, -1, out=scores), slope


def _products(tile: Tile, rows: Tensor, keys: Tensor, out: Tensor) -> None:
    """out[N, R, :] = rows[N, R, D] · keys[N, spans, D]ᵀ."""
    column = 0
    for start, stop in tile.spans:
        torch.bmm(rows, keys[:, start:stop].transpose(1, 2), out=out[..., column : column + stop - start])
        column += stop - start


def _times_spans(tile: Tile, weights: Tensor, values: Tensor) -> Tensor:
    """[N, R, D] = weights[N, R, :] · values[N, spans, D]."""
    out, column = None, 0
    for start, stop in tile.spans:
        part = weights[..., column : column + stop - start]
        out = part @ values[:, start:stop] if out is None else out.baddbmm_(part, values[:, start:stop])
        column += stop - start
    assert out is not None  # a tile sees at least itself
    return out


def _add_to_spans(tile: Tile, weights: Tensor, rows: Tensor, out: Tensor) -> None:
    """out[N, spans, D] += weights[N, R, :]ᵀ · rows[N, R, D]."""
    column = 0
    for start, stop in tile.spans:
        out[:, start:stop].baddbmm_(weights[..., column : column + stop - start].transpose(1, 2), rows)
        column += stop - start


def _grouped(tensor: Tensor, group: int) -> Tensor:
    """[1, H·G, T, D] -> [H, G, T, D], a view."""
    return tensor[0].view(-1, group, *tensor.shape[2:])


def _rows(tensor: Tensor, tile: Tile, heads: slice, group: int) -> Tensor:
    """[N, R, D] of a tile's rows, a contiguous copy in fp32 (fp64 stays)."""
    part = _grouped(tensor[:, :, tile.start : tile.stop], group)[heads]
    return _plain(part).view(part.shape[0], -1, part.shape[-1])


def _plain(tensor: Tensor) -> Tensor:
    """A contiguous copy in fp32 (fp64 stays), its first two dimensions joined: [1, H, T, D] -> [H, T, D]."""
    kind = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
    return tensor.new_empty(tensor.shape, dtype=kind).copy_(tensor).flatten(0, 1)


def _sinks_of(sinks: Tensor | None, heads: slice, rows: Tensor, group: int) -> Tensor | None:
    """[N, R]: the sink logit of each row's head."""
    if sinks is None:
        return None
    return sinks.to(rows.dtype).view(-1, group)[heads].repeat_interleave(rows.shape[1] // group, 1)

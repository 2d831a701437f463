"""Exact tree attention on a CPU: softmax over matrix products, tile by tile, with a hand-written backward.

For each tile (see `tiles`) the scores of its rows against all keys above them and themselves fit the cache: one
softmax, no merging, no copies of keys. The heads of a group are folded into the rows, so keys and values are never
repeated. All arithmetic is fp32 whatever the model's type (CPUs multiply small fp32 blocks faster than torch's
flash kernel does either type, and the scores keep their accuracy); only q, k, v, the output and the log-sum-exp are
kept for the backward, which computes the probabilities again (Dao et al. 2022, arXiv 2205.14135, algorithm 4).

Shape legend: B batch, H key heads, G query heads a key head, T rows, D head dimension, N = B·H,
R = tile rows · G, K tile keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ramify.tree.layout import Layout
from ramify.tree.scoring import Scoring
from ramify.tree.tiles import Tile, plan_tiles

_SCORES = 1 << 19  # scores held at once (2 MiB): more key heads at a time would fall out of the cache


def cpu_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring, sinks: Tensor | None
) -> Tensor:
    """Tree attention by tiles; arguments and result as in `attention.tree_attention`."""
    window = layout.window(scoring.window)
    tiles = layout.plan(("tiles", window), lambda tree: _plan(tree, window))
    out: Tensor = _TreeAttention.apply(query, key, value, sinks, tiles, scoring)  # type: ignore[no-untyped-call]  # torch
    return out


def _plan(layout: Layout, window: int | None) -> tuple[Tile, ...]:
    return plan_tiles(layout.nodes, layout.position.numpy(), layout.end.numpy(), window)


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
        group = query.shape[1] // key.shape[1]
        q, k, v = _fold(query, group), _fold(key, 1).mul_(scoring.scaling), _fold(value, 1)
        out = q.new_empty(*q.shape[:2], v.shape[-1])
        lse = q.new_empty(*q.shape[:2], 1)
        sink = _sink_of_rows(sinks, query, group)
        buffer = _buffer(tiles, group, q)
        for tile, heads in _blocks(tiles, group, len(q)):
            rows = slice(tile.start * group, tile.stop * group)
            scores = _scores(tile, q[heads, rows], k[heads], buffer, scoring.softcap)
            top = scores.amax(-1, keepdim=True)
            if sink is not None:
                torch.maximum(top, sink[heads, rows], out=top)
            scores.sub_(top).exp_()
            total = scores.sum(-1, keepdim=True)
            if sink is not None:
                total += (sink[heads, rows] - top).exp_()
            part = out[heads, rows]
            _times_spans(tile, scores, v[heads], part)
            part.div_(total)
            torch.add(top, total.log_(), out=lse[heads, rows])
        result = _unfold(out, query)
        ctx.save_for_backward(query, key, value, sinks, result, lse)
        ctx.tiles, ctx.scoring = tiles, scoring
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sinks, result, lse = ctx.saved_tensors
        group, softcap = query.shape[1] // key.shape[1], ctx.scoring.softcap
        q, k, v = _fold(query, group), _fold(key, 1).mul_(ctx.scoring.scaling), _fold(value, 1)
        d_out = _fold(grads[0].transpose(1, 2), group)
        delta = _fold((grads[0].to(q.dtype) * result).sum(-1, keepdim=True).transpose(1, 2), group)
        d_q, d_k, d_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        buffer, second = _buffer(ctx.tiles, group, q), _buffer(ctx.tiles, group, q)
        for tile, heads in _blocks(ctx.tiles, group, len(q)):
            rows = slice(tile.start * group, tile.stop * group)
            probs = _scores(tile, q[heads, rows], k[heads], buffer, softcap)
            slope = None if softcap is None else (probs / softcap).square_().neg_().add_(1)
            probs.sub_(lse[heads, rows]).exp_()
            _add_to_spans(tile, probs, d_out[heads, rows], d_v[heads])
            d_scores = _view(second, probs.shape)
            _products(tile, d_out[heads, rows], v[heads], d_scores)
            d_scores.sub_(delta[heads, rows]).mul_(probs)
            if slope is not None:
                d_scores.mul_(slope.nan_to_num_(neginf=0.0))  # masked scores are -inf: their gradient is 0
            _times_spans(tile, d_scores, k[heads], d_q[heads, rows])
            _add_to_spans(tile, d_scores, q[heads, rows], d_k[heads])
        sink = _sink_of_rows(sinks, query, group)
        d_sinks = None if sink is None else _sink_gradient(sink, lse, delta, sinks, group)
        d_k.mul_(ctx.scoring.scaling)
        d_query, d_key, d_value = (
            _unfold(grad, like).transpose(1, 2) for grad, like in ((d_q, query), (d_k, key), (d_v, value))
        )
        return d_query, d_key, d_value, d_sinks, None, None


def _blocks(tiles: tuple[Tile, ...], group: int, n_heads: int) -> Iterator[tuple[Tile, slice]]:
    """Each tile with a slice of key heads at a time, as many as keep the scores in the cache."""
    for tile in tiles:
        step = _heads_at_once(tile, group)
        for first in range(0, n_heads, step):
            yield tile, slice(first, first + step)


def _heads_at_once(tile: Tile, group: int) -> int:
    return max(1, _SCORES // ((tile.stop - tile.start) * group * tile.n_keys))


def _buffer(tiles: tuple[Tile, ...], group: int, like: Tensor) -> Tensor:
    sizes = [
        min(len(like), _heads_at_once(tile, group)) * (tile.stop - tile.start) * group * tile.n_keys for tile in tiles
    ]
    return like.new_empty(max(sizes, default=0))


def _view(buffer: Tensor, shape: torch.Size) -> Tensor:
    return buffer[: shape.numel()].view(shape)


def _scores(tile: Tile, q: Tensor, k: Tensor, buffer: Tensor, softcap: float | None) -> Tensor:
    """[N, R, K] masked scores, in the buffer."""
    scores = _view(buffer, torch.Size((*q.shape[:2], tile.n_keys)))
    _products(tile, q, k, scores)
    if softcap is not None:
        scores.div_(softcap).tanh_().mul_(softcap)
    rows, masked = tile.mask.shape
    scores.view(len(q), rows, -1, tile.n_keys)[..., tile.n_keys - masked :].add_(tile.mask[:, None])
    return scores


def _products(tile: Tile, rows: Tensor, keys: Tensor, out: Tensor) -> None:
    """out[N, R, K] = rows[N, R, D] · keys[N, spans, D]ᵀ."""
    column = 0
    for start, stop in tile.spans:
        torch.bmm(rows, keys[:, start:stop].transpose(1, 2), out=out[..., column : column + stop - start])
        column += stop - start


def _times_spans(tile: Tile, weights: Tensor, values: Tensor, out: Tensor) -> None:
    """out[N, R, D] = weights[N, R, K] · values[N, spans, D]."""
    column = 0
    for start, stop in tile.spans:
        part = weights[..., column : column + stop - start]
        if column == 0:
            torch.bmm(part, values[:, start:stop], out=out)
        else:
            out.baddbmm_(part, values[:, start:stop])
        column += stop - start


def _add_to_spans(tile: Tile, weights: Tensor, rows: Tensor, out: Tensor) -> None:
    """out[N, spans, D] += weights[N, R, K]ᵀ · rows[N, R, D]."""
    column = 0
    for start, stop in tile.spans:
        out[:, start:stop].baddbmm_(weights[..., column : column + stop - start].transpose(1, 2), rows)
        column += stop - start


def _fold(tensor: Tensor, group: int) -> Tensor:
    """[B, H·G, T, D] -> [B·H, T·G, D], a contiguous copy in fp32 (fp64 stays)."""
    batch, heads, length, width = tensor.shape
    kind = tensor.dtype if tensor.dtype == torch.float64 else torch.float32
    folded = torch.empty(batch, heads // group, length, group, width, dtype=kind)
    folded.copy_(tensor.unflatten(1, (heads // group, group)).transpose(2, 3))
    return folded.view(batch * (heads // group), length * group, width)


def _unfold(folded: Tensor, like: Tensor) -> Tensor:
    """[B·H, T·G, D] -> [B, T, H·G, D], a contiguous copy in the type of `like` [B, H·G, T, *]."""
    batch, heads, length = like.shape[:3]
    group = folded.shape[1] // max(length, 1)
    whole = torch.empty(batch, length, heads // group, group, folded.shape[-1], dtype=like.dtype)
    whole.copy_(folded.view(batch, heads // group, length, group, -1).transpose(1, 2))
    return whole.view(batch, length, heads, -1)


def _sink_of_rows(sinks: Tensor | None, query: Tensor, group: int) -> Tensor | None:
    """[B·H, T·G, 1]: the sink logit that each folded row adds to its softmax."""
    if sinks is None:
        return None
    return _fold(sinks.view(1, -1, 1, 1).expand(len(query), -1, query.shape[2], 1), group)


def _sink_gradient(sink: Tensor, lse: Tensor, delta: Tensor, sinks: Tensor, group: int) -> Tensor:
    """[H·G]: a sink attends to nothing, so the gradient of its score is -p·delta, summed over all rows."""
    by_row = (sink - lse).exp_().mul_(delta).neg_()
    return by_row.view(-1, len(sinks) // group, by_row.shape[1] // group, group).sum((0, 2)).view(-1).to(sinks.dtype)

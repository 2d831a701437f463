"""Log-probabilities and cross entropy from hidden states, without ever holding all logits.

The head's product, the softmax and the gradient are computed for some rows at a time, and the gradient overwrites the
logits in place. Softmax and sums are in fp32 whatever the type of the weights. With z the logits of a row, p their
softmax, and g the gradient that arrives at log p[t] of each target t of the row,

    d z = sum_t g_t onehot(t) - (sum_t g_t) p

Several targets may share a row (a token where sequences fork).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ramify.model.rates import product_dtype

_CHUNK_BYTES = {"cpu": 48 << 20, "cuda": 512 << 20}
"""fp32 logits computed at once."""
_KEEP_BYTES = {"cpu": 128 << 20, "cuda": 2 << 30}
"""fp32 logits kept for the backward pass; more are computed again."""
_FORKS = 8192
"""Targets beyond the first of their row whose gradient is added at once."""
_BLOCK = 8192
"""Columns of the vocabulary whose weights are cast at once on a CPU, so that the copy stays in its cache."""


@dataclass(frozen=True)
class Head:
    """A language-model head: logits = cap(scale · (hidden @ weightᵀ + bias)), cap(z) = softcap · tanh(z / softcap).

    Attributes:
        weight: [V, H].
        bias: [V], or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Targets:
    """Which entries of the logits are wanted.

    Attributes:
        rows: [S] int64, the row of the hidden states each target is predicted from.
        ids: [S] int64, the token predicted.
    """

    rows: Tensor
    ids: Tensor


def token_logprobs_from_hidden(
    hidden: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    row_of_target: Tensor,
    targets: Tensor,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """log p(targets[s] | hidden[row_of_target[s]]) as [S] fp32, differentiable in hidden, weight and bias.

    Args:
        hidden: [R, H], the rows that predict something.
        head_weight: [V, H].
        head_bias: [V], or None.
        row_of_target: [S] int64 in [0, R), in any order; rows may repeat or have no target.
        targets: [S] int64 in [0, V).
        softcap: soft cap of the logits (Gemma 2, arXiv 2408.00118), after `scale`.
        scale: factor of the logits (Cohere's logit_scale, the inverse of Granite's logits_scaling).
    """
    head = Head(head_weight, head_bias, softcap, scale)
    wanted = Targets(row_of_target, targets)
    if not torch.is_grad_enabled():
        return _forward_only(hidden, head, wanted)
    is_trained = any(each is not None and each.requires_grad for each in (head_weight, head_bias))
    compute: Callable[..., Tensor] = (_TokenLogprobs if is_trained else _FrozenHead).apply  # untyped in torch
    return compute(hidden, head_weight, head_bias, head, wanted)


def weighted_nll_from_hidden(
    hidden: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    row_of_target: Tensor,
    targets: Tensor,
    weights: Tensor,
    divisor: float,
    *,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """-sum_s weights[s] · log p(targets[s]) / divisor, a scalar in fp32.

    The gradient is computed together with the loss, chunk by chunk, so logits are neither kept nor computed twice.
    Arguments as in `token_logprobs_from_hidden`; weights is [S].
    """
    head = Head(head_weight, head_bias, softcap, scale)
    wanted = Targets(row_of_target, targets)
    share = weights.to(device=hidden.device, dtype=torch.float32)
    if not torch.is_grad_enabled():
        return _forward_only(hidden, head, wanted) @ share / -divisor
    compute: Callable[..., Tensor] = _WeightedSum.apply  # untyped in torch
    return compute(hidden, head_weight, head_bias, head, wanted, share) / -divisor


class _TokenLogprobs(Function):
    """[S] log-probabilities; the exponentials of the logits are kept when they are small enough."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, wanted: Targets) -> Tensor:
        computer = _Computer(hidden, head, wanted, _limit(hidden, _KEEP_BYTES))
        ctx.save_for_backward(hidden)
        ctx.head, ctx.wanted = head, wanted
        ctx.kept = None
        result = hidden.new_empty(wanted.ids.shape, dtype=torch.float32)
        for chunk in computer.chunks():
            state = computer.exponentials(chunk)
            result[chunk.members] = state.logprobs
            if computer.is_single and any(ctx.needs_input_grad):
                ctx.kept = (computer, chunk, state)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (hidden,) = ctx.saved_tensors
        gradients = _Gradients.empty(hidden, ctx.head, ctx.needs_input_grad)
        if ctx.kept is not None:
            computer, chunk, state = ctx.kept
            ctx.kept = None  # the buffer is overwritten: a second backward pass computes it again
            computer.add_gradients(gradients, chunk, state, upstream)
        else:
            computer = _Computer(hidden, ctx.head, ctx.wanted)
            for chunk in computer.chunks():
                computer.add_gradients(gradients, chunk, computer.exponentials(chunk), upstream)
        return (*gradients.cast(hidden.dtype, ctx.head), None, None)


class _FrozenHead(Function):
    """[S] log-probabilities under a head that is not trained, each product of the head computed once.

    The gradient of a row is linear in what arrives at its targets. With b one of them, and u = d log p[b] / d hidden
    computed together with the log-probabilities, it is

        (sum_t g_t) u + sum_t g_t (k_t weight[t] - k_b weight[b]),   k the slope of cap and scale at a target's logit

    whose last sum is empty where nothing forks. Neither logits nor exponentials are kept.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, wanted: Targets) -> Tensor:
        computer = _Computer(hidden, head, wanted)
        gradients = _Gradients.empty(hidden, head, (ctx.needs_input_grad[0], False, False))
        base = _first_of_row(wanted.rows, hidden.shape[0])
        is_base = torch.zeros_like(wanted.ids, dtype=torch.float32).index_fill_(0, base[base >= 0], 1.0)
        result = hidden.new_empty(wanted.ids.shape, dtype=torch.float32)
        slopes = torch.full_like(result, head.scale)
        for chunk in computer.chunks():
            state = computer.exponentials(chunk)
            result[chunk.members] = state.logprobs
            if state.slope is not None:
                slopes[chunk.members] *= state.slope[chunk.rows, chunk.ids]
            if gradients.wanted:
                computer.add_gradients(gradients, chunk, state, is_base)
        ctx.save_for_backward(gradients.hidden, base, slopes)
        ctx.head, ctx.wanted, ctx.kind = head, wanted, hidden.dtype
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        unit, base, slopes = ctx.saved_tensors
        rows, ids, weight = ctx.wanted.rows, ctx.wanted.ids, ctx.head.weight.detach()
        per_row = unit.new_zeros(unit.shape[0]).index_add_(0, rows, upstream)
        gradient = unit * per_row.unsqueeze(1)
        of_base = base[rows]
        forks = (ids != ids[of_base]).nonzero().squeeze(1)
        for some in forks.split(_FORKS):
            other = of_base[some]
            difference = slopes[some, None] * weight[ids[some]] - slopes[other, None] * weight[ids[other]]
            gradient.index_add_(0, rows[some], upstream[some, None] * difference)
        return gradient.to(ctx.kind), None, None, None, None


class _WeightedSum(Function):
    """sum_s share[s] · log p[s], with its gradient computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, wanted: Targets, share: Tensor
    ) -> Tensor:
        computer = _Computer(hidden, head, wanted)
        gradients = _Gradients.empty(hidden, head, ctx.needs_input_grad)
        total = hidden.new_zeros((), dtype=torch.float32)
        for chunk in computer.chunks():
            state = computer.exponentials(chunk)
            total += state.logprobs @ share[chunk.members]
            if gradients.wanted:
                computer.add_gradients(gradients, chunk, state, share)
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        ctx.head, ctx.kind = head, hidden.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        # Scaled in fp32, and only then cast: shares of a loss are below fp16's range.
        scaled = _Gradients(*(None if each is None else each * upstream for each in ctx.saved_tensors))
        return (*scaled.cast(ctx.kind, ctx.head), None, None, None)


@dataclass(frozen=True)
class _Chunk:
    """Rows [start, stop) of the hidden states, and the targets (`members`, positions in the table) they have."""

    start: int
    stop: int
    members: Tensor
    rows: Tensor
    ids: Tensor


@dataclass(frozen=True)
class _State:
    """What a chunk's forward pass leaves: exp(z - max) [C, V], its sums [C], the slope of the cap, log p [members]."""

    exponentials: Tensor
    sums: Tensor
    slope: Tensor | None
    logprobs: Tensor


@dataclass
class _Gradients:
    """fp32 sums of the gradients that are asked for."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def empty(cls, hidden: Tensor, head: Head, needed: tuple[bool, ...]) -> _Gradients:
        def zeros(like: Tensor | None, is_needed: bool) -> Tensor | None:
            return torch.zeros_like(like, dtype=torch.float32) if like is not None and is_needed else None

        return cls(zeros(hidden, needed[0]), zeros(head.weight, needed[1]), zeros(head.bias, needed[2]))

    @property
    def wanted(self) -> bool:
        return self.hidden is not None or self.weight is not None or self.bias is not None

    def cast(self, kind: torch.dtype, head: Head) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """In the types of what they are gradients of."""
        return (
            None if self.hidden is None else self.hidden.to(kind),
            None if self.weight is None else self.weight.to(head.weight.dtype),
            None if self.bias is None or head.bias is None else self.bias.to(head.bias.dtype),
        )


class _Computer:
    """Logits, exponentials and gradients of one table of targets, a chunk of rows at a time in one buffer."""

    def __init__(self, hidden: Tensor, head: Head, wanted: Targets, keep: int = 0) -> None:
        self.head, self.wanted = head, wanted
        self.kind = product_dtype(head.weight)
        self.hidden = hidden.detach().to(self.kind)
        n_rows, n_ids = hidden.shape[0], head.weight.shape[0]
        limit = max(keep if n_rows * n_ids * 4 <= keep else 0, _limit(hidden, _CHUNK_BYTES))
        most = max(1, limit // (4 * n_ids))
        n_chunks = max(1, -(-n_rows // most))
        self.size = max(1, -(-n_rows // n_chunks))
        self.is_single = n_chunks == 1
        self.buffer = hidden.new_empty((min(self.size, n_rows), n_ids), dtype=torch.float32)

    def chunks(self) -> Iterator[_Chunk]:
        """Chunks of rows that have targets."""
        rows, order = torch.sort(self.wanted.rows, stable=True)
        starts = list(range(0, self.hidden.shape[0], self.size))
        edges = torch.tensor([*starts, self.hidden.shape[0]], device=rows.device)
        bounds = torch.searchsorted(rows, edges).tolist()
        for i, start in enumerate(starts):
            low, high = bounds[i], bounds[i + 1]
            if low < high:
                members = order[low:high]
                stop = min(start + self.size, self.hidden.shape[0])
                yield _Chunk(start, stop, members, rows[low:high] - start, self.wanted.ids[members])

    def exponentials(self, chunk: _Chunk) -> _State:
        """Forward pass of a chunk, in the buffer."""
        logits, slope = self._logits(self.hidden[chunk.start : chunk.stop])
        highest = logits.amax(dim=1, keepdim=True)
        chosen = logits[chunk.rows, chunk.ids]
        logits.sub_(highest).exp_()
        sums = logits.sum(dim=1)
        normaliser = sums.log() + highest.squeeze(1)
        return _State(logits, sums, slope, chosen - normaliser[chunk.rows])

    def _logits(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        head, logits = self.head, self.buffer[: hidden.shape[0]]
        for columns, weight in self._blocks():
            if self.kind == torch.float32:
                torch.mm(hidden, weight.t(), out=logits[:, columns])
            else:
                logits[:, columns] = torch.mm(hidden, weight.t())
        if head.bias is not None:
            logits.add_(head.bias)
        if head.scale != 1.0:
            logits.mul_(head.scale)
        if head.softcap is None:
            return logits, None
        logits.div_(head.softcap).tanh_()
        slope = 1 - logits.square()
        return logits.mul_(head.softcap), slope

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The head's weight in the type of the products, some rows of it at a time when it has to be cast."""
        weight = self.head.weight.detach()
        if weight.device.type != "cpu" or weight.dtype == torch.float32:
            yield slice(None), weight
            return
        scratch = weight.new_empty((_BLOCK, weight.shape[1]), dtype=self.kind) if weight.dtype != self.kind else None
        for start in range(0, weight.shape[0], _BLOCK):
            block = weight[start : start + _BLOCK]
            columns = slice(start, start + block.shape[0])
            yield columns, block if scratch is None else scratch[: block.shape[0]].copy_(block)

    def add_gradients(self, gradients: _Gradients, chunk: _Chunk, state: _State, upstream: Tensor) -> None:
        """Turn the exponentials into the logits' gradient in place, and add what follows from it."""
        arriving = upstream[chunk.members].to(torch.float32)
        per_row = torch.zeros_like(state.sums).index_add_(0, chunk.rows, arriving)
        slopes = state.exponentials.mul_((per_row / state.sums).neg_().unsqueeze(1))
        slopes.index_put_((chunk.rows, chunk.ids), arriving, accumulate=True)
        if state.slope is not None:
            slopes.mul_(state.slope)
        if self.head.scale != 1.0:
            slopes.mul_(self.head.scale)
        if gradients.bias is not None:
            gradients.bias += slopes.sum(dim=0)
        self._add_products(gradients, slice(chunk.start, chunk.stop), slopes)

    def _add_products(self, gradients: _Gradients, rows: slice, slopes: Tensor) -> None:
        for columns, weight in self._blocks():
            block = slopes[:, columns].to(self.kind)
            if gradients.hidden is not None:
                _add_product(gradients.hidden[rows], block, weight)
            if gradients.weight is not None:
                _add_product(gradients.weight[columns], block.t(), self.hidden[rows])


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(torch.mm(left, right))


def _first_of_row(rows: Tensor, n_rows: int) -> Tensor:
    """[n_rows] a place in the table of targets for each row; -1 for a row without a target."""
    places = torch.arange(rows.shape[0], device=rows.device)
    return torch.full((n_rows,), -1, device=rows.device).scatter_reduce_(0, rows, places, "amax")


def _limit(tensor: Tensor, limits: dict[str, int]) -> int:
    return limits.get(tensor.device.type, limits["cpu"])


def _forward_only(hidden: Tensor, head: Head, wanted: Targets) -> Tensor:
    computer = _Computer(hidden, head, wanted)
    result = hidden.new_empty(wanted.ids.shape, dtype=torch.float32)
    for chunk in computer.chunks():
        result[chunk.members] = computer.exponentials(chunk).logprobs
    return result

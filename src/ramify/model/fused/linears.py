"""Linear layers that share an input, with their adapters: y_i = x W_iᵀ + b_i + s_i (x A_iᵀ) B_iᵀ.

The A matrices are stacked into one product, the update is added to the output in place, and the frozen weights get no
gradient. With g_i the gradient at y_i, u = x Aᵀ and v_i = s_i g_i B_i:

    dx = sum_i g_i W_i + v A      dA = vᵀ x      dB_i = s_i g_iᵀ u_i      dW_i = g_iᵀ x      db_i = sum over rows of g_i

Frozen weights of a type that the CPU multiplies slowly are cast to fp32 into one buffer right before each product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from ramify.tree.scratch import scratch


@dataclass(frozen=True)
class Linear:
    """One linear layer and its adapter.

    Attributes:
        weight: [out, in].
        bias: [out], or None.
        down: [r, in], the adapter's A, or None.
        up: [out, r], its B, or None.
        scale: factor of the adapter's update.
    """

    weight: Tensor
    bias: Tensor | None = None
    down: Tensor | None = None
    up: Tensor | None = None
    scale: float = 1.0

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The four tensors, in the order in which `Linears.backward` returns gradients."""
        return (self.weight, self.bias, self.down, self.up)

    def merged(self) -> Tensor:
        """weight + scale · up · down in fp32; a copy that the next call overwrites when there is an adapter."""
        if self.down is None or self.up is None:
            return cast(self.weight, torch.float32)
        copy = _copied(self.weight, torch.float32)
        return copy.addmm_(self.up.to(torch.float32), self.down.to(torch.float32), alpha=self.scale)


class Linears:
    """Linear layers applied to the same input; their outputs lie side by side in one tensor."""

    def __init__(self, layers: Sequence[Linear], kind: torch.dtype) -> None:
        self.layers = layers
        self.kind = kind
        self.columns = _spans([layer.weight.shape[0] for layer in layers])
        self.ranks = _spans([0 if layer.down is None else layer.down.shape[0] for layer in layers])
        downs = [layer.down for layer in layers if layer.down is not None]
        self.down = torch.cat(downs).to(kind) if downs else None

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None], scales: Sequence[float], kind: torch.dtype) -> Linears:
        """From the tensors of all layers in a row, four each."""
        layers = []
        for i, scale in enumerate(scales):
            weight, bias, down, up = tensors[4 * i : 4 * i + 4]
            assert weight is not None
            layers.append(Linear(weight, bias, down, up, scale))
        return cls(layers, kind)

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Outputs [T, sum of widths], for x [T, in] in the type of the products; in `out` where it is given."""
        if out is None:
            out = x.new_empty((x.shape[0], self.columns[-1].stop))
        # With more rows than inputs it is cheaper to add the update to the weights than to the outputs. In fp32 only:
        # in smaller types the sum would be rounded.
        merge = self.kind == torch.float32 and x.shape[0] > x.shape[1]
        low = None if self.down is None or merge else torch.mm(x, self.down.t())
        for layer, columns, rank in zip(self.layers, self.columns, self.ranks, strict=True):
            part = out[:, columns]
            torch.mm(x, (layer.merged() if merge else cast(layer.weight, self.kind)).t(), out=part)
            if layer.bias is not None:
                part.add_(layer.bias)
            if low is not None and layer.up is not None:
                part.addmm_(low[:, rank], layer.up.to(self.kind).t(), alpha=layer.scale)
        return out

    def backward(
        self, slopes: Tensor, x: Tensor, needs: Sequence[bool], needs_x: bool = True, out: Tensor | None = None
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients of x and of the tensors of all layers (None where `needs` says so).

        Args:
            slopes: [T, sum of widths], the gradient at the outputs.
            x: what `forward` was given.
            needs: four flags a layer.
            needs_x: whether the gradient at x is wanted.
            out: where to put the gradient at x; None: into a new tensor.
        """
        lifted = self._lifted(slopes)
        found: list[Tensor | None] = [None] * len(needs)
        self._of_weights(slopes, x, found, needs)
        if lifted is not None and self.down is not None:
            self._of_adapters(slopes, x, lifted, found, needs)
        return self._of_input(slopes, lifted, out) if needs_x else None, found

    def _lifted(self, slopes: Tensor) -> Tensor | None:
        """v: [T, sum of ranks]."""
        if self.down is None:
            return None
        lifted = slopes.new_empty((slopes.shape[0], self.down.shape[0]))
        for layer, columns, rank in zip(self.layers, self.columns, self.ranks, strict=True):
            if layer.up is not None:
                torch.mm(slopes[:, columns], (layer.up * layer.scale).to(self.kind), out=lifted[:, rank])
        return lifted

    def _of_input(self, slopes: Tensor, lifted: Tensor | None, total: Tensor | None) -> Tensor:
        if total is None:
            total = slopes.new_empty((slopes.shape[0], self.layers[0].weight.shape[1]))
        for i, (layer, columns) in enumerate(zip(self.layers, self.columns, strict=True)):
            total.addmm_(slopes[:, columns], cast(layer.weight, self.kind), beta=0 if i == 0 else 1)
        if lifted is not None and self.down is not None:
            total.addmm_(lifted, self.down)
        return total

    def _of_weights(self, slopes: Tensor, x: Tensor, found: list[Tensor | None], needs: Sequence[bool]) -> None:
        for i, (layer, columns) in enumerate(zip(self.layers, self.columns, strict=True)):
            if needs[4 * i]:
                found[4 * i] = torch.mm(slopes[:, columns].t(), x).to(layer.weight.dtype)
            if needs[4 * i + 1]:
                found[4 * i + 1] = slopes[:, columns].sum(dim=0).to(layer.weight.dtype)

    def _of_adapters(
        self, slopes: Tensor, x: Tensor, lifted: Tensor, found: list[Tensor | None], needs: Sequence[bool]
    ) -> None:
        assert self.down is not None
        downs, low = torch.mm(lifted.t(), x), torch.mm(x, self.down.t())
        for i, (layer, columns, rank) in enumerate(zip(self.layers, self.columns, self.ranks, strict=True)):
            if layer.down is not None and needs[4 * i + 2]:
                found[4 * i + 2] = downs[rank].to(layer.down.dtype)
            if layer.up is not None and needs[4 * i + 3]:
                # As uᵀ g, which runs along the rows of both; gᵀ u takes half as long again.
                flat = torch.mm(low[:, rank].t(), slopes[:, columns])
                found[4 * i + 3] = flat.t().to(layer.up.dtype, memory_format=torch.contiguous_format).mul_(layer.scale)


def cast(weight: Tensor, kind: torch.dtype) -> Tensor:
    """The weight in the type of the products: itself, or a copy that the next call overwrites (one a thread)."""
    if weight.dtype == kind:
        return weight.detach()
    return weight.detach().to(kind) if weight.device.type != "cpu" else _copied(weight, kind)


def _copied(weight: Tensor, kind: torch.dtype) -> Tensor:
    # One weight after the other, and every one in every step: the memory of the largest stays taken.
    return scratch("weight", tuple(weight.shape), kind, weight.device, largest=math.inf).copy_(weight.detach())


def _spans(widths: Sequence[int]) -> list[slice]:
    stops = list(accumulate(widths))
    return [slice(stop - width, stop) for width, stop in zip(widths, stops, strict=True)]

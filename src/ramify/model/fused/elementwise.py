"""Root-mean-square norm, rotary positions and the gated activation, forward and backward, with few passes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ramify.tree.scratch import scratch


def normalise(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMS norm (Zhang & Sennrich 2019, arXiv 1910.07467) over the last axis, computed in fp32.

    Returns:
        The normed x in the type of x, and 1 / rms in fp32 (last axis 1).
    """
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return apply_norm(x, weight, inverse), inverse


def apply_norm(x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """x · inverse · weight, for the backward pass to make the normed x again."""
    scaled = x * inverse if x.dtype == torch.float32 else x.to(torch.float32).mul_(inverse)
    return scaled.mul_(weight.to(torch.float32)).to(x.dtype)


def normalise_backward(
    slopes: Tensor, x: Tensor, normed: Tensor, weight: Tensor, inverse: Tensor, needs_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients at x and at the weight of `normalise`.

        dx = inverse · (weight · g) - x · inverse² · mean(g · normed)

    Args:
        slopes: g, the gradient at the normed x; overwritten when it is fp32.
        x: what was normed, in fp32.
        normed: the normed x in fp32; overwritten.
        weight: the norm's weight.
        inverse: 1 / rms.
        needs_weight: whether the weight's gradient is wanted.
    """
    kind = slopes.dtype
    slopes = slopes.to(torch.float32)
    of_weight = None
    if needs_weight:
        every = tuple(range(x.ndim - 1))
        of_weight = (x * inverse).mul_(slopes).sum(dim=every).to(weight.dtype)
    mean = normed.mul_(slopes).sum(dim=-1, keepdim=True).mul_(inverse.square()).div_(x.shape[-1])
    of_x = slopes.mul_(weight.to(torch.float32)).mul_(inverse).addcmul_(x, mean, value=-1)
    return of_x.to(kind), of_weight


@dataclass(frozen=True)
class Rotary:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864), halves convention: cos and sin, [T, 1, D] each."""

    cos: Tensor
    sin: Tensor

    def turn(self, x: Tensor, out: Tensor) -> Tensor:
        """Rotate x [T, heads, D] into `out`, which is not x."""
        half = x.shape[-1] // 2
        torch.mul(x, self.cos, out=out)
        out[..., :half].addcmul_(x[..., half:], self.sin[..., :half], value=-1)
        out[..., half:].addcmul_(x[..., :half], self.sin[..., half:])
        return out

    def turn_back(self, slopes: Tensor, out: Tensor) -> Tensor:
        """Gradient at x from the gradient at the rotated x (the transposed map), into `out`."""
        half = slopes.shape[-1] // 2
        torch.mul(slopes, self.cos, out=out)
        out[..., :half].addcmul_(slopes[..., half:], self.sin[..., half:])
        out[..., half:].addcmul_(slopes[..., :half], self.sin[..., :half], value=-1)
        return out


def gate(both: Tensor) -> Tensor:
    """silu(gate) · up (Shazeer 2020, arXiv 2002.05202) for gate and up side by side in [T, 2 F], in scratch memory."""
    half = both.shape[-1] // 2
    out = scratch("gated", (both.shape[0], half), both.dtype, both.device)
    return silu(both, out).mul_(both[:, half:])


def silu(both: Tensor, out: Tensor) -> Tensor:
    """silu(gate) into `out` [T, F]."""
    result: Tensor = torch.ops.aten.silu.out(both[:, : out.shape[-1]], out=out)
    return result


def gate_backward(slopes: Tensor, both: Tensor, silu: Tensor, spare: Tensor, out: Tensor) -> Tensor:
    """Gradient at gate and up, side by side.

    Args:
        slopes: [T, F], the gradient at the product.
        both: gate and up, [T, 2 F].
        silu: silu(gate), [T, F].
        spare: [T, F], overwritten.
        out: [T, 2 F]; may be `both` itself.
    """
    half = silu.shape[-1]
    torch.mul(slopes, both[:, half:], out=spare)
    torch.mul(slopes, silu, out=out[:, half:])
    torch.ops.aten.silu_backward.grad_input(spare, both[:, :half], grad_input=out[:, :half])
    return out

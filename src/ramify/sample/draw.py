"""From logits to tokens: penalty, temperature, truncation, one uniform number a row, log-probabilities of the model.

Truncation is one threshold a row: top-k keeps logits from the k-th largest on, top-p (Holtzman et al. 2019,
arXiv 1904.09751) the largest ones up to mass p of what top-k kept, min-p (Nguyen et al. 2024, arXiv 2407.01082) what
is at least min_p times as likely as the likeliest: the order and the rules of Transformers' own processors. What is
kept is drawn from by inverting the distribution function in the order of token ids.

Shapes: R rows, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ramify.base.config import Sampling
from ramify.base.errors import ModelError
from ramify.sample.penalty import Repeated

_BLOCK = 128
_CANDIDATES = 64


def not_finite(kind: torch.dtype) -> ModelError:
    """What is said of logits that nothing can be drawn from."""
    return ModelError(
        f"nothing can be drawn: the model's logits are NaN or infinite in {str(kind).removeprefix('torch.')}",
        hint="train.dtype=bf16 or train.dtype=fp32, where it overflows less; or its weights are broken",
    )


def draw(
    logits: Tensor, settings: Sampling, uniforms: Tensor | None, repeated: Repeated | None = None
) -> tuple[Tensor, Tensor]:
    """One token for each row, and its log-probability at temperature 1 without truncation or penalty.

    Args:
        logits: any float type; computed in fp32.
        settings: temperature and truncation; temperature 0 takes the likeliest token (the first of equals).
        uniforms: float64 in [0, 1), one a row; may be None when the temperature is 0.
        repeated: the tokens that each row is penalised for repeating, or None.

    Returns:
        token ids [R] int64 and log-probabilities [R] fp32.
    """
    logits = logits.float()
    shaped = logits if repeated is None else repeated.penalised(logits)
    if settings.temperature == 0:
        best = shaped.max(dim=-1)
        chosen = best.values if repeated is None else logits.gather(1, best.indices[:, None])[:, 0]
        return best.indices, chosen - torch.logsumexp(logits, dim=-1)
    assert uniforms is not None
    scaled = shaped if settings.temperature == 1 else shaped / settings.temperature
    threshold = thresholds(scaled, settings)
    weights = torch.softmax(scaled, dim=-1)
    if threshold is not None:
        weights.masked_fill_(scaled < threshold[:, None], 0.0)
    tokens = invert(weights, uniforms)
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    return tokens, chosen - torch.logsumexp(logits, dim=-1)


def thresholds(scaled: Tensor, settings: Sampling) -> Tensor | None:
    """The smallest (temperature-scaled) logit that is kept in each row, or None when all are.

    Returns:
        [R] fp32, or None.
    """
    bounds: list[Tensor] = []
    size = scaled.shape[-1]
    if 0 < settings.top_k < size:
        bounds.append(_largest(scaled, settings.top_k)[:, -1])
    if settings.top_p < 1:
        bounds.append(_nucleus(scaled, settings.top_p, bounds[0] if bounds else None))
    if settings.min_p > 0:
        bounds.append(scaled.amax(dim=-1) + math.log(settings.min_p))
    if not bounds:
        return None
    return torch.stack(bounds).amax(dim=0) if len(bounds) > 1 else bounds[0]


def _largest(scaled: Tensor, count: int) -> Tensor:
    """The `count` largest logits of each row, falling. They lie in the `count` blocks with the largest maxima."""
    rows, size = scaled.shape
    blocks = size // _BLOCK
    if blocks < 4 * count:
        return scaled.topk(count, dim=-1).values
    body = scaled[:, : blocks * _BLOCK].reshape(rows, blocks, _BLOCK)
    chosen = body.amax(dim=-1).topk(count, dim=-1).indices
    found = body.gather(1, chosen[:, :, None].expand(rows, count, _BLOCK)).flatten(1)
    rest = scaled[:, blocks * _BLOCK :]
    return torch.cat([found, rest], dim=1).topk(count, dim=-1).values


def _nucleus(scaled: Tensor, top_p: float, least: Tensor | None) -> Tensor:
    """The smallest logit of the smallest set with mass `top_p`; only rows that need it are sorted as a whole."""
    if least is not None:
        scaled = scaled.masked_fill(scaled < least[:, None], -math.inf)
    count = min(_CANDIDATES, scaled.shape[-1])
    bound, enough = _cut(_largest(scaled, count), torch.logsumexp(scaled, dim=-1), top_p)
    if not bool(enough.all()):
        rows = (~enough).nonzero()[:, 0]
        ordered = scaled[rows].double().sort(dim=-1, descending=True).values
        bound[rows] = _cut(ordered, torch.logsumexp(ordered, dim=-1), top_p)[0].float()
    return bound if least is None else torch.maximum(bound, least)


def _cut(falling: Tensor, total: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """(logit at which mass top_p is reached, whether it is reached within these candidates)."""
    mass = torch.exp((falling - total[:, None]).double()).cumsum(dim=-1)
    before = torch.cat([torch.zeros_like(mass[:, :1]), mass[:, :-1]], dim=1)
    kept = (before < top_p).sum(dim=-1).clamp_(min=1)
    return falling.gather(1, kept[:, None] - 1)[:, 0], mass[:, -1] >= top_p


def invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Index where the running sum of non-negative weights passes uniform × total, in each row.

    Sums of blocks first and then one block only: a single pass over the vocabulary. An entry of weight 0 is never
    chosen.

    Returns:
        [R] int64.
    """
    rows, size = weights.shape
    padding = -size % _BLOCK
    if padding:
        weights = torch.nn.functional.pad(weights, (0, padding))
    blocks = weights.view(rows, -1, _BLOCK)
    sums = blocks.sum(dim=-1).double()
    reached = sums.cumsum(dim=-1)
    target = uniforms.to(reached.dtype) * reached[:, -1]
    block = _first_above(reached, target, sums)
    before = (reached - sums).gather(1, block[:, None])[:, 0]
    inside = blocks[torch.arange(rows, device=block.device), block].double()
    return block * _BLOCK + _first_above(inside.cumsum(dim=-1), target - before, inside)


def _first_above(reached: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """First index whose running sum is above the target; rounding at the end falls back to the last with weight."""
    first = (reached <= target[:, None]).sum(dim=-1)
    order = torch.arange(1, weights.shape[1] + 1, device=weights.device)
    last = ((weights > 0) * order).amax(dim=-1) - 1
    return torch.minimum(first, last).clamp_(min=0)

"""What a step measured, and the window of steps that one line of metrics covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ramify.model.rates import exact_device
from ramify.train.objective import Objective, Share


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step measured before it moved.

    Attributes:
        loss: of the whole step.
        grad_norm: global L2 norm before clipping.
        tokens: of the unshared sequences; `computed` of the packed rows.
        divisor: what the loss was divided by (supervised fine-tuning: trained tokens).
        shares: loss of each micro-batch, in order.
        metrics: what the objective adds.
    """

    loss: float
    grad_norm: float
    tokens: int
    computed: int
    divisor: float
    shares: tuple[float, ...]
    metrics: dict[str, float]


@dataclass
class Window:
    """Sums over the steps since the last line of metrics."""

    weighted_loss: float = 0.0
    divisor: float = 0.0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, result: StepResult, seconds: float) -> None:
        """Count one step."""
        self.weighted_loss += result.loss * result.divisor
        self.divisor += result.divisor
        self.tokens += result.tokens
        self.seconds += seconds

    @property
    def loss(self) -> float:
        """Mean loss per unit of the divisor."""
        return self.weighted_loss / self.divisor

    @property
    def tokens_per_second(self) -> float:
        """Unshared tokens a second, evaluation and checkpoints not counted."""
        return self.tokens / max(self.seconds, 1e-9)


def detached(share: Share) -> Share:
    """The share without its graph."""
    return replace(
        share, loss=share.loss.detach(), metrics={name: each.detach() for name, each in share.metrics.items()}
    )


def sum_shares(shares: Sequence[Share], grad_norm: Tensor, scale: float, divisor: float) -> StepResult:
    """A step from its micro-batches; reads all numbers off the device at once."""
    losses = torch.stack([share.loss.float() for share in shares]) / scale
    values: list[float] = torch.cat([losses, grad_norm.float().reshape(1)]).tolist()
    names = list(shares[0].metrics)
    return StepResult(
        loss=sum(values[:-1]),
        grad_norm=values[-1],
        tokens=sum(share.tokens for share in shares),
        computed=sum(share.computed for share in shares),
        divisor=divisor,
        shares=tuple(values[:-1]),
        metrics={name: sum(float(share.metrics[name]) for share in shares) / scale for name in names},
    )


def evaluate_loss(network: Any, objective: Objective, micro_tokens: int) -> float:
    """Loss over a whole data set without gradients, dropout off: nats per trained token in supervised fine-tuning."""
    indices = [index for group in objective.groups for index in group]
    divisor = objective.divisor(indices)
    was_training = network.training
    network.eval()
    with torch.no_grad():
        parts = objective.micro_batches(indices, micro_tokens)
        losses = torch.stack([objective.score(network, part, divisor).loss for part in parts])
    network.train(was_training)
    return float(losses.to(exact_device(losses.device)).double().sum())

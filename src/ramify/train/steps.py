"""What a step measured, and the window of steps that one line of metrics covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ramify.model.logprobs import without_dropout
from ramify.model.rates import exact_device
from ramify.train.objective import Objective, Share


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step measured before it moved.

    Attributes:
        loss: of the whole step.
        grad_norm: global L2 norm before clipping.
        tokens: of the unshared sequences; `computed` of the packed rows.
        divisor: what the loss was divided by (supervised fine-tuning: trained tokens; preference optimisation: pairs).
        shares: loss of each micro-batch, in order.
        metrics: what the objective adds, divided likewise.
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
    weighted_metrics: dict[str, float] = field(default_factory=dict)

    def add(self, result: StepResult, seconds: float) -> None:
        """Count one step."""
        self.weighted_loss += result.loss * result.divisor
        for name, value in result.metrics.items():
            self.weighted_metrics[name] = self.weighted_metrics.get(name, 0.0) + value * result.divisor
        self.divisor += result.divisor
        self.tokens += result.tokens
        self.seconds += seconds

    @property
    def loss(self) -> float:
        """Mean loss per unit of the divisor."""
        return self.weighted_loss / self.divisor

    @property
    def metrics(self) -> dict[str, float]:
        """What the objective adds, means per unit of the divisor."""
        return {name: total / self.divisor for name, total in self.weighted_metrics.items()}

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
    metrics = _sum_metrics(shares)
    added = [total.float().reshape(1) / scale for total in metrics.values()]
    values: list[float] = torch.cat([losses, *added, grad_norm.float().reshape(1)]).tolist()
    parts = values[: len(shares)]
    return StepResult(
        loss=sum(parts),
        grad_norm=values[-1],
        tokens=sum(share.tokens for share in shares),
        computed=sum(share.computed for share in shares),
        divisor=divisor,
        shares=tuple(parts),
        metrics=dict(zip(metrics, values[len(shares) : -1], strict=True)),
    )


@dataclass(frozen=True)
class Measured:
    """Loss over a whole data set (nats per trained token, or loss per pair), and what the objective adds."""

    loss: float
    metrics: dict[str, float]


def measure(network: Any, objective: Objective, indices: Sequence[int], micro_tokens: int) -> Measured:
    """Loss on these rows without gradients, dropout off."""
    divisor = objective.divisor(indices)
    with without_dropout(network):
        parts = objective.micro_batches(indices, micro_tokens)
        shares = [objective.score(network, part, divisor) for part in parts]
    metrics = {name: float(total) for name, total in _sum_metrics(shares).items()}
    return Measured(_exact_sum([share.loss for share in shares]), metrics)


def measure_all(network: Any, objective: Objective, micro_tokens: int) -> Measured:
    """Loss over the whole data set of an objective."""
    return measure(network, objective, [index for group in objective.groups for index in group], micro_tokens)


def _sum_metrics(shares: Sequence[Share]) -> dict[str, Tensor]:
    return {name: torch.stack([share.metrics[name] for share in shares]).sum() for name in shares[0].metrics}


def _exact_sum(losses: Sequence[Tensor]) -> float:
    stacked = torch.stack(list(losses))
    return float(stacked.to(exact_device(stacked.device)).double().sum())

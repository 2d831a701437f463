"""What a step measured, and the window of steps that one line of metrics covers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ramify.model.logprobs import without_dropout
from ramify.train.division import BY_ITSELF, Company, cut
from ramify.train.objective import Objective, Share
from ramify.train.tally import Tally, tally


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


def step_of(found: Tally, grad_norm: float, divisor: float) -> StepResult:
    """A step from what all processes counted."""
    return StepResult(
        loss=sum(found.losses.values()),
        grad_norm=grad_norm,
        tokens=found.tokens,
        computed=found.computed,
        divisor=divisor,
        shares=tuple(found.losses.values()),
        metrics=found.metrics,
    )


@dataclass(frozen=True)
class Measured:
    """Loss over a whole data set (nats per trained token, or loss per pair), and what the objective adds."""

    loss: float
    metrics: dict[str, float]


def measure(
    network: Any, objective: Objective, indices: Sequence[int], micro_tokens: int, company: Company = BY_ITSELF
) -> Measured:
    """Loss on these rows without gradients, dropout off.

    Args:
        company: the processes that divide the rows among them; by default this one computes all.

    Raises:
        KeyboardInterrupt: one of the processes was asked to stop.
    """
    divisor = objective.divisor(indices)
    turns = company.turns(objective, cut(objective, indices, micro_tokens, company.ranks.size))
    shares: dict[int, Share] = {}
    with without_dropout(network):
        for turn in company.until_asked(turns):
            share = objective.score(network, turn.indices, divisor)
            if turn.counts:
                shares[turn.number] = share
    found = company.agree(tally(shares), turns)
    return Measured(sum(found.losses.values()), found.metrics)


def measure_all(network: Any, objective: Objective, micro_tokens: int, company: Company = BY_ITSELF) -> Measured:
    """Loss over the whole data set of an objective."""
    everything = [index for group in objective.groups for index in group]
    return measure(network, objective, everything, micro_tokens, company)

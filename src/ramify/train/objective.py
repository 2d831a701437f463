"""What a method asks of the loop: which sequences belong together, what a step is divided by, a micro-batch's loss.

The loop knows no method. Supervised fine-tuning is here; preference optimisation is another class of the same shape
(see `preference`), which counts pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ramify.base.types import TokenSequence
from ramify.model.logprobs import sequence_logprobs, weighted_nll
from ramify.train.losses import Metrics, nll
from ramify.tree.pack import micro_batches, pack
from ramify.tree.tree import grow


@dataclass(frozen=True)
class Share:
    """One micro-batch's share of a step.

    Attributes:
        loss: differentiable scalar; the shares of a step add up to its loss.
        tokens: tokens of the unshared sequences.
        computed: tokens of the packed row, what was really computed.
        metrics: further sums, which add up like the loss.
    """

    loss: Tensor
    tokens: int
    computed: int
    metrics: Metrics


class Objective(Protocol):
    """A data set and the loss on it."""

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        """Indices of rows (sequences, or pairs of them) that stay neighbours when the order is shuffled."""

    def divisor(self, indices: Sequence[int]) -> float:
        """What the loss of these rows is divided by, counted before anything is computed."""

    def micro_batches(self, indices: Sequence[int], micro_tokens: int) -> list[list[int]]:
        """The indices cut into parts of at most `micro_tokens` packed tokens (one row alone may have more)."""

    def tokens(self, indices: Sequence[int]) -> int:
        """Packed tokens of these rows in one micro-batch: what it costs to compute them."""

    def share(self, network: Any, indices: Sequence[int], divisor: float) -> Share:
        """Loss and gradient of one micro-batch, for training."""

    def score(self, network: Any, indices: Sequence[int], divisor: float) -> Share:
        """The same loss without gradient, for evaluation."""


@dataclass(frozen=True)
class Supervised:
    """Supervised fine-tuning: mean negative log-likelihood per trained token (see `losses.nll`)."""

    sequences: Sequence[TokenSequence]
    groups: Sequence[Sequence[int]]

    def divisor(self, indices: Sequence[int]) -> float:
        """Sum of the weights of these sequences."""
        return sum(self.sequences[index].trained for index in indices)

    def micro_batches(self, indices: Sequence[int], micro_tokens: int) -> list[list[int]]:
        """Cut so that sequences with a common prefix stay together."""
        parts = micro_batches((self.sequences[index] for index in indices), micro_tokens)
        return [[indices[place] for place in part] for part in parts]

    def tokens(self, indices: Sequence[int]) -> int:
        """Of the prefix tree of these sequences."""
        return len(grow([self.sequences[index] for index in indices]).ids)

    def share(self, network: Any, indices: Sequence[int], divisor: float) -> Share:
        """Loss through the fused head, whose gradient is made chunk by chunk in the forward pass."""
        batch = pack([self.sequences[index] for index in indices]).to(network.device)
        loss = weighted_nll(network, batch, divisor)
        return Share(loss, batch.n_unshared, len(batch.input_ids), {})

    def score(self, network: Any, indices: Sequence[int], divisor: float) -> Share:
        """Loss from per-sequence log-probabilities."""
        batch = pack([self.sequences[index] for index in indices]).to(network.device)
        loss, metrics = nll(sequence_logprobs(network, batch), divisor)
        return Share(loss, batch.n_unshared, len(batch.input_ids), metrics)

"""Preference optimisation as the loop sees it: rows are pairs, both sides of a pair lie in one tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ramify.base.config import DPO
from ramify.base.types import TokenSequence
from ramify.model.logprobs import sequence_logprobs
from ramify.train.losses import PairLogprobs, preference
from ramify.train.objective import Share
from ramify.train.pairs import PairSet
from ramify.tree.pack import Batch, joint_batches, pack
from ramify.tree.tree import grow

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Reference:
    """Log-probabilities of the completions of pairs under the reference, sums over their tokens.

    Attributes:
        chosen: [n]; `rejected` likewise.
    """

    chosen: Floats
    rejected: Floats

    @classmethod
    def none(cls, n: int) -> Reference:
        """For losses that use no reference: zeros."""
        return cls(np.zeros(n, np.float32), np.zeros(n, np.float32))


@dataclass(frozen=True)
class Preference:
    """Pairs and the loss on them (see `losses.preference`); indices count pairs, and so does the divisor."""

    pairs: PairSet
    reference: Reference
    settings: DPO

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        """Pairs that stay neighbours."""
        return self.pairs.groups

    def divisor(self, indices: Sequence[int]) -> float:
        """How many pairs."""
        return float(len(indices))

    def micro_batches(self, indices: Sequence[int], micro_tokens: int) -> list[list[int]]:
        """Cut so that pairs with a common prefix stay together, and both sides of a pair always."""
        sides = ((self.pairs.chosen_sequence(pair), self.pairs.rejected_sequence(pair)) for pair in indices)
        return [[indices[place] for place in part] for part in joint_batches(sides, micro_tokens)]

    def tokens(self, indices: Sequence[int]) -> int:
        """Of the prefix tree of both sides of these pairs."""
        return len(grow(self._sides(indices)).ids)

    def share(self, network: Any, indices: Sequence[int], divisor: float) -> Share:
        """Loss with gradient, from the log-probabilities of both sides."""
        batch = self._pack(indices).to(network.device)
        logprobs, n = sequence_logprobs(network, batch), len(indices)
        loss, metrics = preference(self._compared(indices, logprobs[:n], logprobs[n:]), self.settings, divisor)
        return Share(loss, batch.n_unshared, len(batch.input_ids), metrics)

    def score(self, network: Any, indices: Sequence[int], divisor: float) -> Share:
        """The same; gradients are off where it is called."""
        return self.share(network, indices, divisor)

    @torch.no_grad()
    def reference_of(self, network: Any, indices: Sequence[int], micro_tokens: int) -> Reference:
        """Log-probabilities of these pairs under a network, in the micro-batches that they are trained in."""
        chosen, rejected = self.reference.chosen.copy(), self.reference.rejected.copy()
        for part in self.micro_batches(indices, micro_tokens):
            values = sequence_logprobs(network, self._pack(part).to(network.device)).cpu().numpy()
            chosen[part], rejected[part] = np.split(values, 2)
        return Reference(chosen, rejected)

    def _pack(self, indices: Sequence[int]) -> Batch:
        return pack(self._sides(indices))

    def _sides(self, indices: Sequence[int]) -> list[TokenSequence]:
        """All chosen ones, then all rejected ones."""
        sides = self.pairs.chosen_sequence, self.pairs.rejected_sequence
        return [side(pair) for side in sides for pair in indices]

    def _compared(self, indices: Sequence[int], chosen: Tensor, rejected: Tensor) -> PairLogprobs:
        pairs, reference = self.pairs, self.reference

        def moved(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=chosen.device)

        return PairLogprobs(
            chosen=chosen,
            rejected=rejected,
            chosen_tokens=moved([len(pairs.chosen[pair]) for pair in indices]),
            rejected_tokens=moved([len(pairs.rejected[pair]) for pair in indices]),
            reference_chosen=moved([float(reference.chosen[pair]) for pair in indices]),
            reference_rejected=moved([float(reference.rejected[pair]) for pair in indices]),
        )

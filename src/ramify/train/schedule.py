"""Which rows a step trains on and at which learning rate: pure functions of the step, so there is nothing to save.

A run is a line of optimizer steps 0 … total-1. Each epoch is a keyed shuffle of its own, cut into steps of
`batch_size` sequences; the last, shorter step of an epoch is kept. Resuming at step n therefore needs n alone.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ramify.base.config import Train
from ramify.base.rng import generator
from ramify.train.grouping import Groups, Places

_FEW_STEPS = 10


@dataclass(frozen=True)
class Schedule:
    """The line of steps of one run.

    Attributes:
        groups: indices of sequences that stay neighbours in every epoch (completions of one prompt, turns of one
            conversation).
        batch_size: sequences in one optimizer step.
        total: optimizer steps of the run.
        warmup: steps before the peak learning rate.
        shape: linear, cosine or constant, after warm-up.
        peak: highest learning rate.
        seed: of the shuffles.
    """

    groups: Groups
    batch_size: int
    total: int
    warmup: int
    shape: str
    peak: float
    seed: int
    _order: dict[int, Places] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, groups: Sequence[Sequence[int]], settings: Train, seed: int) -> Schedule:
        """The schedule that the settings ask for on these sequences."""
        kept = Groups.of(groups)
        per_epoch = math.ceil(len(kept.members) / settings.batch_size)
        total = settings.max_steps or max(1, math.ceil(round(settings.epochs * per_epoch, 9)))
        warmup = math.ceil(settings.warmup * total) if settings.warmup < 1 else round(settings.warmup)
        return cls(kept, settings.batch_size, total, warmup, settings.schedule, settings.lr, seed)

    @property
    def per_epoch(self) -> int:
        """Optimizer steps in one pass over the data."""
        return math.ceil(len(self.groups.members) / self.batch_size)

    def epoch(self, steps: int) -> float:
        """Passes over the data after so many steps."""
        return steps / self.per_epoch

    def ends_epoch(self, steps: int) -> bool:
        """Whether a pass over the data, or the run, is complete after so many steps."""
        return steps % self.per_epoch == 0 or steps == self.total

    def indices(self, step: int) -> tuple[int, ...]:
        """The sequences of one step (0-based)."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch not in self._order:
            self._order.clear()  # one epoch at a time is enough
            self._order[epoch] = _epoch_order(self.groups, self.seed, epoch)
        return tuple(self._order[epoch][place * self.batch_size : (place + 1) * self.batch_size].tolist())

    def rate(self, step: int) -> float:
        """The learning rate of one step (0-based): linear warm-up to the peak at step `warmup`, then the shape.

        The rate is never 0, so that no step is wasted: step 0 has peak/(warmup+1), and linear ends at
        peak/(total-warmup).
        """
        if step < self.warmup:
            return self.peak * (step + 1) / (self.warmup + 1)
        if self.shape == "constant":
            return self.peak
        progress = (step - self.warmup) / max(1, self.total - self.warmup)
        return self.peak * (1 - progress if self.shape == "linear" else (1 + math.cos(math.pi * progress)) / 2)

    def warning(self) -> str | None:
        """A line about a run that is too short for its schedule, or None."""
        if self.warmup >= self.total and self.warmup > 0:
            return (
                f"the run has {self.total} steps and warm-up takes {self.warmup}: "
                f"the learning rate never reaches {self.peak:g}"
            )
        if self.warmup * 2 > self.total:
            return f"{self.warmup} of {self.total} steps are warm-up: the learning rate hardly reaches {self.peak:g}"
        if self.total < _FEW_STEPS:
            return f"the run has only {self.total} steps; more epochs or a smaller batch_size give more"
        return None


def _epoch_order(groups: Groups, seed: int, epoch: int) -> Places:
    shuffled = array("q", range(len(groups)))
    generator(seed, "epoch", epoch).shuffle(shuffled)
    return groups.joined(np.frombuffer(shuffled, np.int64))

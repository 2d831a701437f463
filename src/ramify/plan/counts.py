"""How large the steps of a run are, counted without a model: tokens, what sharing saves, the largest micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramify.base.config import RunConfig
from ramify.base.types import TokenSequence
from ramify.train.dryrun import Course
from ramify.train.objective import Objective, Supervised
from ramify.train.preference import Preference
from ramify.train.schedule import Schedule
from ramify.train.store import TokenStore
from ramify.tree.pack import micro_batches
from ramify.tree.tree import grow

_MOST_TOKENS = 20_000_000
"""Unshared tokens up to which every step of a run is counted; of a longer one evenly spread steps are."""
_SPREAD = 200
"""How many those are."""

Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StepSize:
    """One optimizer step.

    Attributes:
        step: its number, from 0.
        tokens: of the unshared sequences; `computed` of the packed rows.
        largest: packed tokens of its largest micro-batch.
    """

    step: int
    tokens: int
    computed: int
    largest: int


@dataclass(frozen=True)
class StepSizes:
    """The steps of a run.

    Attributes:
        sizes: of all of them, or of some that are spread evenly.
        total: how many the run has.
    """

    sizes: tuple[StepSize, ...]
    total: int

    @property
    def exact(self) -> bool:
        """Whether every step was counted."""
        return len(self.sizes) == self.total

    @property
    def tokens(self) -> int:
        """Unshared tokens of the whole run."""
        return self._scaled(sum(each.tokens for each in self.sizes))

    @property
    def computed(self) -> int:
        """Packed tokens of the whole run: what is really computed."""
        return self._scaled(sum(each.computed for each in self.sizes))

    @property
    def largest(self) -> StepSize:
        """The step that needs most memory; of equals the one with most tokens."""
        return max(self.sizes, key=lambda each: (each.largest, each.computed))

    def at(self, share: float) -> StepSize:
        """The step that this share (0 to 1) of them is smaller than."""
        ordered = sorted(self.sizes, key=lambda each: (each.computed, each.step))
        return ordered[round(share * (len(ordered) - 1))]

    def _scaled(self, counted: int) -> int:
        return counted if self.exact else round(counted * self.total / len(self.sizes))


@dataclass(frozen=True)
class RunSize:
    """How much a run computes.

    Attributes:
        steps: optimizer steps, `warmup` of them before the peak learning rate.
        epochs: passes over the rows.
        tokens: of the unshared sequences of all steps; `computed` of the packed rows.
        largest: packed tokens of the largest micro-batch.
        evaluations: times that the validation rows are measured.
        checkpoints: that are written; a best one is expected of every evaluation.
        exact: whether every step was counted.
    """

    steps: int
    warmup: int
    epochs: float
    tokens: int
    computed: int
    largest: int
    evaluations: int
    checkpoints: int
    exact: bool

    @property
    def saved(self) -> int:
        """Tokens that sharing saves."""
        return self.tokens - self.computed

    @classmethod
    def of(cls, config: RunConfig, course: Course, sizes: StepSizes) -> RunSize:
        """Of a training with these steps."""
        schedule, settings = course.schedule, config.train
        evaluated = set() if course.valid is None else _due(schedule, settings.eval_every)
        saved = _due(schedule, settings.save_every) | (evaluated if settings.load_best else set())
        return cls(
            steps=schedule.total,
            warmup=schedule.warmup,
            epochs=schedule.epoch(schedule.total),
            tokens=sizes.tokens,
            computed=sizes.computed,
            largest=sizes.largest.largest,
            evaluations=len(evaluated),
            checkpoints=len(saved - {0}),
            exact=sizes.exact,
        )


def step_sizes(course: Course, micro_tokens: int) -> StepSizes:
    """Sizes of the steps as one process computes them."""
    lengths, schedule = row_lengths(course.train), course.schedule
    total = schedule.total
    is_long = float(lengths.sum()) * schedule.epoch(total) > _MOST_TOKENS and total > _SPREAD
    steps = [int(each) for each in np.linspace(0, total - 1, _SPREAD)] if is_long else range(total)
    return StepSizes(tuple(_size(course, step, micro_tokens, lengths) for step in steps), total)


def parts_of(objective: Objective, micro_tokens: int) -> list[list[TokenSequence]]:
    """The sequences of a whole data set in the micro-batches that an evaluation computes."""
    everything = [index for group in objective.groups for index in group]
    return [sequences_of(objective, part) for part in objective.micro_batches(everything, micro_tokens)]


def reference_parts(course: Course, micro_tokens: int) -> list[list[TokenSequence]]:
    """The sequences of all pairs in the micro-batches that a reference is computed in; none where there is none."""
    sets = [each.pairs for each in (course.train, course.valid) if isinstance(each, Preference)]
    sequences = [sequence for each in sets for sequence in each.sequences()]
    return [[sequences[place] for place in part] for part in micro_batches(sequences, micro_tokens)]


def packed(sequences: Sequence[TokenSequence]) -> int:
    """Tokens of the prefix tree of these sequences."""
    return len(grow(sequences).ids)


def sequences_of(objective: Objective, indices: Sequence[int]) -> list[TokenSequence]:
    """The token sequences of these rows: one each, or both sides of a pair."""
    if isinstance(objective, Preference):
        pairs = objective.pairs
        return [side(index) for side in (pairs.chosen_sequence, pairs.rejected_sequence) for index in indices]
    assert isinstance(objective, Supervised)
    return [objective.sequences[index] for index in indices]


def row_lengths(objective: Objective) -> Lengths:
    """[n] int64, unshared tokens of each row (both sides of a pair)."""
    if isinstance(objective, Preference):
        pairs = objective.pairs
        sides = zip(pairs.prompt_of, pairs.chosen, pairs.rejected, strict=True)
        found = (2 * len(pairs.prompts[prompt]) + len(one) + len(other) for prompt, one, other in sides)
        return np.fromiter(found, np.int64, len(pairs))
    return _store(objective).lengths


def answer_lengths(objective: Objective) -> Lengths:
    """[n] int64, tokens of each completion that is imitated, its stop token among them (of a pair the chosen one)."""
    if isinstance(objective, Preference):
        return np.array([len(each) for each in objective.pairs.chosen], np.int64)
    store = _store(objective)
    return store.lengths - store.prompts


def _store(objective: Objective) -> TokenStore:
    """The rendered rows: their lengths are known, and no row has to be read."""
    assert isinstance(objective, Supervised) and isinstance(objective.sequences, TokenStore)
    return objective.sequences


def _due(schedule: Schedule, every: int | None) -> set[int]:
    """Numbers of steps done after which something is due."""
    return {*range(0, schedule.total + 1, every or schedule.per_epoch), schedule.total}


def _size(course: Course, step: int, micro_tokens: int, lengths: Lengths) -> StepSize:
    indices = course.schedule.indices(step)
    parts = [course.train.tokens(part) for part in course.train.micro_batches(indices, micro_tokens)]
    return StepSize(step, int(lengths[list(indices)].sum()), sum(parts), max(parts))

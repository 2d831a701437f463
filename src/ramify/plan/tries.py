"""Which steps of a run are taken to measure it, and for how long: parts of the largest first, then whole ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ramify.plan.advice import foreseen_peak
from ramify.plan.counts import StepSize, StepSizes
from ramify.plan.measured import StepRun
from ramify.plan.peak import peak_memory
from ramify.train.dryrun import Course
from ramify.train.loop import Loop
from ramify.train.schedule import Schedule

_LADDER = (0.125, 0.25)
"""Parts of the largest step that are taken before whole ones."""
_WHOLE = 12
"""Most whole steps that are taken, of all sizes."""
_LEAST = 3
"""Steps that are taken in any case, the first of which warms up."""


@dataclass(frozen=True)
class Limits:
    """How far the trial of a run goes.

    Attributes:
        seconds: for the steps.
        memory: bytes; a step that is foreseen to need more is not taken.
    """

    seconds: float
    memory: float


@dataclass(frozen=True)
class Try:
    """Rows of one step that is tried, or of a part of one; packed tokens of all and of the largest micro-batch."""

    indices: tuple[int, ...]
    computed: int
    largest: int
    whole: bool


@dataclass(frozen=True)
class _Tries(Schedule):
    """A schedule of chosen steps, none of which moves anything."""

    chosen: tuple[Try, ...] = ()

    def indices(self, step: int) -> tuple[int, ...]:
        """The rows of the chosen step of that number."""
        return self.chosen[step].indices

    def rate(self, step: int) -> float:
        """Nothing is learned."""
        return 0.0


def choose(course: Course, sizes: StepSizes, micro_tokens: int) -> tuple[Try, ...]:
    """Parts of the largest step, then a typical step, the largest, the smallest, and others of all sizes."""
    rows = course.schedule.indices(sizes.largest.step)
    found = []
    for share in _LADDER:
        part = rows[: max(1, round(share * len(rows)))]
        parts = [course.train.tokens(each) for each in course.train.micro_batches(part, micro_tokens)]
        found.append(Try(tuple(part), sum(parts), max(parts), whole=False))
    whole = (Try(course.schedule.indices(each.step), each.computed, each.largest, True) for each in _spread(sizes))
    return (*found, *whole)


def _spread(sizes: StepSizes) -> list[StepSize]:
    """A typical step, the largest, the smallest, then quantiles between them; each once."""
    shares = [0.0, *((2 * place + 1) / (2 * (_WHOLE - 3)) for place in range(_WHOLE - 3))]
    wanted = [sizes.at(0.5), sizes.largest, *(sizes.at(share) for share in shares)]
    return list({each.step: each for each in wanted}.values())


def take(loop: Loop, tries: Sequence[Try], limits: Limits) -> tuple[list[StepRun], float]:
    """Let the loop take these steps as far as the limits allow, then write its checkpoint.

    Returns:
        the steps taken, and the seconds that the checkpoint took.
    """
    kept = {name: getattr(loop.schedule, name) for name in ("groups", "batch_size", "warmup", "shape", "peak", "seed")}
    loop.schedule = _Tries(**kept, total=len(tries), chosen=tuple(tries))
    watch = _Stopwatch(loop, tries, limits, loop.job.network.device)
    loop.job = replace(loop.job, watch=watch)
    loop.run()
    return watch.steps, time.perf_counter() - watch.last


@dataclass
class _Stopwatch:
    """Called after each step: notes what it took, and ends the loop where the next one would be too much."""

    loop: Loop
    tries: Sequence[Try]
    limits: Limits
    device: torch.device
    steps: list[StepRun] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    last: float = field(default_factory=time.perf_counter)

    def __call__(self, row: Mapping[str, float]) -> tuple[str, ...]:
        now, tried = time.perf_counter(), self.tries[len(self.steps)]
        peak = peak_memory(self.device)
        self.steps.append(StepRun(tried.computed, tried.largest, now - self.last, peak, tried.whole))
        self.last = now
        if len(self.steps) < len(self.tries) and not self._may_go_on():
            self.loop.state.stopped_early = True
        return ()

    def _may_go_on(self) -> bool:
        following, before = self.tries[len(self.steps)], self.steps[-1]
        if foreseen_peak(self.steps, following.largest) > self.limits.memory:
            return False
        seconds = before.seconds * following.computed / max(before.computed, 1)
        taken = time.perf_counter() - self.began
        return len(self.steps) < _LEAST or taken + seconds <= self.limits.seconds

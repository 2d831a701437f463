"""Training questions asked: samples are drawn, graded and written one by one, and a stopped run goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ramify.base.config import Sampling
from ramify.base.progress import Progress
from ramify.base.types import Problem, Sample
from ramify.sample.prompting import Asker, prompt_of
from ramify.sample.sampler import Sampler
from ramify.tasks.collection import Collection, Graded
from ramify.tasks.task import Task


@dataclass(frozen=True)
class Asking:
    """How questions are asked and answers judged.

    Attributes:
        sampler: what draws.
        renderer: how questions are rendered.
        task: what grades.
        settings: how it draws; `n` is not read, the indices say how many.
        seed: of all draws.
    """

    sampler: Sampler
    renderer: Asker
    task: Task
    settings: Sampling
    seed: int


def collect(
    collection: Collection, problems: Sequence[Problem], asking: Asking, indices: Sequence[int], progress: Progress
) -> None:
    """Draw and grade the samples with these indices that are missing.

    Raises:
        KeyboardInterrupt: the user stopped; what was drawn is on disk.
    """
    missing = collection.missing(problems, indices)
    by_id = {problem.id: problem for problem in problems}
    total = len(problems) * len(indices)
    counter = _Counter(progress, total - sum(map(len, missing.values())))
    progress.start("sampling", total, counter.done)

    def on_sample(sample: Sample) -> None:
        collection.add(Graded(sample, asking.task.grade(by_id[sample.problem_id], sample)))
        counter.count(sample)

    try:
        if missing:
            prompts = [prompt_of(asking.renderer, by_id[name]) for name in missing]
            asking.sampler.sample(prompts, asking.settings, seed=asking.seed, on_sample=on_sample, indices=missing)
    finally:
        progress.close()


class _Counter:
    """Counts finished samples and tokens for the watcher."""

    def __init__(self, progress: Progress, done: int) -> None:
        self.done = done
        self._progress = progress
        self._tokens = 0
        self._began = time.perf_counter()

    def count(self, sample: Sample) -> None:
        self.done += 1
        self._tokens += len(sample.token_ids)
        seconds = max(time.perf_counter() - self._began, 1e-9)
        speed = {"tokens_per_second": self._tokens / seconds} if self._tokens else {}  # endpoints give text alone
        self._progress.update(self.done, **speed)

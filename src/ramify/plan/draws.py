"""A small draw from the start model: how fast it samples, how long answers are, and rows as training will see them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ramify.base.config import RunConfig
from ramify.base.types import Completion, Example, Problem, Sample, Stop
from ramify.model.load import LoadedModel
from ramify.model.lora import fit_template
from ramify.plan.measured import Drawing
from ramify.plan.peak import peak_memory
from ramify.sample.engine import TreeSampler
from ramify.sample.engines import load
from ramify.sample.prompting import prompt_of
from ramify.sample.sampler import Progress
from ramify.train.checks import check_sampling
from ramify.train.material import Material
from ramify.train.rows import Turns, has_validation, read_training_problems, read_turns

_LONG = "nothing ended in time, so that this stands for an answer"


class _EnoughError(Exception):
    """The draw has been watched for long enough."""


@dataclass
class _Watched:
    """What has been seen of a draw; ends it when its time is up.

    Attributes:
        full: the last moment at which no slot was idle; what follows is slower than a long run is.
    """

    seconds: float
    live: int
    samples: list[Sample] = field(default_factory=list)
    last: Progress | None = None
    full: Progress | None = None

    def on_progress(self, progress: Progress) -> None:
        """Called after every step."""
        self.last = progress
        if progress.total - progress.done >= self.live:
            self.full = progress
        if progress.seconds > self.seconds:
            raise _EnoughError

    def drawing(self, asked: int, longest: int, peak: int) -> Drawing:
        """What was seen of a draw of so many samples."""
        seen, ended = self.full or self.last, self.samples
        mean = sum(len(each.token_ids) for each in ended) / len(ended) if ended else float(longest)
        cut = sum(each.stop is Stop.LENGTH for each in ended)
        tokens, seconds = (0, 0.0) if seen is None else (seen.tokens, seen.seconds)
        return Drawing(asked, len(ended), cut, tokens, seconds, mean, peak)


def drawn_material(config: RunConfig, seconds: float) -> tuple[Drawing, Material[Turns]]:
    """Samples of some questions, and rows that train every question on one of them.

    Which samples will be selected nobody knows beforehand: as many rows as can come of it stand for them.

    Args:
        seconds: after which the draw ends.

    Raises:
        RamifyError: what the run would refuse.
    """
    problems = read_training_problems(config)
    valid = list(read_turns(config, "valid")) if has_validation(config.data) else []
    started = load(config)
    drawing, texts = _draw(config, problems, started, seconds)
    began = time.perf_counter()
    each = most_rows(config, 1)
    pairs = (
        (problem, texts[(number + place) % len(texts)])
        for number, problem in enumerate(problems)
        for place in range(each)
    )
    rows: list[Turns] = [(Example(problem.prompt, (Completion(text),), problem.source),) for problem, text in pairs]
    return drawing, Material(rows, valid, time.perf_counter() - began)


def most_rows(config: RunConfig, problems: int) -> int:
    """Rows that selection can give at most."""
    each = 1 if config.select.strategy == "first_correct" else config.select.per_problem
    return problems * min(each, config.sample.n * config.select.rounds)


def _draw(
    config: RunConfig, problems: Sequence[Problem], loaded: LoadedModel, seconds: float
) -> tuple[Drawing, list[str]]:
    """Twice as many samples as are decoded at once, and the texts of those that ended in time."""
    fitted, renderer, _ = fit_template(loaded, config.sample_prompt or config.prompt)
    check_sampling(config, renderer, problems, fitted.max_length)
    settings = config.sample
    count = min(len(problems), -(-2 * settings.live // settings.n))
    watched = _Watched(seconds, min(settings.live, count * settings.n))
    prompts = [prompt_of(renderer, problem) for problem in problems[:: len(problems) // count][:count]]
    sampler = TreeSampler(fitted, on_progress=watched.on_progress)
    with suppress(_EnoughError):
        sampler.sample(prompts, settings, seed=config.seed, on_sample=watched.samples.append)
    texts = [each.text.strip() for each in watched.samples if each.text.strip()]
    return watched.drawing(count * settings.n, settings.max_new_tokens, peak_memory(loaded.device)), texts or [_LONG]

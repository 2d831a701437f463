"""Measure a model on a task: problems become prompts, prompts become samples, samples get verdicts and scores.

An evaluation is a run folder of its own:

    run.json        command, resolved settings, versions, hashes, parents
    problems.jsonl  what was asked
    samples.jsonl   what the model said
    verdicts.jsonl  what the grader found
    scores.json     the rates with their intervals; written last, so a folder with it is complete
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from ramify.base.config import RunConfig, Sampling
from ramify.base.errors import DataError, RunError
from ramify.base.records import json_line, to_plain, write_json, write_jsonl
from ramify.base.runs import Run, create_run
from ramify.base.types import Problem, Sample, Verdict
from ramify.evaluate.scores import Scores, score
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import fit_template
from ramify.prompts.renderer import Renderer
from ramify.sample.engine import TreeSampler
from ramify.sample.sampler import PromptTokens, Sampler
from ramify.tasks.task import Task, load_problems, load_task

Watcher = Callable[[Sample], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was asked, what was said, what it was worth.

    Attributes:
        samples, verdicts: in the order of `problems`, all samples of a problem together.
        seconds: time spent sampling.
        folder: the run folder it was written to, or None.
    """

    scores: Scores
    problems: tuple[Problem, ...]
    samples: tuple[Sample, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    folder: Path | None = None

    @property
    def accuracy(self) -> float:
        """Share of correct answers."""
        return self.scores.accuracy.value

    @property
    def answer_rate(self) -> float:
        """Share of answers that could be parsed, right or wrong."""
        return self.scores.answer_rate.value

    @property
    def n(self) -> int:
        """Problems that were graded."""
        return self.scores.n


@dataclass(frozen=True)
class Evaluator:
    """A model, how it is prompted, and the task that grades it."""

    sampler: Sampler
    renderer: Renderer
    task: Task

    def measure(
        self, problems: Sequence[Problem], settings: Sampling, *, seed: int, on_sample: Watcher | None = None
    ) -> Evaluation:
        """Sample, grade and score.

        Raises:
            DataError: there are no problems, an id occurs twice, or one has no answer to grade against.
            LengthError: a prompt leaves no room for the new tokens; raised before the first one.
        """
        _check_problems(problems)
        prompts = [PromptTokens(problem.id, self.renderer.prompt_ids(problem.prompt)) for problem in problems]
        started = perf_counter()
        groups = self.sampler.sample(prompts, settings, seed=seed, on_sample=on_sample)
        seconds = perf_counter() - started
        pairs = list(zip(problems, groups, strict=True))
        samples = tuple(sample for _, group in pairs for sample in group)
        verdicts = tuple(self.task.grade(problem, sample) for problem, group in pairs for sample in group)
        return Evaluation(score(samples, verdicts), tuple(problems), samples, verdicts, seconds)


def evaluator(config: RunConfig, loaded: LoadedModel | None = None) -> Evaluator:
    """Put together what `config` asks for: `model`, `adapter`, `prompt` and `task`; `loaded` saves loading again.

    Raises:
        ModelError, TaskError, ConfigError: one of the parts cannot be had.
    """
    task = load_task(config.task)
    if loaded is None:
        loaded = load(config)
    loaded, renderer, _ = fit_template(loaded, config.prompt)
    return Evaluator(TreeSampler(loaded), renderer, task)


def load(config: RunConfig) -> LoadedModel:
    """The model that `config` names, on its device and in its type."""
    return load_model(
        config.model,
        adapter=config.adapter,
        revision=config.revision,
        dtype=config.train.dtype,
        device=config.train.device,
    )


def problems_of(config: RunConfig) -> list[Problem]:
    """The problems that `config.evaluate` names: a file, or the held-out split of the task.

    Raises:
        DataError: the file cannot be used, or the task's grader refuses one of its answers.
    """
    source, limit, task = config.evaluate.problems, config.evaluate.limit, load_task(config.task)
    return task.problems("valid", limit) if str(source) == "task" else load_problems(source, task)[:limit]


def evaluate(
    config: RunConfig,
    *,
    loaded: LoadedModel | None = None,
    problems: Sequence[Problem] | None = None,
    on_sample: Watcher | None = None,
) -> Evaluation:
    """Evaluate as `config` says, and write the run folder `config.out` when it is given.

    A finished evaluation in that folder is replaced only when the new one is complete.

    Raises:
        RamifyError: see `evaluator`, `problems_of`, `Evaluator.measure`.
    """
    chosen = problems_of(config) if problems is None else problems
    _check_problems(chosen)
    if config.out is not None:
        _check_folder(config.out)
    found = evaluator(config, loaded).measure(chosen, config.sample, seed=config.seed, on_sample=on_sample)
    return found if config.out is None else save(found, config, config.out)


def save(found: Evaluation, config: RunConfig, folder: Path) -> Evaluation:
    """Write an evaluation as a run folder; returns it with `folder` set.

    Raises:
        RunError: the folder holds something else, or cannot be written.
    """
    _check_folder(folder)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    text = "".join(json_line(problem) for problem in found.problems)
    hashes = {"problems": hashlib.sha256(text.encode()).hexdigest()}
    run = create_run(fresh, config.model_copy(update={"out": folder}), hashes=hashes, parents=_parents(config))
    write_jsonl(fresh / "problems.jsonl", found.problems)
    write_jsonl(fresh / "samples.jsonl", found.samples)
    write_jsonl(fresh / "verdicts.jsonl", found.verdicts)
    write_json(fresh / "scores.json", {**to_plain(found.scores), "seconds": found.seconds})
    run.update(kind="evaluation", status="finished", seconds=round(found.seconds, 3))
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    return Evaluation(found.scores, found.problems, found.samples, found.verdicts, found.seconds, folder)


def _parents(config: RunConfig) -> tuple[str, ...]:
    return tuple(str(name) for name in (config.model, config.adapter) if name)


def _check_problems(problems: Sequence[Problem]) -> None:
    if not problems:
        raise DataError("there are no problems to evaluate on")
    if len({problem.id for problem in problems}) != len(problems):
        raise DataError("a problem id occurs twice")
    missing = [problem for problem in problems if problem.answer is None]
    if missing:
        where = missing[0].source or missing[0].id
        raise DataError(f"{where}: no answer to grade against ({len(missing)} of {len(problems)} problems)")


def _check_folder(folder: Path) -> None:
    """Refuse to replace anything but an evaluation."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if Run(folder).record.get("kind") != "evaluation":
        raise RunError(f"{folder}: holds a run that is not an evaluation", hint="choose another folder with --out")

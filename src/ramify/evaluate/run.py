"""Measure a model on a task: problems become prompts, prompts become samples, samples get verdicts and scores.

A sample is what the model writes, or the most probable of the problem's options (see `evaluate.options`).

An evaluation is a run folder of its own:

    run.json        command, resolved settings, versions, hashes, parents, files (of weights, from this folder on)
    problems.jsonl  what was asked
    samples.jsonl   what the model said
    options.jsonl   how probable each option was (evaluate.scoring=options)
    verdicts.jsonl  what the grader found
    scores.json     the rates with their intervals, agreement on ratings (task grading), how often each rule holds (task
                    chat); written last, so a folder with it is complete

Samples and verdicts are written as they finish; see `evaluate.folder` for how a stopped evaluation goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import torch

from ramify.base.config import RunConfig, Sampling
from ramify.base.errors import DataError
from ramify.base.records import append_jsonl, sha256_file, to_plain, write_json
from ramify.base.types import Problem, Sample, Verdict
from ramify.evaluate.folder import check_folder, digest, drawing, open_draft, publish, seconds_of
from ramify.evaluate.options import FILE, OptionScorer, OptionScores, check_options, check_settings, sort_scores
from ramify.evaluate.ratings import Ratings, ratings
from ramify.evaluate.rule_rates import RuleRate, rule_rates
from ramify.evaluate.scores import Scores, score
from ramify.model.files import weight_files
from ramify.model.load import LoadedModel
from ramify.prompts.renderer import Renderer
from ramify.sample.endpoint.usage import Usage, accounted, usage_from
from ramify.sample.engines import free_of_cost, nothing_to_close, open_engine
from ramify.sample.engines import load as load
from ramify.sample.prompting import Asker, prompt_of
from ramify.sample.sampler import PromptTokens, Sampler
from ramify.tasks.chat.task import Chat
from ramify.tasks.collection import Collection, Graded
from ramify.tasks.grading import Grading
from ramify.tasks.registry import load_task
from ramify.tasks.task import OpenTask, Task, load_problems

Watcher = Callable[[Sample], None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What was asked, what was said, what it was worth.

    Attributes:
        samples, verdicts: in the order of `problems`, all samples of a problem together.
        seconds: time spent sampling.
        ratings: agreement with the assistant (task grading), or None.
        rules: how often each rule holds (task chat).
        folder: the run folder it was written to, or None.
        usage: what an endpoint was asked for it, in all calls; nothing with other engines.
    """

    scores: Scores
    problems: tuple[Problem, ...]
    samples: tuple[Sample, ...]
    verdicts: tuple[Verdict, ...]
    seconds: float
    ratings: Ratings | None = None
    folder: Path | None = None
    usage: Usage = field(default_factory=Usage)
    rules: Mapping[str, RuleRate] = field(default_factory=dict)

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
    """A model, how it is prompted, and the task that grades it.

    Attributes:
        sampler: writes answers; scorer: chooses among options instead when it is there.
        renderer: makes its prompts.
        hashes: of the weights and of a user's task file: what decides an evaluation and is in no setting.
        usage: what an endpoint was asked so far.
        close: lets the model's memory go, where the caller did not load it.
    """

    sampler: Sampler
    renderer: Asker
    task: Task
    scorer: OptionScorer | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    usage: Callable[[], Usage] = free_of_cost
    close: Callable[[], None] = nothing_to_close

    def prompts(self, problems: Sequence[Problem]) -> list[PromptTokens]:
        """What the model is given for each problem."""
        return [prompt_of(self.renderer, problem) for problem in problems]

    def measure(
        self,
        problems: Sequence[Problem],
        settings: Sampling,
        *,
        seed: int,
        on_sample: Watcher | None = None,
        kept: Collection | None = None,
    ) -> Evaluation:
        """Sample, grade and score.

        Args:
            kept: samples drawn and graded before; what is missing is added to it, one by one.

        Raises:
            DataError: there are no problems, an id occurs twice, or one has no answer to grade against.
            LengthError: a prompt leaves no room for the new tokens; raised before the first one.
        """
        _check_problems(problems, self.task)
        collection = Collection(None) if kept is None else kept
        missing = collection.missing(problems, range(settings.n))
        asked = {problem.id: problem for problem in problems}
        started = perf_counter()

        def finished(sample: Sample) -> None:
            collection.add(Graded(sample, self.task.grade(asked[sample.problem_id], sample)))
            if on_sample is not None:
                on_sample(sample)

        def chosen(sample: Sample, scores: OptionScores) -> None:
            if collection.run is not None:
                append_jsonl(collection.run.folder / FILE, scores)
            finished(sample)

        if missing and self.scorer is not None:
            self.scorer.choose(problems, seed=seed, wanted=missing, on_choice=chosen)
        elif missing:
            self.sampler.sample(self.prompts(problems), settings, seed=seed, on_sample=finished, indices=missing)
        seconds = perf_counter() - started
        samples, verdicts = zip(*((each.sample, each.verdict) for each in collection.ordered(problems)), strict=True)
        found = ratings(problems, verdicts) if isinstance(self.task, Grading) else None
        rules = rule_rates(problems, samples, self.task) if isinstance(self.task, Chat) else {}
        scores = score(samples, verdicts)
        return Evaluation(scores, tuple(problems), samples, verdicts, seconds, found, usage=self.usage(), rules=rules)


def evaluator(config: RunConfig, loaded: LoadedModel | None = None, task: Task | None = None) -> Evaluator:
    """Put together what `config` asks for: engine, model, prompt and task.

    Args:
        loaded: the model, which saves loading it again (own engine).
        task: that of `config`; None: it is loaded.

    Raises:
        ModelError, TaskError, ConfigError: one of the parts cannot be had.
    """
    check_settings(config)
    task = load_task(config.task) if task is None else task
    opened = open_engine(config, config.prompt, loaded)
    hashes = dict(opened.hashes)
    if opened.loaded is not None:
        hashes["weights"] = weights_digest(opened.loaded)
    if Path(config.task.name).is_file():
        hashes["task file"] = sha256_file(Path(config.task.name))
    if config.task.rules is not None:
        hashes["rules file"] = sha256_file(config.task.rules)
    scorer = None
    if config.evaluate.scoring == "options" and opened.loaded is not None and isinstance(opened.asker, Renderer):
        scorer = OptionScorer(opened.loaded, opened.asker, config.train.micro_tokens)
    return Evaluator(opened.sampler, opened.asker, task, scorer, hashes, opened.usage, opened.close)


def weights_digest(loaded: LoadedModel) -> str:
    """Hex SHA-256 of the first values of every parameter: other weights under the same name are noticed."""
    found = sha256()
    with torch.no_grad():
        for name, parameter in loaded.network.named_parameters():
            first = parameter.reshape(-1)[:64].to("cpu", torch.bfloat16).float()  # the same in every type it loads in
            found.update(f"{name} {tuple(parameter.shape)}".encode() + first.numpy().tobytes())
    return found.hexdigest()


def problems_of(config: RunConfig, task: Task | None = None) -> list[Problem]:
    """The problems that `config.evaluate` names: a file, or the held-out split of the task.

    Args:
        task: that of `config`; None: it is loaded.

    Raises:
        DataError: the file cannot be used, or the task's grader refuses one of its answers.
    """
    source, limit = config.evaluate.problems, config.evaluate.limit
    task = load_task(config.task) if task is None else task
    return task.problems("valid", limit) if str(source) == "task" else load_problems(source, task)[:limit]


def evaluate(
    config: RunConfig,
    *,
    loaded: LoadedModel | None = None,
    problems: Sequence[Problem] | None = None,
    on_sample: Watcher | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Evaluate as `config` says, and write the run folder `config.out` when it is given.

    Samples are written as they finish, and a call that was stopped is gone on with. A finished evaluation in that
    folder is replaced when the new one is complete.

    Args:
        on_sample: is shown each new sample; those that a stopped call has left are not new.
        overwrite: the folder may hold an evaluation of something else, which is replaced.

    Raises:
        RamifyError: see `evaluator`, `problems_of`, `Evaluator.measure`.
        RunError: the folder holds something else, or cannot be written.
        KeyboardInterrupt: the user stopped it; what was drawn is kept.
    """
    task = load_task(config.task)
    chosen = problems_of(config, task) if problems is None else problems
    _check_problems(chosen, task)
    if config.evaluate.scoring == "options":
        for problem in chosen:
            check_options(problem)
    if config.out is not None:
        check_folder(config.out, config, chosen, overwrite)
    judge = evaluator(config, loaded, task)
    try:
        if config.out is None:
            return judge.measure(chosen, config.sample, seed=config.seed, on_sample=on_sample)
        return _written(judge, config, config.out, chosen, on_sample, overwrite)
    finally:
        judge.close()


def _written(
    judge: Evaluator,
    config: RunConfig,
    folder: Path,
    chosen: Sequence[Problem],
    on_sample: Watcher | None,
    overwrite: bool,
) -> Evaluation:
    """The evaluation in its run folder."""
    hashes = {**judge.hashes, "prompts": digest(judge.prompts(chosen))}
    run = open_draft(folder, config, chosen, hashes, overwrite)
    run.update(files=_weights(config, folder))
    with drawing(run), accounted(run, judge.usage):
        kept = Collection.open(run, chosen, judge.task)
        sort_scores(run.folder, chosen)
        found = judge.measure(chosen, config.sample, seed=config.seed, on_sample=on_sample, kept=kept)
        kept.sort(chosen)
        sort_scores(run.folder, chosen)
    found = replace(found, seconds=seconds_of(run), folder=folder, usage=usage_from(run.record))
    more = {"ratings": found.ratings, "rules": found.rules}
    more = {name: to_plain(each) for name, each in more.items() if each}
    write_json(run.folder / "scores.json", {**to_plain(found.scores), "seconds": found.seconds, **more})
    run.update(status="finished")
    publish(run, folder)
    return found


def _weights(config: RunConfig, folder: Path) -> dict[str, str]:
    """Weight files on this machine, by their way from the evaluation on, so that both can be moved together."""
    if config.engine == "openai":
        return {}
    files = weight_files(config.model, config.adapter)
    return {_way(folder.resolve(), file.resolve()): found for file, found in files.items()}


def _way(folder: Path, file: Path) -> str:
    try:
        return os.path.relpath(file, folder)
    except ValueError:  # on another drive
        return str(file)


def _check_problems(problems: Sequence[Problem], task: Task) -> None:
    if not problems:
        raise DataError("there are no problems to evaluate on")
    if len({problem.id for problem in problems}) != len(problems):
        raise DataError("a problem id occurs twice")
    if isinstance(task, OpenTask):
        task.check(problems)
        return
    missing = [problem for problem in problems if problem.answer is None]
    if missing:
        where = missing[0].source or missing[0].id
        raise DataError(f"{where}: no answer to grade against ({len(missing)} of {len(problems)} problems)")

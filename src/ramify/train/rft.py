"""Rejection-sampling fine-tuning: sample, grade, select, then supervised fine-tuning on what was selected, in rounds.

    samples.jsonl, verdicts.jsonl   everything drawn; a sample's round is its index // sample.n, counted from 0
    rows.jsonl                      what is trained on, with lineage; `data.train=rows.jsonl` reads it again
    yield.json                      questions, solved, rows, refusals and pass rates after each round
    round-1/ …                      the trainings of all rounds but the last, each a run of its own
    adapter/, checkpoint-N/, …      the last training, as supervised fine-tuning leaves it

Round 1 samples from the start model, each later round from the model of the round before it. Every round trains the
start model anew, on the rows selected from all samples so far: nothing depends on how long the earlier ones trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from ramify.base.config import RunConfig
from ramify.base.errors import TrainingError
from ramify.base.progress import LogProgress, Progress
from ramify.base.records import json_line, write_json, write_jsonl
from ramify.base.runs import Run
from ramify.base.types import Example, Problem
from ramify.model.load import LoadedModel, load_model
from ramify.prompts.renderer import Renderer
from ramify.sample.endpoint.usage import accounted
from ramify.sample.engines import OpenedEngine, open_engine, open_own
from ramify.tasks.collection import Collection
from ramify.tasks.registry import load_task
from ramify.tasks.task import Task
from ramify.train.checkpoint import find_checkpoints
from ramify.train.checks import check_engine, check_outline, check_rounds, check_sampling
from ramify.train.collect import Asking, collect
from ramify.train.folder import Opening, check_free, check_unchanged, finished_run, recorded, run_folder, start_run
from ramify.train.material import Material
from ramify.train.prepare import check_start, outline_of
from ramify.train.ranks import check_alone
from ramify.train.rows import Turns, has_validation, read_training_problems, read_turns
from ramify.train.select import Selection, Yield, select, yield_record
from ramify.train.sft import METHOD
from ramify.train.staged import Circumstances, carry_out, stage, train_staged


def run(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    loaded: LoadedModel | None = None,
) -> Run:
    """Sample, grade, select and train, `select.rounds` times.

    Args:
        resume: draw only the samples that are missing, and go on training from the newest checkpoint.
        overwrite: replace the run that is in the folder.
        progress: is told how far it is; None: notes go to the logger `ramify`.
        loaded: the start model, loaded already; None: `config.model` is loaded.

    Raises:
        RamifyError: bad settings, data or model; no sample that could be selected; what training raises.
        KeyboardInterrupt: the user stopped it; nothing drawn or trained so far is lost.
    """
    return _Rounds(config, Opening(resume, overwrite), progress or LogProgress(), loaded).run(train=True)


def sample(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    loaded: LoadedModel | None = None,
) -> Run:
    """The first half alone: samples, verdicts, rows and yield of one round, no training. Arguments as for `run`.

    `run` with `resume` goes on from what it leaves.
    """
    config = config.model_copy(update={"method": "rft", "out": run_folder(config)})
    return _Rounds(config, Opening(resume, overwrite), progress or LogProgress(), loaded).run(train=False)


class _Rounds:
    """The rounds of one run."""

    def __init__(self, config: RunConfig, opening: Opening, progress: Progress, loaded: LoadedModel | None) -> None:
        self.config = config
        self.opening = opening
        self.progress = progress
        self.loaded = loaded
        self.start: LoadedModel | None = None
        self.engine: OpenedEngine | None = None
        self.accounts: list[Yield] = []

    def run(self, train: bool) -> Run:
        check_alone("rejection sampling")
        if train:
            check_engine(self.config)
        folder = run_folder(self.config)
        check_free(folder, self.opening)
        done = finished_run(self.config, self.opening, train=train)
        if done is not None:
            self.progress.note(f"{folder} is finished already")
            return done
        task = load_task(self.config.task)
        problems = read_training_problems(self.config)
        valid = list(read_turns(self.config, "valid")) if train and has_validation(self.config.data) else []
        hashes = {"problems": _digest(problems)}
        if self.config.engine == "own":
            self.start = self._checked_start(problems, valid, train)
        else:
            self.engine = self._checked_engine(problems)
            hashes |= self.engine.hashes
        run = start_run(self.config, hashes, self.opening)
        with recorded(run, "finished" if train else "sampled"):
            collection = Collection.open(run, problems, task)
            for number in range(1, (self.config.select.rounds if train else 1) + 1):
                selection = self._round(run, number, collection, problems, task)
                if train:
                    self._train(run, number, selection.rows, valid)
        return run

    def _checked_start(self, problems: Sequence[Problem], valid: Sequence[Turns], train: bool) -> LoadedModel:
        """The start model, after everything that sampling and training can refuse beforehand."""
        config = self.config
        outline = outline_of(config) if self.loaded is None else self.loaded.outline
        if train and self.loaded is None:
            check_outline(config, outline)
        check_rounds(config, outline, problems, valid, train=train)
        start = self._load(config.model, config.adapter) if self.loaded is None else self.loaded
        if train:
            check_start(config, start)
        return start

    def _checked_engine(self, problems: Sequence[Problem]) -> OpenedEngine:
        """What draws besides the own engine, after what can be refused beforehand."""
        config = self.config
        engine = open_engine(config, config.sample_prompt or config.prompt)
        if engine.max_length is not None and isinstance(engine.asker, Renderer):
            check_sampling(config, engine.asker, problems, engine.max_length)
        return engine

    def _round(
        self, run: Run, number: int, collection: Collection, problems: Sequence[Problem], task: Task
    ) -> Selection:
        """Draw what is missing of a round, and select from everything drawn up to it."""
        n = self.config.sample.n
        indices = range((number - 1) * n, number * n)
        if collection.missing(problems, indices):
            engine = self.engine or open_own(self._policy(run, number), self.config.sample_prompt or self.config.prompt)
            asking = Asking(engine.sampler, engine.asker, task, self.config.sample, self.config.seed)
            with closing(engine), accounted(run, engine.usage):
                collect(collection, problems, asking, indices, self.progress)
        collection.check_grader()
        collection.sort(problems)
        drawn = collection.up_to(number * n)
        selection = select(problems, drawn, self.config.select, n)
        self.accounts.append(selection.account)
        write_jsonl(run.folder / "rows.jsonl", selection.rows)
        write_json(run.folder / "yield.json", yield_record(self.accounts))
        return selection

    def _policy(self, run: Run, number: int) -> LoadedModel:
        """The model that a round samples from."""
        start, self.start = self.start, None  # sampling may add tokens to it, so that training loads its own
        if number == 1 and start is not None:
            return start
        return self._load(str(_round_folder(run, number - 1)), None)

    def _load(self, name: str, adapter: str | None) -> LoadedModel:
        settings, revision = self.config.train, self.config.revision
        return load_model(
            name,
            adapter=adapter,
            revision=revision,
            dtype=settings.quantize or settings.dtype,
            device=settings.device,
            trainable=True,
        )

    def _train(self, run: Run, number: int, rows: Sequence[Example], valid: Sequence[Turns]) -> None:
        if not rows:
            raise TrainingError(
                f"{run.folder}: none of the {self.accounts[-1].samples} samples could be selected (see yield.json)",
                hint="a few-shot sample_prompt, more samples (sample.n), or a longer sample.max_new_tokens",
            )
        start, self.start = self.start, None  # unused so far when every sample was there already
        if find_checkpoints(run.folder):
            start = None  # the weights of the newest one are trained on
        material = Material([(each,) for each in rows], valid)
        if number < self.config.select.rounds:
            config = self.config.model_copy(update={"out": _round_folder(run, number), "method": "sft"})
            carry_out(METHOD, config, material, Opening(resume=True), Circumstances(self.progress))
            return
        found = Circumstances(self.progress, start or self.loaded)
        staged = stage(METHOD, self.config, material, resume=self.opening.resume, found=found)
        check_unchanged(run, self.config, staged.hashes)
        train_staged(METHOD, staged, run, self.progress)


def _round_folder(run: Run, number: int) -> Path:
    return run.folder / f"round-{number}"


def _digest(problems: Sequence[Problem]) -> str:
    found = sha256()
    for problem in problems:
        found.update(json_line(problem).encode())
    return found.hexdigest()

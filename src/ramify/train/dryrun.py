"""What a run would do, without its weights: settings, rows, lengths and schedule are checked and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ramify.base.config import RunConfig
from ramify.model.load import choose_device
from ramify.model.outline import Outline
from ramify.train.checks import check_engine, check_outline, check_preference, check_rounds, renderer_for
from ramify.train.folder import Opening, check_free, run_folder
from ramify.train.material import Material, RunData
from ramify.train.objective import Objective, Supervised
from ramify.train.pairs import PairSet, read_preferences, render_pairs
from ramify.train.preference import Preference, Reference
from ramify.train.prepare import outline_of
from ramify.train.render import TrainingSet, render_all
from ramify.train.rows import has_validation, read_training_problems, read_turns
from ramify.train.schedule import Schedule


@dataclass(frozen=True, eq=False)
class Course:
    """What a training will go through.

    Attributes:
        schedule: its line of steps.
        train: the rows and the loss on them; a preference's reference is left at zeros, which moves no count.
        valid: the same of validation, or None.
    """

    schedule: Schedule
    train: Objective
    valid: Objective | None

    @classmethod
    def of(cls, config: RunConfig, data: RunData[Any]) -> Course:
        """Of rendered rows or pairs."""
        train = _objective(config, data.train)
        valid = None if data.valid is None else _objective(config, data.valid)
        return cls(Schedule.of(train.groups, config.train, config.seed), train, valid)


@dataclass(frozen=True, eq=False)
class DryRun:
    """The size of a run.

    Attributes:
        rows: training rows (sft), pairs (dpo) or questions (rft).
        tokens: of one pass over the unshared sequences (sft, dpo) or of all prompts (rft).
        longest: tokens of the longest sequence (sft, dpo), or of the longest prompt with its completion (rft).
        steps: optimizer steps (sft, dpo; 0 for rft, where they depend on what is selected).
        samples: completions that will be drawn (rft).
        notes: what the user should know before the first step.
        trained: sum of the weights of trained tokens in one pass (dpo: completion tokens of both sides; 0 for rft).
        too_long: sequences (dpo: pairs) left out because they were longer than allowed.
        valid_rows: rows of validation.
        course: the steps, rows and losses (None for rft, whose rows are drawn first).
    """

    rows: int
    tokens: int
    longest: int
    steps: int
    samples: int
    notes: tuple[str, ...]
    trained: float = 0.0
    too_long: int = 0
    valid_rows: int = 0
    course: Course | None = None


def dry_run(config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> DryRun:
    """Check and count everything that can be without loading weights.

    Args:
        resume: whether the run would go on with the one in the folder.
        overwrite: whether it would replace it.

    Raises:
        RamifyError: what the run itself would refuse before its first step, save for what only weights can tell.
    """
    check_engine(config)
    choose_device(config.train.device)
    outline = outline_of(config)
    check_outline(config, outline)
    counted = {"sft": _examples, "rft": _sampling, "dpo": _preferences}[config.method]
    found = counted(config, outline)
    check_free(run_folder(config), Opening(resume, overwrite))
    return found


def _examples(config: RunConfig, outline: Outline) -> DryRun:
    rows = read_turns(config, "train")
    valid = read_turns(config, "valid") if has_validation(config.data) else []
    renderer = renderer_for(outline, config.prompt)
    return _training(config, render_all(config, renderer, outline.max_length, Material(rows, valid)))


def _preferences(config: RunConfig, outline: Outline) -> DryRun:
    check_preference(config.dpo)
    pairs = read_preferences(config, "train")
    valid = read_preferences(config, "valid") if has_validation(config.data) else []
    renderer = renderer_for(outline, config.prompt)
    return _training(config, render_pairs(config, renderer, outline.max_length, pairs, valid))


def _training(config: RunConfig, data: RunData[Any]) -> DryRun:
    course = Course.of(config, data)
    return DryRun(
        rows=len(data.train),
        tokens=data.train.tokens,
        longest=data.train.longest,
        steps=course.schedule.total,
        samples=0,
        notes=tuple(data.notes(config)),
        trained=data.train.trained,
        too_long=data.train.too_long,
        valid_rows=0 if data.valid is None else len(data.valid),
        course=course,
    )


def _objective(config: RunConfig, rows: TrainingSet | PairSet) -> Objective:
    if isinstance(rows, PairSet):
        return Preference(rows, Reference.none(len(rows)), config.dpo)
    return Supervised(rows.sequences, rows.groups)


def _sampling(config: RunConfig, outline: Outline) -> DryRun:
    problems = read_training_problems(config)
    valid = list(read_turns(config, "valid")) if has_validation(config.data) else []
    lengths = check_rounds(config, outline, problems, valid)
    samples = len(problems) * config.sample.n * config.select.rounds
    longest = max(lengths) + config.sample.max_new_tokens
    return DryRun(len(problems), sum(lengths), longest, 0, samples, (), valid_rows=len(valid))

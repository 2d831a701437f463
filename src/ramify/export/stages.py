"""Reading back what was written, one stage after the other, and holding each against the trained model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from ramify.base.config import Prompting, Sampling
from ramify.base.errors import ConfigError, ModelError
from ramify.base.progress import Progress
from ramify.base.runs import is_run
from ramify.base.types import Conversation, Problem, Reason
from ramify.evaluate.run import Evaluator, problems_of
from ramify.evaluate.settings import evaluation_config
from ramify.export import parity
from ramify.export.memory import fits
from ramify.export.merge import stage
from ramify.export.parity import ParityRow, Reference, Share, Subject
from ramify.export.plan import Plan
from ramify.export.probes import LONG, SHORT
from ramify.export.subjects import gguf_subject, network_subject
from ramify.prompts.renderer import Renderer
from ramify.tasks.registry import load_task
from ramify.tasks.task import Task

_OWN_PROBES = 3  # of the run's own problems: what it was trained for


@dataclass(frozen=True, slots=True)
class Written:
    """A file or folder that was written.

    Attributes:
        stage: its name in the parity table.
        kind: numeric format.
        scratch: made for others, and removed afterwards.
    """

    stage: str
    kind: str
    path: Path
    scratch: bool = False


def measure(
    plan: Plan, trial: Trial, renderer: Renderer, written: Sequence[Written], folder: Path, progress: Progress
) -> list[ParityRow]:
    """The parity table: the trained model, then every stage in the order it was written.

    Args:
        trial: the run's own problems.
        renderer: prompts as the model was trained on them.
        folder: the export; paths of the rows are relative to it.

    Raises:
        ModelError: the model is too short for any of the probes.
    """
    with stage(progress, "parity", len(written) + 1):
        expected, first = _reference(plan, trial, renderer)
        rows = [first]
        progress.update(1)
        for number, each in enumerate(written, start=2):
            with _opened(each, plan, trial, renderer, expected) as found:
                path, size = each.path.relative_to(folder).as_posix(), parity.size_of(each.path)
                row = parity.compare(found, expected, each.stage, each.kind, path=path, size=size)
                rows.append(replace(row, score=trial.score(found, renderer)))
            progress.update(number)
    return rows


def _reference(plan: Plan, trial: Trial, renderer: Renderer) -> tuple[Reference, ParityRow]:
    """The trained model's answers, and its line; in fp32 where memory has room for that."""
    kind = "fp32" if fits(plan.parameters, "fp32") else "bf16"
    with network_subject(plan.wish.source, plan.prompting, dtype=kind, adapter=plan.wish.adapter) as subject:
        room = subject.loaded.max_length
        asked = parity.fitting([*SHORT, *trial.first], LONG, subject.prompt_ids, room)
        if not asked:
            raise ModelError(f"{plan.wish.source}: no probe fits its {room} tokens", hint="--no-verify")
        expected = parity.reference(subject, asked, kind)
        named = "base" if plan.parts.adapter is None else "adapter"
        row = parity.as_row(expected, f"{named} {kind}", kind)
        return expected, replace(row, score=trial.score(subject, renderer))


def _opened(
    each: Written, plan: Plan, trial: Trial, renderer: Renderer, expected: Reference
) -> AbstractContextManager[Subject]:
    if each.path.is_dir():  # in fp32 like the reference, so that the file's rounding is seen, not that of sums
        dtype = expected.kind if expected.kind == "fp32" else each.kind
        return network_subject(str(each.path), _saved(plan), dtype=dtype)
    probed = max(map(len, expected.texts)) + parity.NEW_TOKENS
    return gguf_subject(each.path, renderer, max(probed, trial.room(renderer)))


def _saved(plan: Plan) -> Prompting:
    """How a saved folder is prompted: by the template in it, so that this is what is tried."""
    plain = plan.prompting.chat_template == "plain"
    return plan.prompting.model_copy(update={"chat_template": "plain" if plain else "model"})


@dataclass(frozen=True)
class Trial:
    """The run's own task: a few of its problems are probes, more of them are graded when asked for."""

    task: Task | None
    problems: tuple[Problem, ...]
    settings: Sampling
    seed: int
    graded: int

    @property
    def first(self) -> list[Conversation]:
        """Prompts of a few problems."""
        return [each.prompt for each in self.problems[:_OWN_PROBES]]

    def room(self, renderer: Renderer) -> int:
        """Tokens that the longest graded answer may take with its question."""
        asked = [len(renderer.prompt_ids(each.prompt)) for each in self.problems[: self.graded]]
        return max(asked) + self.settings.max_new_tokens if asked else 0

    def score(self, subject: Subject, renderer: Renderer) -> Share | None:
        """Correct answers of those asked; None when none was asked for."""
        if not self.graded or self.task is None:
            return None
        found = Evaluator(subject.sampler, renderer, self.task).measure(
            self.problems[: self.graded], self.settings, seed=self.seed
        )
        return Share(sum(each.reason is Reason.CORRECT for each in found.verdicts), len(found.verdicts))


def trial_of(plan: Plan) -> Trial:
    """The task of a run; of anything else nothing is known but what was asked for.

    Raises:
        ConfigError, DataError: the task cannot be used, or it has no problems to grade.
    """
    score = plan.wish.score
    if not score and not is_run(plan.wish.source):
        return Trial(None, (), Sampling(), 0, 0)
    config = evaluation_config(plan.wish.source, options={"evaluate.limit": max(score, _OWN_PROBES)})
    problems = tuple(problems_of(config))
    if score and not problems:
        raise ConfigError(
            f"--score: the task {config.task.name} has no problems of its own",
            hint="evaluate.problems of the run can name a file; or leave --score out",
        )
    return Trial(load_task(config.task), problems, config.sample, config.seed, score)

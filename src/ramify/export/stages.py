"""Reading back what was written, one stage after the other, and holding each against the trained model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from ramify.base.config import Prompting, Sampling
from ramify.base.progress import Progress
from ramify.base.runs import is_run
from ramify.base.types import Conversation, Problem, Reason
from ramify.evaluate.run import Evaluator, problems_of
from ramify.evaluate.settings import evaluation_config
from ramify.export import parity
from ramify.export.parity import ParityRow, Reference, Share, Subject
from ramify.export.plan import Plan
from ramify.export.probes import LONG, SHORT
from ramify.export.subjects import gguf_subject, network_subject
from ramify.prompts.renderer import Renderer
from ramify.tasks.task import Task, load_task

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
    plan: Plan, renderer: Renderer, written: Sequence[Written], folder: Path, progress: Progress
) -> list[ParityRow]:
    """The parity table: the trained model, then every stage in the order it was written.

    Args:
        renderer: prompts as the model was trained on them.
        folder: the export; paths of the rows are relative to it.
    """
    trial = _trial(plan)
    rows: list[ParityRow] = []
    progress.start("parity", len(written) + 1)
    with network_subject(plan.wish.source, plan.prompting, dtype="fp32", adapter=plan.wish.adapter) as subject:
        room = subject.loaded.max_length
        asked = parity.fitting([*SHORT, *trial.first], LONG, subject.prompt_ids, room)
        expected = parity.reference(subject, asked)
        stage = "base" if plan.parts.adapter is None else "adapter"
        row = parity.as_row(expected, f"{stage} fp32", "fp32")
        rows.append(replace(row, score=trial.score(subject, renderer)))
    progress.update(1)
    for number, each in enumerate(written, start=2):
        with _opened(each, plan, renderer, expected) as found:
            path, size = each.path.relative_to(folder).as_posix(), parity.size_of(each.path)
            row = parity.compare(found, expected, each.stage, each.kind, path=path, size=size)
            rows.append(replace(row, score=trial.score(found, renderer)))
        progress.update(number)
    progress.close()
    return rows


def _opened(each: Written, plan: Plan, renderer: Renderer, expected: Reference) -> AbstractContextManager[Subject]:
    if each.path.is_dir():
        return network_subject(str(each.path), _saved(plan), dtype=each.kind)
    return gguf_subject(each.path, renderer, max(map(len, expected.texts)) + parity.NEW_TOKENS)


def _saved(plan: Plan) -> Prompting:
    """How a saved folder is prompted: by the template in it, so that this is what is tried."""
    plain = plan.prompting.chat_template == "plain"
    return plan.prompting.model_copy(update={"chat_template": "plain" if plain else "model"})


@dataclass(frozen=True)
class _Trial:
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

    def score(self, subject: Subject, renderer: Renderer) -> Share | None:
        """Correct answers of those asked; None when none was asked for."""
        if not self.graded or self.task is None:
            return None
        found = Evaluator(subject.sampler, renderer, self.task).measure(
            self.problems[: self.graded], self.settings, seed=self.seed
        )
        return Share(sum(each.reason is Reason.CORRECT for each in found.verdicts), len(found.verdicts))


def _trial(plan: Plan) -> _Trial:
    """The task of a run; of anything else nothing is known but what was asked for."""
    score = plan.wish.score
    if not score and not is_run(plan.wish.source):
        return _Trial(None, (), Sampling(), 0, 0)
    config = evaluation_config(plan.wish.source, options={"evaluate.limit": max(score, _OWN_PROBES)})
    return _Trial(load_task(config.task), tuple(problems_of(config)), config.sample, config.seed, score)

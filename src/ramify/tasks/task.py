"""A task is problems, a prompt and a grader: the same object gives training rows, rewards and evaluation.

Users add their own in a Python file that defines `task`:

    from ramify.base.types import Message, Problem, Reason, Verdict

    class Capitals:
        name = "capitals"
        fewshot = None
        system = None

        def problems(self, split, n): ...
        def grade(self, problem, sample): ...
        def completion(self, problem): ...

    task = Capitals()
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from ramify.base.errors import DataError
from ramify.base.types import Completion, Example, Problem, Reason, Sample, Stop, Verdict
from ramify.data.source import Source
from ramify.data.sources import read_problems

Split = Literal["train", "valid"]


class Task(Protocol):
    """What every task has."""

    @property
    def name(self) -> str:
        """As reports show it."""
        ...

    @property
    def fewshot(self) -> str | None:
        """Few-shot file that fits it (a shipped name or a path), or None."""
        ...

    @property
    def system(self) -> str | None:
        """A system turn that fits it, or None."""
        ...

    def problems(self, split: Split, n: int | None) -> list[Problem]:
        """The task's own problems of a split; `n` None: as many as it has by default."""
        ...

    def grade(self, problem: Problem, sample: Sample) -> Verdict:
        """What a sample is worth. A wrong answer is a verdict, never an exception."""
        ...

    def completion(self, problem: Problem) -> str:
        """The shortest text that answers the problem rightly: the direct target of supervised fine-tuning."""
        ...


@runtime_checkable
class OpenTask(Protocol):
    """A task that needs no gold answer, because it says itself which problems it can grade."""

    def check(self, problems: Sequence[Problem]) -> None:
        """Refuse problems that cannot be graded, among them those whose reference answer the task does not accept.

        Raises:
            TaskError, DataError: there is one; names where it came from.
        """
        ...


def load_problems(path: Source | Path | str, task: Task) -> list[Problem]:
    """The problems of a file, each checked: the task's grader accepts the gold answer.

    Raises:
        DataError: the file cannot be used, or a gold answer is missing or refused by the grader.
        TaskError: the task cannot grade one of them.
    """
    problems = read_problems(path)
    check_golds(problems, task)
    return problems


def check_golds(problems: Sequence[Problem], task: Task) -> None:
    """Grade each problem's own completion.

    Raises:
        DataError: one is not correct; names the first and how many.
        TaskError: a task of open answers cannot grade one of them.
    """
    if isinstance(task, OpenTask):
        task.check(problems)
        return
    refused = [problem for problem in problems if not _accepts_gold(task, problem)]
    if refused:
        first, more = refused[0], f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise DataError(
            f"{first.source}: answer: task {task.name} does not accept the gold answer {first.answer!r}{more}",
            hint="evaluation needs an answer that the grader can compare with",
        )


def answer_examples(problems: Sequence[Problem], task: Task) -> list[Example]:
    """Each problem with the task's direct completion.

    Raises:
        DataError: a gold answer is missing or refused by the grader.
    """
    check_golds(problems, task)
    return [Example(each.prompt, (Completion(task.completion(each)),), each.source) for each in problems]


def _accepts_gold(task: Task, problem: Problem) -> bool:
    if problem.answer is None:
        return False
    sample = Sample(problem.id, 0, (), (), task.completion(problem), Stop.EOS)
    return task.grade(problem, sample).reason is Reason.CORRECT

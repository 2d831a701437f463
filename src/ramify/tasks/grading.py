"""The task `grading`: one rating of a rubric's criterion for one submission, answered by its letter.

A problem offers the full text of every answer in `options`, best rating first, and its gold answer is a letter among
them. It comes from a file (`ramify data labs --as problems` writes one); what is read as an answer is told in
`ramify.tasks.letters`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ramify.base import config
from ramify.base.errors import ConfigError, DataError, TaskError
from ramify.base.types import Problem, Reason, Sample, Stop, Verdict
from ramify.tasks.letters import option_letters, read_letter
from ramify.tasks.task import Split

NAME = "grading"


@dataclass(frozen=True, slots=True)
class Grading:
    """Ratings by letter; it has no problems, few-shot turns or system turn of its own: the rows hold them."""

    name: str = NAME
    fewshot: str | None = None
    system: str | None = None

    @classmethod
    def from_settings(cls, settings: config.Task) -> Grading:
        """The task as configured.

        Raises:
            ConfigError: a tolerance is asked for, which letters have not.
        """
        if settings.tolerance is not None:
            raise ConfigError(
                f"task.tolerance = {settings.tolerance}: task grading compares letters, which have no tolerance",
                hint="leave task.tolerance out",
            )
        return cls()

    def problems(self, split: Split, n: int | None = None) -> list[Problem]:
        """Refused: the task has no generator.

        Raises:
            TaskError: always.
        """
        raise TaskError(
            f"task grading has no problems of its own (asked for its {split} split)",
            hint="give a file, evaluate.problems=FILE; `ramify data labs LABS --as problems --out DIR` writes one",
        )

    def grade(self, problem: Problem, sample: Sample) -> Verdict:
        """Right when the letter is the gold one; the answer of the verdict is the letter.

        Raises:
            DataError: the problem offers no options, or its gold is not among them.
        """
        letters = option_letters(problem)
        gold, found = letters[gold_rating(problem)], read_letter(sample.text, letters)
        if found.value is None:
            reason = Reason.TRUNCATED if sample.stop is Stop.LENGTH else Reason.NO_ANSWER
        else:
            reason = Reason.CORRECT if found.value == gold else Reason.WRONG
        right = float(reason is Reason.CORRECT)
        return Verdict(problem.id, sample.index, right, reason, found.value, found.notes)

    def completion(self, problem: Problem) -> str:
        """The text of the gold option."""
        return problem.options[gold_rating(problem)]


def gold_rating(problem: Problem) -> int:
    """Which of the problem's options is the gold one, from 0 (the best).

    Raises:
        DataError: the problem offers no options, or its answer is not the letter of one; names its source.
    """
    letters = option_letters(problem)
    if problem.answer not in letters:
        where = problem.source or f"problem {problem.id}"
        raise DataError(f"{where}: answer: one of {', '.join(letters)} is needed, found {problem.answer!r}")
    return letters.index(str(problem.answer))

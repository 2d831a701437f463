"""The task `unit_conversion`: how much a quantity is in another unit, answered in `<answer>…</answer>`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ramify.base import config
from ramify.base.errors import DataError
from ramify.base.types import Problem, Sample, Verdict
from ramify.tasks.conversions import questions
from ramify.tasks.numbers import CLOSE, OPEN, correct, judge, parse_answer, write_number
from ramify.tasks.task import Split

TOLERANCE = 0.05
VALID_ROWS = 500


@dataclass(frozen=True, slots=True)
class UnitConversion:
    """Generated questions (see `ramify.tasks.conversions`), and files of `[question, answer]` pairs.

    Attributes:
        tolerance: relative, strictly less than (see `ramify.tasks.numbers.correct`).
        rows: problems of the generated training split when no number is asked for.
        seed: of the generator.
    """

    tolerance: float = TOLERANCE
    rows: int = 1000
    seed: int = 0
    name: str = "unit_conversion"
    fewshot: str | None = "unit_conversion"
    system: str | None = f"Be concise. Put the final number in {OPEN}{CLOSE}."

    @classmethod
    def from_settings(cls, settings: config.Task) -> UnitConversion:
        """The task as configured."""
        tolerance = TOLERANCE if settings.tolerance is None else settings.tolerance
        return cls(tolerance=tolerance, rows=settings.rows, seed=settings.seed)

    def problems(self, split: Split, n: int | None = None) -> list[Problem]:
        """Generated problems of a split; the two splits share no (quantity, from, to)."""
        default = self.rows if split == "train" else VALID_ROWS
        return questions(default if n is None else n, self.seed, split)

    def grade(self, problem: Problem, sample: Sample) -> Verdict:
        """Right when the number in the first answer tag is within the tolerance of the gold."""
        is_right = partial(correct, gold=gold_number(problem), tolerance=self.tolerance)
        return judge(problem, sample, parse_answer(sample.text), is_right)

    def completion(self, problem: Problem) -> str:
        """`<answer>x</answer>`, x rounded to 3 decimals."""
        return f"{OPEN}{write_number(gold_number(problem))}{CLOSE}"


def gold_number(problem: Problem) -> float:
    """The gold answer as a number.

    Raises:
        DataError: there is none, or it is a text; names where the problem came from.
    """
    if isinstance(problem.answer, int | float):
        return float(problem.answer)
    where = problem.source or f"problem {problem.id}"
    raise DataError(f"{where}: answer: a number is needed, found {problem.answer!r}")

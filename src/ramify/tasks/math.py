"""The task `math`: word problems whose answer is one number, in the form of GSM8K.

The form is that of Cobbe et al. 2021 (arXiv 2110.14168): reasoning, then a line `#### n`. An answer is the number
after the first `####`, else the one in an `<answer>` tag. Reading the last number of any text is a fall-back to ask
for (`Math(last_number=True)`) and is noted as `last_number`, because it turns every text with digits into an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial

from ramify.base import config
from ramify.base.errors import TaskError
from ramify.base.types import Problem, Sample, Verdict
from ramify.data.questions import GOLD_MARK
from ramify.tasks.numbers import Parsed, correct, judge, parse_answer, parse_number, write_number
from ramify.tasks.task import Split
from ramify.tasks.unit_conversion import gold_number

_LAST = re.compile(r"(?<![\w.,])[+-]?[$€£]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
_EXACT = 1e-6


@dataclass(frozen=True, slots=True)
class Math:
    """Problems from files; it has none of its own.

    Attributes:
        tolerance: relative, strictly less than; None: exact up to a relative 1e-6.
        last_number: take the last number of a text that has neither mark nor tag.
    """

    tolerance: float | None = None
    last_number: bool = False
    name: str = "math"
    fewshot: str | None = "math"
    system: str | None = f"Solve the problem step by step. End with a line {GOLD_MARK} and the final number."

    @classmethod
    def from_settings(cls, settings: config.Task) -> Math:
        """The task as configured."""
        return cls(tolerance=settings.tolerance)

    def problems(self, split: Split, n: int | None = None) -> list[Problem]:
        """Refused: the task has no generator.

        Raises:
            TaskError: always.
        """
        raise TaskError(
            f"task math has no problems of its own (asked for its {split} split)",
            hint="give a file, for example data.train=train.jsonl or evaluate.problems=test.jsonl",
        )

    def grade(self, problem: Problem, sample: Sample) -> Verdict:
        """Right when the final number is the gold."""
        gold = gold_number(problem)
        is_right = (
            partial(_is_same, gold=gold)
            if self.tolerance is None
            else partial(correct, gold=gold, tolerance=self.tolerance)
        )
        return judge(problem, sample, parse_final(sample.text, last_number=self.last_number), is_right)

    def completion(self, problem: Problem) -> str:
        """The problem's own solution when it ends in its answer, else `#### n` alone."""
        if problem.solution is not None and GOLD_MARK in problem.solution:
            return problem.solution
        return f"{GOLD_MARK} {write_number(gold_number(problem))}"


def parse_final(text: str, *, last_number: bool = False) -> Parsed:
    """The final number of a solution: after the first `####`, else in an answer tag, else (if asked) the last one."""
    _, marked, rest = text.partition(GOLD_MARK)
    if marked:
        line = rest.strip().split("\n", 1)[0]
        return parse_number(line.strip().rstrip("!.").strip("*"))
    parsed = parse_answer(text)
    if parsed.value is not None or not last_number:
        return parsed
    numbers = _LAST.findall(text)
    if not numbers:
        return parsed
    found = parse_number(numbers[-1])
    return replace(found, notes=(*found.notes, "last_number"))


def _is_same(answer: float, gold: float) -> bool:
    return abs(answer - gold) <= _EXACT * max(1.0, abs(gold))

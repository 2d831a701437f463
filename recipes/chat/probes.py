"""The task of the probe questions: an answer is right when it names every number of the gold.

    ramify eval RUN --task recipes/chat/probes.py --problems recipes/chat/probes.jsonl -k 5 --temperature 0.7

With five samples of each question pass@5 is the share of questions that were right at least once in five. Chats do not
mark their answers, so all numbers of a text are looked at, and a text that names many numbers has more chances: read
the samples before you believe a single figure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ramify.base.types import Problem, Reason, Sample, Stop, Verdict

_NUMBER = re.compile(r"(?<![\w.,])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")


def numbers(text: str) -> list[float]:
    """Numbers of a text in order, thousands separators taken out."""
    return [float(found.group().replace(",", "")) for found in _NUMBER.finditer(text)]


@dataclass(frozen=True)
class Probes:
    """Questions whose answer is one number, or several."""

    name: str = "probes"
    fewshot: str | None = None
    system: str | None = None

    def problems(self, split: str, n: int | None = None) -> list[Problem]:
        """It has none of its own: they come from a file."""
        return []

    def grade(self, problem: Problem, sample: Sample) -> Verdict:
        """Right when all numbers of the gold are named; wrong when other ones are; else there is no answer."""
        found = numbers(sample.text)
        wanted = numbers(str(problem.answer))
        reason = Reason.WRONG if found else Reason.NO_ANSWER
        if all(any(abs(each - gold) < 1e-6 * max(1, abs(gold)) for each in found) for gold in wanted):
            reason = Reason.CORRECT
        elif sample.stop is Stop.LENGTH and not found:
            reason = Reason.TRUNCATED
        named = ", ".join(f"{each:g}" for each in found) or None
        return Verdict(problem.id, sample.index, float(reason is Reason.CORRECT), reason, named)

    def completion(self, problem: Problem) -> str:
        """The gold as it stands."""
        return str(problem.answer)


task = Probes()

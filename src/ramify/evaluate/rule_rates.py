"""How often each rule of open answers holds: which one it is that answers fail by.

An empty answer fulfils no rule, and one that was cut off only those that hold however it goes on. A rule that fails to
run on an answer says nothing about it and is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ramify.base.types import Problem, Sample, Stop
from ramify.evaluate.scores import Rate, rate_of
from ramify.tasks.chat.finding import Answer
from ramify.tasks.chat.rules import Rule
from ramify.tasks.chat.task import Chat


@dataclass(frozen=True, slots=True)
class RuleRate:
    """How often a rule holds.

    Attributes:
        rate: share of answers that fulfil it, over the problems that ask for it.
        problems: how many of them ask for it.
    """

    rate: Rate
    problems: int


def rule_rates(problems: Iterable[Problem], samples: Sequence[Sample], task: Chat) -> Mapping[str, RuleRate]:
    """Each rule by its name, the one that fails most often first.

    Raises:
        TaskError: a problem's rules are wrong.
    """
    answers: defaultdict[str, list[Answer]] = defaultdict(list)
    for sample in samples:
        answers[sample.problem_id].append(Answer(sample.text, ended=sample.stop is not Stop.LENGTH))
    held: defaultdict[str, list[list[bool]]] = defaultdict(list)
    for problem in problems:
        by_name: defaultdict[str, list[bool]] = defaultdict(list)
        for rule in task.rules_of(problem):
            by_name[rule.name] += [each for answer in answers[problem.id] for each in _holds(rule, answer)]
        for name, found in by_name.items():
            held[name] += [found] if found else []
    rates = {name: RuleRate(rate_of(groups), len(groups)) for name, groups in held.items()}
    return dict(sorted(rates.items(), key=lambda each: each[1].rate.value))


def _holds(rule: Rule, answer: Answer) -> list[bool]:
    """Whether the rule holds for good; nothing where it cannot be run."""
    if not answer.text.strip():
        return [False]
    try:
        found = rule.ask(answer)
    except Exception:  # whatever a rule fails by, its verdict is an error and its rate knows nothing
        return []
    return [found.holds and found.final]

"""The task `chat`: open answers, graded by rules that a person can read.

What an answer must fulfil is written in the row (`rules`), in a file for each category (`task.rules`), or in both: then
all of it. A verdict is

    correct      all rules hold
    wrong        a rule does not hold; the notes name the rules that fail, with what was seen
    no_answer    the answer is empty
    truncated    the answer was cut off at the length limit, and whether the rules hold depends on how it would have
                 gone on; one that breaks a rule for good is wrong, and one whose rules all hold for good is correct
    error        a rule itself failed to run (a pattern that takes too long)

and its reward is the share of the rules that hold (of a cut-off answer: that hold however it goes on).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ramify.base import config
from ramify.base.errors import ConfigError, DataError, RamifyError, TaskError
from ramify.base.types import Problem, Reason, Sample, Stop, Verdict
from ramify.tasks.chat.finding import Answer, Finding
from ramify.tasks.chat.rulebook import Rulebook, read_rulebook
from ramify.tasks.chat.rules import Rule, parse_rules, told
from ramify.tasks.numbers import write_number
from ramify.tasks.task import Split

NAME = "chat"


@dataclass(frozen=True, slots=True)
class Chat:
    """Open answers; the problems come from files, and nothing is put before them.

    Attributes:
        rulebook: rules by category, besides those in the rows.
    """

    rulebook: Rulebook = field(default_factory=Rulebook)
    name: str = NAME
    fewshot: str | None = None
    system: str | None = None

    @classmethod
    def from_settings(cls, settings: config.Task) -> Chat:
        """The task as configured.

        Raises:
            ConfigError: a tolerance is asked for, which each rule has for itself, or the file of rules is missing.
            TaskError: a rule of the file is wrong.
        """
        if settings.tolerance is not None:
            raise ConfigError(
                f"task.tolerance = {settings.tolerance}: task chat has none",
                hint="a rule has its own: numeric: {value: 42, tolerance: 0.05}",
            )
        return cls(Rulebook() if settings.rules is None else read_rulebook(settings.rules))

    def problems(self, split: Split, n: int | None = None) -> list[Problem]:
        """Refused: the task has no generator.

        Raises:
            TaskError: always.
        """
        raise TaskError(
            f"task chat has no problems of its own (asked for its {split} split)",
            hint='give a file, evaluate.problems=FILE, of rows {"prompt": …, "category": …, "rules": [...]}',
        )

    def rules_of(self, problem: Problem) -> tuple[Rule, ...]:
        """What an answer to the problem must fulfil: for every problem, for its category, its own; each once.

        Raises:
            TaskError: a rule of the row is wrong, or there are none at all; names where the problem came from.
        """
        own = parse_rules(problem.rules, f"{_where(problem)}: rules") if problem.rules else ()
        found = {rule.key: rule for rule in (*self.rulebook.rules_for(problem.category), *own)}
        if not found:
            named = f"category {problem.category!r} has none" if problem.category else "it has no category"
            raise TaskError(
                f"{_where(problem)}: no rules to grade an answer by: the row has none, and {named}",
                hint="write `rules` into the row, or give a file of rules by category: task.rules=FILE",
            )
        return tuple(found.values())

    def findings(self, problem: Problem, sample: Sample) -> list[tuple[Rule, Finding]]:
        """What each rule finds in a sample.

        Raises:
            TaskError: see `rules_of`.
        """
        answer = Answer(sample.text, ended=sample.stop is not Stop.LENGTH)
        return [(rule, rule.ask(answer)) for rule in self.rules_of(problem)]

    def grade(self, problem: Problem, sample: Sample) -> Verdict:
        """The verdict of the rules (see the module's top).

        Raises:
            TaskError: see `rules_of`.
            ModelError: a rule needs a model that cannot be had.
        """
        if not sample.text.strip():
            reason = Reason.TRUNCATED if sample.stop is Stop.LENGTH else Reason.NO_ANSWER
            return Verdict(problem.id, sample.index, 0.0, reason)
        try:
            found = self.findings(problem, sample)
        except RamifyError:
            raise
        except Exception as error:
            note = f"{type(error).__name__}: {error}"[:200]
            return Verdict(problem.id, sample.index, 0.0, Reason.ERROR, None, (note,))
        held = [each.holds and each.final for _, each in found]
        failed = [told([(rule, each)]) for rule, each in found if not each.holds]
        if any(each.final and not each.holds for _, each in found):
            reason = Reason.WRONG
        else:
            reason = Reason.CORRECT if all(held) else Reason.TRUNCATED
        return Verdict(problem.id, sample.index, sum(held) / len(held), reason, None, tuple(failed))

    def completion(self, problem: Problem) -> str:
        """The reference answer.

        Raises:
            DataError: the problem has none.
        """
        if problem.answer is None and problem.solution is None:
            raise DataError(f"{_where(problem)}: no reference answer to imitate", hint="write `answer` into the row")
        answer = problem.solution if problem.answer is None else problem.answer
        return answer if isinstance(answer, str) else write_number(float(answer or 0))

    def check(self, problems: Sequence[Problem]) -> None:
        """Refuse problems that cannot be graded, before anything is loaded.

        Raises:
            TaskError: a rule is wrong, a problem has none, or the file of rules misspells a category.
            DataError: a reference answer breaks a rule; names the rule and what was seen.
        """
        self.rulebook.check_names(problems)
        broken = [(problem, why) for problem in problems if (why := self._breaks(problem))]
        if broken:
            (first, why), more = broken[0], f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
            raise DataError(
                f"{_where(first)}: answer: the reference answer breaks its own rules: {why}{more}",
                hint="mend the rule or the answer",
            )

    def _breaks(self, problem: Problem) -> str | None:
        """The rules that a problem's own reference answer does not fulfil, or None; rules are read in any case."""
        self.rules_of(problem)
        if problem.answer is None and problem.solution is None:
            return None
        verdict = self.grade(problem, Sample(problem.id, 0, (), (), self.completion(problem), Stop.EOS))
        return None if verdict.reason is Reason.CORRECT else "; ".join(verdict.notes) or "it is empty"


def _where(problem: Problem) -> str:
    return problem.source or f"problem {problem.id}"

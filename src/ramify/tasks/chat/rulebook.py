"""A file of rules: YAML, a list of rules for each category of problems, and under `every` those for all of them.

every:
  - stops
refusals:
  - refusal
  - polite
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ramify.base.config_file import read_yaml
from ramify.base.errors import TaskError, nearest
from ramify.base.types import Problem
from ramify.tasks.chat.rules import Rule, parse_rules

EVERY = "every"


@dataclass(frozen=True, slots=True)
class Rulebook:
    """The rules of a file.

    Attributes:
        path: the file; None: there is none, and no rules.
        by_category: rules of each category, `every` among them.
    """

    path: Path | None = None
    by_category: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    def rules_for(self, category: str) -> tuple[Rule, ...]:
        """Those for every problem, then those of the category."""
        own = () if category == EVERY else self.by_category.get(category, ())
        return self.by_category.get(EVERY, ()) + own

    def check_names(self, problems: Iterable[Problem]) -> None:
        """Refuse a category of the file that no problem has and that looks like a slip of one that has no rules.

        Raises:
            TaskError: there is one; a file may well have rules for further problems than those asked.
        """
        asked, without = set[str](), set[str]()
        for problem in problems:
            asked.add(problem.category)
            if not problem.rules and problem.category not in self.by_category:
                without.add(problem.category)
        for name in self.by_category:
            meant = nearest(name, sorted(without)) if name not in (*asked, EVERY) else None
            if meant is not None:
                raise TaskError(f"{self.path}: category {name!r}: no problem has it; did you mean {meant!r}?")


def read_rulebook(path: Path) -> Rulebook:
    """The rules of a file.

    Raises:
        ConfigError: the file is missing, or no YAML mapping.
        TaskError: it has no rules, one that is wrong, or a category whose name is no text for YAML; names file,
            category and rule.
    """
    written = read_yaml(path)
    if not written:
        raise TaskError(f"{path}: holds no rules", hint="a list of rules stands under each category, or under `every`")
    for name in written:
        if isinstance(name, bool) or not isinstance(name, str | int):
            hint = "quotes go around dates, and around words as no, yes, on and off"
            raise TaskError(f"{path}: the name of a category is needed, found {name!r}", hint=hint)
    return Rulebook(path, {str(name): parse_rules(held, f"{path}: {name}") for name, held in written.items()})

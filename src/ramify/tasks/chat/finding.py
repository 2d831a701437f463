"""What a rule is asked about, what it finds, and how its own mistakes are told.

An answer that was cut off may go on in any way. A finding is therefore `final` or open: final, when no continuation of
the answer could change it. Rules state that for the cut case; whatever is found of an answer that has ended is final.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ramify.base.errors import TaskError, unknown

_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote.

    Attributes:
        ended: whether it ended by itself (or at a stop string), not at the length limit.
    """

    text: str
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found in an answer.

    Attributes:
        holds: whether the answer, as far as it goes, fulfils the rule.
        final: whether that stays so however a cut-off answer goes on.
        seen: what was seen, for people.
    """

    holds: bool
    final: bool
    seen: str


Check = Callable[[Answer], Finding]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a rule is written, for its error messages: `rules.yaml: polite[0]: contains`."""

    where: str

    def inside(self, name: str) -> Spot:
        """A part of it."""
        return Spot(f"{self.where}: {name}")

    def error(self, needed: str, found: object, hint: str | None = None) -> TaskError:
        """`WHERE: NEEDED is needed, found FOUND`."""
        return TaskError(f"{self.where}: {needed} is needed, found {short(repr(found))}", hint=hint)

    def flag(self, value: Any) -> bool:
        """A true or false.

        Raises:
            TaskError: it is something else.
        """
        if not isinstance(value, bool):
            raise self.error("true or false", value)
        return value

    def texts(self, value: Any) -> tuple[str, ...]:
        """One text, or a list of them, none of them empty.

        Raises:
            TaskError: it is something else.
        """
        found = [value] if isinstance(value, str) else value
        if (
            not isinstance(found, list)
            or not found
            or not all(isinstance(each, str) and each.strip() for each in found)
        ):
            raise self.error("a text, or a list of texts,", value, "quotes go around numbers, yes/no and dates")
        return tuple(found)

    def options(self, value: Any, main: str, allowed: Collection[str]) -> dict[str, Any]:
        """The options of a rule: a map of them, or the value of `main` alone.

        Raises:
            TaskError: the map has an unknown name, or lacks `main`.
        """
        if not isinstance(value, dict):
            return {main: value}
        for name in value:
            if name not in (main, *allowed):
                raise TaskError(f"{self.where}: {unknown('option', str(name), (main, *allowed))}")
        if main not in value:
            raise self.error(f"{main!r}", value)
        return dict(value)


def negated(check: Check) -> Check:
    """The opposite of a check."""

    def opposite(answer: Answer) -> Finding:
        found = check(answer)
        return Finding(not found.holds, found.final, found.seen)

    return opposite


def short(text: str, longest: int = _LONGEST) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def listed(texts: Sequence[str], longest: int = _LONGEST) -> str:
    """Texts in quotes, for a message."""
    return short(", ".join(repr(each) for each in texts), longest)

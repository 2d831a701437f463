"""What an examination of this machine can say: one line a thing, how it stands, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How something stands."""

    OK = "ok"
    """As it should be."""
    NOTE = "note"
    """It works, and is worth knowing: something is missing that only some commands need, or slower than it could be."""
    PROBLEM = "problem"
    """Something is broken: a command that needs it fails or gives no result."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: the section it is shown under, as in "packages".
        name: what was looked at; seen: what was found there.
        advice: what to do; None where nothing is to be done.
    """

    area: str
    name: str
    state: State
    seen: str
    advice: str | None = None


def ok(area: str, name: str, seen: str) -> Finding:
    """A finding that asks for nothing."""
    return Finding(area, name, State.OK, seen)


def note(area: str, name: str, seen: str, advice: str | None = None) -> Finding:
    """A finding that is worth knowing."""
    return Finding(area, name, State.NOTE, seen, advice)


def problem(area: str, name: str, seen: str, advice: str) -> Finding:
    """A finding that has to be mended."""
    return Finding(area, name, State.PROBLEM, seen, advice)


def count(findings: Sequence[Finding], state: State) -> int:
    """How many findings stand like that."""
    return sum(finding.state is state for finding in findings)

"""Every error that Ramify raises on purpose.

    RamifyError
    ├── ConfigError       a setting is unknown, of the wrong type, or contradicts another
    ├── DataError         a row or a file cannot be used; carries file and line
    │   └── LengthError   sequences longer than the model or the limit allows
    ├── ModelError        a model, adapter or tokenizer cannot be found, read or used
    ├── TaskError         a task file or a grader is broken (never: an answer is wrong)
    ├── TrainingError     a run cannot go on (loss not finite, resume refused, …)
    └── RunError          a run folder is missing, incomplete or cannot be written

A message says what is wrong, the value seen and what is allowed, in one line; `hint` says what to do next.
The command line is the only place that prints them.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class RamifyError(Exception):
    """Base of all errors raised on purpose: one line, and an optional hint."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} (hint: {self.hint})"


class ConfigError(RamifyError):
    """A setting is unknown, has the wrong type or range, or contradicts another one."""


class DataError(RamifyError):
    """A row or a file of data cannot be used.

    `path` and `line` (1-based) are put in front of the message as `file:line: `.
    """

    def __init__(
        self, message: str, *, path: Path | str | None = None, line: int | None = None, hint: str | None = None
    ) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(where + message, hint=hint)
        self.path = None if path is None else Path(path)
        self.line = line


class LengthError(DataError):
    """Sequences are longer than the model or the limit allows; raised before the first step, with counts."""


class ModelError(RamifyError):
    """A model, adapter or tokenizer cannot be found, read or used."""


class TaskError(RamifyError):
    """A task file or a grader is broken. A wrong answer is a `Verdict`, never an error."""


class TrainingError(RamifyError):
    """A training run cannot go on; whatever checkpoint was written before stays intact."""


class RunError(RamifyError):
    """A run folder is missing, incomplete or cannot be written."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the run to end. It ends as after Ctrl-C, with an exit code of its own."""


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name closest to `name`, or None when none is close."""
    found = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return found[0] if found else None


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """`unknown KIND 'NAME'; did you mean 'X'? allowed: …`, the one wording for every refused name."""
    options = sorted(allowed)
    guess = nearest(name, options)
    asked = f"; did you mean {guess!r}?" if guess else ""
    return f"unknown {kind} {name!r}{asked} (allowed: {', '.join(options)})"

"""What a long stage tells whoever is watching: a protocol, and the plain form that writes to the log.

The command line renders it with rich, a notebook with its own bars; nothing here draws anything.
"""

from __future__ import annotations

import logging
from typing import Protocol

_log = logging.getLogger("ramify")


class Progress(Protocol):
    """A watcher of one run. Stages follow each other: `start`, any number of `update`, `close`.

    An exception raised inside `update` (a user's Ctrl-C among them) ends the run as if it were raised by the
    run itself, after a complete step.
    """

    def start(self, stage: str, total: int | None, done: int = 0) -> None:
        """A stage of `total` units begins (None: nobody knows how many), `done` of them finished before (resumed)."""

    def update(self, done: int, **values: float) -> None:
        """`done` units are finished; `values` are what is worth showing now (loss, tokens_per_second, …)."""

    def note(self, message: str) -> None:
        """One line the user should read: a leak, a schedule that is too short, rows left out."""

    def close(self) -> None:
        """The stage has ended, finished or not."""


class NoProgress:
    """Tells nobody: of the processes beside the main one, and where nobody asked."""

    def start(self, stage: str, total: int | None, done: int = 0) -> None:
        """Say nothing."""

    def update(self, done: int, **values: float) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Nothing to close."""


SILENT = NoProgress()


class LogProgress:
    """The plain form: notes go to the logger `ramify` as warnings, everything else is silent."""

    def start(self, stage: str, total: int | None, done: int = 0) -> None:
        """Say at level INFO that a stage begins."""
        _log.info("%s: %d of %s", stage, done, "unknown" if total is None else total)

    def update(self, done: int, **values: float) -> None:
        """Say at level DEBUG how far the stage is."""
        _log.debug("%d %s", done, values)

    def note(self, message: str) -> None:
        """Warn."""
        _log.warning("%s", message)

    def close(self) -> None:
        """Nothing to close."""

"""What a person at a terminal sees: progress bars, tables, plain lines. Silent where nobody watches.

Everything goes to standard error, so that standard output holds results only.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ramify.base.types import Sample

if TYPE_CHECKING:
    from ramify.sample.endpoint.usage import Usage

_SHOWN = {"loss": "loss {:.3f}", "valid_loss": "valid {:.3f}", "tokens_per_second": "{:,.0f} tok/s", "lr": "lr {:.1e}"}

_KEPT = "\n\t"
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Kinds of characters that change the direction of what stands behind them: text would read otherwise than it is."""


def console() -> Console:
    """The console of standard error."""
    return Console(file=sys.stderr, highlight=False)


def output() -> Console:
    """The console of standard output; tables keep their width when it is a file or a pipe."""
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=160)


def neutral(text: str) -> str:
    """The text with everything written out that a terminal would obey: a model may say ESC, and so clear a screen,
    rename a window or turn letters round. Line ends and tabs stay."""
    return "".join(_written(letter) for letter in text)


def _written(letter: str) -> str:
    is_obeyed = unicodedata.category(letter) in ("Cc", "Cs") or unicodedata.bidirectional(letter) in _TURNING
    return letter.encode("unicode_escape").decode() if is_obeyed and letter not in _KEPT else letter


class Bars:
    """Live progress bars of a run's stages, as `ramify.base.progress.Progress` asks; notes are printed above.

    Without a terminal only the notes are printed.
    """

    def __init__(self, to: Console | None = None) -> None:
        self._console = console() if to is None else to
        self._bars: Progress | None = None
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None, done: int = 0) -> None:
        """A stage of `total` units begins (None: nobody knows how many), `done` of them finished before."""
        self.close()
        if not (self._console.is_terminal or self._console.is_jupyter):
            return
        self._bars = _progress(self._console)
        self._bars.start()
        self._task = self._bars.add_task(stage, total=total, completed=done, shown="")

    def update(self, done: int, **values: float) -> None:
        """`done` units are finished; loss, tokens a second and the like are shown beside the bar."""
        if self._bars is not None and self._task is not None:
            shown = "  ".join(_SHOWN[name].format(value) for name, value in values.items() if name in _SHOWN)
            self._bars.update(self._task, completed=done, shown=shown)

    def note(self, message: str) -> None:
        """A line that stays."""
        self._console.print(f"note: {message}", style="yellow", markup=False, soft_wrap=True)

    def close(self) -> None:
        """The stage has ended."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class SampleBar:
    """A bar over samples: call it with each finished `Sample`. Use as a context manager."""

    def __init__(self, stage: str, total: int, bars: Bars | None = None, done: int = 0) -> None:
        self._bars = Bars() if bars is None else bars
        self._stage, self._total, self._done = stage, total, done
        self._tokens = 0
        self._started = 0.0

    def __enter__(self) -> SampleBar:
        self._started = perf_counter()
        self._bars.start(self._stage, self._total, self._done)
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.close()

    def __call__(self, sample: Sample) -> None:
        """Count one finished sample."""
        self._done += 1
        self._tokens += len(sample.token_ids)
        seconds = max(perf_counter() - self._started, 1e-9)
        speed = {"tokens_per_second": self._tokens / seconds} if self._tokens else {}  # endpoints give text alone
        self._bars.update(self._done, **speed)


def show_usage(usage: Usage) -> None:
    """One line on standard error about what an endpoint was asked; none when nothing was."""
    if usage.requests:
        console().print(f"spent: {usage.words}", style="dim", markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A plain table; the first column is text, the others are figures. Brackets are text, never markup, and what a
    terminal would obey is written out."""
    made = Table(
        title=_cell(title), title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False
    )
    for index, name in enumerate(columns):
        made.add_column(_cell(name), justify="left" if index == 0 else "right", no_wrap=index > 0)
    for row in rows:
        made.add_row(*map(_cell, row))
    return made


def _cell(value: Any) -> str:
    return escape(neutral(str(value)))


def _progress(to: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[shown]}", style="dim"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=to,
        transient=True,
        expand=False,
    )

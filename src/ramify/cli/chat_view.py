"""What a conversation looks like, at a terminal and in a pipe: answers on standard output, the rest on standard
error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ramify.base.errors import DataError, RamifyError
from ramify.console import console, neutral

PROMPT, MORE = "> ", ". "
_NARROW = 60
"""Columns of a terminal below which two answers stand one below the other."""


class View:
    """A terminal, or the two ends of a pipe.

    Attributes:
        interactive: whether a person types the lines.
    """

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty()
        self._notes = console()
        self._answers = Console(highlight=False)
        self._begun = self._open = False
        if self.interactive:
            _edit_lines()

    def read(self, *, more: bool = False) -> str:
        """The next line, without its end.

        Raises:
            EOFError: there is none.
            DataError: it is not UTF-8.
        """
        prompt = MORE if more else PROMPT
        try:
            if self.interactive and sys.stdout.isatty():
                return input(prompt)
            if self.interactive:
                print(prompt, end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
        except UnicodeDecodeError as error:
            raise DataError(f"standard input: not valid UTF-8 at byte {error.start}") from None
        if not line:
            raise EOFError
        return line.removeprefix("\ufeff").rstrip("\r\n")

    def piece(self, text: str) -> None:
        """A part of an answer; white space before its first word is left out."""
        shown = neutral(text) if self._begun else neutral(text.lstrip())
        if shown:
            self._begun = True
            sys.stdout.write(shown)
            sys.stdout.flush()

    def end(self) -> None:
        """The answer has ended, or was stopped; the next one begins on a line of its own."""
        sys.stdout.write("\n")
        sys.stdout.flush()
        self._begun = False

    @contextmanager
    def beside(self, names: Sequence[str]) -> Iterator[Beside]:
        """Two answers beside each other, as they grow; where there is no room for it, one after the other."""
        wide = self._answers.is_terminal and not self._answers.is_dumb_terminal and self._answers.width >= _NARROW
        grown = Beside(names)
        if wide:
            with Live(console=self._answers, transient=True, get_renderable=grown.table, refresh_per_second=8):
                yield grown
            self._answers.print(grown.table())
            return
        yield grown
        for name, text in zip(names, grown.texts, strict=True):
            self.note(f"── {name}")
            self.piece(text)
            self.end()

    def say(self, text: str) -> None:
        """Text that a person reads, as it is."""
        self._notes.print(Text(neutral(text)), soft_wrap=True)

    def note(self, text: str) -> None:
        """A line beside the conversation."""
        self._notes.print(Text(neutral(text), style="dim"), soft_wrap=True)

    def error(self, error: RamifyError) -> None:
        """Why something was not done, and what to do."""
        self._notes.print(Text(f"error: {neutral(error.message)}", style="red"), soft_wrap=True)
        if error.hint:
            self.note(f"hint: {error.hint}")

    def pairs(self, rows: Mapping[str, str]) -> None:
        """Names and what they stand for."""
        width = max(map(len, rows))
        for name, text in rows.items():
            self.say(f"{name:<{width}}  {text}")

    def break_line(self) -> None:
        """Ctrl-C leaves the cursor behind what was typed."""
        print(file=sys.stderr)

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Say what takes a while, and take it back."""
        if not self.interactive or not self._notes.is_terminal or self._notes.is_dumb_terminal:
            yield
            return
        with self._notes.status(Text(neutral(what))):
            yield


class Beside:
    """Texts that grow beside each other."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self.texts = [""] * len(names)

    def add(self, which: int, text: str) -> None:
        """What is new in one of them."""
        self.texts[which] += text

    def table(self) -> Table:
        """A column for each."""
        made = Table(box=None, pad_edge=False, expand=True, header_style="dim", padding=(0, 3, 0, 0))
        for name in self._names:
            made.add_column(Text(neutral(name)), ratio=1, overflow="fold")
        made.add_row(*(Text(neutral(text.lstrip())) for text in self.texts))
        return made


def _edit_lines() -> None:
    """Arrow keys, history and completion of commands where the system has readline."""
    with suppress(ImportError):
        import readline

        from ramify.serve.session import COMMANDS

        names = [usage.split()[0] for usage in COMMANDS]

        def completed(begun: str, number: int) -> str | None:
            found = [name for name in names if begun.startswith("/") and name.startswith(begun)]
            return found[number] if number < len(found) else None

        readline.set_completer_delims(" \t\n")
        readline.set_completer(completed)
        is_editline = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if is_editline else "tab: complete")

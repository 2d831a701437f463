"""Models that say what a test wants, conversations with them in a terminal of their own, and what is seen there.

python -m chat_setup MODE      talks at this terminal; MODE is one of `SCRIPTS`
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from fcntl import ioctl
from pathlib import Path
from threading import Event
from typing import Any

from ramify.base.config import Sampling
from ramify.base.types import Conversation, Stop
from ramify.sample.service import Piece, Request

PATIENCE = 300
"""Seconds after which a terminal that shows nothing new is broken; no test waits for them when all is well."""
_OWN_TERMINAL = (
    "import os, signal; os.close(os.open(os.ttyname(0), os.O_RDWR)); "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
)
"""A session leader that opens a terminal gets it: Ctrl-C then reaches it as it reaches a shell's child, also where the
tests run in the background and whoever started them has told them to ignore it."""


class Letters:
    """A prompt's ids are the letters of its text."""

    def text(self, prompt: Conversation) -> str:
        return "".join(f"<{turn.role}>{turn.content}" for turn in prompt)

    def prompt_ids(self, prompt: Conversation) -> tuple[int, ...]:
        return tuple(map(ord, self.text(prompt)))


class Script:
    """A service that answers each request with the next of its texts, piece by piece, then with the last of them again.

    A piece that is None is waited behind until the ticket is cancelled, or the file `gate` is there. The file `asked`
    is made with the first request.
    """

    name = "script"

    def __init__(self, *answers: Sequence[str | None], stop: Stop = Stop.EOS, length: int = 500) -> None:
        self.max_length, self.stop = length, stop
        self.requests: list[Request] = []
        self.gate: Path | None = None
        self.asked: Path | None = None
        self.closed = False
        self._answers = answers

    def submit(self, request: Request) -> Recital:
        self.requests.append(request)
        if self.asked is not None:
            self.asked.touch()
        return Recital(self, self._answers[min(len(self.requests), len(self._answers)) - 1])

    def close(self) -> None:
        self.closed = True


class Recital:
    """The ticket of a `Script`."""

    def __init__(self, script: Script, pieces: Sequence[str | None]) -> None:
        self._script, self._pieces, self._cancelled = script, pieces, Event()

    def __iter__(self) -> Iterator[Piece]:
        for text in self._pieces:
            while text is None and not self._cancelled.wait(0.01):
                if self._script.gate is not None and self._script.gate.exists():
                    break
            if self._cancelled.is_set():
                return
            if text is not None:
                yield Piece(0, text)
        yield Piece(0, "", stop=self._script.stop)

    def cancel(self) -> None:
        self._cancelled.set()


SCRIPTS: Mapping[str, Sequence[Sequence[str | None]]] = {
    "gated": [["begun ", None, "ended"]],
    "endless": [["tick ", None], ["second answer"]],
    "silent": [[None], ["second answer"]],
    "rude": [["red \x1b[31m", "clear \x1b[2J", "bell \a", "back \r", "turn \u202e", "c1 \x9b", " letters: 東京 é"]],
}


def talk(mode: str, folder: str) -> None:
    """Talk with a script at this terminal."""
    from ramify.cli.chat_talk import Talk
    from ramify.cli.chat_view import View
    from ramify.serve.session import Session
    from ramify.serve.voice import Voice

    script = Script(*SCRIPTS[mode])
    script.gate, script.asked = Path(folder, "gate"), Path(folder, "asked")
    other = Voice("other", Script(["the other answer"]), Letters())
    Talk(View(), Voice("script", script, Letters()), other, Session(Sampling(max_new_tokens=64))).run()


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, code: str, *arguments: object, columns: int = 100, **environment: str) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        settings = {**os.environ, "TERM": "xterm", "HF_HUB_OFFLINE": "1", **environment}
        paths = os.pathsep.join(str(Path(__file__).parents[1] / each) for each in ("src", "tests"))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL + code, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**settings, "PYTHONPATH": paths},
        )
        os.close(slave)
        self._at = 0
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """What a person types; the line end is the Return key."""
        os.write(self._master, text.encode())

    def expect(self, text: str) -> str:
        """Wait until this is seen; what was seen since the last one, up to its end."""
        while (place := self.seen.find(text, self._at)) < 0:
            if not self._more():
                raise AssertionError(f"{text!r} was never seen behind {self.seen[self._at :]!r}")
        before, self._at = self._at, place + len(text)
        return self.seen[before : self._at]

    def wait_for(self, file: Path) -> None:
        """Wait until there is such a file."""
        deadline = time.monotonic() + PATIENCE
        while not file.exists():
            assert time.monotonic() < deadline and self._process.poll() is None, f"{file} never came"
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for the end of the command: its exit code."""
        while self._more():
            pass
        return self._process.wait(PATIENCE)

    def _more(self) -> bool:
        deadline = time.monotonic() + PATIENCE
        while not select.select([self._master], [], [], 1.0)[0]:
            assert time.monotonic() < deadline, f"nothing happens behind {self.seen[-500:]!r}"
        found = b""
        with contextlib.suppress(OSError):  # the other end is closed
            found = os.read(self._master, 65536)
        self.seen += found.decode(errors="replace")
        return bool(found)


def scripted(mode: str, folder: Path, **settings: Any) -> Terminal:
    """A conversation with one of `SCRIPTS`, whose files are in `folder`."""
    return Terminal("import sys; from chat_setup import talk; talk(*sys.argv[1:])", mode, folder, **settings)


def command(*arguments: object, **settings: Any) -> Terminal:
    """`ramify` with these arguments."""
    return Terminal("from ramify.cli.main import main; main()", *arguments, **settings)

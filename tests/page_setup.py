"""Models that say what a test wants, when it wants it, and a page around them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ramify.base.errors import ModelError
from ramify.base.types import Conversation, Stop
from ramify.sample.service import Piece, Request
from ramify.serve.cabinet import Cabinet
from ramify.serve.page.context import Page
from ramify.serve.page.feedback import Feedback
from ramify.serve.voices import Voice

Found = TypeVar("Found")


class Letters:
    """A prompt's ids are the letters of its text."""

    def text(self, prompt: Conversation) -> str:
        return "".join(f"{turn.role}: {turn.content}\n" for turn in prompt)

    def prompt_ids(self, prompt: Conversation) -> tuple[int, ...]:
        return tuple(map(ord, self.text(prompt)))


class Script:
    """A service that answers with a text, word by word, and its seed; `gate` holds it back behind the first word."""

    def __init__(
        self,
        name: str,
        text: str,
        gate: threading.Event | None = None,
        max_length: int = 2000,
        say: Callable[[str], object] = str,
    ) -> None:
        self.name, self.max_length = name, max_length
        self.text, self.gate, self.say = text, gate, say
        self.requests: list[Request] = []
        self.cancelled = 0
        self.closed = False

    def submit(self, request: Request) -> Recital:
        self.requests.append(request)
        return Recital(self, request)

    def close(self) -> None:
        self.closed = True
        self.say(f"closed {self.name}")


class Recital:
    """The ticket of a `Script`."""

    def __init__(self, script: Script, request: Request) -> None:
        self._script, self._request = script, request
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Piece]:
        words = self._script.text.format(seed=self._request.seed).split(" ")
        room = self._request.settings.max_new_tokens
        for number, word in enumerate(words[:room]):
            if number == 1 and self._script.gate is not None:
                while not self._script.gate.wait(0.01) and not self._stopped.is_set():
                    pass
            if self._stopped.is_set():
                return
            yield Piece(0, word if number == 0 else f" {word}")
        yield Piece(0, "", stop=Stop.LENGTH if len(words) > room else Stop.EOS)

    def cancel(self) -> None:
        if not self._stopped.is_set():
            self._script.cancelled += 1
            self._script.say(f"cancelled {self._script.name}")
        self._stopped.set()


def voices_of(*scripts: Script, system: str | None = None) -> Cabinet:
    """A cabinet with these models and no other."""
    known = {script.name: script for script in scripts}

    def opens(name: str) -> Voice:
        if name not in known:
            raise ModelError(f"{name}: no such model")
        return Voice(name, known[name], Letters(), system)

    return Cabinet(opens, keep=2)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def shown(folder: Path, *users: str, **models: str | dict[str, object]) -> Iterator[str]:
    """The address of a page with these models (text, or text and gate), shown for as long as the block lasts.

    With users (`USER:PASSWORD`) a second one is shown that asks for a password, see `guarded`.
    """
    folder.mkdir(exist_ok=True)
    given = {name: {"text": model} if isinstance(model, str) else model for name, model in models.items()}
    (folder / "models.json").write_text(json.dumps(given), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("page_program.py")), str(folder), *users]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: _addresses(folder)[len(users) :] or process.poll() is not None, "the page")
        assert process.poll() is None, process.communicate()[0][-3000:]
        yield _addresses(folder)[0]
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and not said, said[-3000:]


def guarded(folder: Path) -> str:
    """The address of the page that asks for a password."""
    return _addresses(folder)[1]


def _addresses(folder: Path) -> list[str]:
    return [event.removeprefix("shown ") for event in events_of(folder) if event.startswith("shown ")]


def events_of(folder: Path) -> list[str]:
    """What became of models and answers of a page that is `shown`."""
    path = folder / "events.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def until(happened: Callable[[], Found], what: str, seconds: float = 240) -> Found:
    """The first value that is true; polled, because what is waited for happens in another process."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)
    return found


def page_of(folder: Path, *scripts: Script, **settings: object) -> Page:
    """A page with these models, its runs and its feedback in a folder."""
    names = tuple(script.name for script in scripts)
    return Page(voices_of(*scripts), Feedback(folder / "feedback.jsonl"), names, folder / "runs", **settings)

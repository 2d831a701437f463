"""What one browser tab has said and heard. Tabs share nothing, and all of it ends with the tab."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from ramify.base.errors import ConfigError
from ramify.base.types import Conversation, Message, Stop
from ramify.serve.answers import Answers


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to a prompt.

    Attributes:
        prompt: system turn and all turns up to the question.
        model: its name; `user` where a person wrote or changed the text.
        stop: how it ended; None: somebody stopped it.
        seed: of its draws.
    """

    prompt: Conversation
    text: str
    model: str
    stop: Stop | None = None
    seed: int = 0

    @property
    def question(self) -> str:
        """The last turn of the prompt."""
        return self.prompt[-1].content

    @property
    def whole(self) -> bool:
        """Whether it came to its own end: only then is it an example of where to stop."""
        return self.stop in (Stop.EOS, Stop.STOP_STRING)


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that was called good or bad, and is waiting for another one to be held against."""

    answer: Answer
    good: bool


@dataclass
class Session:
    """One browser tab.

    Attributes:
        answers: the conversation; each holds its own question.
        judged: what was called good or bad.
        asked: the judged answer that another one is asked for, if any; drawn: the other one, where a model wrote it.
        pair: both answers of the comparison that is shown, once both are complete.
        seen: the state of the run folder that is shown, so that nothing is drawn twice.
    """

    answers: list[Answer] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    asked: Judged | None = None
    drawn: Answer | None = None
    pair: tuple[Answer, Answer] | None = None
    seen: object = None
    _lock: Lock = field(default_factory=Lock, repr=False)
    _busy: bool = False
    _stopped: bool = False
    _running: Answers | None = field(default=None, repr=False)
    _asked: Counter[Conversation] = field(default_factory=Counter, repr=False)

    @property
    def history(self) -> Conversation:
        """Questions and answers in turn, without a system turn."""
        turns = ((Message("user", each.question), Message("assistant", each.text)) for each in self.answers)
        return tuple(turn for both in turns for turn in both)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The time in which answers are written: one question at a time; whatever ends it frees what models hold.

        Raises:
            ConfigError: another answer is being written in this tab.
        """
        with self._lock:
            if self._busy:
                raise ConfigError("an answer is being written", hint="stop it, or wait for its end")
            self._busy, self._stopped = True, False
        try:
            yield
        finally:
            with self._lock:
                running, self._running, self._busy = self._running, None, False
            if running is not None:
                running.stop()

    def attempt(self, prompt: Conversation) -> int:
        """How often this was asked before: each time gets a seed of its own."""
        self._asked[prompt] += 1
        return self._asked[prompt] - 1

    def follow(self, answers: Answers) -> Answers:
        """Answers that are being written from here on, so that `stop` reaches them."""
        with self._lock:
            self._running = answers
        if self._stopped:
            answers.stop()
        return answers

    def stop(self) -> None:
        """End what is being written; what is there already stays."""
        with self._lock:
            self._stopped = True
            running = self._running
        if running is not None:
            running.stop()

    def clear(self) -> None:
        """End what is being written, and begin again."""
        self.stop()
        self.answers.clear()
        self._asked.clear()
        self.asked = self.drawn = None


class Sessions:
    """All open tabs, by the key that the page gives each."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: dict[str, Session] = {}

    def of(self, key: str | None) -> Session:
        """The session of a tab, a new one at its first word."""
        with self._lock:
            return self._open.setdefault(key or "", Session())

    def forget(self, key: str | None) -> None:
        """The tab was closed: what it was having written ends."""
        with self._lock:
            session = self._open.pop(key or "", None)
        if session is not None:
            session.stop()

    def __len__(self) -> int:
        return len(self._open)

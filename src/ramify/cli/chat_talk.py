"""The conversation of `ramify chat`: lines in, answers out, until the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ramify.base.errors import ConfigError, RamifyError
from ramify.base.records import append_jsonl
from ramify.base.types import Stop
from ramify.cli.chat_view import View
from ramify.sample.service import Request, Service
from ramify.serve.answers import Answers
from ramify.serve.session import (
    COMMANDS,
    Fitted,
    Outcome,
    Question,
    Session,
    Then,
    act,
    answered,
    complete,
    fit,
    settings_of,
    training_row,
)
from ramify.serve.voice import Voice

Asked = Sequence[tuple[Service, Request]]
Heard = tuple[str, Stop | None]
"""The text of an answer, and how it ended; None: it was stopped."""


class Talk:
    """A conversation between whoever types and a voice.

    Args:
        other: what /compare puts beside it; None: its own base, opened when it is asked for.
    """

    def __init__(self, view: View, voice: Voice, other: Voice | None, session: Session) -> None:
        self._view, self._voice, self._other, self._session = view, voice, other, session
        self._dropped = 0

    def close(self) -> None:
        """Close both voices."""
        for voice in (self._voice, self._other):
            if voice is not None:
                voice.close()

    def run(self) -> None:
        """Read and answer until the end.

        Raises:
            RamifyError: something failed, and nobody is there to read it and go on.
            KeyboardInterrupt: likewise.
        """
        if self._view.interactive:
            self._view.note(f"{self._voice.name}: /help lists commands, Ctrl-D ends")
        while True:
            with self._going_on():
                text = self._typed()
                if text is None or not self._do(text):
                    return

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """What fails inside is told, and the conversation goes on; in a pipe it ends there."""
        try:
            yield
        except RamifyError as error:
            if not self._view.interactive:
                raise
            self._view.error(error)
        except KeyboardInterrupt:  # between two answers, or while something is opened
            if not self._view.interactive:
                raise
            self._view.note("stopped")

    def _typed(self) -> str | None:
        """The next text that is not blank; None: there will be no more."""
        warned, lines = False, list[str]()
        while True:
            try:
                lines.append(self._view.read(more=bool(lines)))
                text = complete(lines) if self._view.interactive else lines[0]
                if text is not None and text.strip():
                    return text
                lines = lines if text is None else []
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self._view.interactive:
                    raise
                self._view.break_line()
                if warned:
                    return None
                self._view.note("Ctrl-C again ends, and so do Ctrl-D and /quit")
                warned, lines = True, []

    def _do(self, text: str) -> bool:
        """Do what was typed; whether it goes on."""
        outcome = act(self._session, text)
        if outcome.question is not None:
            self._answer(outcome, outcome.question)
            return True
        if outcome.session.comparing:
            self._companion()  # refused now when there is none
        self._session = outcome.session
        shown = {Then.SAVE: self._save, Then.SHOW: self._show, Then.HISTORY: self._history, Then.HELP: self._help}
        if outcome.then in shown:
            shown[outcome.then](outcome.text)
        elif outcome.text:
            self._view.note(outcome.text)
        return outcome.then is not Then.QUIT

    def _answer(self, outcome: Outcome, question: Question) -> None:
        """Have the question answered; the session is as it was when nothing comes of it."""
        before, both = outcome.session, outcome.then is Then.COMPARE
        if outcome.text:
            self._view.note(outcome.text)
        voices = [self._companion(), self._voice] if both else [self._voice]
        fitted = [fit(before, question, each.renderer.prompt_ids, each.service.max_length) for each in voices]
        requests = [_request(before, question, each) for each in fitted]
        self._tell_dropped(fitted[-1].dropped)
        asked = [(voice.service, request) for voice, request in zip(voices, requests, strict=True)]
        text, stop = self._listen_to_both([each.name for each in voices], asked) if both else self._listen(asked)
        if text or stop is not None:
            self._session = answered(before, question, text, stop)
        self._tell_end(text, stop, fitted[-1].room)

    def _listen(self, asked: Asked) -> Heard:
        """The answer, shown as it comes."""
        try:
            [heard] = self._hear(asked, lambda _, text: self._view.piece(text))
        finally:
            self._view.end()
        return heard

    def _listen_to_both(self, names: list[str], asked: Asked) -> Heard:
        """The last of the answers; all are shown beside each other."""
        with self._view.beside(names) as grown:
            heard = self._hear(asked, grown.add)
        return heard[-1]

    def _hear(self, asked: Asked, show: Callable[[int, str], None]) -> list[Heard]:
        """Text of each answer and how it ended; after Ctrl-C what had come by then."""
        answers = Answers(asked)
        texts, stops = [""] * len(asked), list[Stop | None]([None] * len(asked))
        try:
            for which, piece in answers:
                texts[which] += piece.text
                stops[which] = piece.stop or stops[which]
                show(which, piece.text)
        except KeyboardInterrupt:
            answers.stop()
            if not self._view.interactive:
                raise
        return list(zip(texts, stops, strict=True))

    def _companion(self) -> Voice:
        """What the voice is compared with."""
        if self._other is None:
            if self._voice.base is None:
                missing = f"{self._voice.name}: nothing says what it was before its training"
                raise ConfigError(missing, hint="ramify chat MODEL --compare OTHER names the other model")
            with self._view.busy("opening its base …"):
                self._other = self._voice.base()
        return self._other

    def _tell_dropped(self, count: int) -> None:
        """What of the conversation a model does not see any more, whenever it gets more or less."""
        if count != self._dropped and count:
            what = "question with its answer does" if count == 1 else f"{count} questions with their answers do"
            self._view.note(f"the oldest {what} not fit any more: left out of the prompt")
        self._dropped = count

    def _tell_end(self, text: str, stop: Stop | None, room: int) -> None:
        """How an answer ended, where that is not as it should be."""
        if stop is None:
            self._view.note("stopped")
        elif stop is Stop.LENGTH:
            wanted = self._session.settings.max_new_tokens
            why = "/set max_new_tokens gives it more" if room == wanted else "that was all the room there is"
            self._view.note(f"cut off at {room} tokens; {why}")
        elif not text.strip():
            self._view.note("it said nothing")

    def _save(self, file: str) -> None:
        """Append the conversation to a file of rows."""
        row = training_row(self._session, self._voice.system)
        append_jsonl(Path(file), row)
        weights = [turn.get("weight", 1) for turn in row["messages"] if turn["role"] == "assistant"]
        context = f", {weights.count(0)} of them only as context (weight 0)" if 0 in weights else ""
        self._view.note(f"appended to {file}: {len(weights)} answers{context}")

    def _show(self, _: str) -> None:
        """Settings, and the last prompt."""
        own = self._voice.system if self._session.system is None else self._session.system
        self._view.pairs({**settings_of(self._session), "system": own or "none"})
        if not self._session.exchanges:
            self._view.note("nothing was asked yet, so there is no prompt")
            return
        last = self._session.exchanges[-1]
        before = replace(self._session, exchanges=self._session.exchanges[:-1])
        question = Question(last.question, last.attempt)
        fitted = fit(before, question, self._voice.renderer.prompt_ids, self._voice.service.max_length)
        self._view.note(f"── the last prompt, {len(fitted.ids)} of {self._voice.service.max_length} tokens:")
        self._view.say(self._voice.renderer.text(before.conversation(last.question, fitted.dropped)))

    def _history(self, _: str) -> None:
        """All turns."""
        for message in self._session.conversation("")[:-1]:
            self._view.note(f"── {message.role}")
            self._view.say(message.content.strip())

    def _help(self, _: str) -> None:
        """The commands."""
        self._view.pairs(COMMANDS)


def _request(session: Session, question: Question, fitted: Fitted) -> Request:
    """The request for an answer."""
    settings = session.settings.model_copy(update={"max_new_tokens": fitted.room})
    return Request(fitted.ids, settings, session.seed_of(question))

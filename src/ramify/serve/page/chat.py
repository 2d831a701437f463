"""A conversation with one model at a time, and what a person says about the answers. Knows nothing of widgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ramify.base.errors import ConfigError, DataError, RamifyError
from ramify.base.types import Stop
from ramify.serve.cabinet import Cabinet
from ramify.serve.page.feedback import Feedback, opposites, preference
from ramify.serve.page.sessions import Answer, Judged, Session
from ramify.serve.page.talk import Manner, left_out, prompt_for, written

ENDED = {Stop.EOS: "", Stop.STOP_STRING: "", Stop.LENGTH: " · cut off: no new tokens left", None: " · stopped"}
"""What is said of how an answer ended."""


@dataclass(frozen=True, slots=True)
class View:
    """What the chat shows.

    Attributes:
        turns: (role, text), the first one first.
        status: one line under the conversation.
        box: new content of the box that is written in; None: it stays.
        running: whether an answer is being written.
        failed: whether the status is an error.
    """

    turns: tuple[tuple[str, str], ...]
    status: str = ""
    box: str | None = None
    running: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """What is asked about an answer that was judged.

    Attributes:
        judged: the judgement; None: nothing is asked.
        draft: the other answer, better or worse, that may be changed before it is kept; None: it stays.
        note: one line.
    """

    judged: Judged | None = None
    draft: str | None = None
    note: str = ""
    failed: bool = False


class Chat:
    """What the chat of the page does, for all tabs."""

    def __init__(self, cabinet: Cabinet, feedback: Feedback) -> None:
        self._cabinet, self._feedback = cabinet, feedback

    def open(self, name: str) -> Iterator[tuple[str, bool]]:
        """Open a model: what to say meanwhile and afterwards, and whether that is an error."""
        if not name:
            yield "choose a model", True
            return
        if name not in self._cabinet.names:
            yield f"opening {name} …", False
        try:
            with self._cabinet.lend(name) as (voice,):
                yield f"{voice.name} is ready: up to {voice.service.max_length} tokens of prompt and answer", False
        except RamifyError as error:
            yield str(error), True

    def view(self, session: Session, status: str = "", box: str | None = None, failed: bool = False) -> View:
        """The conversation as it stands."""
        return View(turns_of(session), status, box, failed=failed)

    def send(self, session: Session, question: str, model: str, manner: Manner) -> Iterator[View]:
        """Ask, and show the answer as it grows. A question that gets no answer goes back into the box."""
        before = (*turns_of(session), ("user", question))
        answer: Answer | None = None
        try:
            if not question.strip():
                raise ConfigError("nothing was asked")
            with session.writing():
                known = model in self._cabinet.names
                yield View(before, f"{model} is reading …" if known else f"opening {model} …", box="", running=True)
                with self._cabinet.lend(model) as voices:
                    prompt = prompt_for(voices, question, session.history, manner)
                    for (answer,) in written(session, voices, prompt, manner):
                        yield View((*before, ("assistant", answer.text)), f"{model} is writing …", running=True)
                if answer is None or (answer.stop is None and not answer.text):
                    raise ConfigError("stopped before the first word")
                missing = left_out(session.history, answer.prompt)
                session.answers.append(answer)
            short = f" · without the {missing} oldest exchanges, for want of room" if missing else ""
            yield self.view(session, f"{answer.model} · seed {answer.seed}{ENDED[answer.stop]}{short}")
        except RamifyError as error:
            yield self.view(session, str(error), box=question, failed=True)

    def retry(self, session: Session, model: str, manner: Manner) -> Iterator[View]:
        """Ask the last question again. The old answer comes back when there is no new one."""
        if not session.answers:
            yield self.view(session, "nothing was asked yet", failed=True)
            return
        old = session.answers.pop()
        count = len(session.answers)
        last = None
        for last in self.send(session, old.question, model, manner):
            if last.running:
                yield replace(last, box=None)
        if len(session.answers) == count:
            session.answers.append(old)
        if last is not None:
            yield self.view(session, last.status, failed=last.failed)

    def undo(self, session: Session) -> View:
        """Take the last question back into the box."""
        if not session.answers:
            return self.view(session, "nothing was asked yet", failed=True)
        return self.view(session, box=session.answers.pop().question)

    def clear(self, session: Session) -> View:
        """Begin again."""
        session.clear()
        return self.view(session)

    def judge(self, session: Session, good: bool) -> Panel:
        """Call the last answer good or bad.

        Where another answer to the prompt was called the opposite, the two are kept as a row.
        """
        if not session.answers:
            return Panel(note="there is no answer yet", failed=True)
        judged = Judged(session.answers[-1], good)
        try:
            _refuse_useless(judged)
            rows = opposites(session.judged, judged)
            self._feedback.add(*rows)
        except RamifyError as error:
            return Panel(note=str(error), failed=True)
        session.judged = [each for each in session.judged if each.answer != judged.answer] + [judged]
        session.asked, session.drawn = judged, None
        return Panel(judged, "" if good else judged.answer.text, self._kept(len(rows)) if rows else "")

    def draw(self, session: Session, model: str, manner: Manner) -> Iterator[Panel]:
        """Draw another answer to the prompt that the judged one belongs to, from the model that is chosen now."""
        judged = session.asked
        if judged is None:
            return
        try:
            if manner.sampling.temperature == 0 and judged.answer.model == model:
                raise ConfigError("at temperature 0 the answer is always the same", hint="raise it, or write one")
            with session.writing(), self._cabinet.lend(model) as voices:
                for (answer,) in written(session, voices, judged.answer.prompt, manner):
                    session.drawn = answer
                    yield Panel(judged, answer.text, f"{model} is writing …")
            yield Panel(judged, note="change it where you like, then keep it")
        except RamifyError as error:
            yield Panel(judged, note=str(error), failed=True)

    def keep(self, session: Session, draft: str) -> Panel:
        """Keep the judged answer and the other one as a row; a better one takes its place in the conversation."""
        judged = session.asked
        if judged is None:
            return Panel(note="no answer was judged", failed=True)
        drawn = session.drawn if session.drawn is not None and session.drawn.text == draft else None
        other = drawn or replace(judged.answer, text=draft, model="user", stop=Stop.EOS)
        chosen, rejected = (judged.answer, other) if judged.good else (other, judged.answer)
        try:
            self._feedback.add(preference(chosen, rejected, "drawn again" if drawn else "edited"))
        except RamifyError as error:
            return Panel(judged, note=str(error), failed=True)
        if session.answers and session.answers[-1] == rejected:
            session.answers[-1] = chosen
        return self.drop(session, self._kept(1))

    def drop(self, session: Session, note: str = "") -> Panel:
        """Ask no longer."""
        session.asked = session.drawn = None
        return Panel(note=note)

    def _kept(self, count: int) -> str:
        return f"{rows_in_words(count)} kept; {self._feedback.path} has {len(self._feedback)}"


def turns_of(session: Session) -> tuple[tuple[str, str], ...]:
    """(role, text) of the conversation."""
    return tuple((turn.role, turn.content) for turn in session.history)


def rows_in_words(count: int) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} row" if count == 1 else f"{count} rows"


def _refuse_useless(judged: Judged) -> None:
    """Refuse a judgement that could never become a row.

    Raises:
        DataError: the answer is empty, or called good and cut off.
    """
    if not judged.answer.text.strip():
        raise DataError("an empty answer cannot be learnt from")
    if judged.good and not judged.answer.whole:
        raise DataError("the answer was cut off: as a good one it would teach the model to stop there")

"""One prompt, two models, side by side; which answer is better becomes a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ramify.base.errors import ConfigError, RamifyError
from ramify.serve.cabinet import Cabinet
from ramify.serve.page.chat import ENDED, rows_in_words
from ramify.serve.page.feedback import Feedback, preference
from ramify.serve.page.sessions import Session
from ramify.serve.page.talk import Manner, prompt_for, written


@dataclass(frozen=True, slots=True)
class Sides:
    """What the comparison shows.

    Attributes:
        texts: both answers; None: they stay.
        notes: how each ended.
        status: one line under them.
        running: whether they are being written.
        failed: whether the status is an error.
    """

    texts: tuple[str, str] | None = None
    notes: tuple[str, str] = ("", "")
    status: str = ""
    running: bool = False
    failed: bool = False


class Comparison:
    """What the comparison of the page does, for all tabs."""

    def __init__(self, cabinet: Cabinet, feedback: Feedback) -> None:
        self._cabinet, self._feedback = cabinet, feedback

    def ask(self, session: Session, question: str, models: tuple[str, str], manner: Manner) -> Iterator[Sides]:
        """Ask both models at once, with the same seed; without history."""
        try:
            if not question.strip():
                raise ConfigError("nothing was asked")
            with session.writing():
                session.pair = None
                closed = [name for name in dict.fromkeys(models) if name not in self._cabinet.names]
                opening = f"opening {' and '.join(closed)} …" if closed else "reading …"
                yield Sides(("", ""), status=opening, running=True)
                with self._cabinet.lend(*models) as voices:
                    prompt = prompt_for(voices, question, (), manner)
                    for left, right in written(session, voices, prompt, manner):
                        yield Sides((left.text, right.text), status="writing …", running=True)
            session.pair = (left, right)
            notes = (f"seed {left.seed}{ENDED[left.stop]}", f"seed {right.seed}{ENDED[right.stop]}")
            yield Sides((left.text, right.text), notes, "Which one is better?")
        except RamifyError as error:
            yield Sides(status=str(error), failed=True)

    def prefer(self, session: Session, left: bool) -> Sides:
        """Keep the answers as a row: the left one is better, or the right one."""
        if session.pair is None:
            return Sides(status="there is nothing to compare yet", failed=True)
        chosen, rejected = session.pair if left else session.pair[::-1]
        try:
            self._feedback.add(preference(chosen, rejected, "side by side"))
        except RamifyError as error:
            return Sides(status=str(error), failed=True)
        session.pair = None
        kept = f"{rows_in_words(1)} kept; {self._feedback.path} has {len(self._feedback)}"
        return Sides(status=f"{chosen.model} was better: {kept}")

"""From a question to an answer that grows: the prompt, the settings of the draw, and the text as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from secrets import randbelow
from time import monotonic

from ramify.base.config import Sampling
from ramify.base.config_file import parse_config
from ramify.base.errors import LengthError
from ramify.base.types import Conversation, Message
from ramify.sample.service import Request
from ramify.serve.answers import Answers
from ramify.serve.manners import CHAT
from ramify.serve.page.sessions import Answer, Session
from ramify.serve.voices import Voice

_EVERY = 0.06
"""Seconds between two states of a growing text: what the eye follows, not what the model could send."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are drawn: what the controls of the page are set to.

    Attributes:
        system: system turn; empty: that of the run the model comes from.
        sampling: how tokens are drawn; a run's own stop strings come on top.
        seed: of all draws; None: another one each time.
    """

    system: str = ""
    sampling: Sampling = CHAT
    seed: int | None = None

    def seed_of(self, attempt: int) -> int:
        """The seed of the first, second, … answer to one question."""
        return randbelow(2**31) if self.seed is None else self.seed + attempt


def sampling_of(**values: float | int) -> Sampling:
    """Settings of a draw.

    Raises:
        ConfigError: one is out of range.
    """
    return parse_config({"sample": values}, where="page").sample


def prompt_for(voices: Sequence[Voice], question: str, history: Conversation, manner: Manner) -> Conversation:
    """A question behind the system turn and as much of what was said before as there is room for.

    The oldest exchanges go first, whole. Room is kept for what the answer may have, at most half of a model's length.
    Without a system turn of one's own that is the voices', where they agree: what is written down is then the whole
    prompt. Where they do not, each puts in its own.
    """
    own = {voice.system for voice in voices}
    system = manner.system or (own.pop() if len(own) == 1 else None)
    before = (Message("system", system),) if system else ()
    for dropped in range(0, len(history) + 1, 2):
        prompt = (*before, *history[dropped:], Message("user", question))
        if all(_room(voice, prompt) >= _wanted(voice, manner) for voice in voices):
            break
    return prompt


def left_out(history: Conversation, prompt: Conversation) -> int:
    """How many exchanges of the history the prompt has no room for."""
    kept = sum(turn.role != "system" for turn in prompt) - 1
    return (len(history) - kept) // 2


def _room(voice: Voice, prompt: Conversation) -> int:
    return voice.service.max_length - len(voice.renderer.prompt_ids(prompt))


def _wanted(voice: Voice, manner: Manner) -> int:
    return min(manner.sampling.max_new_tokens, voice.service.max_length // 2)


def request_for(voice: Voice, prompt: Conversation, manner: Manner, attempt: int) -> Request:
    """The request for an answer: as many new tokens as wanted, or as there is room for.

    Raises:
        LengthError: there is no room for one.
    """
    ids = voice.renderer.prompt_ids(prompt)
    room = voice.service.max_length - len(ids)
    if room < 1:
        raise LengthError(
            f"the prompt has {len(ids)} tokens, {voice.name} takes {voice.service.max_length} with the answer",
            hint="shorten the question or the system prompt",
        )
    own = {"max_new_tokens": min(manner.sampling.max_new_tokens, room), "stop": voice.settings.stop}
    return Request(ids, manner.sampling.model_copy(update=own), manner.seed_of(attempt))


def written(
    session: Session, voices: Sequence[Voice], prompt: Conversation, manner: Manner
) -> Iterator[tuple[Answer, ...]]:
    """Answers of one or several voices to a prompt as they grow, side by side; the last state is complete.

    Every time the same is asked in a session, and by each voice that is asked twice, the seed is the next one.

    Raises:
        RamifyError: a model failed, or the prompt leaves no room for an answer.
    """
    attempt = session.attempt(prompt)
    attempts = [attempt + list(voices[:place]).count(voice) for place, voice in enumerate(voices)]
    requests = [request_for(voice, prompt, manner, each) for voice, each in zip(voices, attempts, strict=True)]
    answers = [
        Answer(prompt, "", voice.name, None, request.seed) for voice, request in zip(voices, requests, strict=True)
    ]
    asked = [(voice.service, request) for voice, request in zip(voices, requests, strict=True)]
    shown = 0.0
    for which, piece in session.follow(Answers(asked)):
        answers[which] = replace(answers[which], text=answers[which].text + piece.text, stop=piece.stop)
        if monotonic() - shown >= _EVERY:
            yield tuple(answers)
            shown = monotonic()
    yield tuple(answers)

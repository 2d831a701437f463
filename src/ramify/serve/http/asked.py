"""A checked body, made into what a `Service` computes: prompt ids, settings, seed, and whether all of it has room."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ramify.base.errors import RamifyError
from ramify.sample.service import Request
from ramify.serve.http.bodies import ChatBody, CompletionBody, Drawing
from ramify.serve.http.refusals import TOO_LONG, RefusedError, as_refused, seen

if TYPE_CHECKING:
    from ramify.serve.voices import Voice

_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class Asked:
    """What is computed for a request, and how it is sent.

    Attributes:
        voice: the model that answers.
        requests: one for each prompt.
        alternatives: likeliest tokens told beside each drawn one; None: nothing is told of tokens.
        stream: send events as text comes.
        usage: end the stream with its counts.
    """

    voice: Voice
    requests: tuple[Request, ...]
    alternatives: int | None
    stream: bool
    usage: bool

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(request.ids) for request in self.requests)

    @property
    def choices(self) -> int:
        """Completions of all prompts."""
        return sum(request.settings.n for request in self.requests)


def chat(body: ChatBody, voice: Voice) -> Asked:
    """What a chat request asks for.

    Raises:
        RefusedError: the chat template refuses the turns, or prompt and answer have no room.
    """
    turns = body.conversation
    try:
        ids = voice.renderer.prompt_ids(turns)
    except RamifyError as error:
        raise as_refused(error, "messages") from None
    return _asked(body, voice, [ids], "messages", body.top_logprobs if body.logprobs else None)


def completion(body: CompletionBody, voice: Voice) -> Asked:
    """What a plain completion asks for.

    Raises:
        RefusedError: a prompt is empty, or leaves no room for the completion.
    """
    prompts = [_plain_ids(prompt, voice) for prompt in body.prompts]
    return _asked(body, voice, prompts, "prompt", body.logprobs)


def _asked(
    body: Drawing, voice: Voice, prompts: Sequence[tuple[int, ...]], param: str, alternatives: int | None
) -> Asked:
    """Several prompts have seeds that follow each other, so that equal ones get different completions."""
    seed = secrets.randbelow(_SEEDS) if body.seed is None else body.seed
    requests = []
    for at, ids in enumerate(prompts):
        settings = body.sampling(voice.settings, _new_tokens(body, voice, ids, param))
        requests.append(Request(ids, settings, seed + at, alternatives or 0))
    return Asked(voice, tuple(requests), alternatives, body.stream, body.usage)


def _new_tokens(body: Drawing, voice: Voice, ids: tuple[int, ...], param: str) -> int:
    """Longest completion of a prompt: as asked, else the voice's own, as far as there is room.

    Raises:
        RefusedError: there is none.
    """
    room = voice.service.max_length - len(ids)
    wanted = body.new_tokens
    if room >= (wanted or 1):
        return wanted or min(voice.settings.max_new_tokens, room)
    asked = "" if wanted is None else f" and {seen(wanted)} new ones are asked for"
    context = f"the model's context is {voice.service.max_length}"
    raise RefusedError(f"the prompt has {len(ids)} tokens{asked}; {context}", param=param, code=TOO_LONG)


def _plain_ids(prompt: str | list[int], voice: Voice) -> tuple[int, ...]:
    """Ids of a prompt that no template is put around; whether the model has tokens of given ids, its service knows."""
    if not isinstance(prompt, str):
        return tuple(prompt)
    try:
        return voice.renderer.plain_ids(prompt)
    except RamifyError as error:
        raise as_refused(error, "prompt") from None

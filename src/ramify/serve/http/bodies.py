"""JSON of a request, checked field by field: the first thing wrong with it is said in one line.

Types are strict (`"1"` is no number, `true` is none either), numbers finite, keys given once. What a request leaves out
is as the voice's own settings say.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, TypeAdapter, ValidationError

from ramify.base.config import Sampling
from ramify.base.errors import unknown
from ramify.base.types import Conversation
from ramify.serve.http.fields import CHAT, COMPLETION, UNKNOWN, Fields
from ramify.serve.http.refusals import RefusedError, seen
from ramify.serve.http.turns import checked_text, conversation

MOST_CHOICES = 128
"""Completions of one request, over all its prompts (OpenAI's own limit of `n`)."""
MOST_STOPS, LONGEST_STOP = 4, 256
MOST_ALTERNATIVES = 20

Body = TypeVar("Body", bound="Drawing")
_StopString = Annotated[str, Field(max_length=LONGEST_STOP)]


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What a stream tells besides the text.

    Attributes:
        include_usage: count tokens in a last event.
        include_obfuscation: hide lengths from whoever watches the line: not done here, so it may only be false.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    include_usage: StrictBool | None = None
    include_obfuscation: StrictBool | None = None


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What chat and plain completions have in common: whose completion, how it is drawn, how it is sent."""

    __pydantic_config__ = ConfigDict(allow_inf_nan=False)

    model: str
    temperature: Annotated[StrictFloat, Field(ge=0, le=2)] | None = None
    top_p: StrictFloat | None = None
    top_k: Annotated[StrictInt, Field(ge=0, lt=2**31)] | None = None
    min_p: StrictFloat | None = None
    repetition_penalty: Annotated[StrictFloat, Field(ge=0.01, le=100)] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=MOST_CHOICES)] = 1
    stop: _StopString | list[_StopString] | None = None
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    stream: StrictBool = False
    stream_options: StreamOptions | None = None

    @property
    def usage(self) -> bool:
        """Whether a stream ends with its counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def new_tokens(self) -> int | None:
        """Longest completion; None: not said."""
        return self.max_tokens

    def sampling(self, settings: Sampling, new_tokens: int) -> Sampling:
        """How tokens are drawn.

        Args:
            settings: for what the body leaves out.
            new_tokens: longest completion.

        Raises:
            RefusedError: a value is out of range.
        """
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.stops:
            given["stop"] = self.stops
        changed = {**settings.model_dump(), **given, "n": self.n, "max_new_tokens": new_tokens}
        try:
            return Sampling.model_validate(changed)
        except ValidationError as error:
            raise _refused(error) from None

    def check(self) -> None:
        """What no single field shows.

        Raises:
            RefusedError: two fields contradict each other.
        """
        if len(self.stops) > MOST_STOPS:
            raise RefusedError(f"stop: {len(self.stops)} strings; at most {MOST_STOPS} are allowed", param="stop")
        for text in self.stops:
            checked_text(text, "stop")
        if self.stream_options is None:
            return
        if not self.stream:
            raise RefusedError("stream_options goes with stream: true", param="stream_options")
        if self.stream_options.include_obfuscation:
            raise RefusedError("streams are not padded here", param="stream_options.include_obfuscation")


@dataclass(frozen=True, kw_only=True)
class ChatBody(Drawing):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Any], Field(min_length=1)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    logprobs: StrictBool = False
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=MOST_ALTERNATIVES)] = 0

    @property
    def new_tokens(self) -> int | None:
        """Longest completion; None: not said."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def conversation(self) -> Conversation:
        """The turns.

        Raises:
            RefusedError: one is none that is understood here.
        """
        return conversation(self.messages)

    def check(self) -> None:
        """As for every body; besides, the two names of one length agree, and alternatives are asked for as a part."""
        super().check()
        if self.max_tokens is not None and self.max_tokens != self.new_tokens:
            raise RefusedError("max_tokens and max_completion_tokens differ; give one of them", param="max_tokens")
        if self.top_logprobs and not self.logprobs:
            raise RefusedError("top_logprobs goes with logprobs: true", param="top_logprobs")


@dataclass(frozen=True, kw_only=True)
class CompletionBody(Drawing):
    """Body of /v1/completions."""

    prompt: str | list[Any]
    best_of: StrictInt | None = None
    logprobs: Annotated[StrictInt, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts: texts, or token ids.

        Raises:
            RefusedError: `prompt` is neither a text, a list of token ids, nor a list of those.
        """
        if isinstance(self.prompt, str):
            return [self.prompt]
        if _are_ids(self.prompt):
            return [self.prompt]
        prompts = self.prompt
        if not prompts or not (all(isinstance(each, str) for each in prompts) or all(map(_are_ids, prompts))):
            raise RefusedError("prompt: text, a list of texts, token ids, or a list of those is needed", param="prompt")
        return prompts

    def check(self) -> None:
        """As for every body; besides, all choices are drawn and returned, and there are not too many."""
        super().check()
        if self.best_of not in (None, self.n):
            raise RefusedError(f"best_of = {seen(self.best_of)}: not done here; ask for n and choose", param="best_of")
        for at, prompt in enumerate(self.prompts):
            if isinstance(prompt, str):
                checked_text(prompt, "prompt" if isinstance(self.prompt, str) else f"prompt[{at}]")
        if len(self.prompts) * self.n > MOST_CHOICES:
            counts = f"{len(self.prompts)} prompts with n = {self.n}"
            raise RefusedError(
                f"{counts}: at most {MOST_CHOICES} completions are drawn for one request", param="prompt"
            )


_CHATS, _COMPLETIONS = TypeAdapter(ChatBody), TypeAdapter(CompletionBody)


def read_chat(raw: bytes) -> ChatBody:
    """A checked body of /v1/chat/completions.

    Raises:
        RefusedError: it is not JSON, or not a body that is understood here.
    """
    return _read(raw, _CHATS, names_of(ChatBody), CHAT)


def read_completion(raw: bytes) -> CompletionBody:
    """A checked body of /v1/completions; errors as `read_chat`."""
    return _read(raw, _COMPLETIONS, names_of(CompletionBody), COMPLETION)


def names_of(kind: type[Drawing] | type[StreamOptions]) -> list[str]:
    """The fields that are read in a body, or in a part of one."""
    return [each.name for each in fields(kind)]


def _read(raw: bytes, kind: TypeAdapter[Body], read: list[str], unread: Fields) -> Body:
    try:
        body = kind.validate_python(unread.checked(_parsed(raw), read))
    except ValidationError as error:
        raise _refused(error) from None
    body.check()
    return body


def _parsed(raw: bytes) -> dict[str, Any]:
    """The object that a body holds.

    Raises:
        RefusedError: it is no UTF-8, no JSON, or not an object.
        RecursionError: it is nested too deeply.
    """
    try:
        value = json.loads(raw.decode(), parse_constant=_not_finite, object_pairs_hook=_given_once)
    except UnicodeDecodeError as error:
        raise RefusedError(f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise RefusedError(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except ValueError:  # of int(): more digits than Python converts
        raise RefusedError("the body holds a number with too many digits") from None
    if not isinstance(value, dict):
        raise RefusedError(f"the body must be a JSON object, found {seen(value)}")
    return value


def _not_finite(name: str) -> NoReturn:
    raise RefusedError(f"{name} is not JSON, nor a value that any field could have")


def _given_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise RefusedError(f"{seen(twice)} is given twice", param=twice[:60])
    return values


def _are_ids(value: Any) -> bool:
    """Whether it is a list of numbers and nothing else; an empty list is none."""
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


_NAMES = {"max_new_tokens": "max_tokens"}


def _refused(error: ValidationError) -> RefusedError:
    """The first thing wrong, with all that would have been right there."""
    found = error.errors(include_url=False)
    first = found[0]
    top = str(first["loc"][0])
    name = _NAMES.get(top, top)
    if first["type"] == "missing":
        return RefusedError(f"{name} is missing", param=name, code="missing_required_parameter")
    if first["type"] == "unexpected_keyword_argument":
        path = ".".join(map(str, first["loc"]))
        message = unknown("field", path[:60], [f"stream_options.{each}" for each in names_of(StreamOptions)])
        return RefusedError(message, param=path[:60], code=UNKNOWN)
    same = dict.fromkeys(_needed(each) for each in found if each["loc"][0] == first["loc"][0])
    return RefusedError(f"{name} = {seen(first['input'])}: {' or '.join(same)}", param=name, code="invalid_value")


def _needed(error: Mapping[str, Any]) -> str:
    """What a field may be; a check of our own names the field itself, as it is called in a run's settings."""
    return str(error["ctx"]["error"]).partition(": ")[2] if error["type"] == "value_error" else str(error["msg"])

"""Pieces as objects of OpenAI's protocol: one whole answer, or a stream of events."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from ramify.base.types import Stop
from ramify.sample.service import Piece, Token
from ramify.serve.http.asked import Asked

_FINISH = {Stop.EOS: "stop", Stop.STOP_STRING: "stop", Stop.LENGTH: "length"}
_LOWEST = -9999.0  # OpenAI's number for a probability of 0: JSON has no infinity


class Answer(ABC):
    """One answer in the making: fed with pieces, it gives events, and at the end the whole.

    Attributes:
        finished: whether every choice has ended.
    """

    whole_object = ""
    event_object = ""
    prefix = ""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._head = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": asked.voice.name,
        }
        self._texts: list[list[str]] = [[] for _ in range(asked.choices)]
        self._tokens: list[list[Token]] = [[] for _ in range(asked.choices)]
        self._stops: list[Stop | None] = [None] * asked.choices
        self._drawn = 0

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return None not in self._stops

    @property
    def drawn(self) -> int:
        """New tokens so far, stop tokens included."""
        return self._drawn

    def opening(self) -> Iterator[dict[str, Any]]:
        """Events before any text."""
        return iter(())

    def add(self, piece: Piece) -> None:
        """Take a piece in."""
        self._texts[piece.index].append(piece.text)
        self._tokens[piece.index].extend(told(piece))
        self._stops[piece.index] = piece.stop
        self._drawn += len(piece.tokens)

    def event(self, piece: Piece) -> dict[str, Any] | None:
        """The event of a piece that was just added; None when there is nothing to tell yet."""
        tokens = told(piece) if self._asked.alternatives is not None else []
        if not piece.text and not tokens and piece.stop is None:
            return None
        choice = self._event_choice(piece, tokens)
        return self._event([{"index": piece.index, **choice, "finish_reason": finish_reason(piece.stop)}])

    def closing(self) -> Iterator[dict[str, Any]]:
        """Events behind the last text: the counts, where they were asked for."""
        if self._asked.usage:
            yield {**self._event([]), "usage": self.counts}

    def whole(self) -> dict[str, Any]:
        """The answer as one object, with all choices in order."""
        choices = [
            {"index": at, **self._whole_choice("".join(text), tokens), "finish_reason": finish_reason(stop)}
            for at, (text, tokens, stop) in enumerate(zip(self._texts, self._tokens, self._stops, strict=True))
        ]
        return {**self._head, "object": self.whole_object, "choices": choices, "usage": self.counts}

    @property
    def counts(self) -> dict[str, int]:
        """Tokens of prompts and completions."""
        prompt = self._asked.prompt_tokens
        return {"prompt_tokens": prompt, "completion_tokens": self._drawn, "total_tokens": prompt + self._drawn}

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        event = {**self._head, "object": self.event_object, "choices": choices}
        return {**event, "usage": None} if self._asked.usage else event

    @abstractmethod
    def _event_choice(self, piece: Piece, tokens: Sequence[Token]) -> dict[str, Any]:
        """What a stream's event says of one choice."""

    @abstractmethod
    def _whole_choice(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """What the whole answer says of one choice."""


class ChatAnswer(Answer):
    """Of /v1/chat/completions."""

    whole_object = "chat.completion"
    event_object = "chat.completion.chunk"
    prefix = "chatcmpl"

    def opening(self) -> Iterator[dict[str, Any]]:
        """Who speaks, for each choice."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        for at in range(self._asked.choices):
            yield self._event([{"index": at, "delta": delta, "logprobs": None, "finish_reason": None}])

    def _event_choice(self, piece: Piece, tokens: Sequence[Token]) -> dict[str, Any]:
        return {"delta": {"content": piece.text} if piece.text else {}, "logprobs": self._logprobs(tokens)}

    def _whole_choice(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message, "logprobs": self._logprobs(tokens)}

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        alternatives = self._asked.alternatives
        if alternatives is None:
            return None
        content = [
            {**_entry(token.piece, token.logprob), "top_logprobs": [_entry(*each[1:]) for each in token.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class CompletionAnswer(Answer):
    """Of /v1/completions."""

    whole_object = "text_completion"
    event_object = "text_completion"
    prefix = "cmpl"

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._told = [bytearray() for _ in range(asked.choices)]

    def _event_choice(self, piece: Piece, tokens: Sequence[Token]) -> dict[str, Any]:
        return {"text": piece.text, "logprobs": self._logprobs(tokens, self._told[piece.index])}

    def _whole_choice(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        return {"text": text, "logprobs": self._logprobs(tokens, bytearray())}

    def _logprobs(self, tokens: Sequence[Token], before: bytearray) -> dict[str, Any] | None:
        """The columns of the older form; `before` are the bytes of the tokens before, and grows."""
        if self._asked.alternatives is None:
            return None
        offsets = []
        for token in tokens:
            offsets.append(len(before.decode(errors="ignore")))
            before += token.piece
        tops = [{_name(piece): _finite(logprob) for _, piece, logprob in token.top} for token in tokens]
        return {
            "tokens": [_name(token.piece) for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": tops if self._asked.alternatives else None,
            "text_offset": offsets,
        }


def told(piece: Piece) -> tuple[Token, ...]:
    """The tokens of a piece without the stop token, which is no part of the text."""
    return piece.tokens[:-1] if piece.stop is Stop.EOS else piece.tokens


def finish_reason(stop: Stop | None) -> str | None:
    """OpenAI's word for how a completion ended; None while it has not."""
    return None if stop is None else _FINISH[stop]


def _entry(piece: bytes, logprob: float) -> dict[str, Any]:
    return {"token": piece.decode(errors="replace"), "logprob": _finite(logprob), "bytes": list(piece)}


def _name(piece: bytes) -> str:
    """A token as the older form writes it: text, or its bytes where it is no whole letter."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{each:02x}" for each in piece)


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST)

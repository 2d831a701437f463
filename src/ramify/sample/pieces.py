"""What a token is in bytes, and a request's answer on its way from the thread that draws to the one that asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from queue import SimpleQueue
from typing import Any

from transformers import PreTrainedTokenizerBase

from ramify.base.errors import RamifyError
from ramify.base.types import Stop
from ramify.sample.choice import Top
from ramify.sample.service import Piece, Request, Token
from ramify.sample.streaming import StreamedText

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"


class TokenBytes:
    """The bytes of each token of a tokenizer.

    Byte-level vocabularies spell each byte as a printable letter (Radford et al. 2019, `bytes_to_unicode`),
    SentencePiece ones a space as U+2581 and lone bytes as `<0x0A>`. Added tokens are spelled out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = tokenizer
        self._found: dict[int, bytes] = {}

    def __call__(self, token: int) -> bytes:
        """Its bytes; none for an id without a token."""
        if token not in self._found:
            self._found[token] = self._spelled(token)
        return self._found[token]

    def _spelled(self, token: int) -> bytes:
        text: str | None = self._tokenizer.convert_ids_to_tokens(token)
        if text is None:
            return b""
        if token in self._added:
            return text.encode()
        if self._is_byte_level:
            return b"".join(LETTERS.get(letter) or letter.encode() for letter in text)
        lone = _BYTE.fullmatch(text)
        return bytes([int(lone.group(1), 16)]) if lone else text.replace(_SPACE, " ").encode()

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._tokenizer.added_tokens_decoder)

    @cached_property
    def _is_byte_level(self) -> bool:
        decoder = self._tokenizer.backend_tokenizer.decoder
        return decoder is not None and "ByteLevel" in _kinds(json.loads(decoder.__getstate__()))


def _kinds(decoder: dict[str, Any]) -> set[str]:
    return {decoder["type"]}.union(*(_kinds(each) for each in decoder.get("decoders", ())))


def _byte_letters() -> dict[str, bytes]:
    """The byte that each letter of a byte-level vocabulary stands for."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): bytes([byte]) for byte in printable}
    return letters | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}


LETTERS = _byte_letters()
"""The byte that each letter of a byte-level vocabulary stands for."""


class _Answer:
    """One completion on its way: text that is certain, tokens since the last piece."""

    def __init__(self, text: StreamedText) -> None:
        self.text, self.tokens = text, list[Token]()


class Answers:
    """A request's ticket: the drawing thread puts tokens in, whoever asked takes pieces out.

    Args:
        request: what was asked.
        tokenizer: of the model.
        token_bytes: of the same tokenizer.
        on_cancel: called when the ticket is cancelled, from any thread.

    Attributes:
        cancelled: whether nobody waits for it any more.
    """

    def __init__(
        self,
        request: Request,
        tokenizer: PreTrainedTokenizerBase,
        token_bytes: Callable[[int], bytes],
        on_cancel: Callable[[], None],
    ) -> None:
        self.request = request
        self.cancelled = False
        self._bytes, self._on_cancel = token_bytes, on_cancel
        stop = request.settings.stop
        self._answers = [_Answer(StreamedText(tokenizer, stop)) for _ in range(request.settings.n)]
        self._left = len(self._answers)
        self._queue: SimpleQueue[Piece | RamifyError | None] = SimpleQueue()

    def __iter__(self) -> Iterator[Piece]:
        """See `Ticket`."""
        while not self.cancelled and (item := self._queue.get()) is not None:
            if isinstance(item, RamifyError):
                self._queue.put(item)
                raise item
            yield item
        self._queue.put(None)

    def cancel(self) -> None:
        """See `Ticket`."""
        self.cancelled = True
        self._queue.put(None)
        self._on_cancel()

    def push(self, index: int, token: int, logprob: float, top: Top, stop: Stop | None) -> None:
        """The next token of a completion."""
        answer = self._answers[index]
        likeliest = tuple((each, self._bytes(each), value) for each, value in top)
        answer.tokens.append(Token(token, self._bytes(token), logprob, likeliest))
        new = "" if stop is Stop.EOS else answer.text.push(token)
        if stop is not None:
            new += answer.text.finish()
        if new or stop is not None:
            self._queue.put(Piece(index, new, tuple(answer.tokens), stop))
            answer.tokens.clear()
        if stop is not None:
            self._left -= 1
            if not self._left:
                self._queue.put(None)

    def fail(self, error: RamifyError) -> None:
        """The request cannot be answered."""
        self._queue.put(error)

    def end(self) -> None:
        """Nothing more comes."""
        self._queue.put(None)

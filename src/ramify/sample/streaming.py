"""Text out of tokens that come one by one: no half letters, and stop strings that cross token borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\ufffd"


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Text of tokens, special tokens left out, nothing tidied."""
    text: Any = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


class StreamDecoder:
    """Decodes token by token; what it returns, joined, is the text of all tokens.

    A token may hold a part of a multi-byte letter, and a word-start space may or may not be shown depending on what
    stands before it. So each token is decoded together with the ones that gave the text before it, and text is held
    back while it ends in an unfinished letter.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = 0
        self._shown = ""

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a letter is unfinished."""
        self._ids.append(token)
        text = decode(self._tokenizer, self._ids)
        if text.endswith(_UNFINISHED):
            return ""
        return self._emit(text)

    def finish(self) -> str:
        """What was held back, unfinished letters shown as U+FFFD."""
        return self._emit(decode(self._tokenizer, self._ids))

    def _emit(self, text: str) -> str:
        """Show what is new, and keep only the tokens that the next ones need as context."""
        new = text[len(self._shown) :]
        if new:
            self._ids = self._ids[self._context :]
            self._context = len(self._ids)
            self._shown = decode(self._tokenizer, self._ids)
        return new


class StopFinder:
    """Follows one token stream until one of the stop strings is complete."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stops = stops
        self._keep = max(map(len, stops)) - 1
        self._tail = ""

    def push(self, token: int) -> bool:
        """Whether one of the strings is complete with this token."""
        self._tail += self._decoder.push(token)
        found = any(stop in self._tail for stop in self._stops)
        self._tail = self._tail[-self._keep :] if self._keep else ""
        return found


def special_stops(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> tuple[int, ...]:
    """Ids of the stop strings that are a special token each: text leaves those out, so it never shows them."""
    added: Any = tokenizer.added_tokens_decoder
    return tuple(number for number, token in added.items() if token.special and token.content in stops)


@dataclass(frozen=True)
class StopStrings:
    """The strings that end a completion, and the tokenizer whose tokens they are looked for in."""

    tokenizer: PreTrainedTokenizerBase
    strings: tuple[str, ...]

    def finder(self) -> StopFinder:
        """For one sequence."""
        return StopFinder(self.tokenizer, self.strings)


class StreamedText:
    """The text of one completion as it grows, never a part of a stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stops = stops
        self._held = ""
        self._ended = False

    def push(self, token: int) -> str:
        """Text that is certain with this token."""
        return self._release(self._decoder.push(token), final=False)

    def finish(self) -> str:
        """The rest of the text."""
        return self._release(self._decoder.finish(), final=True)

    def _release(self, new: str, *, final: bool) -> str:
        if self._ended:
            return ""
        text = self._held + new
        cut = cut_at(text, self._stops)
        self._ended = final or len(cut) < len(text)
        certain = len(cut) if self._ended else len(text) - self._open(text)
        self._held = text[certain:]
        return text[:certain]

    def _open(self, text: str) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = max(map(len, self._stops), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of these strings."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places)] if places else text

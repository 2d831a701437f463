"""What is trained and what is not, to be looked at: spans of text, or the same in colour (`page`: as HTML)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ramify.base.types import TokenSequence

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

TRAINED, UNTRAINED = "bold green", "dim"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text whose tokens are all trained, or all not; special tokens are written out."""

    text: str
    trained: bool
    tokens: int


def spans(tokenizer: PreTrainedTokenizerBase, sequence: TokenSequence) -> list[Span]:
    """The sequence as alternating stretches; their texts joined are the whole decoded sequence.

    A letter whose bytes lie on both sides of a border is shown behind it.
    """
    found: list[Span] = []
    shown, end = 0, 0
    for trained, group in groupby(sequence.weights, key=lambda weight: weight != 0):
        start, end = end, end + len(list(group))
        text: Any = tokenizer.decode(
            list(sequence.ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if end < len(sequence.ids):
            text = text.rstrip("\ufffd")
        found.append(Span(text[shown:], trained, end - start))
        shown = max(shown, len(text))
    return found


def joined(sequences: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Sequences that are the beginning of a later one become part of it, trained where any of them is.

    The turns of a conversation become one text; completions of one prompt stay apart.
    """
    found: list[TokenSequence] = []
    for sequence in sorted(sequences, key=lambda each: len(each.ids), reverse=True):
        size = len(sequence.ids)
        place = next((at for at, other in enumerate(found) if other.ids[:size] == sequence.ids), None)
        if place is None:
            found.append(sequence)
            continue
        other = found[place]
        weights = tuple(map(max, other.weights[:size], sequence.weights)) + other.weights[size:]
        found[place] = TokenSequence(other.ids, weights)
    return found


def coloured(tokenizer: PreTrainedTokenizerBase, sequence: TokenSequence) -> Text:
    """The sequence for a terminal: trained text bold and green, the rest dim."""
    from rich.text import Text  # not needed where nothing is printed

    text = Text()
    for span in spans(tokenizer, sequence):
        text.append(span.text, style=TRAINED if span.trained else UNTRAINED)
    return text

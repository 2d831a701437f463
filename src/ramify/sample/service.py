"""What whoever talks to people needs from a model: requests at any time, text as it is drawn.

A `Service` is one opened model. Terminal chat, web page and HTTP server know models by this protocol alone, so the own
engine and llama.cpp stand behind them alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ramify.base.config import Sampling
from ramify.base.types import Stop


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to complete.

    Attributes:
        ids: token ids of the rendered prompt.
        settings: how tokens are drawn, and how many completions (`n`).
        seed: of every draw; a completion depends on (ids, settings, seed, index) alone, never on who else asks.
        alternatives: likeliest tokens reported beside each drawn one, 0 to 20.
    """

    ids: tuple[int, ...]
    settings: Sampling
    seed: int = 0
    alternatives: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """A drawn token.

    Attributes:
        id: in the model's vocabulary.
        piece: its bytes; several tokens may share one letter.
        logprob: natural log of its probability under the model itself (temperature 1, nothing cut off).
        top: the likeliest tokens at its place, likeliest first: (id, bytes, logprob).
    """

    id: int
    piece: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new in one completion.

    Attributes:
        index: which of the request's completions, from 0.
        text: new text: never half a letter, never a part of a stop string. Joined, it is the completion's text.
        tokens: drawn since the last piece of this completion, the stop token included.
        stop: how the completion ended, on its last piece; None before.
    """

    index: int
    text: str
    tokens: tuple[Token, ...] = ()
    stop: Stop | None = None


class Ticket(Protocol):
    """A request that was accepted."""

    def __iter__(self) -> Iterator[Piece]:
        """Pieces as they come, of all completions; ends behind the last piece of each, or when cancelled.

        Raises:
            RamifyError: the model failed; other requests are not touched.
        """
        ...

    def cancel(self) -> None:
        """Give up: what the request holds is free before the next step. Harmless when it has ended."""
        ...


class Service(Protocol):
    """An opened model that completes requests, several at once; safe to use from any thread."""

    @property
    def name(self) -> str:
        """What the user called the model."""
        ...

    @property
    def max_length(self) -> int:
        """Longest prompt with completion, in tokens."""
        ...

    def submit(self, request: Request) -> Ticket:
        """Accept a request; it is computed as soon as there is room beside the others.

        Raises:
            LengthError: prompt and new tokens are more than `max_length`.
            DataError: the prompt is empty.
        """
        ...

    def close(self) -> None:
        """End all requests and let the memory go."""
        ...

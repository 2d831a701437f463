"""What Ramify asks of a package that brings llama.cpp: one opened GGUF file, its cells and its sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
CacheType = Literal["f16", "f32"]

BATCH = 512
"""Most tokens in one call of llama.cpp."""
MOST_SEQUENCES = 256
"""What llama.cpp was compiled for."""


class Cell(NamedTuple):
    """A token to compute: its place in its sequence, and whether its logits are wanted."""

    token: int
    position: int
    sequence: int
    wanted: bool


@dataclass(frozen=True, slots=True)
class Context:
    """What a context is opened with.

    Attributes:
        cells: tokens that fit, of all sequences together.
        sequences: most of them at once.
        kv: type of keys and values.
        threads: that compute.
    """

    cells: int
    sequences: int
    kv: CacheType
    threads: int


class Engine(Protocol):
    """A GGUF file opened by one of the packages. Not safe for threads; failures are its package's own exceptions."""

    bos_id: int | None
    eos_id: int | None
    add_bos: bool
    n_vocab: int
    shares: bool

    def tokenize(self, text: str, special: bool) -> list[int]:
        """Token ids; with `special`, the names of special tokens in the text become those tokens."""
        ...

    def is_stop(self, token: int) -> bool:
        """Whether llama.cpp holds that this token ends a generation."""
        ...

    def open_context(self, context: Context) -> None:
        """Open a context in place of the one before."""
        ...

    def decode(self, cells: Sequence[Cell]) -> Floats:
        """Compute tokens: the logits of those that want them, [W, V]."""
        ...

    def copy(self, source: int, target: int, end: int) -> None:
        """Let a sequence share the first `end` tokens of another."""
        ...

    def cut(self, sequence: int, end: int) -> bool:
        """Forget a sequence from token `end` on; False: this kind of model can only forget all of it."""
        ...

    def close(self) -> None:
        """Let the memory go."""
        ...

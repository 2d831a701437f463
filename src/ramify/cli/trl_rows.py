"""How TRL would count the rows of a data set: a conversation is one row, and packing puts several into one.

Ramify counts sequences: one for each answer that is trained. A step of the same size holds
(TRL's rows) × (sequences in one of its rows).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ramify.base.config import RunConfig
    from ramify.prompts.renderer import Renderer
    from ramify.train.rows import Turns

T = TypeVar("T")

_TOGETHER = 1000
"""Rows that TRL packs with one another: those of one call of `datasets.map`."""
_ALL, _EVERY = 100, 10
"""Of so many thousands all are rendered, then every tenth stands for ten: their average is what is asked for."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Rows of TRL's, and sequences of ours in them; `exact`, whether all were counted."""

    rows: int
    sequences: int
    exact: bool = True

    @property
    def in_one(self) -> float:
        """Sequences in one row on average."""
        return self.sequences / max(1, self.rows)


def count_rows(
    config: RunConfig, renderer: Renderer | None = None, packed: int = 0, tell: Callable[[int], None] | None = None
) -> Counted:
    """Read the training rows and count them as TRL does.

    Args:
        renderer: what measures rows; None: they are not packed, and nothing is rendered.
        packed: tokens of a packed row.
        tell: is called with the rows read so far.

    Raises:
        ConfigError: no rows are named.
        DataError: they cannot be used.
    """
    from ramify.train.rows import read_turns

    rows = sequences = read = thousands = 0
    for thousands, block in enumerate(_blocks(read_turns(config, "train"), _TOGETHER), start=1):
        read += len(block)
        weight = 1 if renderer is None or thousands <= _ALL else _EVERY
        if thousands % weight == 0:
            found = _counted(block, renderer, packed)
            rows, sequences = rows + weight * found.rows, sequences + weight * found.sequences
        if tell is not None:
            tell(read)
    return Counted(rows, sequences, renderer is None or thousands <= _ALL)


def packed_rows(lengths: Iterable[int], size: int) -> int:
    """Rows of `size` tokens that TRL packs rows of these lengths into: best fit, the longest first, rows cut to `size`.

    Source: Ding et al. 2024, "Fewer Truncations Improve Language Modeling", arXiv 2404.10830; TRL's strategy `bfd`.
    """
    count = 0
    for together in _blocks(lengths, _TOGETHER):
        room: list[int] = []  # what is left in each packed row, sorted
        for length in sorted((min(length, size) for length in together if length), reverse=True):
            at = bisect_left(room, length)
            if at == len(room):
                count += 1
                left = size - length
            else:
                left = room.pop(at) - length
            if left:
                insort(room, left)
    return count


def _counted(block: Sequence[Turns], renderer: Renderer | None, packed: int) -> Counted:
    """Rows that TRL would pack together, and their sequences.

    A conversation is as long as its last turn's sequence, which holds all turns before it. A row that cannot be
    rendered counts for nothing; training says what is wrong with it.
    """
    from ramify.base.errors import DataError
    from ramify.prompts.many import encode_many

    if renderer is None:
        return Counted(len(block), sum(map(len, block)))
    encoded = iter(encode_many(renderer, [example for turns in block for example in turns]))
    sequences, lengths = 0, []
    for turns in block:
        found = [one for each in islice(encoded, len(turns)) if not isinstance(each, DataError) for one in each]
        sequences += len(found)
        lengths.append(max((len(one.prompt) + len(one.completion) for one in found), default=0))
    return Counted(packed_rows(lengths, packed), sequences)


def _blocks(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    unread = iter(rows)
    while block := list(islice(unread, size)):
        yield block

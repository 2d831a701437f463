"""What the sequences of a context hold: shared prefixes, sequences kept for later, cells that are left.

Sequences are numbered; one that is held belongs to a prompt or a completion in the making. One that was released is
kept for whoever begins with the same tokens, until its number or its cells are needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count

from ramify.sample.llamacpp.runtime import Runtime


class Cache:
    """The sequences of one context.

    Args:
        runtime: its context is emptied.
        cells: tokens that fit, shared ones counted once.
        sequences: how many there are.
        kept: most released sequences that stay.
    """

    def __init__(self, runtime: Runtime, cells: int, sequences: int, kept: int) -> None:
        runtime.reserve(cells, sequences)
        self._runtime, self._size, self._keep = runtime, cells, kept
        self._tokens: list[list[int]] = [[] for _ in range(sequences)]
        self._cells: list[list[int]] = [[] for _ in range(sequences)]
        self._references: Counter[int] = Counter()
        self._numbers = count()
        self._held: set[int] = set()
        self._released: list[int] = []  # longest ago first

    @property
    def used(self) -> int:
        """Cells that hold a token."""
        return len(self._references)

    def length(self, sequence: int) -> int:
        """Tokens of a sequence."""
        return len(self._tokens[sequence])

    def known(self, ids: Sequence[int]) -> int:
        """Tokens of this prompt that need not be computed; the last always is, for its logits."""
        return self._longest(ids)[1]

    def take(self, ids: Sequence[int]) -> int | None:
        """Hold a sequence that begins with as much of this prompt as any other has; None: all are held."""
        source, shared = self._longest(ids)
        target = self._unused(spared=source)
        if target is None:
            return None
        if target == source:
            self._cut(target, shared)
        else:
            self._copy(source, target, shared)
        return target

    def fork(self, source: int) -> int | None:
        """Hold a sequence that begins as this one; None: all are held."""
        target = self._unused(spared=source)
        if target is not None:
            self._copy(source, target, self.length(source))
        return target

    def push(self, sequence: int, tokens: Sequence[int]) -> None:
        """These tokens were computed at the end of a sequence."""
        self._tokens[sequence] += tokens
        new = [next(self._numbers) for _ in tokens]
        self._cells[sequence] += new
        self._references.update(new)

    def release(self, sequence: int) -> None:
        """Hold it no longer; it stays for whoever begins with the same tokens."""
        self._held.discard(sequence)
        if self._tokens[sequence]:
            self._released.append(sequence)
        while len(self._released) > self._keep:
            self._drop(self._released[0])

    def has_room(self, wanted: int) -> bool:
        """Whether so many more cells can be had; kept sequences give way, longest ago first."""
        while self.used + wanted > self._size and self._released:
            self._drop(self._released[0])
        return self.used + wanted <= self._size

    def clear(self) -> None:
        """Forget everything."""
        for sequence in range(len(self._tokens)):
            self._cut(sequence, 0)
        self._held.clear()
        self._released.clear()

    def _longest(self, ids: Sequence[int]) -> tuple[int | None, int]:
        """The sequence that shares most with a prompt, and how many tokens."""
        best, most = None, 0
        if not self._runtime.shares:
            return best, most
        for sequence, tokens in enumerate(self._tokens):
            shared = common(tokens, ids)
            if shared > most:
                best, most = sequence, shared
        return best, min(most, len(ids) - 1)

    def _unused(self, spared: int | None) -> int | None:
        """Hold a number: an empty one, or of what was released longest ago, the spared one last."""
        empty = next((n for n, tokens in enumerate(self._tokens) if not tokens and n not in self._held), None)
        found = empty
        if found is None and self._released:
            found = next((n for n in self._released if n != spared), self._released[0])
            self._released.remove(found)
        if found is not None:
            self._held.add(found)
            if found != spared:
                self._cut(found, 0)
        return found

    def _copy(self, source: int | None, target: int, end: int) -> None:
        if source is None or not end:
            return
        self._runtime.copy(source, target, end)
        self._tokens[target] = self._tokens[source][:end]
        self._cells[target] = self._cells[source][:end]
        self._references.update(self._cells[target])

    def _drop(self, sequence: int) -> None:
        self._released.remove(sequence)
        self._cut(sequence, 0)

    def _cut(self, sequence: int, end: int) -> None:
        if end >= self.length(sequence):
            return
        self._runtime.cut(sequence, end)
        for cell in self._cells[sequence][end:]:
            self._references[cell] -= 1
            if not self._references[cell]:
                del self._references[cell]
        del self._tokens[sequence][end:], self._cells[sequence][end:]


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens that two sequences begin with alike: found by halves, compared a slice at a time."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if list(first[low:middle]) == list(second[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low

"""Prefix trees of token sequences, laid out in depth-first order.

Sequences are sorted by their ids (a prefix before what continues it, siblings by their first different id), so the
row of tokens is the concatenation of what each sequence adds to the one before it, and depends on the set of
sequences only, not on their order. A node is a run of tokens between two forks:

    sequences   A B C D      row       A B C D E F       nodes   A B    C D    E F
                A B E F      position  0 1 2 3 2 3               start  0      2      4
                A B          end       6 6 4 4 6 6               stop   2      4      6
                                                                 end    6      4      6
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ramify.base.types import TokenSequence

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Node:
    """A run of tokens without a fork.

    Attributes:
        start: row of its first token.
        stop: row just past its last token; its first child, if it has one, starts there.
        end: row just past its subtree: `stop` when it has no children.
        parent: index of the node above it, -1 at a root. Parents come before their children.
        depth: position of its first token, the number of tokens above it.
    """

    start: int
    stop: int
    end: int
    parent: int
    depth: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class TokenTree:
    """Token sequences that share their common prefixes.

    Attributes:
        ids: [T] int64, the tokens in depth-first order.
        nodes: in depth-first order; their spans `start:stop` tile the row.
        last: [n] int64, the row of the last token of each sequence, in the order given; -1 for an empty sequence.
        n_unshared: tokens of all sequences, each counted by itself.
    """

    ids: Ints
    nodes: tuple[Node, ...]
    last: Ints
    n_unshared: int

    @property
    def n_sequences(self) -> int:
        """How many sequences it was grown from."""
        return len(self.last)

    @cached_property
    def position(self) -> Ints:
        """[T] int64, the number of tokens above each token on its own path."""
        rows = np.arange(len(self.ids), dtype=np.int64)
        return rows + self._spread([node.depth - node.start for node in self.nodes])

    @cached_property
    def end(self) -> Ints:
        """[T] int64, the row just past the subtree of each token's node: k is visible to q when k <= q < end[k]."""
        return self._spread([node.end for node in self.nodes])

    def path(self, sequence: int) -> Ints:
        """[length] int64, the rows of one sequence's tokens from the root to its last token."""
        stop = int(self.last[sequence]) + 1
        if stop == 0:
            return np.empty(0, dtype=np.int64)
        index = int(self._node_of_row[stop - 1])
        parts: list[Ints] = []
        while index >= 0:
            node = self.nodes[index]
            parts.append(np.arange(node.start, stop, dtype=np.int64))
            index = node.parent
            stop = self.nodes[index].stop
        return np.concatenate(parts[::-1]) if len(parts) > 1 else parts[0]

    @cached_property
    def _node_of_row(self) -> Ints:
        return self._spread(list(range(len(self.nodes))))

    def _spread(self, values: list[int]) -> Ints:
        """One value a node, repeated over its tokens."""
        lengths = [node.stop - node.start for node in self.nodes]
        return np.repeat(np.array(values, dtype=np.int64), np.array(lengths, dtype=np.int64))


def grow(sequences: Sequence[TokenSequence]) -> TokenTree:
    """Grow the prefix tree of token sequences; duplicates, prefixes of others and empty sequences are all right."""
    ids = [as_ids(sequence.ids) for sequence in sequences]
    order = sorted_order(ids)
    shared = shared_prefixes(ids, order)
    tails = [ids[index][common:] for index, common in zip(order, shared, strict=True)]
    last, starts, depths = _fork(ids, order, shared)
    return TokenTree(
        ids=np.concatenate([np.empty(0, dtype=np.int64), *tails]),
        nodes=_nodes(starts, depths, sum(map(len, tails))),
        last=last,
        n_unshared=sum(map(len, ids)),
    )


def as_ids(ids: Sequence[int]) -> Ints:
    """[length] int64 of a tuple of token ids (faster than numpy.array for long tuples)."""
    return np.frombuffer(array("q", ids), dtype=np.int64)


def sorted_order(ids: Sequence[Ints]) -> list[int]:
    """Indices in lexicographic order of the ids, equal ones in the order given."""
    keys = [row.astype(">u8").tobytes() for row in ids]  # bytes compare as the ids do, at the speed of memcmp
    return sorted(range(len(ids)), key=keys.__getitem__)


def shared_prefixes(ids: Sequence[Ints], order: Sequence[int]) -> list[int]:
    """For each sequence of the order, how many first tokens it shares with the one before it (0 for the first)."""
    shared = [0] if order else []
    for before, after in pairwise(order):
        length = min(len(ids[before]), len(ids[after]))
        differs = ids[before][:length] != ids[after][:length]
        first = int(differs.argmax()) if length else 0
        shared.append(first if length and differs[first] else length)
    return shared


def _fork(ids: Sequence[Ints], order: Sequence[int], shared: Sequence[int]) -> tuple[Ints, list[int], list[int]]:
    """Rows of the last tokens, and the rows and depths where nodes start, in depth-first order."""
    last = np.full(len(ids), -1, dtype=np.int64)
    rows = np.empty(max(map(len, ids), default=0), dtype=np.int64)  # rows[d]: the token at depth d of the open path
    depth_at: dict[int, int] = {}
    length = total = 0
    for index, common in zip(order, shared, strict=True):
        own = len(ids[index])
        if common < length:  # the open path goes on past the fork: what follows there is a node of its own
            depth_at[int(rows[common])] = common
        if own > common:
            if common < length or common == 0:
                depth_at[total] = common
            rows[common:own] = np.arange(total, total + own - common)
            total += own - common
        if own:
            last[index] = rows[own - 1]
            length = own
    starts = sorted(depth_at)
    return last, starts, [depth_at[start] for start in starts]


def _nodes(starts: list[int], depths: list[int], total: int) -> tuple[Node, ...]:
    """Nodes that start at these rows and depths: parents and ends follow from the depth-first order."""
    stops = [*starts[1:], total]
    parents, ends = [-1] * len(starts), [total] * len(starts)
    above: list[int] = []
    for index, (start, depth) in enumerate(zip(starts, depths, strict=True)):
        while above and depths[above[-1]] >= depth:
            ends[above.pop()] = start
        parents[index] = above[-1] if above else -1
        above.append(index)
    return tuple(map(Node, starts, stops, ends, parents, depths))

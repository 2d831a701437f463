"""A prefix tree as tensors: one row of tokens, the shape of the tree, and the table of supervised targets.

Shape legend: T packed tokens, S supervised targets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ramify.base.types import TokenSequence
from ramify.tree.layout import Layout
from ramify.tree.tree import grow

_ID = np.dtype(">u4")
"""A token id in a key: most significant byte first, so that bytes compare as ids do."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A packed prefix tree, ready for one forward pass.

    The target table has a line for each trained token of each sequence: packed row `rows[i]` predicts id
    `targets[i]` for sequence `sequence[i]`, in the order of the sequences given. A row that forks, or that several
    sequences train on, is listed once for each of them.

    Attributes:
        input_ids: [T] int64.
        position: [T] int64, depth of each token.
        end: [T] int64, the row just past the subtree of its node: k is visible to q when k <= q < end[k].
        rows: [S] int64.
        targets: [S] int64.
        sequence: [S] int64.
        weights: [S] float32, never 0.
        n_sequences: how many sequences were packed.
        n_unshared: tokens of all sequences, each counted by itself.
        layout: what attention needs to know; travels through the model as a keyword.
    """

    input_ids: Tensor
    position: Tensor
    end: Tensor
    rows: Tensor
    targets: Tensor
    sequence: Tensor
    weights: Tensor
    n_sequences: int
    n_unshared: int
    layout: Layout

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        if torch.device(device) == self.input_ids.device:
            return self
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, layout=self.layout.to(device), **cast(dict[str, Any], moved))


def pack(sequences: Sequence[TokenSequence]) -> Batch:
    """Grow the prefix tree of the sequences and pack it."""
    tree = grow(sequences)
    rows, targets, weights, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)], []
    for index, sequence in enumerate(sequences):
        weight = np.array(sequence.weights, dtype=np.float32)
        trained = np.flatnonzero(weight)
        counts.append(len(trained))
        if len(trained):
            path = tree.path(index)
            rows.append(path[trained - 1])
            targets.append(tree.ids[path[trained]])
            weights.append(weight[trained])
    position, end = torch.from_numpy(tree.position), torch.from_numpy(tree.end)
    return Batch(
        input_ids=torch.from_numpy(tree.ids),
        position=position,
        end=end,
        rows=torch.from_numpy(np.concatenate(rows)),
        targets=torch.from_numpy(np.concatenate(targets)),
        sequence=torch.from_numpy(np.repeat(np.arange(len(counts), dtype=np.int64), np.array(counts, dtype=np.int64))),
        weights=torch.from_numpy(np.concatenate(weights)),
        n_sequences=tree.n_sequences,
        n_unshared=tree.n_unshared,
        layout=Layout(tree.nodes, position, end),
    )


def micro_batches(sequences: Iterable[TokenSequence], micro_tokens: int) -> list[list[int]]:
    """Group sequences so that each group packs to at most `micro_tokens` tokens (see `joint_batches`)."""
    return joint_batches(((sequence,) for sequence in sequences), micro_tokens)


def joint_batches(items: Iterable[Sequence[TokenSequence]], micro_tokens: int) -> list[list[int]]:
    """Group items, whose sequences stay together, so that each group packs to at most `micro_tokens` tokens.

    Neighbours in the tree stay together, so that as little as possible is computed twice. The groups depend on the
    set of items only; an item larger than the budget makes a group of its own. Sizes are exact: what a sequence adds
    to a sorted set is its length less the longest prefix it shares with one of its two neighbours there.

    Returns:
        Indices of the items, each exactly once.
    """
    keys = [[_sort_key(sequence) for sequence in item] for item in items]
    groups: list[list[int]] = []
    grown = _GrownSize()
    for index in sorted(range(len(keys)), key=lambda index: min(keys[index], default=b"")):
        grown.add(keys[index])
        if groups and grown.tokens <= micro_tokens:
            groups[-1].append(index)
            continue
        groups.append([index])
        grown = _GrownSize()
        grown.add(keys[index])
    return groups


class _GrownSize:
    """How many tokens the prefix tree of the sequences added so far has."""

    def __init__(self) -> None:
        self.tokens = 0
        self._sorted: list[bytes] = []

    def add(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            place = bisect_left(self._sorted, key)
            neighbours = self._sorted[max(0, place - 1) : place + 1]
            self.tokens += len(key) // _ID.itemsize - max((_shared(key, other) for other in neighbours), default=0)
            self._sorted.insert(place, key)


def _sort_key(sequence: TokenSequence) -> bytes:
    """The ids as bytes that compare as they do."""
    return np.array(sequence.ids, dtype=_ID).tobytes()


def _shared(first: bytes, second: bytes) -> int:
    """How many first tokens two keys share."""
    size = min(len(first), len(second)) // _ID.itemsize
    if not size:
        return 0
    differs = np.frombuffer(first, _ID, size) != np.frombuffer(second, _ID, size)
    place = int(differs.argmax())
    return place if differs[place] else size

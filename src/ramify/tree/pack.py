"""A prefix tree as tensors: one row of tokens, the shape of the tree, and the table of supervised targets.

Shape legend: T packed tokens, S supervised targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from ramify.base.types import TokenSequence
from ramify.tree.layout import Layout
from ramify.tree.tree import Ints, as_ids, grow, shared_prefixes, sorted_order


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


def micro_batches(sequences: Sequence[TokenSequence], micro_tokens: int) -> list[list[int]]:
    """Group sequences so that each group packs to at most `micro_tokens` tokens.

    Neighbours in the tree stay together, so that as little as possible is computed twice. The groups depend on the
    set of sequences only; a sequence longer than the budget makes a group of its own.

    Returns:
        Indices of the sequences, each exactly once.
    """
    ids: list[Ints] = [as_ids(sequence.ids) for sequence in sequences]
    order = sorted_order(ids)
    groups: list[list[int]] = []
    used = 0
    for index, common in zip(order, shared_prefixes(ids, order), strict=True):
        added = len(ids[index]) - common
        if groups and used + added <= micro_tokens:
            groups[-1].append(index)
            used += added
        else:
            groups.append([index])
            used = len(ids[index])
    return groups

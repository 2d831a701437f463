"""The prompts of a run as one prefix tree: in which pieces it is computed, and what each sample reads from where.

The row of all distinct prompt tokens (depth-first, see `ramify.tree`) is cut into *spans*: runs without a fork in
which no prompt ends before the last token. Spans are computed in row order, a chunk of rows at a time, so whatever a
span stands on has been computed before it or is computed with it.

When sequences are decoded, a span is either *shared* (its keys are read once per step for all sequences below it) or
*copied* into the storage of each sequence: a few tokens that few sequences share cost less that way than one more
call per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ramify.base.types import TokenSequence
from ramify.tree.tree import TokenTree, grow

_WORTH_SHARING = 1024
"""Tokens times sequences from which one more attention call costs less than copies (measured at 3 heads of 64)."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of prompt tokens without a fork.

    Attributes:
        start, stop: its rows in the tree.
        end: the row just past all that stands on it.
        parent: index of the span above, -1 at a root.
        samples: how many samples stand on it.
        shared: whether decoding reads it in place, for all sequences at once.
    """

    start: int
    stop: int
    end: int
    parent: int
    samples: int
    shared: bool

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class PromptTree:
    """All prompts of a run.

    Attributes:
        ids, position: [T] int64 of each distinct prompt token.
        end: [T] int64, row just past the subtree of each token's span: k is visible to q when k <= q < end[k].
        spans: in row order; they tile the rows.
        last_span: for each prompt, the span that its last token ends.
        order: prompts in the order in which they become ready.
        chunks: bounds in spans; chunk c computes spans chunks[c] … chunks[c + 1] - 1.
    """

    ids: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    spans: tuple[Span, ...]
    last_span: tuple[int, ...]
    order: tuple[int, ...]
    chunks: tuple[int, ...]

    def path(self, span: int) -> list[int]:
        """Spans from the root to this one."""
        found = []
        while span >= 0:
            found.append(span)
            span = self.spans[span].parent
        return found[::-1]

    def copied(self, prompt: int) -> int:
        """How many tokens of this prompt are copied into the storage of each of its samples."""
        path = self.path(self.last_span[prompt])
        return sum(len(self.spans[index]) for index in path if not self.spans[index].shared)


def plan_prompts(prompts: Sequence[Sequence[int]], samples: Sequence[int], live: int, chunk: int) -> PromptTree:
    """Grow the tree of the prompts that have samples to draw, and decide how it is computed and read.

    Args:
        prompts: token ids, none of them empty.
        samples: how many samples of each prompt will be drawn, at least one.
        live: sequences decoded at once.
        chunk: most tokens computed at once.
    """
    tree = grow([TokenSequence(tuple(ids), (0.0,) * len(ids)) for ids in prompts])
    cuts, parents, ends = _cut(tree, chunk)
    last_span = tuple(int(span) for span in np.searchsorted(cuts, tree.last, side="right") - 1)
    weight = _samples_below(last_span, samples, parents)
    spans = tuple(
        Span(start, stop, end, parent, count, _is_shared(stop - start, count, live))
        for start, stop, end, parent, count in zip(cuts, [*cuts[1:], len(tree.ids)], ends, parents, weight, strict=True)
    )
    lengths = [len(span) for span in spans]
    return PromptTree(
        ids=tree.ids,
        position=tree.position,
        end=np.repeat(np.array(ends, dtype=np.int64), lengths),
        spans=spans,
        last_span=last_span,
        order=tuple(sorted(range(len(prompts)), key=lambda index: (last_span[index], index))),
        chunks=_chunks(lengths, chunk),
    )


def _is_shared(length: int, samples: int, live: int) -> bool:
    return samples > 1 and length * min(samples, live) >= _WORTH_SHARING


def _cut(tree: TokenTree, chunk: int) -> tuple[list[int], list[int], list[int]]:
    """Start, parent and end of each span: nodes, cut after each prompt's last token and every `chunk` tokens."""
    stops = {int(row) + 1 for row in tree.last}
    inner = sorted(stops)
    cuts: list[int] = []
    parents: list[int] = []
    ends: list[int] = []
    last_of_node: list[int] = []
    after = 0
    for node in tree.nodes:
        while after < len(inner) and inner[after] <= node.start:
            after += 1
        bounds = {node.start, *range(node.start, node.stop, chunk)}
        while after < len(inner) and inner[after] < node.stop:
            bounds.add(inner[after])
            after += 1
        for place, start in enumerate(sorted(bounds)):
            parents.append(len(cuts) - 1 if place else last_of_node[node.parent] if node.parent >= 0 else -1)
            cuts.append(start)
            ends.append(node.end)
        last_of_node.append(len(cuts) - 1)
    return cuts, parents, ends


def _samples_below(last_span: Sequence[int], samples: Sequence[int], parents: Sequence[int]) -> list[int]:
    below = [0] * len(parents)
    for span, count in zip(last_span, samples, strict=True):
        below[span] += count
    for span in range(len(parents) - 1, -1, -1):
        if parents[span] >= 0:
            below[parents[span]] += below[span]
    return below


def _chunks(lengths: Sequence[int], chunk: int) -> tuple[int, ...]:
    bounds = [0]
    tokens = 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > chunk:
            bounds.append(index)
            tokens = 0
        tokens += length
    return (*bounds, len(lengths))

"""How attention on a packed tree is cut into rectangles: the plan that the CPU backend follows.

A tile is a contiguous range of query rows that share one list of fully visible key spans (what lies above them), and
a square of their own rows under a mask. Small neighbouring subtrees form one tile; the rows of a long node are cut
into tiles that see the node's earlier rows without a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ramify.tree.tree import Ints, Node

Span = tuple[int, int]

LARGEST_TILE = 160
SMALLEST_TILE = 32
_TILE_AREA = 49152  # rows × keys: the scores of one key head's group stay in the second-level cache


@dataclass(frozen=True, eq=False, slots=True)
class Tile:
    """Query rows `start:stop` and what they see.

    Attributes:
        spans: key spans in the order of the score columns; the last one ends with the tile's own rows.
        n_keys: keys in all spans, the number of score columns.
        mask: [stop - start, m] float32, 0 or -inf, added to the last m score columns; the others are fully visible.
    """

    start: int
    stop: int
    spans: tuple[Span, ...]
    n_keys: int
    mask: Tensor


def plan_tiles(nodes: Sequence[Node], position: Ints, end: Ints, window: int | None = None) -> tuple[Tile, ...]:
    """Cut a tree into tiles.

    Args:
        nodes: in depth-first order.
        position: [T] int64.
        end: [T] int64.
        window: a key is visible only when fewer than `window` positions behind the query; None: no window.
    """
    plain = (_tile(start, stop, spans, end) for start, stop, spans in _ranges(nodes))
    if window is None:
        return tuple(plain)
    return tuple(_through_window(tile, position, end, window) for tile in plain)


def _ranges(nodes: Sequence[Node]) -> Iterator[tuple[int, int, tuple[Span, ...]]]:
    """(start, stop, spans above) of each tile; every row is in exactly one."""
    at_row = {node.start: index for index, node in enumerate(nodes)}
    above: dict[int, tuple[Span, ...]] = {-1: ()}  # spans on the path down to the last row of a node
    index = 0
    while index < len(nodes):
        node = nodes[index]
        spans = above[node.parent]
        rows = _tile_rows(_count(spans))
        if node.end - node.start > rows:
            yield from _cut_node(node, spans)
            above[index] = _append(spans, (node.start, node.stop))
            index += 1
            continue
        stop = node.end
        while stop in at_row:
            sibling = nodes[at_row[stop]]
            if sibling.parent != node.parent or sibling.end - node.start > rows:
                break
            stop = sibling.end
        yield node.start, stop, spans
        index = at_row.get(stop, len(nodes))


def _cut_node(node: Node, spans: tuple[Span, ...]) -> Iterator[tuple[int, int, tuple[Span, ...]]]:
    start = node.start
    while start < node.stop:
        left = node.stop - start
        rows = _tile_rows(_count(spans))
        if rows < left < 2 * rows:
            rows = (left + 1) // 2
        stop = min(start + rows, node.stop)
        yield start, stop, spans
        spans = _append(spans, (start, stop))
        start = stop


def _tile_rows(keys: int) -> int:
    return min(LARGEST_TILE, max(SMALLEST_TILE, _TILE_AREA // (keys + LARGEST_TILE)))


def _count(spans: Sequence[Span]) -> int:
    return sum(stop - start for start, stop in spans)


def _append(spans: tuple[Span, ...], span: Span) -> tuple[Span, ...]:
    """Spans with one more, joined to the last one where they touch."""
    if spans and spans[-1][1] == span[0]:
        return (*spans[:-1], (spans[-1][0], span[1]))
    return (*spans, span)


def _tile(start: int, stop: int, spans: tuple[Span, ...], end: Ints) -> Tile:
    spans = _append(spans, (start, stop))
    mask = _triangle(stop - start)
    if (end[start:stop] < stop).any():  # something inside the tile cannot see all rows before it
        mask = mask.masked_fill(_out_of_reach(torch.arange(start, stop), start, stop, end), -torch.inf)
    return Tile(start, stop, spans, _count(spans), mask)


@lru_cache(maxsize=2 * LARGEST_TILE)
def _triangle(size: int) -> Tensor:
    """[size, size] causal mask."""
    return torch.full((size, size), -torch.inf).triu(1)


def _out_of_reach(keys: Tensor, start: int, stop: int, end: Ints) -> Tensor:
    """[rows, keys] bool: the key's subtree ends before the query, or the key comes after it."""
    query = torch.arange(start, stop)[:, None]
    return (query < keys) | (query >= torch.from_numpy(end)[keys])


def _through_window(tile: Tile, position: Ints, end: Ints, window: int) -> Tile:
    """The tile without the keys that no row sees through the window, and a mask on all columns where it bites."""
    own = position[tile.start : tile.stop]
    first = int(own.min()) - window + 1  # the first position that any row of the tile sees
    spans = tuple(
        (max(a, b - int(position[b - 1]) - 1 + first), b) for a, b in tile.spans[:-1] if position[b - 1] >= first
    )
    last_start, last_stop = tile.spans[-1]
    above = tile.start - last_start  # rows of the path that lie right before the tile's own
    kept = max(0, min(above, int(position[tile.start]) - first)) if above else 0
    spans = (*spans, (tile.start - kept, last_stop))
    keys = torch.cat([torch.arange(a, b) for a, b in spans])
    distance = torch.from_numpy(own)[:, None] - torch.from_numpy(position)[keys]
    if int(distance.max()) < window:
        return Tile(tile.start, tile.stop, spans, len(keys), tile.mask)
    hidden = _out_of_reach(keys, tile.start, tile.stop, end) | (distance >= window)
    mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
    return Tile(tile.start, tile.stop, spans, len(keys), mask)

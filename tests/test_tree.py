"""Prefix trees and packed batches: against brute force on all pairs of tokens, for any set of sequences."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.types import TokenSequence
from ramify.tree.pack import Batch, micro_batches, pack
from ramify.tree.tiles import plan_tiles
from ramify.tree.tree import grow


@st.composite
def sequences(draw: st.DrawFn) -> list[TokenSequence]:
    """Few letters, so that prefixes are shared, contained and repeated; weights of any sign, some 0."""
    many = draw(st.lists(st.lists(st.integers(0, 2), max_size=9), max_size=12))
    weights = st.sampled_from((0.0, 0.0, 1.0, 0.25, -2.0))
    return [TokenSequence(tuple(ids), tuple([0.0, *(draw(weights) for _ in ids[1:])][: len(ids)])) for ids in many]


def prefixes(many: list[TokenSequence]) -> set[tuple[int, ...]]:
    """All different non-empty prefixes: the nodes of the tree without its compression."""
    return {each.ids[:stop] for each in many for stop in range(1, len(each.ids) + 1)}


@given(sequences())
def test_every_prefix_is_computed_once(many: list[TokenSequence]) -> None:
    """Paths give the sequences back, and no two rows stand for the same prefix."""
    tree = grow(many)
    assert len(tree.ids) == len(prefixes(many))
    assert tree.n_unshared == sum(len(each.ids) for each in many)
    row_of: dict[tuple[int, ...], int] = {}
    for index, each in enumerate(many):
        path = tree.path(index)
        assert tuple(tree.ids[path]) == each.ids
        assert tuple(tree.position[path]) == tuple(range(len(each.ids)))
        assert tree.last[index] == (path[-1] if len(path) else -1)
        for stop, row in enumerate(path, start=1):
            assert row_of.setdefault(each.ids[:stop], int(row)) == row


@given(sequences())
def test_the_end_rule_is_the_ancestor_relation(many: list[TokenSequence]) -> None:
    """`k <= q < end[k]` holds exactly when k lies on the path from the root to q."""
    tree = grow(many)
    rows = np.arange(len(tree.ids))
    rule = (rows <= rows[:, None]) & (rows[:, None] < tree.end)
    ancestors = np.zeros_like(rule)
    for index in range(len(many)):
        path = tree.path(index)
        for place, row in enumerate(path):
            ancestors[row, path[: place + 1]] = True
    assert (rule == ancestors).all()
    assert (pack(many).layout.visible().numpy() == ancestors).all()


@given(sequences())
def test_nodes_tile_the_row_and_end_at_forks(many: list[TokenSequence]) -> None:
    """Nodes are maximal: a token with one continuation is in the node of that continuation."""
    tree = grow(many)
    stops = [0, *(node.stop for node in tree.nodes)]
    assert [node.start for node in tree.nodes] == stops[:-1]
    assert stops[-1] == len(tree.ids)
    children = Counter(node.parent for node in tree.nodes)
    for index, node in enumerate(tree.nodes):
        assert node.parent < index
        assert children[index] != 1
        assert node.depth == tree.position[node.start]
        if node.parent >= 0:
            above = tree.nodes[node.parent]
            assert above.depth + len(above) == node.depth
            assert above.stop <= node.start < node.end <= above.end


@given(sequences(), st.randoms(use_true_random=False))
def test_the_tree_does_not_depend_on_the_order(many: list[TokenSequence], random: Random) -> None:
    """Rows and nodes come from the set of sequences alone."""
    shuffled = list(many)
    random.shuffle(shuffled)
    tree, other = grow(many), grow(shuffled)
    assert (tree.ids == other.ids).all()
    assert tree.nodes == other.nodes


@given(sequences())
def test_targets_count_once_for_each_sequence_that_owns_them(many: list[TokenSequence]) -> None:
    """The table is the list of all trained tokens of all sequences, in order, duplicates included."""
    batch, tree = pack(many), grow(many)
    expected = [
        (int(tree.path(index)[place - 1]), each.ids[place], index, weight)
        for index, each in enumerate(many)
        for place, weight in enumerate(each.weights)
        if weight != 0
    ]
    columns = (batch.rows, batch.targets, batch.sequence, batch.weights)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    assert batch.n_sequences == len(many)
    assert batch.weights.dtype == torch.float32


@given(sequences(), st.integers(1, 30))
def test_micro_batches_hold_every_sequence_once_and_keep_the_budget(many: list[TokenSequence], budget: int) -> None:
    """Each group packs to the budget, or is one sequence that is longer."""
    groups = micro_batches(many, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(many)))
    for group in groups:
        size = len(pack([many[index] for index in group]).input_ids)
        assert size <= budget or len({many[index].ids for index in group}) == 1


@pytest.mark.parametrize("window", [None, 1, 3, 40, 400])
@pytest.mark.parametrize("seed", range(3))
def test_tiles_show_exactly_the_visible_keys(window: int | None, seed: int) -> None:
    """Painting every tile gives the written-out rule, also where nodes are longer than a tile and windows bite."""
    generator = np.random.default_rng(seed)
    many = []
    for _ in range(14):
        ids = tuple(generator.integers(0, 2, 2)) * 90 + tuple(generator.integers(0, 2, generator.integers(1, 200)))
        many.append(TokenSequence.of((), ids, 0.0))
    batch = pack(many)
    length = len(batch.input_ids)
    painted = torch.zeros(length, length, dtype=torch.bool)
    row_counts = torch.zeros(length, dtype=torch.int64)
    tiles = plan_tiles(batch.layout.nodes, batch.position.numpy(), batch.end.numpy(), window)
    for tile in tiles:
        keys = torch.cat([torch.arange(start, stop) for start, stop in tile.spans])
        assert len(keys) == tile.n_keys
        row_counts[tile.start : tile.stop] += 1
        shown = torch.ones(tile.stop - tile.start, tile.n_keys, dtype=torch.bool)
        shown[:, tile.n_keys - tile.mask.shape[1] :] = tile.mask == 0
        painted[tile.start : tile.stop, keys] = shown
    assert (row_counts == 1).all()
    assert torch.equal(painted, batch.layout.visible(window))


def test_shared_prompt_is_counted_once() -> None:
    """A prompt of 800 and 16 completions of 40: 800 + 16·40 tokens instead of 16·840."""
    generator = np.random.default_rng(0)
    prompt = tuple(map(int, generator.integers(0, 50_000, 800)))
    many = [TokenSequence.of(prompt, tuple(map(int, generator.integers(50_000, 99_999, 40)))) for _ in range(16)]
    batch = pack(many)
    assert batch.n_unshared == 16 * 840
    assert len(batch.input_ids) == 800 + 16 * 40
    assert len(micro_batches(many, 1000)) == 4  # 5 completions fit behind the prompt


def test_deep_trees_need_no_deep_stack() -> None:
    """A comb of 1200 forks, each one token below the last."""
    spine = tuple([1] * 1200)
    many = [TokenSequence.of(spine[:length], (2,)) for length in range(1, 1200)]
    batch = pack(many)
    assert len(batch.input_ids) == 1199 + 1199
    assert int(batch.position.max()) == 1199
    assert len(plan_tiles(batch.layout.nodes, batch.position.numpy(), batch.end.numpy())) > 0


def test_nothing_packs_to_nothing() -> None:
    """No sequences, and sequences without tokens."""
    for many in ([], [TokenSequence((), ())]):
        batch = pack(many)
        assert len(batch.input_ids) == len(batch.rows) == batch.n_unshared == 0
        assert batch.n_sequences == len(many)
    assert micro_batches([], 100) == []


def test_a_batch_moves_as_a_whole() -> None:
    """`to` keeps the table and the shape of the tree, and is free where nothing moves."""
    batch = pack([TokenSequence.of((1, 2), (3,)), TokenSequence.of((1, 2), (4, 5))])
    assert batch.to("cpu") is batch
    moved: Batch = batch.to("meta")
    assert moved.layout.end.device.type == moved.rows.device.type == "meta"
    assert moved.layout.nodes == batch.layout.nodes

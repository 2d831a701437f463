"""The reference of many pairs: computed in bounded memory, and kept under its key."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from train_setup import Watcher, model_folder

from ramify.base.errors import RunError
from ramify.model.load import load_model
from ramify.train import reference
from ramify.train.pairs import PairSet
from ramify.train.preference import Reference
from ramify.train.reference import References, compute_references, read_references, write_references

__all__ = ["model_folder"]


def test_references_are_kept_under_their_key(tmp_path: Path) -> None:
    made = References(Reference(np.float32([1, 2]), np.float32([3, 4])), Reference.none(1), seconds=3.0)
    write_references(tmp_path, {"weights": "a", "micro_tokens": 8}, made)
    found = read_references(tmp_path, {"micro_tokens": 8, "weights": "a"})
    assert found is not None and found.valid is not None and found.seconds == 0
    np.testing.assert_array_equal(found.train.rejected, [3, 4])
    assert read_references(tmp_path, {"weights": "a", "micro_tokens": 9}) is None
    assert read_references(tmp_path / "nowhere", {}) is None
    (tmp_path / "reference.npz").write_bytes(b"")
    assert read_references(tmp_path, {"weights": "a", "micro_tokens": 8}) is None
    with pytest.raises(RunError, match="cannot be written"):
        write_references(tmp_path / "reference.npz", {}, made)


def many_pairs(prompts: int, length: int) -> PairSet:
    """Two pairs for each prompt; prompts share their first half."""
    generator = np.random.default_rng(0)
    ids = generator.integers(3, 200, (prompts, length), dtype=np.int32)
    ids[:, : length // 2] = ids[0, : length // 2]
    prompt_of = tuple(pair // 2 for pair in range(2 * prompts))
    chosen, rejected = (tuple(generator.integers(3, 200, (len(prompt_of), 5), dtype=np.int32)) for _ in range(2))
    return PairSet(tuple(ids), prompt_of, chosen, rejected, tuple((pair,) for pair in range(len(prompt_of))))


def test_the_reference_of_many_pairs_is_computed_a_block_at_a_time(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks as in one: every sequence once, in trees no larger than allowed, and the same values."""
    network = load_model(str(model_folder), dtype="fp32", device="cpu").network
    train, valid = many_pairs(7, 20), many_pairs(2, 30)
    whole = compute_references(network, train, valid, 80, Watcher())
    monkeypatch.setattr(reference, "_SORTED", 200)
    found = compute_references(network, train, valid, 80, Watcher())
    assert found.valid is not None and whole.valid is not None
    for one, other in ((found.train, whole.train), (found.valid, whole.valid)):
        np.testing.assert_allclose(one.chosen, other.chosen, atol=2e-5)
        np.testing.assert_allclose(one.rejected, other.rejected, atol=2e-5)
    assert found.tokens == whole.tokens == train.tokens + valid.tokens
    assert whole.computed_tokens <= found.computed_tokens < found.tokens / 2


def test_planning_the_reference_does_not_hold_every_prompt_once_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MB of sequences, of which a hundredth is sorted at a time."""
    pairs = many_pairs(1000, 500)
    monkeypatch.setattr(reference, "_SORTED", 20_000)
    tracemalloc.start()
    try:
        parts = reference._parts([pairs], 8192)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(number for part in parts for number in part) == list(range(4000))
    assert peak < 4 * pairs.tokens / 2  # the distinct prompts are a quarter of it

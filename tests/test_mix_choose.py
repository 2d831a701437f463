"""Which entries are picked, how often, and that the order in which they were read decides nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.config_mix import MixConfig
from ramify.data.mix.choose import pick, quotas, without_duplicates
from ramify.data.mix.shelf import ROW, Index


def config(sources: int = 1, **values: Any) -> MixConfig:
    named = [{"name": f"s{at}", "from": "x", "weight": 1 + at} for at in range(sources)]
    return MixConfig.model_validate({"sources": named, **values})


def index(size: int, seed: int) -> Index:
    """Entries with keys of their own, equal texts now and then, and trained tokens from 1 to 20."""
    g = np.random.default_rng(seed)
    found = np.zeros(size, ROW)
    for name, end in (("key", 2**63), ("text", max(size, 1)), ("prompt", 2**63)):
        found[name] = g.integers(0, end, size)
    found["trained"] = g.integers(1, 21, size)
    return found


def everything(indices: list[Index]) -> list[Any]:
    return [np.ones(len(each), np.bool_) for each in indices]


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@given(SIZES, st.integers(1, 200), st.sampled_from(["cap", "repeat", "rebalance"]))
def test_each_source_has_its_quota_and_each_entry_its_turn(sizes: list[int], rows: int, short: Any) -> None:
    indices = [index(size, at) for at, size in enumerate(sizes)]
    settings = config(len(sizes), rows=rows, short=short)
    taken = [quota.taken for quota in quotas(settings, indices, everything(indices))]
    picks = pick(settings, indices, everything(indices), taken)
    for at, (size, amount) in enumerate(zip(sizes, taken, strict=True)):
        times = Counter(picks.of(at).tolist())
        assert times.total() == amount
        assert all(abs(times[entry] - amount / size) < 1 for entry in range(size))


@given(st.integers(1, 40), st.integers(1, 2000))
def test_trained_tokens_come_as_near_as_whole_rows_allow(size: int, tokens: int) -> None:
    indices = [index(size, 0)]
    settings = config(tokens=tokens, short="repeat")
    picks = pick(settings, indices, everything(indices), [tokens])
    assert abs(int(indices[0]["trained"][picks.of(0)].sum()) - tokens) <= 10


@given(SIZES, st.randoms(use_true_random=False))
def test_the_order_of_entries_decides_nothing(sizes: list[int], chance: Any) -> None:
    indices = [index(size, at) for at, size in enumerate(sizes)]
    shuffled = [each[chance.sample(range(len(each)), len(each))] for each in indices]
    settings = config(len(sizes), rows=20, short="rebalance", validation=0.3)
    found = []
    for some in (indices, shuffled):
        stays = without_duplicates(some)
        picks = pick(settings, some, stays, [quota.taken for quota in quotas(settings, some, stays)])
        keys = [some[source]["key"][entry] for source, entry in zip(picks.source, picks.entry, strict=True)]
        found.append((keys, picks.source.tolist(), picks.validation.tolist()))
    assert found[0] == found[1]


@given(SIZES)
def test_each_text_stays_once_in_the_first_source_that_has_it(sizes: list[int]) -> None:
    indices = [index(size, at) for at, size in enumerate(sizes)]
    stays = without_duplicates(indices)
    kept = [(int(text), at) for at, each in enumerate(indices) for text in each["text"][stays[at]]]
    first: dict[int, int] = {}
    for at, each in enumerate(indices):
        for text in each["text"]:
            first.setdefault(int(text), at)
    assert sorted(kept) == sorted(first.items())


def test_another_seed_takes_other_entries_in_another_order() -> None:
    indices = [index(1000, 0)]
    orders = [pick(config(rows=100, seed=seed), indices, everything(indices), [100]).entry.tolist() for seed in (1, 2)]
    assert 2 < len({*orders[0]} & {*orders[1]}) < 30  # about 10 by chance
    assert orders[0] != sorted(orders[0])

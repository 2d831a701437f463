"""Which entries are picked, how often, and that the order in which they were read decides nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.base.config_mix import MixConfig
from ramify.base.errors import ConfigError
from ramify.data.mix.choose import MOST_PASSES, pick, quotas, without_duplicates
from ramify.data.mix.reasons import notes, why
from ramify.data.mix.shelf import ROW, Counts, Index, Taken, nothing


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


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    st.none() | st.integers(1, 200),
    st.sampled_from(["cap", "repeat", "rebalance"]),
)
def test_a_share_that_differs_by_more_than_a_row_has_its_reason(sizes: list[int], rows: int | None, short: Any) -> None:
    indices = [index(size, at) for at, size in enumerate(sizes)]
    settings = config(len(sizes), rows=rows, **({} if rows is None else {"short": short}))
    found = quotas(settings, indices, everything(indices))
    amounts = [quota.taken for quota in found]
    taken = [Taken(source, Counts(), each, Path()) for source, each in zip(settings.sources, indices, strict=True)]
    reasons = why(settings, taken, found, amounts, 1)
    weights = sum(source.weight for source in settings.sources)
    for source, amount, reason in zip(settings.sources, amounts, reasons, strict=True):
        if abs(amount - sum(amounts) * source.weight / weights) > 1.001:
            assert reason
    if all(quota.there and quota.wanted in (None, quota.taken) and quota.taken <= quota.there for quota in found):
        assert not any(reasons)


def test_a_source_that_failed_is_why_others_have_more() -> None:
    settings, indices = config(2), [index(6, 0), index(0, 1)]
    taken = [Taken(settings.sources[0], Counts(), indices[0], Path()), nothing(settings.sources[1], "no such file")]
    found = quotas(settings, indices, everything(indices))
    assert why(settings, taken, found, [6, 0], 1) == ["its share is larger because less came of s1", "no such file"]


def test_a_source_is_not_repeated_without_end() -> None:
    two = [index(2, 0)]
    [quota] = quotas(config(rows=2 * MOST_PASSES, short="repeat"), two, everything(two))
    assert quota.taken == 2 * MOST_PASSES
    with pytest.raises(ConfigError, match=r"source s0: has 2 of 2,001 rows .* more than 1,000 times what is there"):
        quotas(config(rows=2 * MOST_PASSES + 1, short="repeat"), two, everything(two))
    with pytest.raises(ConfigError, match="more than 1,000 times"):
        quotas(config(tokens=10**30, short="repeat"), two, everything(two))


@pytest.mark.parametrize(("prompts", "reason"), [((1, 2, 3), "by chance"), ((1, 2, 2), "rows of one prompt")])
def test_another_share_of_validation_has_its_reason(prompts: tuple[int, ...], reason: str) -> None:
    [note] = notes(config(validation=0.5), np.array(prompts, np.uint64), 1 / 3)
    assert note.startswith("validation has 33.33% of the rows, asked were 50.00%: ") and reason in note


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

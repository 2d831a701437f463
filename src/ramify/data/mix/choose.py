"""The second pass, first half: which entries are in the mix, in which order, and on which side of the split.

Everything is decided by keyed hashes of what an entry says, never by the order in which it was read: within a source
by seed, source and entry; the order of the whole by seed and entry; the side of the split by the prompt alone, so that
a question is on the same side of every mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ramify.base.config_mix import MixConfig, MixSource
from ramify.base.errors import ConfigError
from ramify.base.rng import key, uniforms
from ramify.data.mix.shares import amounts, apportion
from ramify.data.mix.shelf import Index

MOST_PASSES = 1000
"""Of one source. A mix that would show its rows more often has a size that was not meant."""
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Picks:
    """The mix, in order: of each row its source, its number in the source's index, which copy of it, and its side."""

    source: Integers
    entry: Integers
    copy: Integers
    validation: Flags

    def __len__(self) -> int:
        return len(self.source)

    def of(self, source: int) -> Integers:
        """Numbers of the entries of one source, copies included."""
        found: Integers = self.entry[self.source == source]
        return found


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of one source is wanted, there, and taken, in the unit of the mix; wanted is None without a size."""

    wanted: int | None
    there: int
    taken: int


def without_duplicates(indices: Sequence[Index]) -> list[Flags]:
    """Which entries stay when each text occurs once: of equal ones that of the first source, there the smallest key."""
    whole = _joined(indices)
    order = np.lexsort((whole["key"], _numbers(indices), whole["text"]))
    texts = whole["text"][order]
    first = np.ones(len(order), np.bool_)
    first[1:] = texts[1:] != texts[:-1]
    stays = np.zeros(len(order), np.bool_)
    stays[order[first]] = True
    return _parted(stays, indices)


def by_key(index: Index, stays: Flags) -> Integers:
    """Numbers of the entries that stay, by their keys."""
    entries = np.flatnonzero(stays)
    return entries[np.lexsort((entries, index["key"][entries]))]


def quotas(config: MixConfig, indices: Sequence[Index], stays: Sequence[Flags]) -> list[Quota]:
    """How much to take of each source.

    Raises:
        ConfigError: one would be repeated more than `MOST_PASSES` times.
    """
    weights = [source.weight for source in config.sources]
    there = [int(_sizes(config, index)[flags].sum()) for index, flags in zip(indices, stays, strict=True)]
    wanted = [None] * len(weights) if config.size is None else apportion(config.size, weights)
    found = [*map(Quota, wanted, there, amounts(config.size, weights, there, config.short))]
    for source, quota in zip(config.sources, found, strict=True):
        if quota.taken > MOST_PASSES * quota.there:
            has = f"has {quota.there:,} of {quota.wanted:,} {config.unit} that its weight asks for"
            raise ConfigError(
                f"source {source.name}: {has}: more than {MOST_PASSES:,} times what is there",
                hint="short=cap or short=rebalance, a smaller size, or a smaller weight",
            )
    return found


def pick(config: MixConfig, indices: Sequence[Index], stays: Sequence[Flags], taken: Sequence[int]) -> Picks:
    """The rows of the mix, in order.

    Args:
        taken: how much of each source, in rows or trained tokens. More than there is: whole passes, then a part.
    """
    chosen = [
        _take(config, source, index, flags, amount)
        for source, index, flags, amount in zip(config.sources, indices, stays, taken, strict=True)
    ]
    source = np.concatenate([np.full(len(entry), at) for at, (entry, _) in enumerate(chosen)])
    entry = np.concatenate([entry for entry, _ in chosen])
    copy = np.concatenate([copy for _, copy in chosen])
    rows = _joined([index[entry] for index, (entry, _) in zip(indices, chosen, strict=True)])
    place = _uniform(rows["key"], key("mix", "order", config.seed), copy)
    order = np.lexsort((entry, source, copy, rows["key"], place))
    sides = _uniform(rows["prompt"], key("mix", "validation")) < config.validation
    return Picks(source[order], entry[order], copy[order], sides[order])


def _take(config: MixConfig, source: MixSource, index: Index, stays: Flags, amount: int) -> tuple[Integers, Integers]:
    """Entries of one source and their copies."""
    drawn = _uniform(index["key"], key("mix", "source", config.seed, source.name))
    entries = np.flatnonzero(stays)
    entries = entries[np.lexsort((entries, index["key"][entries], drawn[entries]))]
    sizes = _sizes(config, index)[entries]
    passes, rest = divmod(amount, max(int(sizes.sum()), 1))
    part = entries[: _nearest(np.cumsum(sizes), rest)]
    copies = np.concatenate([np.repeat(np.arange(passes), len(entries)), np.full(len(part), passes)])
    return np.concatenate([np.tile(entries, passes), part]), copies


def _nearest(sums: Integers, amount: int) -> int:
    """How many to take so that their sum is nearest to an amount; of two equally near, the fewer."""
    above = int(np.searchsorted(sums, amount))
    below_sum = int(sums[above - 1]) if above else 0
    if above == len(sums) or amount - below_sum <= int(sums[above]) - amount:
        return above
    return above + 1


def _sizes(config: MixConfig, index: Index) -> Integers:
    """What each entry counts in the size of the mix."""
    return index["trained"].astype(np.int64) if config.counts_tokens else np.ones(len(index), np.int64)


def _uniform(keys: Keys, purpose: int, counter: Integers | None = None) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each key."""
    counts = np.zeros(len(keys), np.uint64) if counter is None else counter.astype(np.uint64)
    return uniforms(keys ^ np.uint64(purpose), counts)


def _joined(indices: Sequence[Index]) -> Any:
    return np.concatenate([*indices])


def _numbers(indices: Sequence[Index]) -> Integers:
    return np.repeat(np.arange(len(indices)), [len(index) for index in indices])


def _parted(flags: Flags, indices: Sequence[Index]) -> list[Flags]:
    return np.split(flags, np.cumsum([len(index) for index in indices])[:-1])

"""Which rows stay neighbours when the order is shuffled, so that what they share is computed once.

A group enters an epoch as a whole; an epoch is a shuffle of the groups. The turns of one conversation, and the
completions of one prompt, are a group. Of preference pairs, with `none` every order is possible; with `prompt` the
pairs of a prompt follow each other, and with `prefix` those of several prompts that share their greater part (a
student's code, a document). A step then sees fewer different prompts, while loss and gradient of a given step stay
what they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, overload

import numpy as np
import numpy.typing as npt

from ramify.tree.tree import shared_prefixes

Places = npt.NDArray[np.int64]


class Groups(Sequence[tuple[int, ...]]):
    """Groups of indices in two arrays: a million of them take 16 megabytes.

    Attributes:
        members: [n] int64, the indices of all groups, one group after the other.
        bounds: [g + 1] int64, where each group starts in `members` and the last one ends.
    """

    def __init__(self, members: Places, bounds: Places) -> None:
        self.members = members
        self.bounds = bounds

    @classmethod
    def of(cls, groups: Iterable[Sequence[int]]) -> Groups:
        """The same groups."""
        if isinstance(groups, Groups):
            return groups
        members, bounds = array("q"), array("q", [0])
        for group in groups:
            members.extend(group)
            bounds.append(len(members))
        return cls(np.frombuffer(members, np.int64), np.frombuffer(bounds, np.int64))

    @classmethod
    def neighbours(cls, bounds: Places) -> Groups:
        """Indices 0, 1, 2, … cut at these bounds."""
        return cls(np.arange(int(bounds[-1]), dtype=np.int64), bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @overload
    def __getitem__(self, index: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        if isinstance(index, slice):
            return [self._group(each) for each in range(len(self))[index]]
        return self._group(range(len(self))[index])

    def joined(self, order: Places) -> Places:
        """[n] int64, the members of the groups in this order of the groups."""
        lengths = np.diff(self.bounds)[order]
        shifts = self.bounds[order] - np.concatenate(([0], np.cumsum(lengths)[:-1]))
        found: Places = self.members[np.repeat(shifts, lengths) + np.arange(len(self.members))]
        return found

    def _group(self, index: int) -> tuple[int, ...]:
        return tuple(self.members[self.bounds[index] : self.bounds[index + 1]].tolist())


def group_pairs(
    prompts: Sequence[npt.NDArray[np.int32]],
    prompt_of: Sequence[int],
    group_by: Literal["none", "prompt", "prefix"],
    most: int,
) -> tuple[tuple[int, ...], ...]:
    """Indices of pairs, each exactly once, in the groups that `group_by` asks for.

    Args:
        prompts: ids of the distinct prompts.
        prompt_of: for each pair, its place in `prompts`.
        group_by: none; prompt; or prefix: prompts that are neighbours in sorted order join while each shares more than
            half of the longer one with the one before it.
        most: pairs that a group of several prompts may have: those of an optimizer step.
    """
    if group_by == "none":
        return tuple((pair,) for pair in range(len(prompt_of)))
    members: list[list[int]] = [[] for _ in prompts]
    for pair, prompt in enumerate(prompt_of):
        members[prompt].append(pair)
    if group_by == "prompt":
        return tuple(tuple(pairs) for pairs in members if pairs)
    return tuple(tuple(group) for group in _neighbours(prompts, members, most) if group)


def _neighbours(
    prompts: Sequence[npt.NDArray[np.int32]], members: Sequence[list[int]], most: int
) -> Iterator[list[int]]:
    keys = [prompt.astype(">u4").tobytes() for prompt in prompts]
    order = sorted(range(len(prompts)), key=keys.__getitem__)
    group: list[int] = []
    before = 0
    for place, shared in zip(
        order, shared_prefixes([prompt.astype(np.int64) for prompt in prompts], order), strict=True
    ):
        length = len(prompts[place])
        if 2 * shared <= max(before, length) or len(group) + len(members[place]) > most:
            yield group
            group = []
        group = group + members[place]
        before = length
    yield group

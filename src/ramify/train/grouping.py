"""Which pairs stay neighbours when the order is shuffled, so that what they share is computed once.

A group enters an epoch as a whole; an epoch is a shuffle of the groups. With `none` every order of the pairs is
possible. With `prompt` the pairs of a prompt follow each other, and with `prefix` those of several prompts that share
their greater part (a student's code, a document): a step then sees fewer different prompts, while loss and gradient
of a given step stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ramify.tree.tree import shared_prefixes

Groups = tuple[tuple[int, ...], ...]


def group_pairs(
    prompts: Sequence[npt.NDArray[np.int32]],
    prompt_of: Sequence[int],
    group_by: Literal["none", "prompt", "prefix"],
    most: int,
) -> Groups:
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

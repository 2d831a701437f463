"""Keys and values of recent prompts and of what was generated behind them: nothing known is computed again.

A prefix tree. A chat's next turn finds its history in it, and many clients find their common system prompt. It holds at
most a number of tokens beyond what is in use; the leaves that were used longest ago go first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from ramify.sample.passes import Ints, Segment, joined

WORTH = 16
"""Fewer tokens than this are computed again instead of cutting a run in two: a run more costs something every step."""


class Node:
    """A run of tokens that has been computed.

    Attributes:
        ids: its tokens.
        segment: their keys and values; None at the root alone.
        above: the run before it; None at the root alone.
        below: the runs behind it.
        held: how many stand on it now; it is not let go of while any do.
        used: when it was used last.
        logits: [V] behind its last token, where a prompt ended.
    """

    def __init__(self, ids: Ints, segment: Segment | None, above: Node | None) -> None:
        self.ids, self.segment, self.above = ids, segment, above
        self.below: list[Node] = []
        self.held = 0
        self.used = 0
        self.logits: Tensor | None = None

    def path(self) -> list[Node]:
        """The runs from the first token to this one."""
        found: list[Node] = []
        node: Node | None = self
        while node is not None and node.above is not None:
            found.append(node)
            node = node.above
        return found[::-1]


class Known:
    """The tree.

    Args:
        most: tokens that it may hold beyond what is held by someone.

    Attributes:
        tokens: how many it holds.
    """

    def __init__(self, most: int) -> None:
        self.root = Node(np.zeros(0, dtype=np.int64), None, None)
        self.tokens = 0
        self._most = most
        self._clock = 0

    def find(self, ids: Ints) -> tuple[Node, int]:
        """The run that ends where the known part of these tokens ends, and the length of that part."""
        node, done = self._descend(self.root, ids)
        self._use(node)
        return node, done

    def add(self, node: Node, ids: Ints, segment: Segment) -> Node:
        """Put tokens behind a run.

        Args:
            node: what they follow.
            ids: at least one.
            segment: their keys and values, in storage of its own.

        Returns:
            the run that ends with the last of them.
        """
        node, done = self._descend(node, ids)
        if done < len(ids):
            part = segment.part(done, len(ids)).copied() if done else segment
            node = self._attach(node, ids[done:], part)
            self.tokens += len(ids) - done
        self._use(node)
        return node

    def release(self, node: Node) -> None:
        """One less stands on a run; what was computed behind it meanwhile may become one run with it."""
        node.held -= 1
        while len(node.below) == 1:
            node = node.below[0]
        self.tidy(node)

    def tidy(self, node: Node) -> None:
        """Join runs above a node that nothing but the next one follows and nobody holds: one run is read faster."""
        while node.above is not None:
            chain = [node]
            above = node.above
            while above.above is not None and len(above.below) == 1 and not above.held:
                chain.append(above)
                above = above.above
            if len(chain) > 1:
                self._join(chain[::-1], above)
            node = above

    def trim(self) -> None:
        """Let go of what was used longest ago until no more than the allowed number of tokens is left."""
        while self.tokens > self._most:
            leaf = min(self._leaves(self.root), key=lambda each: each.used, default=None)
            if leaf is None:
                return
            self._remove(leaf)

    def _descend(self, node: Node, ids: Ints) -> tuple[Node, int]:
        """Follow tokens down from a run, cutting the run in which they part from what is known."""
        done = 0
        while done < len(ids):
            lengths = [common(each.ids, ids[done:]) for each in node.below]
            best = max(range(len(lengths)), key=lengths.__getitem__, default=None)
            if best is None or lengths[best] < min(WORTH, len(node.below[best].ids)):
                break
            found = node.below[best]
            done += lengths[best]
            if lengths[best] < len(found.ids):
                return self._cut(found, lengths[best]), done
            node = found
        return node, done

    def _cut(self, node: Node, length: int) -> Node:
        """Cut a run in two; the new one in front."""
        assert node.segment is not None and node.above is not None
        segment, above = node.segment, node.above
        above.below.remove(node)
        front = self._attach(above, node.ids[:length], segment.part(0, length).copied())
        front.used = node.used
        node.ids, node.segment, node.above = node.ids[length:], segment.part(length, len(segment)).copied(), front
        front.below.append(node)
        return front

    def _attach(self, above: Node, ids: Ints, segment: Segment) -> Node:
        node = Node(ids, segment, above)
        above.below.append(node)
        return node

    def _join(self, chain: list[Node], above: Node) -> None:
        """The last node of a chain takes in those before it."""
        first, last = chain[0], chain[-1]
        last.segment = joined([each.segment for each in chain if each.segment is not None])
        last.ids = np.concatenate([each.ids for each in chain])
        above.below[above.below.index(first)] = last
        last.above = above

    def _use(self, node: Node) -> None:
        self._clock += 1
        for each in node.path():
            each.used = self._clock

    def _leaves(self, node: Node) -> Iterator[Node]:
        """Leaves that nobody holds."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            waiting += node.below
            if not node.below and not node.held and node.above is not None:
                yield node

    def _remove(self, leaf: Node) -> None:
        assert leaf.above is not None
        leaf.above.below.remove(leaf)
        self.tokens -= len(leaf.ids)


def common(left: Ints, right: Ints) -> int:
    """How many tokens both begin with."""
    length = min(len(left), len(right))
    differ = left[:length] != right[:length]
    return int(differ.argmax()) if differ.any() else length

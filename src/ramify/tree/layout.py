"""What attention needs to know about a packed tree, and the plans made from it once and used in every layer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

import torch
from torch import Tensor

from ramify.tree.tree import Node

Plan = TypeVar("Plan")


class Layout:
    """The shape of a packed tree. Compared by identity, so that it can be a key.

    Attributes:
        nodes: in depth-first order.
        position: [T] int64, depth of each token.
        end: [T] int64, the row just past the subtree of its node: k is visible to q when k <= q < end[k].
        depth: the number of tokens on the longest path.
    """

    def __init__(self, nodes: tuple[Node, ...], position: Tensor, end: Tensor) -> None:
        self.nodes = nodes
        self.position = position
        self.end = end
        self.depth = max((node.depth + len(node) for node in nodes), default=0)
        self._plans: dict[Hashable, object] = {}

    def __len__(self) -> int:
        return self.end.shape[0]

    def to(self, device: torch.device | str) -> Layout:
        """The same layout on another device."""
        return Layout(self.nodes, self.position.to(device), self.end.to(device))

    def window(self, window: int | None) -> int | None:
        """The window, or None when no path is long enough for it to hide anything."""
        return None if window is None or window >= self.depth else window

    def plan(self, key: Hashable, make: Callable[[Layout], Plan]) -> Plan:
        """What `make` returns for this layout, made once for each key."""
        if key not in self._plans:
            self._plans[key] = make(self)
        return cast(Plan, self._plans[key])

    def visible(self, window: int | None = None) -> Tensor:
        """[T, T] bool, query by key: the rule of attention written out."""
        rows = torch.arange(len(self), device=self.end.device)
        seen = (rows <= rows[:, None]) & (rows[:, None] < self.end)
        if window is not None:
            seen &= self.position[:, None] - self.position < window
        return seen

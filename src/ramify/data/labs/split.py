"""Who trains and who tests: decided for students, not for rows, and by their names and texts alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ramify.base.rng import key


class Links:
    """Students, and who must be on one side because they handed in the same text. Union-find with path halving."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def add(self, student: str) -> None:
        """A student who may be linked to nobody."""
        self._above.setdefault(student, student)

    def join(self, one: str, other: str) -> None:
        """Both, and everyone linked to them, belong to one group."""
        first, second = sorted((self._root(one), self._root(other)))
        self._above[second] = first

    def groups(self) -> list[tuple[str, ...]]:
        """All groups, each sorted, in order of their first members."""
        found: dict[str, list[str]] = {}
        for student in sorted(self._above):
            found.setdefault(self._root(student), []).append(student)
        return [tuple(group) for group in found.values()]

    def _root(self, student: str) -> str:
        self.add(student)
        above = self._above
        while above[student] != student:
            above[student] = above[above[student]]
            student = above[student]
        return student


def train_students(
    groups: Iterable[tuple[str, ...]], share: float, seed: int, shielded: Collection[str] = ()
) -> frozenset[str]:
    """The students who train: groups in an order that seed and names decide, as long as that gets nearer to the share.

    Args:
        share: of all students in `groups`, 0 to 1.
        shielded: students who must not train; nor does anyone in a group with them.
    """
    every = list(groups)
    wanted = share * sum(map(len, every))
    free = [group for group in every if not any(student in shielded for student in group)]
    chosen: list[str] = []
    for group in sorted(free, key=lambda group: (key("labs", "split", seed, group[0]), group)):
        if abs(len(chosen) + len(group) - wanted) < abs(len(chosen) - wanted):
            chosen += group
    return frozenset(chosen)

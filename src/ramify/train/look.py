"""Which rows are worth looking at, picked while all of them go by, and the page of the run folder that shows them.

rows.html    the longest, the shortest, some at random and some of several turns, trained tokens coloured
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ramify.base.records import write_text
from ramify.base.rng import key
from ramify.base.types import TokenSequence
from ramify.prompts.page import Section, Shown, rows_page

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "rows.html"
_EACH = 3


class Kind(Enum):
    """Why a row is shown."""

    LONGEST = "longest"
    SHORTEST = "shortest"
    TURNS = "several trained turns"
    RANDOM = "at random"


class Pick(NamedTuple):
    """A row: its number among those that are used, and where it stood."""

    row: int
    source: str


class Look:
    """The few rows of each kind among all that were offered. A row's chance depends on its number alone."""

    def __init__(self, ranked: Mapping[str, Sequence[tuple[int, Sequence[Any]]]] | None = None) -> None:
        kept = ranked or {}
        self._ranked = {kind: [(rank, Pick(*pick)) for rank, pick in kept.get(kind.value, ())] for kind in Kind}

    @property
    def ranked(self) -> dict[str, list[tuple[int, Pick]]]:
        """What was kept so far, by kind; `Look(ranked)` goes on from it, from its JSON form too."""
        return {kind.value: list(ranked) for kind, ranked in self._ranked.items()}

    def offer(self, pick: Pick, tokens: int, turns: int) -> None:
        """One more row, in order.

        Args:
            tokens: of its longest sequence.
            turns: that are trained.
        """
        self._keep(Kind.LONGEST, -tokens, pick)
        self._keep(Kind.SHORTEST, tokens, pick)
        self._keep(Kind.RANDOM, key("look", pick.row), pick)
        if turns > 1:
            self._keep(Kind.TURNS, key("look", pick.row), pick)

    def picked(self) -> dict[Kind, list[Pick]]:
        """Of each kind the rows to show; a row that was shown already is not shown again."""
        shown: set[int] = set()
        found: dict[Kind, list[Pick]] = {}
        for kind, ranked in self._ranked.items():
            found[kind] = [pick for _, pick in ranked if pick.row not in shown]
            shown |= {pick.row for pick in found[kind]}
        return found

    def _keep(self, kind: Kind, rank: int, pick: Pick) -> None:
        ranked = self._ranked[kind]
        if len(ranked) < _EACH or rank < ranked[-1][0]:
            insort(ranked, (rank, pick))
            del ranked[_EACH:]


def write_page(
    folder: Path,
    title: str,
    tokenizer: PreTrainedTokenizerBase,
    look: Look,
    sides: Callable[[int], Iterable[tuple[str, Sequence[TokenSequence]]]],
) -> None:
    """Write `rows.html` into a run folder.

    Args:
        sides: what is shown of the row of that number: sequences, under a name (chosen, rejected) or under none.

    Raises:
        RunError: it cannot be written.
    """
    sections = [
        Section(
            kind.value,
            [Shown(pick.source, name, list(sequences)) for pick in picks for name, sequences in sides(pick.row)],
        )
        for kind, picks in look.picked().items()
        if picks
    ]
    write_text(folder / FILE, rows_page(title, tokenizer, sections))

"""Decontamination: which rows ask what evaluation files ask, by n-grams of words (Brown et al. 2020, arXiv 2005.14165,
appendix C, who use 13 words).

Words are runs of letters and digits, case folded. A question of fewer than n words overlaps with one of the same
words only. Words are compared, not hashes of them. All n-grams of the evaluation files are held in memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ramify.base.types import Conversation
from ramify.data.source import Source
from ramify.data.sources import Row, stream_rows

_WORD = re.compile(r"\w+")
Gram = tuple[str, ...]


@dataclass(slots=True)
class Overlap:
    """The questions of evaluation files, to compare others with.

    Attributes:
        n: words in a row that make an overlap.
        questions: read, by file.
    """

    n: int
    questions: Counter[str] = field(default_factory=Counter)
    _grams: dict[str, set[Gram]] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Iterable[str], n: int) -> Overlap:
        """Read the questions of evaluation files: the last user turn of each prompt.

        Raises:
            DataError: a file cannot be read.
        """
        made = cls(n)
        for file in files:
            for row in stream_rows(Source(file)):
                for prompt in _prompts(row):
                    made.add(file, prompt[-1].content)
        return made

    def add(self, file: str, question: str) -> None:
        """A question of an evaluation file."""
        self.questions[file] += 1
        self._grams.setdefault(file, set()).update(self._grams_of(question))

    def find(self, turns: Conversation) -> str | None:
        """The first file that a user turn of the conversation overlaps with, or None."""
        asked = [turn.content for turn in turns if turn.role == "user"]
        return next((file for file in self._grams for text in asked if self._overlaps(file, text)), None)

    def _overlaps(self, file: str, text: str) -> bool:
        return not self._grams[file].isdisjoint(self._grams_of(text))

    def _grams_of(self, text: str) -> Iterator[Gram]:
        """All runs of n words, or all words where there are fewer."""
        words = _WORD.findall(text.casefold())
        if 0 < len(words) < self.n:
            return iter([tuple(words)])
        return zip(*(words[start:] for start in range(self.n)), strict=False)


def _prompts(row: Row) -> list[Conversation]:
    """What a row asks."""
    decoded = row.decoded
    if decoded.problem is not None:
        return [decoded.problem.prompt]
    return [decoded.pair.prompt] if decoded.pair is not None else [each.prompt for each in decoded.examples]

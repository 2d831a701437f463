"""Decontamination: which rows ask what evaluations ask, by n-grams of words (Brown et al. 2020, arXiv 2005.14165,
appendix C, who use 13 words).

Words are runs of letters and digits, case folded. A question of fewer than n words overlaps with one of the same
words only. Words are compared, not hashes of them. All n-grams of the evaluations are held in memory.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ramify.base.config_mix import Evaluation
from ramify.base.errors import ConfigError, DataError
from ramify.base.types import Conversation
from ramify.data.mix.origin import origin_of
from ramify.data.source import Source
from ramify.data.sources import Row, stream_rows

_WORD = re.compile(r"\w+")
_NAMED = 3
"""Files of a folder that are named where it has no splits."""
Gram = tuple[str, ...]


@dataclass(slots=True)
class Overlap:
    """The questions of evaluations, to compare others with.

    Attributes:
        n: words in a row that make an overlap.
        questions: how many were read, by evaluation.
        splits: which split they are of, by evaluation; of a folder what it is called there; empty of a file.
    """

    n: int
    questions: Counter[str] = field(default_factory=Counter)
    splits: dict[str, str] = field(default_factory=dict)
    _grams: dict[str, set[Gram]] = field(default_factory=dict)

    @classmethod
    def of(cls, evaluations: Iterable[Evaluation], n: int) -> Overlap:
        """Read the questions of evaluations: the last turn of each prompt.

        Raises:
            DataError: one cannot be read, or holds no questions.
            ConfigError: the settings of one do not fit it.
        """
        made = cls(n)
        for evaluation in evaluations:
            try:
                made._read(evaluation)
            except (ConfigError, DataError) as error:
                raise type(error)(f"decontaminate: {error.message}", hint=error.hint) from None
        return made

    def _read(self, evaluation: Evaluation) -> None:
        name, source = evaluation.name, evaluated(evaluation)
        files: dict[Path, None] = {}
        for row in stream_rows(source):
            files.setdefault(row.place.path)
            for prompt in _prompts(row):
                self.add(name, prompt[-1].content)
        if not self.questions[name]:
            raise DataError("holds no questions", path=evaluation.path)
        self.splits[name] = _split(source, files)

    def add(self, name: str, question: str) -> None:
        """A question of an evaluation."""
        self.questions[name] += 1
        self._grams.setdefault(name, set()).update(self._grams_of(question))

    def find(self, turns: Conversation) -> str | None:
        """The first evaluation that a user turn of the conversation, or a plain text, overlaps with, or None."""
        asked = [turn.content for turn in turns if turn.role == "user" or len(turns) == 1]
        return next((name for name in self._grams for text in asked if self._overlaps(name, text)), None)

    def _overlaps(self, name: str, text: str) -> bool:
        return not self._grams[name].isdisjoint(self._grams_of(text))

    def _grams_of(self, text: str) -> Iterator[Gram]:
        """All runs of n words, or all words where there are fewer."""
        words = _WORD.findall(text.casefold())
        if 0 < len(words) < self.n:
            return iter([tuple(words)])
        return zip(*(words[start:] for start in range(self.n)), strict=False)


def evaluated(evaluation: Evaluation) -> Source:
    """Where the rows of an evaluation are read from: its test split where it has several and none is named."""
    return origin_of(evaluation, default_split="test")


def _prompts(row: Row) -> list[Conversation]:
    """What a row asks; a text that was not asked for has no prompt."""
    decoded = row.decoded
    if decoded.problem is not None:
        return [decoded.problem.prompt]
    prompts = [decoded.pair.prompt] if decoded.pair is not None else [each.prompt for each in decoded.examples]
    return [prompt for prompt in prompts if prompt]


def _split(source: Source, files: Iterable[Path]) -> str:
    """The split that was read, as far as its name is known."""
    if source.split is not None or source.hub_id is not None:
        return source.split or source.default_split
    inside = dict.fromkeys(path.relative_to(source.name).parts[:1] for path in files)
    names = [name for parts in inside for name in parts]
    return ", ".join([*names[:_NAMED], "…"] if len(names) > _NAMED else names)

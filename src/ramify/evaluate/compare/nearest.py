"""From a wrong answer to the training rows nearest to it: what the model may have learnt it from.

Nearness is the cosine of TF-IDF weights (Salton & Buckley 1988, https://doi.org/10.1016/0306-4573(88)90021-0) of runs
of 3 to 5 letters, which need no language and survive small changes. It says what is alike, not what caused what.

Rows are read twice and not kept: first for how many rows have each run of letters, then to be weighed. Memory is
bounded by a fixed number of hashed runs, however long the file is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ramify.base.config import RunConfig
from ramify.base.types import Conversation, Lineage
from ramify.data.source import training_source
from ramify.data.sources import RowStream, stream_rows
from ramify.tasks.registry import load_task
from ramify.tasks.task import answer_examples

MOST_ROWS = 50_000
"""Rows of a training that are looked at."""
_BUCKETS = 1 << 16
_LENGTHS = (3, 4, 5)
_LETTERS = 4_000
"""Of a text that are looked at: the rest of a very long one hardly changes what it is near to."""
_QUERIES = 128
"""Texts that are looked for in one reading."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)

Ids = NDArray[np.int64]
Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row as it was trained on.

    Attributes:
        source: where it stands: `file:line`.
        lineage: the sample that it was, when it was drawn from a model.
    """

    source: str
    question: str
    answer: str
    lineage: Lineage | None = None

    @property
    def text(self) -> str:
        """What is compared."""
        return f"{self.question}\n{self.answer}"


@dataclass(frozen=True, slots=True)
class Near:
    """A training row and its nearness to a text: 1 is the same letters, 0 has none in common."""

    row: TrainingRow
    score: float


class TrainingRows:
    """The rows of a training, read anew each time they are iterated, at most `MOST_ROWS`.

    Attributes:
        config: the training's settings.
        selected: the file that a rejection sampling wrote its rows to, if there is one.
        cut: whether there were more than are looked at, once they were iterated.

    Raises:
        RamifyError: (while iterating) they are not there any more, or cannot be read.
    """

    def __init__(self, config: RunConfig, selected: str | None = None) -> None:
        self.config, self.selected, self.cut = config, selected, False

    def __iter__(self) -> Iterator[TrainingRow]:
        rows = self._all()
        yield from islice(rows, MOST_ROWS)
        self.cut = next(rows, None) is not None

    def _all(self) -> Iterator[TrainingRow]:
        if self.selected is not None:
            yield from _of_stream(stream_rows(self.selected), self.config)
        elif str(self.config.data.train) == "task":
            task = load_task(self.config.task)
            own = min(self.config.task.rows, self.config.data.limit or self.config.task.rows)
            for example in answer_examples(task.problems("train", own), task):
                yield TrainingRow(example.source, _asked(example.prompt), example.completions[0].text)
        else:
            yield from _of_stream(stream_rows(training_source(self.config.data, "train")), self.config)


def nearest(rows: Iterable[TrainingRow], texts: Sequence[str], k: int = 3) -> list[list[Near]]:
    """For each text the `k` nearest rows, nearest first; of equally near ones the earlier. Rows without a letter in
    common are not among them.

    Args:
        rows: can be iterated more than once.
    """
    common = np.zeros(_BUCKETS, dtype=np.int64)
    count = 0
    for row in rows:
        common[_runs(row.text)[0]] += 1
        count += 1
    rarity = (np.log((1 + count) / (1 + common)) + 1).astype(np.float32)
    found: list[list[Near]] = []
    for start in range(0, len(texts), _QUERIES):
        found += _nearest(rows, texts[start : start + _QUERIES], k, rarity)
    return found


def _nearest(rows: Iterable[TrainingRow], texts: Sequence[str], k: int, rarity: Weights) -> list[list[Near]]:
    wanted = np.zeros((_BUCKETS, len(texts)), dtype=np.float32)
    for column, text in enumerate(texts):
        ids, weights = _weighed(text, rarity)
        wanted[ids, column] = weights
    best: list[list[tuple[float, int, TrainingRow]]] = [[] for _ in texts]
    for number, row in enumerate(rows):
        ids, weights = _weighed(row.text, rarity)
        scores = weights @ wanted[ids] if len(ids) else np.zeros(len(texts), dtype=np.float32)
        for heap, score in zip(best, scores.tolist(), strict=True):
            if score > 0:
                entry = (score, -number, row)
                heapq.heappush(heap, entry) if len(heap) < k else heapq.heappushpop(heap, entry)
    return [[Near(row, min(score, 1.0)) for score, _, row in sorted(heap, key=_order)] for heap in best]


def _order(entry: tuple[float, int, TrainingRow]) -> tuple[float, int]:
    return -entry[0], -entry[1]


def _weighed(text: str, rarity: Weights) -> tuple[Ids, Weights]:
    """Hashed runs of letters with their weights, of length 1 together."""
    ids, counts = _runs(text)
    weights = ((1 + np.log(counts)) * rarity[ids]).astype(np.float32)
    return ids, weights / max(float(np.linalg.norm(weights)), 1e-12)


def _runs(text: str) -> tuple[Ids, NDArray[np.int64]]:
    """Which runs of letters a text has, hashed, and how often; letter case and kinds of white space count as one."""
    plain = f" {' '.join(text[:_LETTERS].casefold().split())} "
    letters = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    hashed = []
    for length in _LENGTHS:
        if len(letters) < length:
            break
        value = np.full(len(letters) - length + 1, length, dtype=np.uint64)
        for place in range(length):
            value = (value ^ letters[place : len(letters) - length + 1 + place]) * _PRIME
        hashed.append(value >> np.uint64(48))
    if not hashed:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    ids, counts = np.unique(np.concatenate(hashed).astype(np.int64), return_counts=True)
    return ids, counts.astype(np.int64)


def _of_stream(stream: RowStream, config: RunConfig) -> Iterator[TrainingRow]:
    for row in stream:
        decoded, source = row.decoded, row.place.source
        if decoded.pair is not None and config.method == "dpo":
            yield TrainingRow(source, _asked(decoded.pair.prompt), decoded.pair.chosen)
        elif decoded.examples:
            for example in decoded.examples:
                for completion in example.completions:
                    yield TrainingRow(source, _asked(example.prompt), completion.text, example.lineage)
        elif decoded.problem is not None:
            yield TrainingRow(source, _asked(decoded.problem.prompt), str(decoded.problem.answer or ""))


def _asked(prompt: Conversation) -> str:
    """The last turn."""
    return prompt[-1].content if prompt else ""

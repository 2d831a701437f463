"""Rows to imitate as token sequences that may be trained on: rendered in blocks, measured, checked, stored."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ramify.base.config import Data, RunConfig
from ramify.base.errors import DataError, LengthError
from ramify.base.progress import Progress
from ramify.data.checks import asked_key, prompt_key
from ramify.prompts.many import Encoded, encode_many
from ramify.prompts.renderer import Renderer
from ramify.train.grouping import Groups
from ramify.train.look import Look, Pick
from ramify.train.material import Material, RunData
from ramify.train.rows import Turns, TurnStream, length_limit, measured_prompts
from ramify.train.store import TokenStore, TokenWriter, new_store

_BLOCK = 512
"""Rows that are rendered at once."""
_MANY = 20 * _BLOCK
"""Rows from which on it is told how far reading is."""
_REASONS = 3
"""How many rows that could not be rendered are named."""

Keys = npt.NDArray[np.uint64]
_NO_KEYS: Keys = np.empty(0, np.uint64)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Rendered rows.

    Attributes:
        sequences: one a completion, those of one row after the other; on disk.
        groups: indices of the sequences of each row.
        asked: [n] uint64, `asked_key` of every example, sorted; empty when nobody asked for them.
        look: which rows are worth looking at.
        too_long: sequences left out because they were longer than allowed.
        n_unusable: rows that could not be rendered, and `unusable` what is to be said of them, when there were any.
        known: sources of rows whose prompt was known already.
    """

    sequences: TokenStore
    groups: Groups
    asked: Keys
    look: Look
    too_long: int = 0
    n_unusable: int = 0
    unusable: str | None = None
    known: tuple[str, ...] = ()

    unit: ClassVar[str] = "sequences"
    trains: ClassVar[str] = "tokens"

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def n_sequences(self) -> int:
        """One for each completion."""
        return len(self.sequences)

    @property
    def tokens(self) -> int:
        """Tokens of the unshared sequences in one pass."""
        return self.sequences.tokens

    @property
    def trained(self) -> float:
        """Sum of the weights in one pass."""
        return self.sequences.trained

    @cached_property
    def longest(self) -> int:
        """Length of the longest sequence."""
        return self.sequences.longest

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all ids, weights and groups: data, template and tokenizer in one number."""
        return hashlib.sha256(self.sequences.digest.encode() + self.groups.bounds.tobytes()).hexdigest()


def render_all(
    config: RunConfig, renderer: Renderer, max_length: int, material: Material[Turns]
) -> RunData[TrainingSet]:
    """Training and validation rows as token sequences.

    Args:
        max_length: what the model allows.

    Raises:
        LengthError: rows are longer than allowed.
        DataError: a row cannot be read, or has nothing to train.
    """
    limit = length_limit(config.data, max_length)
    rows, valid = (_watched(each, material.progress) for each in (material.train, material.valid))
    validates, valid_set = material.valid != [], None
    train_set = render(rows, renderer, limit, config.data, "training rows", _NO_KEYS if validates else None)
    if validates:
        valid_set = render(valid, renderer, limit, config.data, "validation rows", train_set.asked)
    for name, part, made in (("training", material.train, train_set), ("validation", material.valid, valid_set)):
        if isinstance(part, TurnStream) and made is not None:
            _refuse_share(part, made, config.data, f"{name} rows")
    said = [part.left_out for part in (material.train, material.valid) if isinstance(part, TurnStream)]
    said += [part.unusable for part in (train_set, valid_set) if part is not None]
    return RunData(
        train=train_set,
        valid=valid_set,
        leaked=() if valid_set is None else valid_set.known,
        separate=renderer.separate_count,
        measured=0 if valid_set is None else _also_measured(config, valid_set),
        left_out=tuple(line for line in said if line),
    )


def _refuse_share(read: TurnStream, made: TrainingSet, data: Data, name: str) -> None:
    """Rows that could not be read and rows that could not be rendered have one share together.

    Raises:
        DataError: they are more than may be left out.
    """
    unused = read.unused + made.n_unusable
    if unused > data.bad_rows * read.read:
        said = "; ".join(each for each in (read.left_out, made.unusable) if each)
        hint = f"data.bad_rows = {data.bad_rows:g} is the share that may be left out"
        raise DataError(f"{name}: {unused} of {read.read} rows cannot be used: {said}", hint=hint)


def _watched(rows: Iterable[Turns], progress: Progress | None) -> Iterator[Turns]:
    """The rows; how many there were is told from the time on when there are many."""
    done = 0
    try:
        for done, turns in enumerate(rows, start=1):
            if progress is not None and done >= _MANY and done % _BLOCK == 0:
                if done < _MANY + _BLOCK:
                    progress.start("reading rows", None)
                progress.update(done)
            yield turns
    finally:
        if progress is not None and done >= _MANY:
            progress.close()


def render(
    rows: Iterable[Turns], renderer: Renderer, limit: int, data: Data, name: str, known: Keys | None = None
) -> TrainingSet:
    """Token sequences of the rows, none longer than `limit` tokens.

    Args:
        limit: what model and settings allow.
        name: of the rows, for messages.
        known: prompt keys, sorted; rows that have one of them are told by their source. None: nobody asks for keys.

    Raises:
        LengthError: sequences are longer and `data.drop_long` is off; says how many, the longest and the limit.
        DataError: a row has nothing to train, or nothing is left.
    """
    with new_store() as writer:
        rendering = _Rendering(renderer, writer, limit, known)
        for block in _blocks(rows):
            rendering.add(block, stop=not data.bad_rows)
        rendering.check(data, name)
        return rendering.finished()


class _Rendering:
    """What has become of the rows so far."""

    def __init__(self, renderer: Renderer, writer: TokenWriter, limit: int, known: Keys | None) -> None:
        self.renderer, self.writer, self.limit, self.known = renderer, writer, limit, known
        self.bounds, self.asked, self.look = array("q", [0]), array("Q"), Look()
        self.rows = self.sequences = self.too_long = self.unusable = 0
        self.worst = (0, "")
        self.errors: list[DataError] = []
        self.leaked: list[str] = []

    def add(self, block: Sequence[Turns], stop: bool) -> None:
        """Render a block of rows; with `stop`, a row that cannot be rendered is raised."""
        encoded = iter(encode_many(self.renderer, [example for turns in block for example in turns]))
        for turns in block:
            found = list(islice(encoded, len(turns)))
            bad = next((each for each in found if isinstance(each, DataError)), None)
            if bad is None:
                self._take(turns, [one for each in found if not isinstance(each, DataError) for one in each])
            elif stop:
                raise bad
            else:
                self.unusable += 1
                self.errors += [bad] if len(self.errors) < _REASONS else []
        self.rows += len(block)

    def check(self, data: Data, name: str) -> None:
        """Refuse what is too long, and too many rows that could not be rendered."""
        if self.unusable > data.bad_rows * self.rows:
            raise DataError(f"{name}: {self._unusable()}", hint="data.bad_rows is the share that may be left out")
        if self.too_long and not data.drop_long:
            longest, source = self.worst
            raise LengthError(
                f"{name}: {self.too_long} of {self.sequences} sequences are longer than {self.limit} tokens; "
                f"the longest has {longest} ({source or 'no source'})",
                hint="data.drop_long=true leaves them out, counted; nothing is ever cut",
            )
        if not len(self.writer):
            raise DataError(f"{name}: no row is left to train on ({self.too_long} longer than {self.limit} tokens)")

    def finished(self) -> TrainingSet:
        """The set."""
        return TrainingSet(
            sequences=self.writer.store(),
            groups=Groups.neighbours(np.array(self.bounds, np.int64)),
            asked=np.unique(np.array(self.asked, np.uint64)),
            look=self.look,
            too_long=self.too_long,
            n_unusable=self.unusable,
            unusable=self._unusable() if self.unusable else None,
            known=tuple(self.leaked),
        )

    def _take(self, turns: Turns, encoded: Sequence[Encoded]) -> None:
        """Store what fits of a row."""
        source, first, longest = turns[0].source, len(self.writer), 0
        for one in encoded:
            if not one.weight:
                continue
            length = len(one.prompt) + len(one.completion)
            self.sequences += 1
            if length > self.limit:
                self.too_long += 1
                self.worst = max(self.worst, (length, source), key=lambda each: each[0])
                continue
            self.writer.append(*one)
            longest = max(longest, length)
        if len(self.writer) > first:
            self.look.offer(Pick(len(self.bounds) - 1, source), longest, len(turns))
            self.bounds.append(len(self.writer))
            if self.known is not None:
                self._note_prompts(turns, source, self.known)

    def _note_prompts(self, turns: Turns, source: str, known: Keys) -> None:
        keys = np.array([asked_key(example) for example in turns], np.uint64)
        self.asked.extend(keys.tolist())
        if len(known) and (known[np.searchsorted(known, keys) % len(known)] == keys).any():
            self.leaked.append(source)

    def _unusable(self) -> str:
        named = "; ".join(error.message for error in self.errors)
        return f"{self.unusable} of {self.rows} rows cannot be rendered: {named}"


def _blocks(rows: Iterable[Turns]) -> Iterator[list[Turns]]:
    unread = iter(rows)
    while block := list(islice(unread, _BLOCK)):
        yield block


def _also_measured(config: RunConfig, valid: TrainingSet) -> int:
    """How many validation rows are among the questions of `ramify eval`."""
    if str(config.data.valid) != str(config.evaluate.problems):
        return 0
    if str(config.data.valid) != "task":
        return len(valid)
    measured = np.array([prompt_key(prompt) for prompt in measured_prompts(config)], np.uint64)
    return int(np.isin(valid.asked, measured).sum())

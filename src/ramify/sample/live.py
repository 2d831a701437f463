"""The sequences that are decoded together: their slots, one step for all of them, refill and compaction.

Each sequence is drawn by an order of its own. A sequence that fills its slot has it emptied into a segment that is
read beside the shared ones, so a slot holds the newest part of a sequence of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ramify.base.errors import ModelError
from ramify.base.types import Stop
from ramify.model.rates import exact_device
from ramify.sample.choice import Choice, Order, Top
from ramify.sample.draw import not_finite
from ramify.sample.passes import DecodePass, Ints, Level, Segment, Slots, joined
from ramify.sample.penalty import Seen
from ramify.sample.prefill import Forward, Ready
from ramify.sample.streaming import StopFinder

Floats = npt.NDArray[np.float32]
OnToken = Callable[[int, float, Top, Stop | None], None]
"""Called with each token as it is drawn: id, log-probability, likeliest tokens, and how the sample ended with it."""


@dataclass(frozen=True, eq=False)
class Job:
    """A sample to draw: its computed prompt, its index, the key of its random numbers, and how it is drawn.

    Attributes:
        on_token: called with each of its tokens, or None.
    """

    ready: Ready
    index: int
    key: int
    order: Order
    on_token: OnToken | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sample that has ended.

    Attributes:
        stop: how, or None when it was given up.
        error: why it was given up, or None.
        computed: keys and values of its tokens but the last one, where they are kept.
    """

    job: Job
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: Stop | None
    error: ModelError | None = None
    computed: Segment | None = None


class Live:
    """Up to `slots.count` sequences in the making.

    Args:
        slots: their own keys and values.
        longest: most tokens that are drawn for any of them.
        keep: whether keys and values of what was drawn are handed out with it.
    """

    def __init__(self, slots: Slots, longest: int, *, keep: bool = False) -> None:
        self._slots, self._keep = slots, keep
        size = slots.count
        self._jobs: list[Job | None] = [None] * size
        self._finders: list[StopFinder | None] = [None] * size
        self._older: list[Segment | None] = [None] * size  # what its slot held before
        self._keys = np.zeros(size, dtype=np.uint64)
        self._limit = np.zeros(size, dtype=np.int64)  # most tokens to draw
        self._drawn = np.zeros(size, dtype=np.int64)  # tokens drawn so far
        self._own = np.zeros(size, dtype=np.int64)  # keys and values in the slot
        self._position = np.zeros(size, dtype=np.int64)  # of the last token drawn
        self._tokens = np.zeros((size, longest), dtype=np.int64)
        self._logprobs = np.zeros((size, longest), dtype=np.float32)
        self._seen = Seen(size)
        self._rows = 0
        self._holes: list[int] = []
        self._levels: list[Level] | None = None
        self._choice: Choice | None = None
        self._told = False  # whether anyone wants to see tokens as they are drawn

    @property
    def count(self) -> int:
        """Sequences alive."""
        return self._rows - len(self._holes)

    @property
    def free(self) -> int:
        """Sequences that can be admitted."""
        return self._slots.count - self.count

    def tokens(self) -> list[int]:
        """The tokens of the first sequence so far."""
        return [int(token) for token in self._tokens[0, : self._drawn[0]]]

    def admit(self, jobs: Sequence[Job]) -> list[Drawn]:
        """Draw the first token of at most `free` samples; those that go on get a slot.

        Returns:
            the samples that ended with their first token.
        """
        rows = np.array([self._place(job) for job in jobs], dtype=np.int64)
        logits = torch.stack([job.ready.logits for job in jobs])
        choice = Choice([job.order for job in jobs], exact_device(logits.device))
        ended = self._draw(logits, rows, choice)
        placed: dict[Ready, list[int]] = {}
        for job, row in zip(jobs, rows, strict=True):
            if self._jobs[row] is job:
                placed.setdefault(job.ready, []).append(int(row))
        for ready, some in placed.items():
            self._slots.fill(some, ready.copied)
        return ended

    def step(self, forward: Forward) -> list[Drawn]:
        """Compute one more token of every sequence.

        Returns:
            the samples that ended with it.
        """
        self._compact()
        self._empty_full_slots()
        rows = np.arange(self._rows)
        if self._levels is None:
            self._levels = self._shared_levels()
        self._own[: self._rows] += 1
        last = self._tokens[rows, self._drawn[rows] - 1]
        device = self._slots.device
        current = DecodePass(self._slots, self._own[rows], self._position[rows], self._levels)
        ids, position = (torch.from_numpy(values).to(device) for values in (last, self._position[rows]))
        logits = forward(current, ids, position)
        if self._choice is None:
            self._choice = Choice([self._job(row).order for row in range(self._rows)], exact_device(logits.device))
        return self._draw(logits, rows, self._choice)

    def give_up(self, jobs: Iterable[Job], *, keep: bool) -> list[Drawn]:
        """End those of these samples that are alive; their slots are free.

        Args:
            jobs: the samples.
            keep: whether keys and values are handed out: not behind a forward that failed.
        """
        rows = [row for row in map(self._row_of, jobs) if row is not None]
        return [self._finish(row, None, keep=keep) for row in rows]

    def _row_of(self, job: Job) -> int | None:
        return next((row for row in range(self._rows) if self._jobs[row] is job), None)

    def _draw(self, logits: Tensor, rows: Ints, choice: Choice) -> list[Drawn]:
        """One token of each of these rows; the samples that ended with it."""
        kind = logits.dtype
        logits = logits.to(exact_device(logits.device))
        before = self._drawn[rows]
        found = choice.draw(logits, self._keys[rows], before, self._seen, rows)
        tokens, logprobs = found[0].cpu().numpy(), found[1].cpu().numpy()
        self._tokens[rows, before], self._logprobs[rows, before] = tokens, logprobs
        self._drawn[rows] += 1
        self._position[rows] += 1
        self._seen.push(rows, tokens)
        broken = [int(row) for row in rows[~np.isfinite(logprobs)]]
        reasons = self._reasons(rows, tokens, choice)
        if self._told:
            self._tell(rows, choice.likeliest(logits), reasons, broken)
        ended = [self._finish(row, None, not_finite(kind)) for row in broken]
        return ended + [self._finish(row, stop) for row, stop in reasons.items() if row not in broken]

    def _tell(self, rows: Ints, top: dict[int, Top], reasons: dict[int, Stop], broken: list[int]) -> None:
        for place, row in enumerate(rows.tolist()):
            tell = self._job(row).on_token
            if tell is not None and row not in broken:
                newest = self._drawn[row] - 1
                token, logprob = int(self._tokens[row, newest]), float(self._logprobs[row, newest])
                tell(token, logprob, top.get(place, ()), reasons.get(row))

    def _place(self, job: Job) -> int:
        if self._holes:
            row = self._holes.pop()
        else:
            row = self._rows
            self._rows += 1
        settings, strings = job.order.settings, job.order.ending.strings
        self._jobs[row], self._keys[row], self._limit[row] = job, job.key, settings.max_new_tokens
        self._finders[row] = strings.finder() if strings else None
        self._older[row] = None
        self._own[row] = sum(map(len, job.ready.copied))
        self._position[row] = len(job.ready.ids) - 1
        self._drawn[row] = 0
        self._told |= job.on_token is not None
        self._seen.start(row, job.ready.ids if job.order.penalised else None)
        self._levels = self._choice = None
        return row

    def _reasons(self, rows: Ints, tokens: Ints, choice: Choice) -> dict[int, Stop]:
        """How those of these rows ended that ended with their last token."""
        if not choice.stop_strings:
            rows = rows[np.isin(tokens, choice.stop_ids) | (self._drawn[rows] >= self._limit[rows])]
        reasons = [(int(row), self._reason(row)) for row in rows]
        return {row: stop for row, stop in reasons if stop is not None}

    def _reason(self, row: int) -> Stop | None:
        """How the sequence ended with its last token, or None when it goes on."""
        token = int(self._tokens[row, self._drawn[row] - 1])
        if token in self._job(row).order.ending.stop_ids:
            return Stop.EOS
        finder = self._finders[row]
        if finder is not None and finder.push(token):
            return Stop.STOP_STRING
        return Stop.LENGTH if self._drawn[row] >= self._limit[row] else None

    def _finish(self, row: int, stop: Stop | None, error: ModelError | None = None, *, keep: bool = True) -> Drawn:
        job, drawn = self._job(row), self._drawn[row]
        computed = self._computed(row) if self._keep and keep and error is None and drawn > 1 else None
        if error is not None:
            self._slots.clear(row)
        self._jobs[row] = self._finders[row] = self._older[row] = None
        self._holes.append(row)
        self._levels = self._choice = None
        tokens, logprobs = self._tokens[row, :drawn].tolist(), self._logprobs[row, :drawn].tolist()
        return Drawn(job, tuple(tokens), tuple(logprobs), stop, error, computed)

    def _computed(self, row: int) -> Segment:
        """Keys and values of the tokens drawn but the last one, in storage of their own."""
        older, own = self._older[row], int(self._own[row])
        parts = [] if older is None else [older]
        if own:
            parts.append(self._slots.taken(row, own))
        whole = parts[0] if len(parts) == 1 else joined(parts)
        copied = len(whole) - int(self._drawn[row]) + 1
        return whole.part(copied, len(whole)).copied() if copied else whole

    def _empty_full_slots(self) -> None:
        """A slot without room for one more token gives what it holds to a segment."""
        for row in (self._own[: self._rows] >= self._slots.capacity).nonzero()[0].tolist():
            newest, older = self._slots.taken(row, int(self._own[row])), self._older[row]
            self._older[row] = newest if older is None else joined([older, newest])
            self._own[row] = 0
            self._levels = None

    def _compact(self) -> None:
        """Move the last sequences into holes that no new sample filled, so that rows stay one slice."""
        for hole in sorted(self._holes, reverse=True):
            last = self._rows - 1
            if hole != last:
                self._slots.move(last, hole, int(self._own[last]))
                self._seen.move(last, hole)
                lists: tuple[list[Any], ...] = (self._jobs, self._finders, self._older)
                for each in lists:
                    each[hole] = each[last]
                drawn = self._drawn[last]
                self._tokens[hole, :drawn], self._logprobs[hole, :drawn] = (
                    self._tokens[last, :drawn],
                    self._logprobs[last, :drawn],
                )
                for values in (self._keys, self._limit, self._drawn, self._own, self._position):
                    values[hole] = values[last]
            self._jobs[last] = self._finders[last] = self._older[last] = None
            self._rows = last
        self._holes.clear()

    def _shared_levels(self) -> list[Level]:
        """Which rows read which segment in place, by its place on the path."""
        levels: list[dict[Segment, list[int]]] = []
        for row in range(self._rows):
            older = self._older[row]
            path = self._job(row).ready.shared
            for place, segment in enumerate(path if older is None else (*path, older)):
                if place == len(levels):
                    levels.append({})
                levels[place].setdefault(segment, []).append(row)
        return [Level(tuple((part, self._index(rows)) for part, rows in level.items())) for level in levels]

    def _job(self, row: int) -> Job:
        job = self._jobs[row]
        assert job is not None
        return job

    def _index(self, rows: list[int]) -> Tensor | None:
        return None if len(rows) == self._rows else torch.tensor(rows, device=self._slots.device)

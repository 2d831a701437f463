"""The sequences that are decoded together: their slots, one step for all of them, refill and compaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ramify.base.config import Sampling
from ramify.base.errors import ModelError
from ramify.base.rng import uniforms
from ramify.base.types import Stop
from ramify.model.rates import exact_device
from ramify.sample.draw import draw
from ramify.sample.passes import DecodePass, Ints, Level, Segment, Slots
from ramify.sample.prefill import Forward, Ready
from ramify.sample.streaming import StopFinder, StopStrings

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Job:
    """A sample to draw: its computed prompt, its index, and the key of its random numbers."""

    ready: Ready
    index: int
    key: int


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sample that has ended."""

    job: Job
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop: Stop


@dataclass(frozen=True)
class Ending:
    """What ends a sequence besides its length."""

    stop_ids: tuple[int, ...]
    strings: StopStrings | None


class Live:
    """Up to `slots.count` sequences in the making.

    Args:
        slots: their own keys and values.
        settings: how tokens are drawn, and the longest completion.
        ending: what ends a sequence.
    """

    def __init__(self, slots: Slots, settings: Sampling, ending: Ending) -> None:
        self._slots, self._settings, self._ending = slots, settings, ending
        self._stop_ids = np.array(ending.stop_ids, dtype=np.int64)
        size = slots.count
        self._jobs: list[Job | None] = [None] * size
        self._finders: list[StopFinder | None] = [None] * size
        self._keys = np.zeros(size, dtype=np.uint64)
        self._drawn = np.zeros(size, dtype=np.int64)  # tokens drawn so far
        self._own = np.zeros(size, dtype=np.int64)  # keys and values in the slot
        self._position = np.zeros(size, dtype=np.int64)  # of the last token drawn
        self._tokens = np.zeros((size, settings.max_new_tokens), dtype=np.int64)
        self._logprobs = np.zeros((size, settings.max_new_tokens), dtype=np.float32)
        self._rows = 0
        self._holes: list[int] = []
        self._levels: list[Level] | None = None

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
        logits = torch.stack([job.ready.logits for job in jobs])
        keys = np.array([job.key for job in jobs], dtype=np.uint64)
        tokens, logprobs = self._draw(logits, keys, np.zeros(len(jobs), dtype=np.int64))
        ended: list[Drawn] = []
        placed: dict[Ready, list[int]] = {}
        for job, token, logprob in zip(jobs, tokens, logprobs, strict=True):
            row = self._place(job, int(token), float(logprob))
            stop = self._reason(row)
            if stop is None:
                placed.setdefault(job.ready, []).append(row)
            else:
                ended.append(self._finish(row, stop))
        for ready, rows in placed.items():
            self._slots.fill(rows, ready.copied)
        self._levels = None
        return ended

    def step(self, forward: Forward) -> list[Drawn]:
        """Compute one more token of every sequence.

        Returns:
            the samples that ended with it.
        """
        self._compact()
        rows = slice(0, self._rows)
        if self._levels is None:
            self._levels = self._shared_levels()
        self._own[rows] += 1
        last = self._tokens[np.arange(self._rows), self._drawn[rows] - 1]
        device = self._slots.device
        current = DecodePass(self._slots, self._own[rows].copy(), self._position[rows].copy(), self._levels)
        ids, position = (torch.from_numpy(values).to(device) for values in (last, self._position[rows].copy()))
        logits = forward(current, ids, position)
        tokens, logprobs = self._draw(logits, self._keys[rows], self._drawn[rows])
        self._tokens[np.arange(self._rows), self._drawn[rows]] = tokens
        self._logprobs[np.arange(self._rows), self._drawn[rows]] = logprobs
        self._drawn[rows] += 1
        self._position[rows] += 1
        suspects = range(self._rows) if self._ending.strings else self._may_have_ended(tokens)
        reasons = [(row, self._reason(row)) for row in suspects]
        return [self._finish(row, stop) for row, stop in reasons if stop is not None]

    def _draw(self, logits: Tensor, keys: npt.NDArray[np.uint64], counter: Ints) -> tuple[Ints, Floats]:
        """Tokens and log-probabilities.

        Raises:
            ModelError: logits are not finite.
        """
        kind = str(logits.dtype).removeprefix("torch.")
        logits = logits.to(exact_device(logits.device))
        numbers = None
        if self._settings.temperature > 0:
            numbers = torch.from_numpy(uniforms(keys, counter.astype(np.uint64))).to(logits.device)
        tokens, logprobs = draw(logits, self._settings, numbers)
        found: Floats = logprobs.cpu().numpy()
        if not np.isfinite(found).all():
            raise ModelError(
                f"nothing can be drawn: the model's logits are NaN or infinite in {kind}",
                hint="train.dtype=bf16 or train.dtype=fp32, where it overflows less; or its weights are broken",
            )
        return tokens.cpu().numpy(), found

    def _place(self, job: Job, token: int, logprob: float) -> int:
        if self._holes:
            row = self._holes.pop()
        else:
            row = self._rows
            self._rows += 1
        self._jobs[row], self._keys[row] = job, job.key
        self._finders[row] = self._ending.strings.finder() if self._ending.strings else None
        self._own[row] = sum(map(len, job.ready.copied))
        self._position[row] = job.ready.length
        self._tokens[row, 0], self._logprobs[row, 0], self._drawn[row] = token, logprob, 1
        return row

    def _may_have_ended(self, tokens: Ints) -> list[int]:
        ended = np.isin(tokens, self._stop_ids) | (self._drawn[: self._rows] >= self._settings.max_new_tokens)
        return [int(row) for row in ended.nonzero()[0]]

    def _reason(self, row: int) -> Stop | None:
        """How the sequence ended with its last token, or None when it goes on."""
        drawn = self._drawn[row]
        token = int(self._tokens[row, drawn - 1])
        if token in self._ending.stop_ids:
            return Stop.EOS
        finder = self._finders[row]
        if finder is not None and finder.push(token):
            return Stop.STOP_STRING
        return Stop.LENGTH if drawn >= self._settings.max_new_tokens else None

    def _finish(self, row: int, stop: Stop) -> Drawn:
        job, drawn = self._jobs[row], self._drawn[row]
        assert job is not None
        self._jobs[row] = self._finders[row] = None
        self._holes.append(row)
        self._levels = None
        return Drawn(job, tuple(self._tokens[row, :drawn].tolist()), tuple(self._logprobs[row, :drawn].tolist()), stop)

    def _compact(self) -> None:
        """Move the last sequences into holes that no new sample filled, so that rows stay one slice."""
        for hole in sorted(self._holes, reverse=True):
            last = self._rows - 1
            if hole != last:
                self._slots.move(last, hole, int(self._own[last]))
                self._jobs[hole], self._finders[hole] = self._jobs[last], self._finders[last]
                for values in (self._keys, self._drawn, self._own, self._position, self._tokens, self._logprobs):
                    values[hole] = values[last]
            self._jobs[last] = self._finders[last] = None
            self._rows = last
        self._holes.clear()

    def _shared_levels(self) -> list[Level]:
        """Which rows read which shared segment, by its place on the path."""
        levels: list[dict[Segment, list[int]]] = []
        for row in range(self._rows):
            job = self._jobs[row]
            assert job is not None
            for place, segment in enumerate(job.ready.shared):
                if place == len(levels):
                    levels.append({})
                levels[place].setdefault(segment, []).append(row)
        return [Level(tuple((part, self._index(rows)) for part, rows in level.items())) for level in levels]

    def _index(self, rows: list[int]) -> Tensor | None:
        return None if len(rows) == self._rows else torch.tensor(rows, device=self._slots.device)

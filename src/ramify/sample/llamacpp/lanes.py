"""Many completions in one llama.cpp context: prompts come in between steps, each shared prefix is computed once.

A step computes one token of every completion in the making and, in the same call, a part of the prompts that wait.
What is drawn depends on the prompt, the settings and the key of its random numbers alone, up to rounding: llama.cpp
multiplies batches of different sizes in different orders.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ramify.base.config import Sampling
from ramify.base.errors import ModelError, RamifyError
from ramify.base.types import Stop
from ramify.sample.choice import Choice, Order, Top
from ramify.sample.llamacpp.cache import Cache, common
from ramify.sample.llamacpp.engine import BATCH, Cell, Floats
from ramify.sample.llamacpp.model import GgufModel
from ramify.sample.penalty import Seen
from ramify.sample.streaming import StopFinder

_WORTH_WAITING = 16
"""Shared tokens for which a prompt waits until another one has computed them."""


@dataclass(frozen=True, eq=False)
class Work:
    """A prompt and the completions that are drawn of it.

    Attributes:
        order: how they are drawn and what ends them.
        keys: of the random numbers, one for each completion.
    """

    ids: tuple[int, ...]
    order: Order
    keys: tuple[int, ...]

    @property
    def settings(self) -> Sampling:
        """How tokens are drawn."""
        return self.order.settings


@dataclass(frozen=True, eq=False)
class Drawn:
    """One more token of a completion.

    Attributes:
        place: which of the work's completions.
        logprob: under the model itself, without temperature, truncation and penalty.
        top: the likeliest tokens, likeliest first, with theirs.
        stop: how the completion ended with this token, or None.
    """

    work: Work
    place: int
    token: int
    logprob: float
    top: Top
    stop: Stop | None


@dataclass(frozen=True, eq=False)
class Failed:
    """A work that cannot go on."""

    work: Work
    error: RamifyError


Event = Drawn | Failed


@dataclass(eq=False)
class _Prompt:
    """A prompt in the making; with logits, completions can begin behind it."""

    work: Work
    sequence: int
    logits: Floats | None = None
    begun: int = 0

    @property
    def waiting(self) -> int:
        """Completions that have not begun."""
        return len(self.work.keys) - self.begun


@dataclass(eq=False)
class _Line:
    """A completion in the making."""

    work: Work
    place: int
    sequence: int
    finder: StopFinder | None
    drawn: list[int] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Tokens it may still take."""
        return self.work.settings.max_new_tokens - len(self.drawn)


class Lanes:
    """Prompts and completions of one context.

    Args:
        model: its runtime belongs to these lanes as long as they are used.
        cells: tokens that fit, shared ones counted once.
        lines: completions at once.
        kept: sequences of ended completions that stay for prompts that begin as they do.
    """

    def __init__(self, model: GgufModel, *, cells: int, lines: int, kept: int) -> None:
        self._model, self._runtime, self._limit = model, model.runtime, lines
        sequences = lines + kept + 1
        self._cache = Cache(model.runtime, cells, sequences, kept)
        self._lease = model.runtime.lease
        self._seen = Seen(sequences)
        self._waiting: deque[Work] = deque()
        self._prompts: list[_Prompt] = []
        self._lines: list[_Line] = []
        self.computed = 0
        """Prompt tokens computed so far, each shared one once."""

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do."""
        return bool(self._waiting or self._prompts or self._lines)

    def add(self, work: Work) -> None:
        """Take a work in; it begins when there is room."""
        self._waiting.append(work)

    def drop(self, work: Work) -> None:
        """Give a work up; its sequences are free at once. Harmless when it has ended."""
        if work in self._waiting:
            self._waiting.remove(work)
        for prompt in [each for each in self._prompts if each.work is work]:
            self._prompts.remove(prompt)
            self._cache.release(prompt.sequence)
        for line in [each for each in self._lines if each.work is work]:
            self._end(line)

    def holds(self, work: Work) -> bool:
        """Whether there is anything left to do for it."""
        return work in self._works()

    def step(self) -> list[Event]:
        """Compute one more token of every completion, and a part of the prompts.

        Returns:
            what was drawn, and what failed.
        """
        if self._runtime.lease != self._lease:
            return self._fail(ModelError(f"{self._model.name}: something else uses the same opened file meanwhile"))
        try:
            events = self._begin()
            cells, lines, prompts = self._batch()
            if cells:
                logits = self._runtime.decode(cells)
                self._computed(cells)
                for row, prompt in enumerate(prompts, start=len(lines)):
                    prompt.logits = logits[row]
                events += self._draw(lines, logits[: len(lines)])
            elif self.busy and not events:
                raise ModelError(f"{self._model.name}: the context has no room for the prompt that comes next")
            return events
        except RamifyError as error:
            return self._fail(error)

    # --- what begins ---

    def _begin(self) -> list[Event]:
        """Let prompts in, and completions of computed prompts begin with their first token."""
        while self._waiting and self._admit(self._waiting[0]):
            self._waiting.popleft()
        begun: list[_Line] = []
        rows: list[Floats] = []
        for prompt in list(self._prompts):
            while prompt.logits is not None and prompt.waiting and (line := self._line(prompt)) is not None:
                begun.append(line)
                rows.append(prompt.logits)
            if not prompt.waiting:
                self._prompts.remove(prompt)
        return self._draw(begun, np.stack(rows)) if begun else []

    def _admit(self, work: Work) -> bool:
        """Begin with a prompt, if there is room for it and one completion."""
        if len(self._lines) + sum(each.waiting for each in self._prompts) >= self._limit:
            return False  # what waits here already takes every line that ends
        known = self._cache.known(work.ids)
        computing = [each.work.ids for each in self._prompts if each.logits is None]
        if any(common(ids, work.ids) >= known + _WORTH_WAITING for ids in computing):
            return False
        if not self._has_room(work):
            return False
        sequence = self._cache.take(work.ids)
        if sequence is None:
            return False
        self._prompts.append(_Prompt(work, sequence))
        return True

    def _has_room(self, work: Work) -> bool:
        """Whether a prompt and one completion fit; what gave way for them may be what they would have begun with."""
        known = -1
        while (found := self._cache.known(work.ids)) != known:
            known = found
            if not self._cache.has_room(self._promised + len(work.ids) - known + work.settings.max_new_tokens):
                return False
        return True

    def _line(self, prompt: _Prompt) -> _Line | None:
        """Begin the next completion of a prompt, if there is room; the last one goes on in the prompt's sequence."""
        work = prompt.work
        if len(self._lines) >= self._limit or (
            prompt.begun and not self._cache.has_room(self._promised + work.settings.max_new_tokens)
        ):
            return None
        sequence = prompt.sequence if prompt.waiting == 1 else self._cache.fork(prompt.sequence)
        if sequence is None:
            return None
        strings = work.order.ending.strings
        line = _Line(work, prompt.begun, sequence, None if strings is None else strings.finder())
        self._seen.start(sequence, work.ids if work.order.penalised else None)
        prompt.begun += 1
        self._lines.append(line)
        return line

    @property
    def _promised(self) -> int:
        """Cells that what has begun may still take."""
        lines = sum(line.left for line in self._lines)
        for prompt in self._prompts:
            lines += len(prompt.work.ids) - self._cache.length(prompt.sequence)
            lines += prompt.work.settings.max_new_tokens if not prompt.begun else 0
        return lines

    # --- what is computed ---

    def _batch(self) -> tuple[list[Cell], list[_Line], list[_Prompt]]:
        """Tokens of the next call: one of each completion, then prompts as far as they fit; and whose logits come."""
        lines = list(self._lines)
        cells = [Cell(each.drawn[-1], self._cache.length(each.sequence), each.sequence, True) for each in lines]
        finished: list[_Prompt] = []
        for prompt in self._prompts:
            ids, begin = prompt.work.ids, self._cache.length(prompt.sequence)
            end = min(len(ids), begin + BATCH - len(cells))
            if prompt.logits is None and end > begin:
                cells += [Cell(ids[at], at, prompt.sequence, at + 1 == len(ids)) for at in range(begin, end)]
                self.computed += end - begin
                if end == len(ids):
                    finished.append(prompt)
        return cells, lines, finished

    def _computed(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self._cache.push(cell.sequence, [cell.token])

    # --- what is drawn ---

    def _draw(self, lines: list[_Line], logits: Floats) -> list[Event]:
        """One token for each line."""
        if not lines:
            return []
        rows = torch.from_numpy(logits)
        choice = Choice([line.work.order for line in lines], rows.device)
        keys = np.array([line.work.keys[line.place] for line in lines], dtype=np.uint64)
        counter = np.array([len(line.drawn) for line in lines], dtype=np.int64)
        sequences = np.array([line.sequence for line in lines], dtype=np.int64)
        tokens, logprobs = choice.draw(rows, keys, counter, self._seen, sequences)
        self._seen.push(sequences, tokens.numpy())
        tops = choice.likeliest(rows)
        drawn = enumerate(zip(lines, tokens.tolist(), logprobs.tolist(), strict=True))
        events = [self._push(line, token, logprob, tops.get(row, ())) for row, (line, token, logprob) in drawn]
        for work in {event.work for event in events if isinstance(event, Failed)}:
            self.drop(work)
        return events

    def _push(self, line: _Line, token: int, logprob: float, top: Top) -> Event:
        if not np.isfinite(logprob):
            return Failed(line.work, ModelError(f"{self._model.name}: the model's logits are NaN or infinite"))
        line.drawn.append(token)
        stop = _reason(line, token)
        if stop is not None:
            self._end(line)
        return Drawn(line.work, line.place, token, logprob, top, stop)

    def _end(self, line: _Line) -> None:
        self._lines.remove(line)
        self._cache.release(line.sequence)

    def _fail(self, error: RamifyError) -> list[Event]:
        """Everything that was taken in fails; the lanes are empty and can be used again."""
        works = self._works()
        self._waiting.clear()
        self._prompts.clear()
        self._lines.clear()
        if self._runtime.lease == self._lease:
            self._cache.clear()
        return [Failed(work, error) for work in works]

    def _works(self) -> list[Work]:
        """All that was taken in and has not ended."""
        begun = [*(each.work for each in self._prompts), *(each.work for each in self._lines)]
        return list(dict.fromkeys([*self._waiting, *begun]))


def _reason(line: _Line, token: int) -> Stop | None:
    """How the completion ended with this token, or None when it goes on."""
    if token in line.work.order.ending.stop_ids:
        return Stop.EOS
    if line.finder is not None and line.finder.push(token):
        return Stop.STOP_STRING
    return Stop.LENGTH if not line.left else None

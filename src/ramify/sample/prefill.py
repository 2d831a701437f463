"""Computes the prompt tree chunk by chunk, just ahead of the samples that need it, and forgets what none needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ramify.sample.attention import Pass
from ramify.sample.passes import Ints, PrefillPass, Segment
from ramify.sample.prefix import PromptTree


class Forward(Protocol):
    """One forward of a network inside a pass."""

    def __call__(self, current: Pass, ids: Tensor, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """ids, position [T] -> logits [R, V] of these rows (None: all)."""
        ...


@dataclass(frozen=True, eq=False)
class Ready:
    """A prompt that has been computed.

    Attributes:
        prompt: its number.
        ids: its tokens.
        logits: [V] after its last token.
        shared: segments that decoding reads in place, from the root on.
        copied: segments that go into each sample's own storage.
    """

    prompt: int
    ids: Ints
    logits: Tensor
    shared: tuple[Segment, ...]
    copied: tuple[Segment, ...]


class Prefill:
    """Walks through the chunks of a prompt tree."""

    def __init__(self, tree: PromptTree, samples: Sequence[int], forward: Forward, device: torch.device) -> None:
        self._tree, self._samples, self._forward, self._device = tree, samples, forward, device
        self._segments: dict[int, Segment] = {}
        self._waiting = [span.samples for span in tree.spans]
        self._prompts: dict[int, list[int]] = {}
        for prompt in tree.order:
            self._prompts.setdefault(tree.last_span[prompt], []).append(prompt)
        self._chunk = 0
        self.tokens = 0

    @property
    def finished(self) -> bool:
        """Whether all prompts have been computed."""
        return self._chunk + 1 >= len(self._tree.chunks)

    def next(self) -> list[Ready]:
        """Compute the next chunk; the prompts that end in it (there may be none)."""
        first, stop = self._tree.chunks[self._chunk : self._chunk + 2]
        self._chunk += 1
        spans = range(first, stop)
        begin, end = self._tree.spans[first].start, self._tree.spans[stop - 1].stop
        current = PrefillPass(
            self._tensor(self._tree.position[begin:end]),
            self._tensor(self._tree.end[begin:end] - begin),
            self._above(first, begin, end),
        )
        ending = [span for span in spans if span in self._prompts]
        # Networks compute logits of all rows when they are asked for none, so one row is asked for at least.
        rows = [self._tree.spans[span].stop - 1 - begin for span in ending] or [0]
        ids, position = self._tensor(self._tree.ids[begin:end]), self._tensor(self._tree.position[begin:end])
        logits = self._forward(current, ids, position, torch.tensor(rows, device=self._device))
        self.tokens += end - begin
        for index in spans:
            span = self._tree.spans[index]
            place = int(self._tree.position[span.start])
            self._segments[index] = Segment(current.stored, span.start - begin, span.stop - begin, place)
        ready = [self._ready(p, logits[row]) for row, span in enumerate(ending) for p in self._prompts[span]]
        for item in ready:
            self._release(item.prompt)
        return ready

    def _above(self, first: int, begin: int, end: int) -> list[tuple[Segment, slice]]:
        """The path above the chunk, and which of its rows stand on each span of it: leading ones."""
        path = self._tree.path(self._tree.spans[first].parent)
        return [(self._segments[span], slice(0, min(self._tree.spans[span].end, end) - begin)) for span in path]

    def _ready(self, prompt: int, logits: Tensor) -> Ready:
        path = self._tree.path(self._tree.last_span[prompt])
        shared = tuple(self._segments[span] for span in path if self._tree.spans[span].shared)
        copied = tuple(self._segments[span] for span in path if not self._tree.spans[span].shared)
        ids = np.concatenate([self._tree.ids[s.start : s.stop] for s in (self._tree.spans[span] for span in path)])
        return Ready(prompt, ids, logits, shared, copied)

    def _release(self, prompt: int) -> None:
        """Forget spans on which no later prompt stands; `Ready` records keep what their samples still need."""
        for span in self._tree.path(self._tree.last_span[prompt]):
            self._waiting[span] -= self._samples[prompt]
            if not self._waiting[span]:
                del self._segments[span]

    def _tensor(self, values: object) -> Tensor:
        return torch.as_tensor(values, device=self._device)

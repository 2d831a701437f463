"""Prompts of requests that come at any time, computed chunk by chunk behind what is known of them already."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ramify.sample.draw import not_finite
from ramify.sample.known import WORTH, Known, Node, common
from ramify.sample.passes import Ints, PrefillPass, Segment
from ramify.sample.prefill import Forward, Ready

COPIED = 128
"""Most tokens at the end of a prompt that go into each sample's own slot: one run less to read in every step."""
_WORTH_SHARING = 1024
"""Tokens times sequences from which one more run to read costs less than copies (as `prefix` has it)."""


@dataclass(eq=False)
class Prompt:
    """A prompt on its way.

    Attributes:
        owner: who wants it.
        ids: its tokens.
        samples: how many samples will stand on it.
        node: the known run that it is held by.
        done: how many of its tokens are known.
    """

    owner: Hashable
    ids: Ints
    samples: int
    node: Node
    done: int = 0


@dataclass(frozen=True)
class _Part:
    """The tokens of one prompt that a chunk computes, and the runs that they stand on."""

    prompt: Prompt
    start: int
    stop: int
    above: tuple[Segment, ...]

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass
class Intake:
    """Computes prompts.

    Attributes:
        known: where keys and values are kept.
        forward: of the network.
        device: of the network.
        prompts: on their way, in order of coming.
        tokens: prompt tokens computed so far.
        failed: owners of prompts that could not be computed, and why; for the caller to empty.
    """

    known: Known
    forward: Forward
    device: torch.device
    prompts: list[Prompt] = field(default_factory=list)
    tokens: int = 0
    failed: list[tuple[Hashable, Exception]] = field(default_factory=list)

    def take(self, owner: Hashable, ids: Sequence[int], samples: int) -> None:
        """One more prompt to compute."""
        self.known.root.held += 1
        self.prompts.append(Prompt(owner, np.array(ids, dtype=np.int64), samples, self.known.root))

    def drop(self, owner: Hashable) -> None:
        """Forget the prompt of this owner."""
        for prompt in [each for each in self.prompts if each.owner is owner]:
            self.prompts.remove(prompt)
            prompt.node.held -= 1

    def next(self, most: int) -> list[tuple[Prompt, Ready]]:
        """Compute at most this many tokens; the prompts that are ready with them, still held.

        The caller lets go of `prompt.node` when no sample stands on it any more.
        """
        parts = self._parts(most)
        if parts:
            self._try(parts)
        found = [each for each in self.prompts if each.done == len(each.ids) and each.node.logits is not None]
        self.prompts = [each for each in self.prompts if each not in found]
        return [(each, self._ready(each)) for each in found]

    def _parts(self, most: int) -> list[_Part]:
        """What to compute next: of each prompt what is not known, unless another one computes its beginning now.

        The prompt that came first gets all, but for a half that the others may take: a long one does not keep short
        ones waiting.
        """
        for prompt in self.prompts:
            self._look_up(prompt)
        others = sum(len(each.ids) - each.done for each in self.prompts[1:])
        first, parts = most - min(most // 2, others), list[_Part]()
        for prompt in self.prompts:
            room = first if not parts else most
            if room > 0 and not any(_same_start(prompt, each.prompt) for each in parts):
                part = _part(prompt, room)
                if part is not None:
                    parts.append(part)
                    most -= len(part)
        return parts

    def _look_up(self, prompt: Prompt) -> None:
        node, prompt.done = self.known.find(prompt.ids)
        node.held += 1
        prompt.node.held -= 1
        prompt.node = node

    def _try(self, parts: list[_Part]) -> None:
        """Compute parts; when that fails, each alone, so that none fails for another.

        What is not finite spreads to rows that do not see it, through masks: 0 times NaN is NaN.
        """
        try:
            self._compute(parts)
        except Exception as error:  # whatever a network may raise
            if len(parts) == 1:
                self.failed.append((parts[0].prompt.owner, error))
                return
            for part in parts:
                self._try([part])

    def _compute(self, parts: list[_Part]) -> None:
        parts.sort(key=lambda part: [id(segment) for segment in part.above])
        stops = np.cumsum([len(part) for part in parts])
        starts = stops - [len(part) for part in parts]
        ids = np.concatenate([part.prompt.ids[part.start : part.stop] for part in parts])
        position = self._tensor(np.concatenate([np.arange(part.start, part.stop) for part in parts]))
        current = PrefillPass(
            position, self._tensor(np.repeat(stops, [len(part) for part in parts])), _above(parts, starts, stops)
        )
        logits = self.forward(current, self._tensor(ids), position, self._tensor(stops - 1))
        if not bool(torch.logsumexp(logits.float(), dim=-1).isfinite().all()):
            raise not_finite(logits.dtype)
        self.tokens += len(ids)
        for part, start, stop, row in zip(parts, starts, stops, logits, strict=True):
            segment = Segment(current.stored, int(start), int(stop), part.start)
            self._keep(part, segment.copied() if len(parts) > 1 else segment, row)

    def _keep(self, part: _Part, segment: Segment, logits: Tensor) -> None:
        """Put what was computed of a prompt behind what was known of it."""
        prompt = part.prompt
        if part.stop > prompt.done:
            node = self.known.add(prompt.node, prompt.ids[part.start : part.stop], segment)
            node.held += 1
            prompt.node.held -= 1
            prompt.node, prompt.done = node, part.stop
        if prompt.done == len(prompt.ids):
            prompt.node.logits = logits.clone()
            self.known.tidy(prompt.node)

    def _ready(self, prompt: Prompt) -> Ready:
        """What samples of a prompt read in place, and what they copy: short runs at its end."""
        assert prompt.node.logits is not None
        path = prompt.node.path()
        own, tokens = len(path), 0
        while own and self._is_short(path[own - 1], prompt.samples, tokens):
            own -= 1
            tokens += len(path[own].ids)
        segments = [each.segment for each in path if each.segment is not None]
        return Ready(0, prompt.ids, prompt.node.logits, tuple(segments[:own]), tuple(segments[own:]))

    def _is_short(self, node: Node, samples: int, tokens: int) -> bool:
        readers = samples + len(node.below)
        return tokens + len(node.ids) <= COPIED and len(node.ids) * readers < _WORTH_SHARING

    def _tensor(self, values: Ints) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _part(prompt: Prompt, room: int) -> _Part | None:
    """What to compute of a prompt now, at most this many tokens; None when all of it is known."""
    above = [each.segment for each in prompt.node.path() if each.segment is not None]
    start, stop = prompt.done, min(prompt.done + room, len(prompt.ids))
    if start == stop:
        if prompt.node.logits is not None:
            return None
        start -= 1  # known as a part of another text: all but what comes behind it
        above[-1] = above[-1].part(0, len(above[-1]) - 1)
    return _Part(prompt, start, stop, tuple(each for each in above if len(each)))


def _same_start(prompt: Prompt, other: Prompt) -> bool:
    """Whether two prompts go on alike behind the same known run: one of them waits and finds it computed."""
    if prompt.node is not other.node:
        return False
    rest, theirs = prompt.ids[prompt.done :], other.ids[other.done :]
    return common(rest, theirs) >= min(WORTH, len(rest), len(theirs))


def _above(parts: list[_Part], starts: Ints, stops: Ints) -> list[tuple[Segment, slice]]:
    """The runs that rows of the chunk stand on; rows on the same run lie next to each other."""
    rows: dict[Segment, slice] = {}
    for part, start, stop in zip(parts, starts.tolist(), stops.tolist(), strict=True):
        for segment in part.above:
            rows[segment] = slice(rows[segment].start if segment in rows else start, stop)
    return list(rows.items())

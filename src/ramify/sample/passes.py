"""The two passes of sampling and the keys and values they keep: chunks of prompts, and slots of live sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ramify.sample.attention import HIDDEN, Scoring, merge, partial

Ints = npt.NDArray[np.int64]


@dataclass
class Stored:
    """Keys and values of computed rows, [H, L, D] for each layer."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Segment:
    """A span that has been computed: rows `start:stop` of a chunk, at positions `first` and following."""

    stored: Stored
    start: int
    stop: int
    first: int

    def __len__(self) -> int:
        return self.stop - self.start

    def key(self, layer: int) -> Tensor:
        """[H, L, D]."""
        return self.stored.keys[layer][:, self.start : self.stop]

    def value(self, layer: int) -> Tensor:
        """[H, L, D]."""
        return self.stored.values[layer][:, self.start : self.stop]

    def positions(self, device: torch.device) -> Tensor:
        """[L]."""
        return torch.arange(self.first, self.first + len(self), device=device)

    def mask(self, position: Tensor, window: int | None) -> Tensor | None:
        """[T, L] for queries at these positions, or None when the window hides nothing."""
        if window is None or int(position.max()) - window < self.first:
            return None
        return torch.where(self.positions(position.device) > position[:, None] - window, 0.0, HIDDEN)

    def part(self, start: int, stop: int) -> Segment:
        """These of its rows; nothing is copied."""
        return Segment(self.stored, self.start + start, self.start + stop, self.first + start)

    def copied(self) -> Segment:
        """The same in storage of its own."""
        return joined([self])


def joined(parts: Sequence[Segment]) -> Segment:
    """Segments that follow each other as one, in storage of its own."""
    layers = range(len(parts[0].stored.keys))
    keys = [torch.cat([part.key(layer) for part in parts], dim=1) for layer in layers]
    values = [torch.cat([part.value(layer) for part in parts], dim=1) for layer in layers]
    return Segment(Stored(keys, values), 0, sum(map(len, parts)), parts[0].first)


class PrefillPass:
    """Computes a chunk of a forest of prompts.

    Args:
        position, end: [T] of the chunk's rows; `end` counted from the chunk's first row.
        above: what was computed before and the rows, next to each other, that stand on it.
    """

    def __init__(self, position: Tensor, end: Tensor, above: list[tuple[Segment, slice]]) -> None:
        self.stored = Stored()
        self._position, self._end, self._above = position, end, above
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """See `Pass.attend`."""
        keys, values = key.transpose(0, 1).contiguous(), value.transpose(0, 1).contiguous()
        self.stored.keys.append(keys)
        self.stored.values.append(values)
        out, lse = partial(query, keys, values, scoring, self._mask(scoring.window))
        for segment, rows in self._above:
            mask = segment.mask(self._position[rows], scoring.window)
            more = partial(query[rows], segment.key(layer), segment.value(layer), scoring, mask)
            merged, merged_lse = merge(out[rows], lse[rows], *more)
            if len(merged) < len(query):
                merged = torch.cat([out[: rows.start], merged, out[rows.stop :]])
                merged_lse = torch.cat([lse[: rows.start], merged_lse, lse[rows.stop :]])
            out, lse = merged, merged_lse
        if scoring.sinks is not None:
            sinks = scoring.sinks.float().view(1, query.shape[1], query.shape[2])
            out = out * torch.sigmoid(lse - sinks)[..., None].to(out.dtype)
        return out

    def _mask(self, window: int | None) -> Tensor:
        """[T, T]: the tree's rule, and the window."""
        if window not in self._masks:
            row = torch.arange(len(self._end), device=self._end.device)
            seen = (row[None, :] <= row[:, None]) & (row[:, None] < self._end[None, :])
            if window is not None:
                seen &= self._position[None, :] > self._position[:, None] - window
            self._masks[window] = torch.where(seen, 0.0, HIDDEN)
        return self._masks[window]


class Slots:
    """Keys and values of the live sequences' own tokens: one preallocated slot each.

    Keys lie transposed ([slot, H, D, L]): batched products of few queries with many keys are faster that way.

    Attributes:
        position: [slots, capacity] of each token in its sequence. Those of a slot need not follow each other: what is
            copied may lie above and below a span that is shared.
    """

    def __init__(self, count: int, capacity: int, device: torch.device) -> None:
        self.count, self.capacity, self.device = count, capacity, device
        self.position = torch.zeros(count, capacity, dtype=torch.int64, device=device)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Storage of a layer, made when it is first asked for.

        Args:
            index: of the layer.
            key, value: [T, H, D], for sizes and type.

        Returns:
            keys [slots, H, D, capacity] and values [slots, H, capacity, D].
        """
        if index == len(self._keys):
            # Zeros, because what is masked is still multiplied by 0 and must be finite.
            heads, capacity = key.shape[1], self.capacity
            self._keys.append(key.new_zeros(self.count, heads, key.shape[2], capacity))
            self._values.append(value.new_zeros(self.count, heads, capacity, value.shape[2]))
        return self._keys[index], self._values[index]

    def fill(self, slots: Sequence[int], copied: Sequence[Segment]) -> None:
        """Put the keys and values of these segments at the front of the slots."""
        if not copied:
            return
        index = torch.tensor(slots, device=self.device)
        length = sum(map(len, copied))
        self.position[index, :length] = torch.cat([segment.positions(self.device) for segment in copied])
        for layer in range(len(copied[0].stored.keys)):
            key = torch.cat([segment.key(layer) for segment in copied], dim=1)
            value = torch.cat([segment.value(layer) for segment in copied], dim=1)
            keys, values = self.layer(layer, key.transpose(0, 1), value.transpose(0, 1))
            keys[index, :, :, :length] = key.transpose(1, 2)
            values[index, :, :length] = value

    def clear(self, slot: int) -> None:
        """Forget what a slot holds: what is not finite must not stay where others' tokens will be masked."""
        for each in (*self._keys, *self._values):
            each[slot] = 0

    def taken(self, slot: int, length: int) -> Segment:
        """The first tokens of a slot, copied out; they follow each other in their sequence."""
        whole = torch.contiguous_format
        keys = [each[slot, :, :, :length].transpose(1, 2).clone(memory_format=whole) for each in self._keys]
        values = [each[slot, :, :length].clone(memory_format=whole) for each in self._values]
        return Segment(Stored(keys, values), 0, length, int(self.position[slot, 0]))

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a slot over those of another."""
        self.position[target, :length] = self.position[source, :length]
        for keys, values in zip(self._keys, self._values, strict=True):
            keys[target, :, :, :length] = keys[source, :, :, :length]
            values[target, :, :length] = values[source, :, :length]


@dataclass(frozen=True, eq=False)
class Level:
    """The shared spans at one depth, and which rows read them; None: all rows."""

    parts: tuple[tuple[Segment, Tensor | None], ...]


class DecodePass:
    """Computes one token of each of the first `len(lengths)` slots.

    Args:
        slots: the sequences' own keys and values.
        lengths: [T] own tokens of each, the new one counted.
        position: [T] of the new tokens.
        levels: shared spans, from the root on.
    """

    def __init__(self, slots: Slots, lengths: Ints, position: Ints, levels: list[Level]) -> None:
        self._slots, self._levels = slots, levels
        self._rows, device = len(lengths), slots.device
        self._longest = int(lengths.max())
        self._even = bool((lengths == self._longest).all())
        self._lengths = torch.from_numpy(lengths).to(device)
        self._position = torch.from_numpy(position).to(device)
        self._row = torch.arange(self._rows, device=device)
        self._furthest = int(position.max())
        slots.position[self._row, self._lengths - 1] = self._position
        self._own_masks: dict[tuple[int | None, int], Tensor | None] = {}
        self._masks: dict[tuple[int, int, int | None], Tensor | None] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """See `Pass.attend`."""
        rows, heads, groups, size = query.shape
        keys, values = self._slots.layer(layer, key, value)
        self._write(keys, values, key, value)
        shared = [self._level(number, layer, query, scoring) for number in range(len(self._levels))]
        batch, length = rows * heads, self._longest
        flat = query.reshape(batch, groups, size)
        own_keys = keys[:rows].view(batch, size, -1)[:, :, :length]
        own_values = values[:rows].view(batch, -1, values.shape[-1])[:, :length]
        scores = self._scores(flat, own_keys, scoring, heads)
        virtual = [lse.reshape(batch, groups, 1) for _, lse in shared]
        if scoring.sinks is not None:
            sinks = scoring.sinks.float().view(1, heads, groups, 1)
            virtual.append(sinks.expand(rows, heads, groups, 1).reshape(batch, groups, 1))
        weights = torch.softmax(torch.cat([scores, *virtual], dim=-1), dim=-1)
        out = torch.bmm(weights[..., :length].to(values.dtype), own_values)
        for number, (part, _) in enumerate(shared):
            place = length + number
            out.addcmul_(weights[..., place : place + 1].to(out.dtype), part.reshape(batch, groups, -1))
        return out.view(rows, heads, groups, -1)

    def _write(self, keys: Tensor, values: Tensor, key: Tensor, value: Tensor) -> None:
        if self._even:
            keys[: self._rows, :, :, self._longest - 1] = key
            values[: self._rows, :, self._longest - 1] = value
        else:
            keys[self._row, :, :, self._lengths - 1] = key
            values[self._row, :, self._lengths - 1] = value

    def _scores(self, query: Tensor, keys: Tensor, scoring: Scoring, heads: int) -> Tensor:
        """[T * H, G, L] fp32 of the own keys, masked."""
        mask = self._own_mask(scoring.window, heads)
        if scoring.softcap is not None:
            scores = torch.bmm(query, keys).float() * scoring.scale
            scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
            return scores if mask is None else scores + mask
        if mask is None:
            return torch.bmm(query, keys).float().mul_(scoring.scale)
        if query.dtype == torch.float32:
            return torch.baddbmm(mask, query, keys, alpha=scoring.scale)
        return torch.bmm(query, keys).float() * scoring.scale + mask

    def _own_mask(self, window: int | None, heads: int) -> Tensor | None:
        """[T * H, 1, L], or None when every row sees all own keys."""
        if (window, heads) not in self._own_masks:
            mask = None
            if not self._even or (window is not None and window <= self._furthest):
                place = torch.arange(self._longest, device=self._lengths.device)
                seen = place < self._lengths[:, None]
                if window is not None:
                    own = self._slots.position[: self._rows, : self._longest]
                    seen &= own > self._position[:, None] - window
                mask = torch.where(seen, 0.0, HIDDEN)
                mask = mask[:, None].expand(-1, heads, -1).reshape(-1, 1, self._longest)
            self._own_masks[window, heads] = mask
        return self._own_masks[window, heads]

    def _level(self, number: int, layer: int, query: Tensor, scoring: Scoring) -> tuple[Tensor, Tensor]:
        """Output [T, H, G, D] and log-sum-exp [T, H, G] of the rows' spans at this depth."""
        level = self._levels[number]
        if len(level.parts) == 1 and level.parts[0][1] is None:
            segment = level.parts[0][0]
            mask = self._mask(number, 0, segment, None, scoring.window)
            return partial(query, segment.key(layer), segment.value(layer), scoring, mask)
        out = query.new_zeros(*query.shape[:3], query.shape[3])
        lse = torch.full(query.shape[:3], HIDDEN, dtype=torch.float32, device=query.device)
        for place, (segment, rows) in enumerate(level.parts):
            mask = self._mask(number, place, segment, rows, scoring.window)
            some = query if rows is None else query[rows]
            part, part_lse = partial(some, segment.key(layer), segment.value(layer), scoring, mask)
            out[rows], lse[rows] = part, part_lse
        return out, lse

    def _mask(
        self, number: int, place: int, segment: Segment, rows: Tensor | None, window: int | None
    ) -> Tensor | None:
        if window is None:
            return None
        name = (number, place, window)
        if name not in self._masks:
            position = self._position if rows is None else self._position[rows]
            self._masks[name] = segment.mask(position, window)
        return self._masks[name]

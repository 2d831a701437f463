"""One token each for rows with settings of their own: rows of like settings are drawn together, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ramify.base.config import Sampling
from ramify.base.rng import uniforms
from ramify.sample.draw import draw
from ramify.sample.penalty import Ints, Seen
from ramify.sample.streaming import StopStrings

Keys = npt.NDArray[np.uint64]
Top = tuple[tuple[int, float], ...]
"""Likeliest tokens of a row with their log-probabilities, likeliest first."""


@dataclass(frozen=True)
class Ending:
    """What ends a sequence besides its length."""

    stop_ids: tuple[int, ...]
    strings: StopStrings | None


@dataclass(frozen=True, eq=False)
class Order:
    """How samples are drawn and what ends them; samples that were asked for together have the same.

    Attributes:
        settings: temperature, truncation, penalty, and the longest completion.
        ending: what ends a sample.
        alternatives: likeliest tokens that are told beside each drawn one.
    """

    settings: Sampling
    ending: Ending
    alternatives: int = 0

    @property
    def penalised(self) -> bool:
        """Whether repeating costs anything."""
        return self.settings.repetition_penalty != 1


class Choice:
    """How these rows are drawn, while they stay the same.

    Args:
        orders: of each row.
        device: where logits lie when they are drawn from.

    Attributes:
        stop_ids: all tokens that end any of the rows.
        stop_strings: whether strings end any of them.
    """

    def __init__(self, orders: Sequence[Order], device: torch.device) -> None:
        distinct = list(dict.fromkeys(orders))
        self.stop_ids: Ints = np.unique(np.array([i for each in distinct for i in each.ending.stop_ids], np.int64))
        self.stop_strings = any(each.ending.strings is not None for each in distinct)
        self._warm = any(each.settings.temperature > 0 for each in distinct)
        self._groups = _groups(orders, distinct, device)
        self._penalty: Tensor | None = None
        if any(each.penalised for each in distinct):
            penalties = [each.settings.repetition_penalty for each in orders]
            self._penalty = torch.tensor(penalties, dtype=torch.float32, device=device)[:, None]
        self._told = [(row, each.alternatives) for row, each in enumerate(orders) if each.alternatives]

    def draw(self, logits: Tensor, keys: Keys, counter: Ints, seen: Seen, rows: Ints) -> tuple[Tensor, Tensor]:
        """A token for each row, and its log-probability under the model itself.

        Args:
            logits: [R, V].
            keys, counter: [R] of the rows' random numbers.
            seen: what was seen, by the numbers of the rows in `rows`.
            rows: [R].
        """
        numbers = None
        if self._warm:
            numbers = torch.from_numpy(uniforms(keys, counter.astype(np.uint64))).to(logits.device)
        repeated = None if self._penalty is None else seen.of(rows, self._penalty)
        if len(self._groups) == 1:
            return draw(logits, self._groups[0][0], numbers, repeated)
        tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
        logprobs = torch.empty(len(rows), dtype=torch.float32, device=logits.device)
        for settings, some in self._groups:
            drawn = draw(
                logits[some],
                settings,
                None if numbers is None else numbers[some],
                None if repeated is None or settings.repetition_penalty == 1 else repeated.of(some),
            )
            tokens[some], logprobs[some] = drawn
        return tokens, logprobs

    def likeliest(self, logits: Tensor) -> dict[int, Top]:
        """The likeliest tokens of the rows that want them told."""
        if not self._told:
            return {}
        rows = torch.tensor([row for row, _ in self._told], device=logits.device)
        some = logits[rows].float()
        best = some.topk(min(some.shape[-1], max(count for _, count in self._told)), dim=-1)
        values = (best.values - torch.logsumexp(some, dim=-1, keepdim=True)).tolist()
        pairs = zip(self._told, best.indices.tolist(), values, strict=True)
        return {row: tuple(zip(ids[:count], found[:count], strict=True)) for (row, count), ids, found in pairs}


def _groups(orders: Sequence[Order], distinct: list[Order], device: torch.device) -> list[tuple[Sampling, Tensor]]:
    """Rows that one call of `draw` serves, with the settings that it is given."""
    kinds = {order: _kind(order.settings) for order in distinct}
    found: dict[tuple[float, ...], list[int]] = {}
    if len(set(kinds.values())) == 1:
        return [(distinct[0].settings, torch.empty(0))]
    for row, order in enumerate(orders):
        found.setdefault(kinds[order], []).append(row)
    return [(orders[rows[0]].settings, torch.tensor(rows, device=device)) for rows in found.values()]


def _kind(settings: Sampling) -> tuple[float, ...]:
    """Settings that `draw` reads, and whether there is a penalty at all (how high it is, each row has for itself)."""
    penalised = settings.repetition_penalty != 1
    return (settings.temperature, settings.top_p, settings.top_k, settings.min_p, penalised)

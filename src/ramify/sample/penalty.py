"""The penalty on repeating what prompt or completion hold already, and which tokens those are.

Keskar et al. 2019 (arXiv 1909.05858, section 4.1), in the form of Transformers' `RepetitionPenaltyLogitsProcessor`: a
logit of a token seen before is divided by the penalty where it is positive and multiplied by it where it is negative,
once, however often the token was seen. It comes before the temperature.

Shapes: R rows, V vocabulary, L tokens seen by the row that has seen most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Repeated:
    """What each row is penalised for.

    Attributes:
        ids: [R, L] tokens that the row holds; a row with fewer holds one of them several times.
        penalty: [R, 1] fp32; 1 changes nothing.
    """

    ids: Tensor
    penalty: Tensor

    def penalised(self, logits: Tensor) -> Tensor:
        """[R, V] fp32 -> [R, V]."""
        found = logits.gather(1, self.ids)
        return logits.scatter(1, self.ids, torch.where(found < 0, found * self.penalty, found / self.penalty))

    def of(self, rows: Tensor | None) -> Repeated:
        """These rows alone; None: all."""
        return self if rows is None else Repeated(self.ids[rows], self.penalty[rows])


class Seen:
    """The tokens of prompt and completion of each live row; only rows that are penalised are followed."""

    def __init__(self, rows: int) -> None:
        self._ids: Ints = np.zeros((rows, 0), dtype=np.int64)
        self._count: Ints = np.zeros(rows, dtype=np.int64)

    def start(self, row: int, prompt: Sequence[int] | Ints | None) -> None:
        """A row begins with this prompt; None: it is not followed."""
        self._count[row] = 0
        self._ids[row] = 0
        if prompt is not None:
            distinct = np.unique(np.asarray(prompt, dtype=np.int64))
            self._widen(len(distinct))
            self._ids[row] = distinct[0]
            self._ids[row, : len(distinct)] = distinct
            self._count[row] = len(distinct)

    def push(self, rows: Ints, tokens: Ints) -> None:
        """One more token of each of these rows."""
        followed = self._count[rows] > 0
        if followed.any():
            rows = rows[followed]
            self._widen(int(self._count[rows].max()) + 1)
            self._ids[rows, self._count[rows]] = tokens[followed]
            self._count[rows] += 1

    def move(self, source: int, target: int) -> None:
        """What one row holds becomes another's."""
        self._ids[target], self._count[target] = self._ids[source], self._count[source]

    def of(self, rows: Ints, penalty: Tensor) -> Repeated:
        """What these rows are penalised for; at least one of them is followed."""
        longest = int(self._count[rows].max())
        return Repeated(torch.from_numpy(self._ids[rows, :longest]).to(penalty.device), penalty)

    def _widen(self, width: int) -> None:
        missing = width - self._ids.shape[1]
        if missing > 0:
            first = self._ids[:, :1] if self._ids.shape[1] else np.zeros((len(self._ids), 1), dtype=np.int64)
            self._ids = np.concatenate([self._ids, np.repeat(first, max(missing, 64), axis=1)], axis=1)

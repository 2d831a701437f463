"""How far two models agree on the same tokens: a pure function of their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What is left between a reference and another model, over all positions that were compared.

    Attributes:
        positions: how many next tokens were predicted by both.
        kl: mean of KL(reference ‖ other) over positions, in nats (Kullback and Leibler 1951).
        kl_worst: the largest of them.
        top1: share of positions where both find the same token likeliest.
        difference: largest difference of two logits, each row shifted to the mean 0: the softmax ignores a shift.
    """

    positions: int
    kl: float
    kl_worst: float
    top1: float
    difference: float


def agreement(reference: Sequence[Logits], other: Sequence[Logits]) -> Agreement:
    """Compare logits, [positions, vocabulary] for each text.

    Where one vocabulary is longer (rows that fill an embedding up), only what both have is compared.

    Raises:
        ValueError: nothing to compare, or texts of different lengths.
    """
    rows = [_rows(a, b) for a, b in zip(reference, other, strict=True)]
    if not rows or not all(len(kl) for kl, _, _ in rows):
        raise ValueError("no positions to compare")
    kl, same, difference = (np.concatenate(each) for each in zip(*rows, strict=True))
    return Agreement(len(kl), float(kl.mean()), float(kl.max()), float(same.mean()), float(difference.max()))


def _rows(a: Logits, b: Logits) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    if len(a) != len(b):
        raise ValueError(f"{len(a)} positions against {len(b)}")
    width = min(a.shape[1], b.shape[1])
    left, right = _log_softmax(a[:, :width]), _log_softmax(b[:, :width])
    kl = (np.exp(left) * (left - right)).sum(axis=1)
    same = left.argmax(axis=1) == right.argmax(axis=1)
    shift = (a[:, :width] - b[:, :width]).astype(np.float64)
    return np.maximum(kl, 0.0), same, np.abs(shift - shift.mean(axis=1, keepdims=True)).max(axis=1)


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def margins(logits: Logits) -> npt.NDArray[np.float32]:
    """How far the likeliest token is ahead of the second, for each row, in logits."""
    best = np.partition(logits, -2, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0])

"""Agreement of logits against torch's own divergence, and what parity makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ramify.export.agreement import agreement, margins


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 3


def test_divergence_is_that_of_torch() -> None:
    a, b = drawn(40, 97), drawn(40, 97, seed=1)
    found = agreement([a[:15], a[15:]], [b[:15], b[15:]])
    left, right = (F.log_softmax(torch.from_numpy(each).double(), dim=-1) for each in (a, b))
    expected = F.kl_div(right, left, log_target=True, reduction="none").sum(-1)
    assert found.positions == 40
    assert found.kl == pytest.approx(float(expected.mean()), rel=1e-9)
    assert found.kl_worst == pytest.approx(float(expected.max()), rel=1e-9)
    assert found.top1 == pytest.approx(float((left.argmax(-1) == right.argmax(-1)).double().mean()))


def test_equal_logits_agree_wholly_and_a_shift_changes_nothing() -> None:
    a = drawn(12, 31)
    found = agreement([a], [a + np.float32(7)])
    assert found.kl == pytest.approx(0, abs=1e-12) and found.top1 == 1
    assert found.difference == pytest.approx(0, abs=1e-5)


def test_the_largest_difference_is_found() -> None:
    a = drawn(5, 11)
    b = a.copy()
    b[3, 4] += 0.5
    shifted = 0.5 - 0.5 / 11
    assert agreement([a], [b]).difference == pytest.approx(shifted, abs=1e-6)


def test_a_longer_vocabulary_is_compared_where_both_have_tokens() -> None:
    a = drawn(6, 20)
    wider = np.concatenate([a, np.full((6, 4), -1e9, np.float32)], axis=1)
    assert agreement([a], [wider]).kl == 0


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="no positions"):
        agreement([], [])
    with pytest.raises(ValueError, match="3 positions against 4"):
        agreement([drawn(3, 5)], [drawn(4, 5)])


def test_margins_are_first_minus_second() -> None:
    assert margins(np.array([[1.0, 5.0, 3.0], [2.0, 2.0, 0.0]], np.float32)).tolist() == [2.0, 0.0]

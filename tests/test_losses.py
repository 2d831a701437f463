"""Losses are pure functions: equal to the textbook formula, and additive over micro-batches."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ramify.train.losses import nll


def sequence_logprobs(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums of token log-probabilities [B] from logits [B, T, V]."""
    logprobs = torch.log_softmax(logits, -1).gather(-1, targets[..., None])[..., 0]
    return (weights * logprobs).sum(-1)


def test_nll_is_the_mean_cross_entropy_of_trained_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(7, (3, 5), generator=generator)
    weights = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.float64)
    loss, metrics = nll(sequence_logprobs(logits, targets, weights), float(weights.sum()))
    labels = targets.masked_fill(weights == 0, -100)
    reference = F.cross_entropy(logits.reshape(-1, 7), labels.reshape(-1))
    assert metrics == {}
    torch.testing.assert_close(loss, reference)
    (ours,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(reference, logits)
    torch.testing.assert_close(ours, theirs)


def test_shares_of_micro_batches_add_up_to_the_step() -> None:
    logprobs = torch.tensor([-3.0, -1.0, -7.0, -2.0])
    whole, _ = nll(logprobs, 26.0)
    parts = [nll(part, 26.0)[0] for part in logprobs.split(1)]
    assert float(whole) == 0.5
    torch.testing.assert_close(torch.stack(parts).sum(), whole)

"""Losses are pure functions: equal to the textbook formula, and additive over micro-batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ramify.base.config import DPO
from ramify.train.losses import LOSSES, PairLogprobs, nll, preference, zero_margin


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


def pair_logprobs(n: int, seed: int = 0) -> PairLogprobs:
    """Sums of 3 to 30 tokens around a nat each, reference and policy within a few nats, in fp64."""
    generator = torch.Generator().manual_seed(seed)

    def draw() -> torch.Tensor:
        return torch.rand(n, generator=generator, dtype=torch.float64)

    tokens = [(3 + 27 * draw()).round() for _ in range(2)]
    policy = [-each * (0.2 + draw()) for each in tokens]
    reference = [each + 8 * (draw() - 0.5) for each in policy]
    return PairLogprobs(*policy, *tokens, *reference)


def written_out(pairs: PairLogprobs, settings: DPO) -> list[float]:
    """Each loss in plain floats, as its paper has it."""
    found = []
    beta, share = settings.beta, settings.label_smoothing
    rows = zip(*(each.tolist() for each in vars(pairs).values()), strict=True)
    for chosen, rejected, n_chosen, n_rejected, ref_chosen, ref_rejected in rows:
        right = 1 / (1 + math.exp(-beta * ((chosen - ref_chosen) - (rejected - ref_rejected))))
        mean = {True: chosen / n_chosen, False: rejected / n_rejected}
        odds = {side: math.exp(each) / (1 - math.exp(each)) for side, each in mean.items()}
        found.append(
            {
                "sigmoid": -(1 - share) * math.log(right) - share * math.log(1 - right),
                "robust": (-(1 - share) * math.log(right) + share * math.log(1 - right)) / (1 - 2 * share),
                "hinge": max(0.0, 1 - math.log(right / (1 - right))),
                "ipo": ((chosen - ref_chosen) / n_chosen - (rejected - ref_rejected) / n_rejected - 0.5 / beta) ** 2,
                "simpo": math.log(1 + math.exp(settings.gamma - beta * (mean[True] - mean[False]))),
                "orpo": -mean[True] + beta * math.log(1 + odds[False] / odds[True]),
            }[settings.loss]
            - settings.sft_weight * mean[True]
        )
    return found


LOSS_NAMES = tuple(LOSSES)


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("others", [{}, {"beta": 0.4, "label_smoothing": 0.2, "gamma": 1.5, "sft_weight": 0.3}])
def test_preference_losses_are_those_of_the_papers(name: str, others: dict[str, Any]) -> None:
    settings, pairs = DPO.model_validate({"loss": name, **others}), pair_logprobs(20)
    loss, _ = preference(pairs, settings, 20.0)
    assert float(loss) == pytest.approx(sum(written_out(pairs, settings)) / 20, rel=1e-9)


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        (DPO(), 0.693147),
        (DPO(beta=3.0, label_smoothing=0.3), 0.693147),
        (DPO(loss="robust", label_smoothing=0.3), 0.693147),
        (DPO(loss="hinge"), 1.0),
        (DPO(loss="ipo"), 25.0),
        (DPO(loss="ipo", beta=0.5), 1.0),
        (DPO(loss="simpo"), 0.974077),
        (DPO(loss="orpo", sft_weight=9.0), 0.0693147),  # β ln 2 where the mean is 0
    ],
)
def test_the_loss_at_zero_margin_is_as_derived(settings: DPO, value: float) -> None:
    assert zero_margin(settings) == pytest.approx(value, abs=2e-6)


def test_the_robust_loss_is_unbiased_under_flipped_labels() -> None:
    """Its mean over labels that are flipped with probability ε is the loss of the true ones."""
    settings, pairs = DPO(loss="robust", label_smoothing=0.2), pair_logprobs(9)
    flipped = PairLogprobs(
        *(pairs.rejected, pairs.chosen, pairs.rejected_tokens, pairs.chosen_tokens),
        *(pairs.reference_rejected, pairs.reference_chosen),
    )
    mean = 0.8 * LOSSES["robust"](pairs, settings) + 0.2 * LOSSES["robust"](flipped, settings)
    torch.testing.assert_close(mean, LOSSES["sigmoid"](pairs, DPO()))


def test_odds_of_a_certain_completion_are_finite() -> None:
    zero, one = torch.zeros(1, requires_grad=True), torch.ones(1)
    low = torch.full((1,), -200.0, requires_grad=True)
    for chosen, rejected in ((zero, low), (low, zero), (zero, zero)):
        loss = LOSSES["orpo"](PairLogprobs(chosen, rejected, one, one, one, one), DPO(loss="orpo")).sum()
        loss.backward()
        assert math.isfinite(loss.item())
    assert all(torch.isfinite(each.grad).all() for each in (zero, low) if each.grad is not None)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_shares_and_metrics_of_pairs_add_up_to_the_step(name: str) -> None:
    pairs, settings = pair_logprobs(7), DPO.model_validate({"loss": name})
    whole, metrics = preference(pairs, settings, 7.0)
    split = [
        preference(PairLogprobs(*(each[start:stop] for each in vars(pairs).values())), settings, 7.0)
        for start, stop in ((0, 3), (3, 4), (4, 7))
    ]
    torch.testing.assert_close(sum(loss for loss, _ in split), whole)
    for key, value in metrics.items():
        torch.testing.assert_close(sum(part[key] for _, part in split), value, check_dtype=False)


def test_metrics_are_means_over_pairs() -> None:
    """Two pairs by hand: gaps of 4 and -3 nats at beta 0.5, lengths 2 and 4, 5 and 4."""
    given = ([-3.0, -9.0], [-8.0, -4.0], [2.0, 5.0], [4.0, 4.0], [-5.0, -8.0], [-6.0, -6.0])
    pairs = PairLogprobs(*map(torch.tensor, given))
    _, metrics = preference(pairs, DPO(beta=0.5), 2.0)
    assert {name: float(each) for name, each in metrics.items()} == {
        "reward_chosen": 0.25,  # (0.5·2 - 0.5·1) / 2
        "reward_rejected": 0.0,  # (-0.5·2 + 0.5·2) / 2
        "margin": 0.25,  # (2 - 1.5) / 2
        "accuracy": 0.5,
        "logprob_chosen": -6.0,
        "logprob_rejected": -6.0,
        "length_chosen": 3.5,
        "length_rejected": 4.0,
        "margin_of_longer": -1.75,  # (-2 - 1.5) / 2
    }
    _, metrics = preference(pairs, DPO(loss="simpo", beta=2.0), 2.0)
    assert float(metrics["reward_chosen"]) == pytest.approx(2 * (-1.5 - 1.8) / 2)

"""Losses: pure functions from log-probabilities to (loss, metrics).

Every method sees the same thing, the log-probability of each sequence of a micro-batch, and returns that
micro-batch's share of the loss of a whole optimizer step: a sum, divided once by the step's `divisor`, never a mean
per row or micro-batch. The shares of all micro-batches of a step add up to its loss, and so do the metrics.

    B  sequences of a micro-batch        P  pairs of a micro-batch

For pairs, with log π the log-probability of a side, log ρ that of the reference, and n its trained tokens:

    ratio = log π - log ρ        gap = ratio(chosen) - ratio(rejected)        mean = log π / n
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from ramify.base.config import DPO

Metrics = dict[str, Tensor]

REFERENCE_FREE = frozenset({"simpo", "orpo"})
"""Losses that compare a pair without a reference."""
_LARGEST = -1e-6
"""Mean log-probability at which odds end: a certain token would have infinite ones."""


def nll(logprobs: Tensor, divisor: float) -> tuple[Tensor, Metrics]:
    """Weighted negative log-likelihood, the loss of supervised fine-tuning.

        loss = -sum_b logprob_b / divisor,   logprob_b = sum_t weight_bt * log p(token_bt | tokens before it)

    Args:
        logprobs: weighted sum of token log-probabilities of each sequence [B], fp32.
        divisor: sum of the weights of all sequences of the optimizer step (not of this micro-batch alone).

    Returns:
        This micro-batch's share of the mean loss per trained token in nats, and no metrics.
    """
    return -logprobs.sum() / divisor, {}


@dataclass(frozen=True)
class PairLogprobs:
    """What a loss knows of pairs; all [P] fp32, natural logarithms.

    Attributes:
        chosen: sum of the token log-probabilities of each chosen completion; `rejected` likewise.
        chosen_tokens: how many tokens that sum has, the stop token included; `rejected_tokens` likewise.
        reference_chosen: the same sums under the reference; `reference_rejected` likewise. 0 without a reference.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor

    @property
    def chosen_ratio(self) -> Tensor:
        """[P] log π - log ρ of the chosen side."""
        return self.chosen - self.reference_chosen

    @property
    def rejected_ratio(self) -> Tensor:
        """[P] log π - log ρ of the rejected side."""
        return self.rejected - self.reference_rejected

    @property
    def gap(self) -> Tensor:
        """[P] by how much the policy prefers the chosen side more than the reference does."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def chosen_mean(self) -> Tensor:
        """[P] mean log-probability of a chosen token."""
        return self.chosen / self.chosen_tokens

    @property
    def rejected_mean(self) -> Tensor:
        """[P] mean log-probability of a rejected token."""
        return self.rejected / self.rejected_tokens


def sigmoid(pairs: PairLogprobs, settings: DPO) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), [P].

        loss = -(1 - ε) log σ(β gap) - ε log σ(-β gap)

    ε is the label smoothing (conservative DPO, Mitchell 2023). At gap 0 both terms have log σ(0) = -ln 2, so the loss
    is ln 2 = 0.693147 for every β and ε.
    """
    logit, share = settings.beta * pairs.gap, settings.label_smoothing
    return -(1 - share) * logsigmoid(logit) - share * logsigmoid(-logit)


def robust(pairs: PairLogprobs, settings: DPO) -> Tensor:
    """DPO made unbiased where a share ε of the labels is flipped (Chowdhury et al. 2024, arXiv 2403.00409), [P].

        loss = (-(1 - ε) log σ(β gap) + ε log σ(-β gap)) / (1 - 2ε)

    At gap 0: ((1 - ε) ln 2 - ε ln 2) / (1 - 2ε) = ln 2.
    """
    logit, share = settings.beta * pairs.gap, settings.label_smoothing
    return (-(1 - share) * logsigmoid(logit) + share * logsigmoid(-logit)) / (1 - 2 * share)


def hinge(pairs: PairLogprobs, settings: DPO) -> Tensor:
    """The hinge of SLiC (Zhao et al. 2023, arXiv 2305.10425) on the logit of DPO, [P].

        loss = max(0, 1 - β gap)

    At gap 0: 1. At gap 1 / β and beyond: 0.
    """
    return relu(1 - settings.beta * pairs.gap)


def ipo(pairs: PairLogprobs, settings: DPO) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036, eq. 17), [P].

        loss = (ratio(chosen) / n(chosen) - ratio(rejected) / n(rejected) - 1 / (2β))²

    The paper's equation has sums over tokens, which would make the loss grow with the length; its experiments, and
    TRL, take means, and so do we. At ratios of 0: 1 / (4β²), 25 for β = 0.1.
    """
    difference = pairs.chosen_ratio / pairs.chosen_tokens - pairs.rejected_ratio / pairs.rejected_tokens
    return (difference - 1 / (2 * settings.beta)).square()


def simpo(pairs: PairLogprobs, settings: DPO) -> Tensor:
    """Simple preference optimisation (Meng et al. 2024, arXiv 2405.14734, eq. 6), without a reference, [P].

        loss = -log σ(β (mean(chosen) - mean(rejected)) - γ)

    At equal means: ln(1 + exp γ), 0.974077 for γ = 0.5.
    """
    return -logsigmoid(settings.beta * (pairs.chosen_mean - pairs.rejected_mean) - settings.gamma)


def orpo(pairs: PairLogprobs, settings: DPO) -> Tensor:
    """Odds-ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7), without a reference, [P].

        loss = -mean(chosen) - β log σ(odds(chosen) - odds(rejected)),   odds = mean - log(1 - exp mean)

    The likelihood term counts completion tokens, each pair the same. At equal means m: -m + β ln 2.
    """
    odds = _log_odds(pairs.chosen_mean) - _log_odds(pairs.rejected_mean)
    return -pairs.chosen_mean - settings.beta * logsigmoid(odds)


def _log_odds(mean: Tensor) -> Tensor:
    bounded = mean.clamp(max=_LARGEST)
    return bounded - torch.log(-torch.expm1(bounded))


LOSSES: dict[str, Callable[[PairLogprobs, DPO], Tensor]] = {
    "sigmoid": sigmoid,
    "ipo": ipo,
    "hinge": hinge,
    "robust": robust,
    "simpo": simpo,
    "orpo": orpo,
}


def preference(pairs: PairLogprobs, settings: DPO, divisor: float) -> tuple[Tensor, Metrics]:
    """The loss of preference optimisation, with what is worth knowing about the pairs.

    `sft_weight` adds the mean negative log-likelihood of a chosen token, each pair the same.

    Args:
        divisor: pairs of the optimizer step (not of this micro-batch alone).

    Returns:
        This micro-batch's share of the mean loss per pair, and its shares of the means over pairs of

            reward_chosen, reward_rejected   β ratio (the losses without a reference: β mean)
            margin                           their difference
            accuracy                         1 where it is above 0
            logprob_chosen, logprob_rejected
            length_chosen, length_rejected   in trained tokens
            margin_of_longer                 the margin where chosen is longer, minus it where chosen is shorter
    """
    losses = LOSSES[settings.loss](pairs, settings)
    if settings.sft_weight:
        losses = losses - settings.sft_weight * pairs.chosen_mean
    return losses.sum() / divisor, {name: each.sum() / divisor for name, each in _measured(pairs, settings).items()}


def zero_margin(settings: DPO) -> float:
    """The loss (its SFT term left out) of a pair on which policy and reference agree."""
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    return float(LOSSES[settings.loss](PairLogprobs(zero, zero, one, one, zero, zero), settings))


@torch.no_grad()
def _measured(pairs: PairLogprobs, settings: DPO) -> Metrics:
    chosen, rejected = (
        (pairs.chosen_mean, pairs.rejected_mean)
        if settings.loss in REFERENCE_FREE
        else (pairs.chosen_ratio, pairs.rejected_ratio)
    )
    margin = settings.beta * (chosen - rejected)
    return {
        "reward_chosen": settings.beta * chosen,
        "reward_rejected": settings.beta * rejected,
        "margin": margin,
        "accuracy": (margin > 0).float(),
        "logprob_chosen": pairs.chosen,
        "logprob_rejected": pairs.rejected,
        "length_chosen": pairs.chosen_tokens,
        "length_rejected": pairs.rejected_tokens,
        "margin_of_longer": margin * torch.sign(pairs.chosen_tokens - pairs.rejected_tokens),
    }

"""Losses: pure functions from log-probabilities to (loss, metrics).

Every method sees the same thing, the log-probability of each sequence of a micro-batch, and returns that
micro-batch's share of the loss of a whole optimizer step: a sum, divided once by the step's `divisor`, never a mean
per row or micro-batch. The shares of all micro-batches of a step add up to its loss, and so do the metrics.

    B  sequences of a micro-batch
"""

from __future__ import annotations

from torch import Tensor

Metrics = dict[str, Tensor]


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

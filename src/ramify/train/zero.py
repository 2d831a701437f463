"""Whether policy and reference agree before the first step: if they do not, nothing that follows means anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ramify.base.errors import TrainingError
from ramify.train.losses import zero_margin
from ramify.train.preference import Preference, Reference
from ramify.train.steps import measure

_TOLERANCE = 1e-3
"""Of the loss, or as a share of a loss above 1."""
_ROUNDING = 0.05
"""Nats a token, on average over a batch, by which another layout may move log-probabilities in reduced precision."""


def check_zero_margin(network: Any, objective: Preference, indices: Sequence[int], micro_tokens: int) -> None:
    """Compare the loss of these pairs, dropout off and without its SFT term, with that of two equal networks.

    In reduced precision the objective's reference has to come from the same micro-batches: the layout alone moves
    log-probabilities by more than the tolerance.

    Raises:
        TrainingError: it differs by more than rounding; says by how much and what it probably is.
    """
    plain = replace(objective, settings=objective.settings.model_copy(update={"sft_weight": 0.0}))
    expected, found = zero_margin(objective.settings), measure(network, plain, indices, micro_tokens)
    if not abs(found.loss - expected) <= _TOLERANCE * max(1.0, expected):
        raise TrainingError(
            f"before the first step the loss is {found.loss:.6g} (margin {found.metrics['margin']:.3g}); policy and "
            f"reference being equal, it has to be {expected:.6g}",
            hint="likely weights that are not finite or were changed while the run began, or a model that does not "
            "compute the same twice",
        )


def check_rounding(objective: Preference, again: Reference, indices: Sequence[int]) -> None:
    """Compare the reference of these pairs with what the same network gives for another layout.

    Raises:
        TrainingError: they differ by more than reduced precision explains.
    """
    pairs, kept, some = objective.pairs, objective.reference, list(indices)
    gaps = np.concatenate([again.chosen[some] - kept.chosen[some], again.rejected[some] - kept.rejected[some]])
    lengths = [len(side[pair]) for side in (pairs.chosen, pairs.rejected) for pair in some]
    moved = float(np.mean(np.abs(gaps) / np.array(lengths)))
    if not moved <= _ROUNDING:
        raise TrainingError(
            f"before the first step the reference's log-probabilities differ from those kept by {moved:.3g} nats a "
            f"token on average; rounding explains {_ROUNDING}",
            hint="likely a model whose computation is unstable in this type: train.dtype=fp32",
        )

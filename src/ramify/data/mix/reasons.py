"""Why a mix is not what its settings ask for, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ramify.base.config_mix import MixConfig
from ramify.data.mix.choose import Keys, Quota
from ramify.data.mix.shelf import Taken


def why(
    config: MixConfig, taken: Sequence[Taken], quotas: Sequence[Quota], amounts: Sequence[int], row: int
) -> list[str]:
    """Of each source why its share is not the wanted one, to a row, or why its rows are repeated; else empty.

    Args:
        amounts: what the mix has of each, in its unit.
        row: the most that one of its rows counts there.
    """
    total, weights = sum(amounts), sum(source.weight for source in config.sources)
    less = [source.name for source, quota in zip(config.sources, quotas, strict=True) if _is_short(quota)]
    return [
        source.failed
        or _own(quota, config.unit)
        or _others(less, abs(amount - total * source.source.weight / weights) > row + 1e-6)
        for source, quota, amount in zip(taken, quotas, amounts, strict=True)
    ]


def notes(config: MixConfig, prompts: Keys, validation: float) -> list[str]:
    """What a reader of the whole mix should know.

    Args:
        prompts: key of the prompt of each row.
        validation: share of the rows that is on that side.
    """
    found = []
    if abs(validation - config.validation) > 0.01:
        repeated = len(np.unique(prompts)) < len(prompts)
        reason = "rows of one prompt stay on one side" if repeated else "each prompt falls to a side by chance"
        found.append(f"validation has {validation:.2%} of the rows, asked were {config.validation:.2%}: {reason}")
    if not validation and config.validation:
        found.append("there is no validation split: no prompt fell to it")
    return found


def _is_short(quota: Quota) -> bool:
    return not quota.there or (quota.wanted is not None and quota.taken < quota.wanted)


def _own(quota: Quota, unit: str) -> str:
    """Why a source gives more or less than it is asked for."""
    wanted, there, taken = quota.wanted, quota.there, quota.taken
    if wanted is None:
        return "" if there else "nothing of it is left"
    if not there:
        return f"has nothing of {wanted:,} {unit} that its weight asks for" if wanted else ""
    has = f"has {there:,} of {wanted:,} {unit} that its weight asks for"
    if taken > there:
        return f"{has}: taken {taken / there:.2f} times"
    if taken < wanted:
        return f"{has}: all taken"
    if taken > wanted:
        return f"{taken - wanted:,} {unit} more than its weight asks for: others are short"
    return ""


def _others(less: Sequence[str], differs: bool) -> str:
    """Why a source that gives what it is asked for has another share all the same."""
    if not differs:
        return ""
    if less:
        return f"its share is larger because less came of {', '.join(less)}"
    return "whole rows come no nearer to what its weight asks for"

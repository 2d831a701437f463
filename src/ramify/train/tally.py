"""What one process counted of a step, as numbers that travel, and what all of them counted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ramify.base.errors import Terminated
from ramify.model.rates import exact_device
from ramify.train.objective import Share


@dataclass(frozen=True)
class Tally:
    """Sums over micro-batches.

    Attributes:
        losses: by number of the micro-batch.
        tokens: of the unshared sequences; `computed` of the packed rows.
        metrics: what the objective adds.
        touched: for each trained parameter whether there is a gradient of it.
        is_whole: whether the process has computed all that was its part; if not, the step is given up by all.
        asked: the signal that asked the process to stop, as it is raised.
    """

    losses: dict[int, float]
    tokens: int
    computed: int
    metrics: dict[str, float]
    touched: tuple[bool, ...] = ()
    is_whole: bool = True
    asked: type[KeyboardInterrupt] | None = None


def detached(share: Share) -> Share:
    """The share without its graph."""
    return replace(
        share, loss=share.loss.detach(), metrics={name: each.detach() for name, each in share.metrics.items()}
    )


def tally(shares: Mapping[int, Share], scale: float = 1.0) -> Tally:
    """Shares by number of their micro-batch, whose losses are `scale` times too large; reads the device once."""
    parts = list(shares.values())
    if not parts:
        return Tally({}, 0, 0, {})
    metrics = {name: torch.stack([share.metrics[name] for share in parts]).sum() for name in parts[0].metrics}
    values = _read([*(share.loss for share in parts), *metrics.values()], scale)
    return Tally(
        losses=dict(zip(shares, values[: len(parts)], strict=True)),
        tokens=sum(share.tokens for share in parts),
        computed=sum(share.computed for share in parts),
        metrics=dict(zip(metrics, values[len(parts) :], strict=True)),
    )


def add_up(tallies: Sequence[Tally]) -> Tally:
    """The sums of all processes, losses in the order of the micro-batches; SIGTERM goes before Ctrl-C."""
    losses = {number: loss for each in tallies for number, loss in each.losses.items()}
    names = dict.fromkeys(name for each in tallies for name in each.metrics)
    asked = {each.asked for each in tallies} - {None}
    return Tally(
        losses={number: losses[number] for number in sorted(losses)},
        tokens=sum(each.tokens for each in tallies),
        computed=sum(each.computed for each in tallies),
        metrics={name: sum(each.metrics.get(name, 0.0) for each in tallies) for name in names},
        touched=tuple(any(each) for each in zip(*(each.touched for each in tallies), strict=True)),
        is_whole=all(each.is_whole for each in tallies),
        asked=Terminated if Terminated in asked else KeyboardInterrupt if asked else None,
    )


def _read(scalars: Sequence[Tensor], scale: float) -> list[float]:
    stacked = torch.stack([each.float().reshape(()) for each in scalars])
    values: list[float] = (stacked.to(exact_device(stacked.device)).double() / scale).tolist()
    return values

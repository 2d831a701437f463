"""The forwards of a network: its own, and a decoder of ours where it fits."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ramify.sample import attention
from ramify.sample.attention import Pass
from ramify.sample.decoder import Decoder, decoder_of
from ramify.sample.weights import multiplied_as_stored


class NetworkForward:
    """The forward of any Transformers network that runs with our attention."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self._layers: dict[int, int] = {}

    def __call__(self, current: Pass, ids: Tensor, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """See `Forward`."""
        with attention.running(current, self._layers):
            output = self._network(
                input_ids=ids[None],
                position_ids=position[None],
                use_cache=False,
                logits_to_keep=0 if rows is None else rows,
            )
        logits: Tensor = output.logits[0]
        return logits


def fast_forward(network: Any, *, merge: bool = True) -> Decoder | None:
    """See `decoder_of`; None also where weights are turned into another type for each product."""
    return decoder_of(network, merge=merge) if multiplied_as_stored(network) else None

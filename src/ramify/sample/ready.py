"""A network made ready to sample, for as long as anyone samples from it; and whose turn it is to compute.

Several services may stand on one network, with its adapter and without it. What is done to the network to sample from
it is done once, by the first, and undone by the last. The adapter is state of the network too: whoever switches it
holds the turn until the forward is over.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from ramify.model.load import LoadedModel
from ramify.sample import attention
from ramify.sample.attention import Pass
from ramify.sample.decoder import Decoder
from ramify.sample.forward import NetworkForward, fast_forward
from ramify.sample.prefill import Forward
from ramify.sample.weights import fast_weights


class Turns:
    """A lock that is handed on in the order of asking: two that always want it alternate."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._queue: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._queue.append(mine)
        mine.wait()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._taken = False


class Shared:
    """What those who sample from one network share; `made_ready` makes it.

    Attributes:
        turns: held while the network computes, or its adapter is switched.
    """

    def __init__(self) -> None:
        self.turns = Turns()
        self._users = 0
        self._undo = ExitStack()
        self._decoder: Decoder | None = None

    def enter(self, network: nn.Module) -> None:
        """One more samples from the network."""
        if not self._users:
            self._undo = _prepare(network)
        self._users += 1

    def leave(self) -> None:
        """One less does."""
        self._users -= 1
        if not self._users:
            self._decoder = None
            self._undo.close()

    def forward(self, loaded: LoadedModel, adapter: bool) -> Forward:
        """The forward with the adapter or without it, for as long as anyone samples from the network.

        Both read one copy of the weights where there is a decoder.
        """
        with self.turns:
            if self._decoder is None:
                self._decoder = fast_forward(loaded.network, merge=False)
            decoder = self._decoder
        if decoder is None:
            return _InTurn(self.turns, NetworkForward(loaded.network), None if adapter else loaded)
        return _InTurn(self.turns, decoder if adapter else decoder.without_adapters(), None)

    def forward_now(self, loaded: LoadedModel, adapter: bool) -> Forward:
        """The fastest forward of the weights as they are now, the adapter merged into them or left out."""
        with self.turns, nullcontext() if adapter else loaded.without_adapter():
            decoder = fast_forward(loaded.network)
        if decoder is None:
            return _InTurn(self.turns, NetworkForward(loaded.network), None if adapter else loaded)
        return _InTurn(self.turns, decoder, None)


class _InTurn:
    """A forward that others wait for, or that waits for others'.

    Args:
        turns: of the network.
        forward: what is computed.
        switched: the model whose adapter is switched off for it, or None.
    """

    def __init__(self, turns: Turns, forward: Forward, switched: LoadedModel | None) -> None:
        self._turns, self._forward, self._switched = turns, forward, switched

    def __call__(self, current: Pass, ids: Tensor, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """See `Forward`."""
        with self._turns, nullcontext() if self._switched is None else self._switched.without_adapter():
            return self._forward(current, ids, position, rows)


_guard = threading.Lock()
_shared: WeakKeyDictionary[nn.Module, Shared] = WeakKeyDictionary()


@contextmanager
def made_ready(network: nn.Module) -> Iterator[Shared]:
    """Inside the block the network is ready to sample: evaluation mode, our attention, fast weights.

    Afterwards it is as it was, unless others still sample from it.
    """
    with _guard:
        shared = _shared.setdefault(network, Shared())
        shared.enter(network)
    try:
        yield shared
    finally:
        with _guard:
            shared.leave()


def _prepare(network: Any) -> ExitStack:
    attention.register()
    before, training = network.config._attn_implementation, network.training
    with ExitStack() as stack:
        stack.enter_context(fast_weights(network))
        network.eval()
        stack.callback(network.train, training)
        network.set_attn_implementation(attention.NAME)
        stack.callback(network.set_attn_implementation, before)
        return stack.pop_all()

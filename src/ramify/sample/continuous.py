"""The own engine as a service: requests of any settings join and leave between the steps of the others.

    service = ContinuousService(load_model("nano"))
    for piece in service.submit(Request(ids, Sampling(temperature=0.7, max_new_tokens=200), seed=1)):
        print(piece.text, end="")
    service.close()

What is computed once is kept: the prompt of an n-fold request, the turns of a chat, the system prompt of many clients.
A completion is the one that `TreeSampler` draws for the same prompt, settings, seed and index (its problem id being the
empty text, as that of `TreeSampler.stream` is), whoever else is served. As everywhere, sums of another shape round
differently: in fp32 by parts in 10⁷, in half precision by more.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from contextvars import copy_context

import torch

from ramify.base.errors import DataError, LengthError, ModelError, RamifyError
from ramify.model.load import LoadedModel
from ramify.sample.choice import Order
from ramify.sample.engine import ending
from ramify.sample.flow import Flow
from ramify.sample.intake import Intake
from ramify.sample.known import Known
from ramify.sample.live import Live
from ramify.sample.passes import Slots
from ramify.sample.pieces import Answers, TokenBytes
from ramify.sample.ready import Shared, made_ready
from ramify.sample.service import Request
from ramify.sample.weights import slots_that_fit, tokens_that_fit

_log = logging.getLogger("ramify")

SLOTS = 32
"""Completions in the making at once."""
OWN = 256
"""Newest tokens of a completion that lie in its slot."""
KEPT = 65536
"""Most tokens whose keys and values are kept, where a quarter of the free memory holds as many."""
MOST_ALTERNATIVES = 20


class ContinuousService:
    """A loaded model behind the protocol `Service`.

    The model is as it was at the first request until the service is closed. Several services may stand on one loaded
    model, with its adapter and without it; they take turns.

    Args:
        loaded: the model.
        adapter: whether an adapter takes part; False completes with the base model.
        slots: completions in the making at once; further ones wait.
        kept: most tokens whose keys and values are kept for prompts to come; None: what memory has room for.
    """

    def __init__(
        self, loaded: LoadedModel, *, adapter: bool = True, slots: int = SLOTS, kept: int | None = None
    ) -> None:
        self._loaded, self._adapter, self._slots = loaded, adapter, slots
        self._fits = max(1, tokens_that_fit(loaded, 0.25))
        self._kept = min(KEPT, self._fits) if kept is None else kept
        self._longest = min(loaded.max_length, self._fits)
        self._bytes = TokenBytes(loaded.tokenizer)
        self._changed = threading.Condition()
        self._arrived: deque[tuple[Answers, Order]] = deque()
        self._woken = self._closed = False
        self._thread: threading.Thread | None = None
        self._flow: Flow | None = None

    @property
    def name(self) -> str:
        """See `Service`."""
        return self._loaded.policy if self._adapter else self._loaded.base

    @property
    def max_length(self) -> int:
        """See `Service`: what the model was built for, or less where memory holds less."""
        return self._longest

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens computed so far: those that were known are not among them."""
        return 0 if self._flow is None else self._flow.prompt_tokens

    def submit(self, request: Request) -> Answers:
        """See `Service`.

        Raises:
            LengthError: prompt and new tokens are more than `max_length`.
            DataError: the prompt is empty or holds a number that is no token, or too many alternatives are asked for.
            ModelError: the service is closed.
        """
        self._check(request)
        answers = Answers(request, self._loaded.tokenizer, self._bytes, self._wake)
        order = Order(request.settings, ending(self._loaded, request.settings), request.alternatives)
        with self._changed:
            if self._closed:
                raise ModelError(f"{self.name}: the model has been closed")
            self._arrived.append((answers, order))
            if self._thread is None:
                context = copy_context()  # what is assumed of the machine holds in the thread too
                self._thread = threading.Thread(
                    target=context.run, args=(self._work,), name=f"ramify {self.name}", daemon=True
                )
                self._thread.start()
                atexit.register(self.close)  # a thread inside torch must not outlive the interpreter
            self._changed.notify()
        return answers

    def close(self) -> None:
        """See `Service`. Closing again is harmless."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()
        self._thread = self._flow = None
        atexit.unregister(self.close)

    def _check(self, request: Request) -> None:
        if not request.ids:
            raise DataError("the prompt has no tokens")
        needed = len(request.ids) + request.settings.max_new_tokens
        if needed > self._longest:
            raise LengthError(
                f"prompt ({len(request.ids)} tokens) and {request.settings.max_new_tokens} new tokens exceed the "
                f"{self._longest} tokens of {self.name}",
                hint="lower max_new_tokens, or shorten the prompt",
            )
        size = int(self._loaded.network.config.vocab_size)
        if min(request.ids) < 0 or max(request.ids) >= size:
            raise DataError(f"the prompt holds numbers that are no tokens (allowed: 0 to {size - 1})")
        if not 0 <= request.alternatives <= MOST_ALTERNATIVES:
            raise DataError(f"{request.alternatives} alternatives (allowed: 0 to {MOST_ALTERNATIVES})")

    def _wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify()

    def _work(self) -> None:
        """What the thread does until the service is closed."""
        flow: Flow | None = None
        try:
            with made_ready(self._loaded.network) as shared, torch.inference_mode():
                self._flow = flow = self._new_flow(shared)
                while self._collect(flow):
                    flow.turn()
                flow.end()
        except BaseException as error:  # nobody must wait for ever on a thread that has ended
            _log.debug("the thread of %s has ended", self.name, exc_info=True)
            self._fail(flow, error)

    def _new_flow(self, shared: Shared) -> Flow:
        forward = shared.forward(self._loaded, self._adapter)
        count = slots_that_fit(self._loaded, OWN, wanted=self._slots)
        live = Live(Slots(count, OWN, self._loaded.device), self._longest, keep=True)
        return Flow(live, Intake(Known(self._kept), forward, self._loaded.device), forward, self._fits)

    def _collect(self, flow: Flow) -> bool:
        """Hand what arrived to the flow, waiting while there is nothing to do; False when the service is closed."""
        with self._changed:
            while not (self._arrived or self._woken or self._closed or flow.busy):
                self._changed.wait()
            self._woken = False
            while self._arrived:
                flow.accept(*self._arrived.popleft())
            return not self._closed

    def _fail(self, flow: Flow | None, error: BaseException) -> None:
        """End all requests with this error; the next one starts anew."""
        told = error if isinstance(error, RamifyError) else ModelError(f"{self.name}: the model failed: {error!r}")
        with self._changed:
            self._thread = self._flow = None
            left = [answers for answers, _ in self._arrived]
            self._arrived.clear()
        if flow is not None:
            flow.end(told)
        for answers in left:
            answers.fail(told)

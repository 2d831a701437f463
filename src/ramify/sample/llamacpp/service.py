"""llama.cpp behind the `Service` protocol: requests at any time, several at once, what was computed before kept.

One thread computes. A request comes in between two steps of the others; its prompt begins with whatever the context
still holds of it, so the next turn of a conversation computes only what is new.
"""

from __future__ import annotations

from threading import Condition, Thread

from ramify.base.errors import ModelError, RamifyError
from ramify.base.rng import key
from ramify.sample.flow import PROBLEM
from ramify.sample.llamacpp.lanes import Failed, Lanes, Work
from ramify.sample.llamacpp.model import GgufModel
from ramify.sample.llamacpp.room import cells_that_fit
from ramify.sample.pieces import Answers
from ramify.sample.service import Request, Ticket

LINES = 8
"""Completions computed at once by default; more wait."""
KEPT = 8
"""Conversations whose keys and values are kept by default."""
CELLS = 8192
"""Tokens that the context holds by default, of all requests and kept conversations together."""


class GgufService:
    """A GGUF file that completes requests; see `Service`.

    Args:
        model: it belongs to the service from now on, and is closed with it.
        lines: completions at once.
        kept: conversations whose keys and values are kept.
        cells: tokens that the context holds; None: `CELLS`, or the longest sequence that was asked for when the model
            was opened, but no more than half of the free memory holds.

    Raises:
        ModelError: llama.cpp cannot open such a context.
    """

    def __init__(self, model: GgufModel, *, lines: int = LINES, kept: int = KEPT, cells: int | None = None) -> None:
        runtime = model.runtime
        size = cells or min(max(CELLS, runtime.asked or 0), cells_that_fit(runtime.header, runtime.kv))
        self._model, self._longest = model, min(model.max_length, size)
        self._lanes = Lanes(model, cells=size, lines=lines, kept=kept)
        self._changed = Condition()
        self._arrived: list[tuple[Work, Answers]] = []
        self._answers: dict[Work, Answers] = {}
        self._closing = False
        self._thread = Thread(target=self._run, name=f"llama.cpp {model.runtime.path.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """What the user called the model."""
        return self._model.name

    @property
    def max_length(self) -> int:
        """Longest prompt with completion, in tokens."""
        return self._longest

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens computed so far; what the context held already is not among them."""
        return self._lanes.computed

    def submit(self, request: Request) -> Ticket:
        """See `Service`.

        Raises:
            LengthError: prompt and new tokens are more than `max_length`.
            DataError: the prompt is empty, or was made by another tokenizer.
            ModelError: the service was closed.
        """
        self._model.check(request.ids, request.settings.max_new_tokens, self._longest)
        keys = tuple(key("sample", request.seed, PROBLEM, index) for index in range(request.settings.n))
        work = Work(request.ids, self._model.order(request.settings, request.alternatives), keys)
        answers = Answers(request, self._model.tokenizer, self._model.runtime.piece, self._wake)
        with self._changed:
            if self._closing:
                raise ModelError(f"{self.name}: the model was closed")
            self._arrived.append((work, answers))
            self._changed.notify()
        return answers

    def close(self) -> None:
        """End all requests and let the memory go."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._model.close()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        """Compute until closed; a failure nobody thought of ends the requests, not the silence of their clients."""
        try:
            while self._next():
                self._step()
        except Exception as error:
            self._end_all(ModelError(f"{self.name}: llama.cpp failed: {type(error).__name__}: {error}"))
            with self._changed:
                self._closing = True
        self._end_all(None)

    def _next(self) -> bool:
        """Wait until there is something to do, and take in what has arrived; False: the service was closed."""
        with self._changed:
            while not (self._closing or self._arrived or self._lanes.busy):
                self._changed.wait()
            for work, answers in self._arrived:
                self._answers[work] = answers
                self._lanes.add(work)
            self._arrived.clear()
            return not self._closing

    def _step(self) -> None:
        for work in [work for work, answers in self._answers.items() if answers.cancelled]:
            self._lanes.drop(work)
            del self._answers[work]
        for event in self._lanes.step():
            answers = self._answers.get(event.work)
            if answers is None:  # failed with another of its completions
                continue
            if isinstance(event, Failed):
                answers.fail(event.error)
                del self._answers[event.work]
            else:
                answers.push(event.place, event.token, event.logprob, event.top, event.stop)
        for work in [work for work in self._answers if not self._lanes.holds(work)]:
            del self._answers[work]

    def _end_all(self, error: RamifyError | None) -> None:
        with self._changed:
            left = [*self._answers.values(), *(answers for _, answers in self._arrived)]
            self._answers.clear()
            self._arrived.clear()
        for answers in left:
            if error is None:
                answers.end()
            else:
                answers.fail(error)

"""What one service computes: requests come, their prompts are computed in chunks, and every sample goes a step a turn.

A turn is a chunk of prompts, when any wait, and one step of all live samples: a long prompt delays the others by one
chunk a token. Samples are drawn as `TreeSampler` draws them: by keys of their own, so neighbours never matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ramify.base.errors import ModelError, RamifyError
from ramify.base.rng import key
from ramify.sample.choice import Order
from ramify.sample.intake import Intake, Prompt
from ramify.sample.known import Known, Node
from ramify.sample.live import Drawn, Job, Live
from ramify.sample.pieces import Answers
from ramify.sample.prefill import Forward, Ready

PROBLEM = ""
"""What stands for the problem in the keys of draws: the one `TreeSampler.stream` uses."""
CHUNK = 512
"""Most prompt tokens a turn when nobody is kept waiting by them."""
CHUNK_BESIDE = 128
"""Most prompt tokens a turn beside samples in the making."""


@dataclass(eq=False)
class _Asked:
    """A request in the making.

    Attributes:
        answers: where its tokens go.
        order: how they are drawn.
        node: the run of keys and values that its prompt ends with, once it is computed.
        jobs: its samples that have not ended.
    """

    answers: Answers
    order: Order
    node: Node | None = None
    jobs: list[Job] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Most tokens that it will hold."""
        settings = self.order.settings
        return len(self.answers.request.ids) + settings.n * settings.max_new_tokens


class Flow:
    """All requests of one service; used by one thread.

    Args:
        live: the samples in the making; it hands out what it computed.
        intake: the prompts on their way.
        forward: of the network.
        most: tokens that requests in the making may hold together.
    """

    def __init__(self, live: Live, intake: Intake, forward: Forward, most: int) -> None:
        self._live, self._intake, self._forward, self._most = live, intake, forward, most
        self._known: Known = intake.known
        self._waiting: deque[_Asked] = deque()
        self._begun: list[_Asked] = []
        self._jobs: deque[Job] = deque()
        self._owners: dict[Job, _Asked] = {}

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._waiting or self._begun)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens computed so far."""
        return self._intake.tokens

    def accept(self, answers: Answers, order: Order) -> None:
        """One more request."""
        self._waiting.append(_Asked(answers, order))

    def turn(self) -> None:
        """Go on with all requests."""
        self._forget_cancelled()
        self._begin()
        self._prompts()
        self._admit()
        if self._live.count:
            self._step()
        self._known.trim()

    def end(self, error: RamifyError | None = None) -> None:
        """End all requests, with this error if there is one; nothing is computed after it."""
        for asked in (*self._begun, *self._waiting):
            if error is None:
                asked.answers.end()
            else:
                asked.answers.fail(error)

    def _forget_cancelled(self) -> None:
        for asked in [each for each in (*self._begun, *self._waiting) if each.answers.cancelled]:
            self._let_go(asked)

    def _begin(self) -> None:
        """Start requests, in order of coming, while there are slots and memory for them."""
        while self._waiting:
            asked = self._waiting[0]
            to_come = len(self._jobs) + sum(each.order.settings.n for each in self._begun if each.node is None)
            held = sum(each.tokens for each in self._begun)
            if to_come >= self._live.free or (self._begun and held + asked.tokens > self._most):
                return
            self._begun.append(self._waiting.popleft())
            self._intake.take(asked, asked.answers.request.ids, asked.order.settings.n)

    def _prompts(self) -> None:
        """Compute a chunk of prompts; the samples of those that are ready wait for slots."""
        if not self._intake.prompts:
            return
        for prompt, ready in self._intake.next(CHUNK_BESIDE if self._live.count else CHUNK):
            self._prompt_ready(prompt, ready)
        for owner, error in self._intake.failed:
            self._fail(next(each for each in self._begun if each is owner), _failed(error))
        self._intake.failed.clear()

    def _prompt_ready(self, prompt: Prompt, ready: Ready) -> None:
        asked = next(each for each in self._begun if each is prompt.owner)
        asked.node, seed = prompt.node, asked.answers.request.seed
        for index in range(asked.order.settings.n):
            number = key("sample", seed, PROBLEM, index)
            job = Job(ready, index, number, asked.order, partial(asked.answers.push, index))
            asked.jobs.append(job)
            self._owners[job] = asked
        self._jobs.extend(asked.jobs)

    def _admit(self) -> None:
        batch = [self._jobs.popleft() for _ in range(min(self._live.free, len(self._jobs)))]
        if batch:
            self._try(lambda: self._live.admit(batch))

    def _step(self) -> None:
        self._try(lambda: self._live.step(self._forward))

    def _try(self, compute: Callable[[], list[Drawn]]) -> None:
        """Compute something for the live samples; when that fails, all their requests have failed."""
        try:
            ended = compute()
        except Exception as error:  # whatever a network may raise: the service goes on
            for asked in [each for each in self._begun if each.jobs]:
                self._fail(asked, _failed(error))
            return
        for drawn in ended:
            self._ended(drawn)

    def _ended(self, drawn: Drawn) -> None:
        """A sample has ended; what it computed is known from now on."""
        asked = self._owners.get(drawn.job)
        if asked is None:  # its request failed with another of its samples
            return
        if drawn.error is not None:
            self._fail(asked, drawn.error)
            return
        self._remember(asked, drawn)
        if not asked.jobs:
            self._let_go(asked)

    def _remember(self, asked: _Asked, drawn: Drawn) -> None:
        """The sample's slot is free; keys and values of what was drawn are kept."""
        asked.jobs.remove(drawn.job)
        del self._owners[drawn.job]
        if drawn.computed is not None and asked.node is not None:
            ids = np.array(drawn.token_ids[:-1], dtype=np.int64)
            self._known.add(asked.node, ids, drawn.computed)

    def _fail(self, asked: _Asked, error: RamifyError) -> None:
        self._let_go(asked, keep=False)
        asked.answers.fail(error)

    def _let_go(self, asked: _Asked, *, keep: bool = True) -> None:
        """Free what a request holds; what its samples computed so far is kept, unless it may be wrong."""
        (self._begun if asked in self._begun else self._waiting).remove(asked)
        self._intake.drop(asked)
        self._jobs = deque(each for each in self._jobs if each not in asked.jobs)
        for drawn in self._live.give_up(asked.jobs, keep=keep):
            self._remember(asked, drawn)
        for job in asked.jobs:
            del self._owners[job]
        asked.jobs.clear()
        if asked.node is not None:
            self._known.release(asked.node)


def _failed(error: Exception) -> RamifyError:
    """What the clients of a request are told."""
    if isinstance(error, RamifyError):
        return error
    lines = str(error).strip().splitlines()
    return ModelError(f"the model failed: {type(error).__name__}" + (f": {lines[0]}" if lines else ""))

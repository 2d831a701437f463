"""The own engine: prompts of all questions in one prefix tree, samples fork, finished slots are refilled.

    sampler = TreeSampler(load_model("nano"))
    samples = sampler.sample(prompts, Sampling(n=8, temperature=0.8), seed=42)

A sample depends on its seed, problem id and index alone: not on its neighbours, its slot, or how many are live.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import torch

from ramify.base.config import Sampling
from ramify.base.errors import DataError, LengthError
from ramify.base.rng import key
from ramify.base.types import Sample, Stop
from ramify.model.load import LoadedModel
from ramify.sample.choice import Ending, Order
from ramify.sample.live import Drawn, Job, Live
from ramify.sample.passes import Slots
from ramify.sample.prefill import Forward, Prefill, Ready
from ramify.sample.prefix import plan_prompts
from ramify.sample.ready import made_ready
from ramify.sample.sampler import OnProgress, OnSample, Progress, PromptTokens, wanted_indices
from ramify.sample.streaming import StopStrings, StreamedText, cut_at, decode, special_stops
from ramify.sample.weights import slots_that_fit

CHUNK = 512
"""Prompt tokens computed at once: bounds memory, never changes the result."""


class TreeSampler:
    """Samples from a loaded model with shared prefixes.

    Args:
        loaded: the model; its weights are read anew in every call, so it may be trained in between.
        adapter: whether an adapter takes part; False samples from the base model.
        on_progress: called after every step with how far the run is.
    """

    def __init__(self, loaded: LoadedModel, *, adapter: bool = True, on_progress: OnProgress | None = None) -> None:
        self._loaded, self._adapter, self._on_progress = loaded, adapter, on_progress

    @property
    def policy(self) -> str:
        """What samples are labelled with."""
        return self._loaded.policy if self._adapter else self._loaded.base

    def sample(
        self,
        prompts: Sequence[PromptTokens],
        settings: Sampling,
        *,
        seed: int,
        on_sample: OnSample | None = None,
        indices: Mapping[str, Sequence[int]] | None = None,
    ) -> list[list[Sample]]:
        """Draw completions; see `Sampler.sample`. What was finished has reached `on_sample` also when interrupted.

        Raises:
            LengthError: prompt and new tokens are more than the model allows, with counts, before the first step.
            DataError: an empty prompt, or a problem id twice.
        """
        wanted = wanted_indices(prompts, settings, indices)
        self._check(prompts, wanted, settings)
        found: list[dict[int, Sample]] = [{} for _ in prompts]
        chosen = [number for number, some in enumerate(wanted) if some]
        if not chosen:
            return [[] for _ in prompts]
        with made_ready(self._loaded.network) as shared, torch.inference_mode():
            forward = shared.forward_now(self._loaded, self._adapter)
            run = _Run(self._loaded, forward, [prompts[n] for n in chosen], [wanted[n] for n in chosen], settings, seed)
            for drawn in run.drawn(self._on_progress):
                number = chosen[drawn.job.ready.prompt]
                sample = self._as_sample(prompts[number].problem_id, drawn, settings, seed)
                found[number][sample.index] = sample
                if on_sample is not None:
                    on_sample(sample)
        return [[samples[index] for index in sorted(samples)] for samples in found]

    def stream(self, ids: Sequence[int], settings: Sampling, *, seed: int) -> Iterator[str]:
        """The text of one completion, piece by piece as it is drawn; joined, it is the text of the sample.

        The network stays ready to sample until the stream is exhausted or closed.

        Raises:
            LengthError: prompt and new tokens are more than the model allows.
        """
        prompt = PromptTokens("", tuple(ids))
        self._check([prompt], [[0]], settings)
        text = StreamedText(self._loaded.tokenizer, settings.stop)
        with made_ready(self._loaded.network) as shared:
            with torch.inference_mode():
                forward = shared.forward_now(self._loaded, self._adapter)
                run = _Run(self._loaded, forward, [prompt], [[0]], settings, seed)
            for tokens in run.tokens():
                if piece := text.push(tokens):
                    yield piece
            if piece := text.finish():
                yield piece

    def _as_sample(self, problem_id: str, drawn: Drawn, settings: Sampling, seed: int) -> Sample:
        ids = drawn.token_ids[:-1] if drawn.stop is Stop.EOS else drawn.token_ids
        assert drawn.stop is not None
        text = cut_at(decode(self._loaded.tokenizer, ids), settings.stop)
        return Sample(problem_id, drawn.job.index, drawn.token_ids, drawn.logprobs, text, drawn.stop, self.policy, seed)

    def _check(self, prompts: Sequence[PromptTokens], wanted: Sequence[Sequence[int]], settings: Sampling) -> None:
        limit = self._loaded.max_length
        needed = [(len(p.ids) + settings.max_new_tokens, p) for p, some in zip(prompts, wanted, strict=True) if some]
        if any(not p.ids for _, p in needed):
            raise DataError(f"problem {next(p.problem_id for _, p in needed if not p.ids)!r}: the prompt has no tokens")
        long = [(tokens, p) for tokens, p in needed if tokens > limit]
        if long:
            tokens, worst = max(long, key=lambda pair: pair[0])
            raise LengthError(
                f"{len(long)} of {len(needed)} prompts with {settings.max_new_tokens} new tokens exceed the model's "
                f"{limit} tokens (longest: {tokens}, problem {worst.problem_id!r})",
                hint="lower max_new_tokens, use fewer worked turns, or leave these problems out",
            )


class _Run:
    """One call of `sample`: what is computed, what is live, what is next."""

    def __init__(
        self,
        loaded: LoadedModel,
        forward: Forward,
        prompts: Sequence[PromptTokens],
        wanted: Sequence[Sequence[int]],
        settings: Sampling,
        seed: int,
    ) -> None:
        self._forward = forward
        self._prompts, self._wanted, self._seed = prompts, wanted, seed
        self._total = sum(map(len, wanted))
        samples = [len(some) for some in wanted]
        tree = plan_prompts([prompt.ids for prompt in prompts], samples, settings.live, CHUNK)
        copied = max(tree.copied(number) for number in range(len(prompts)))
        capacity = copied + settings.max_new_tokens
        count = slots_that_fit(loaded, capacity, wanted=min(settings.live, self._total))
        slots = Slots(count, capacity, loaded.device)
        self._order = Order(settings, ending(loaded, settings))
        self._live = Live(slots, settings.max_new_tokens)
        self._prefill = Prefill(tree, samples, self._forward, loaded.device)
        self._jobs: deque[Job] = deque()

    def drawn(self, on_progress: OnProgress | None) -> Iterator[Drawn]:
        """Samples, as they finish."""
        start = time.perf_counter()
        done = tokens = 0
        while self._live.count or self._jobs or not self._prefill.finished:
            ended = self._refill()
            tokens += self._started
            if self._live.count:
                tokens += self._live.count
                ended += self._live.step(self._forward)
            _raise_first(ended)
            done += len(ended)
            yield from ended
            if on_progress is not None:
                seconds = time.perf_counter() - start
                on_progress(Progress(done, self._total, tokens, self._prefill.tokens, seconds))

    def tokens(self) -> Iterator[int]:
        """Tokens of the only sample as they are drawn, without the stop token."""
        shown, stop_ids = 0, self._order.ending.stop_ids
        ended: list[Drawn] = []
        while not ended:
            with torch.inference_mode():  # not around the yield: the mode would leak to whoever reads the stream
                ended = self._refill() if not shown else self._live.step(self._forward)
            _raise_first(ended)
            tokens = list(ended[0].token_ids) if ended else self._live.tokens()
            yield from (token for token in tokens[shown:] if token not in stop_ids)
            shown = len(tokens)

    def _refill(self) -> list[Drawn]:
        """Fill free slots with the next samples, computing prompts as they are needed."""
        ended: list[Drawn] = []
        self._started = 0
        while self._live.free and (self._jobs or not self._prefill.finished):
            if not self._jobs:
                for ready in self._prefill.next():
                    self._jobs.extend(self._jobs_of(ready))
                continue
            batch = [self._jobs.popleft() for _ in range(min(self._live.free, len(self._jobs)))]
            self._started += len(batch)
            ended += self._live.admit(batch)
        return ended

    def _jobs_of(self, ready: Ready) -> list[Job]:
        problem = self._prompts[ready.prompt].problem_id
        wanted = self._wanted[ready.prompt]
        return [Job(ready, index, key("sample", self._seed, problem, index), self._order) for index in wanted]


def _raise_first(ended: Sequence[Drawn]) -> None:
    """One sample that cannot be drawn ends the whole run."""
    for each in ended:
        if each.error is not None:
            raise each.error


def ending(loaded: LoadedModel, settings: Sampling) -> Ending:
    """What ends a completion of this model under these settings."""
    strings = StopStrings(loaded.tokenizer, settings.stop) if settings.stop else None
    return Ending((*loaded.stop_ids, *special_stops(loaded.tokenizer, settings.stop)), strings)

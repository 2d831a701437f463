"""Sampling with llama.cpp: many prompts, parallel sequences in one context, each shared prefix computed once.

    sampler = LlamaCppSampler(open_gguf("model-Q8_0.gguf"))
    samples = sampler.sample(prompts, Sampling(n=8, temperature=0.8), seed=42)

Tokens are drawn by the own engine's rule and random numbers: where the logits are equal, so are the samples.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from ramify.base.config import Sampling
from ramify.base.errors import DataError
from ramify.base.rng import key
from ramify.base.types import Sample, Stop
from ramify.sample.llamacpp.engine import MOST_SEQUENCES
from ramify.sample.llamacpp.lanes import Event, Failed, Lanes, Work
from ramify.sample.llamacpp.model import GgufModel
from ramify.sample.llamacpp.room import cells_for, cells_that_fit, in_order
from ramify.sample.sampler import OnProgress, OnSample, Progress, PromptTokens, wanted_indices
from ramify.sample.streaming import cut_at, decode

_KEPT = 1  # in the order that prompts come in, the last one shares the most


class LlamaCppSampler:
    """Samples from a GGUF file; see `Sampler`.

    Args:
        model: opened; one sampler at a time uses it, others wait.
        on_progress: called after every step with how far the run is.
    """

    def __init__(self, model: GgufModel, *, on_progress: OnProgress | None = None) -> None:
        self._model, self._on_progress = model, on_progress

    @property
    def policy(self) -> str:
        """What samples are labelled with: the file."""
        return self._model.policy

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
            ModelError: llama.cpp failed.
        """
        wanted = wanted_indices(prompts, settings, indices)
        chosen = [(prompt, some) for prompt, some in zip(prompts, wanted, strict=True) if some]
        for prompt, _ in chosen:
            self._check(prompt, settings)
        found: dict[str, dict[int, Sample]] = {prompt.problem_id: {} for prompt in prompts}
        if chosen:
            with self._model.lock:
                run = _Run(self._model, chosen, settings, seed)
                for sample in run.samples(self._on_progress):
                    found[sample.problem_id][sample.index] = sample
                    if on_sample is not None:
                        on_sample(sample)
        return [[found[prompt.problem_id][n] for n in sorted(found[prompt.problem_id])] for prompt in prompts]

    def _check(self, prompt: PromptTokens, settings: Sampling) -> None:
        try:
            self._model.check(prompt.ids, settings.max_new_tokens)
        except DataError as error:
            raise type(error)(f"problem {prompt.problem_id!r}: {error.message}", hint=error.hint) from None


class _Run:
    """One call of `sample`."""

    def __init__(
        self,
        model: GgufModel,
        wanted: Sequence[tuple[PromptTokens, Sequence[int]]],
        settings: Sampling,
        seed: int,
    ) -> None:
        self._model, self._settings, self._seed = model, settings, seed
        self._total = sum(len(some) for _, some in wanted)
        lines = min(settings.live, self._total, MOST_SEQUENCES - _KEPT - 1)
        ids = [prompt.ids for prompt, _ in wanted]
        order = in_order(ids)
        cells = cells_for([ids[number] for number in order], lines, settings.max_new_tokens)
        least = max(map(len, ids)) + settings.max_new_tokens
        fitting = cells_that_fit(model.runtime.header, model.runtime.kv)
        self._lanes = Lanes(model, cells=max(least, min(cells, fitting)), lines=lines, kept=_KEPT)
        self._jobs: dict[Work, list[tuple[str, int]]] = {}
        self._drawn: dict[tuple[str, int], tuple[list[int], list[float]]] = {}
        kind = model.order(settings)
        for number in order:
            prompt, some = wanted[number]
            keys = tuple(key("sample", seed, prompt.problem_id, index) for index in some)
            work = Work(prompt.ids, kind, keys)
            self._jobs[work] = [(prompt.problem_id, index) for index in some]
            self._lanes.add(work)

    def samples(self, on_progress: OnProgress | None) -> Iterator[Sample]:
        """Samples, as they finish."""
        start = time.perf_counter()
        done = tokens = 0
        while self._lanes.busy:
            events = self._lanes.step()
            tokens += len(events)
            ended = [sample for event in events if (sample := self._pushed(event)) is not None]
            done += len(ended)
            yield from ended
            if on_progress is not None:
                seconds = time.perf_counter() - start
                on_progress(Progress(done, self._total, tokens, self._lanes.computed, seconds))

    def _pushed(self, event: Event) -> Sample | None:
        """The sample that ended with this token, or None."""
        if isinstance(event, Failed):
            raise event.error
        problem, index = self._jobs[event.work][event.place]
        drawn = self._drawn.setdefault((problem, index), ([], []))
        drawn[0].append(event.token)
        drawn[1].append(event.logprob)
        return None if event.stop is None else self._as_sample(problem, index, event.stop)

    def _as_sample(self, problem: str, index: int, stop: Stop) -> Sample:
        token_ids, logprobs = self._drawn.pop((problem, index))
        shown = token_ids[:-1] if stop is Stop.EOS else token_ids
        text = cut_at(decode(self._model.tokenizer, shown), self._settings.stop)
        return Sample(problem, index, tuple(token_ids), tuple(logprobs), text, stop, self._model.policy, self._seed)

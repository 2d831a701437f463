"""Samples from an OpenAI-compatible endpoint: many requests at once, each sample a request of its own.

So a stopped run draws exactly the samples that are missing. What an endpoint gives is text: its samples have no token
ids and no log-probabilities, and whether a seed is honoured is up to the endpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from queue import Empty, Queue
from threading import Event, Thread
from typing import Any

from ramify.base.config import Endpoint, Sampling
from ramify.base.errors import DataError
from ramify.base.rng import key
from ramify.base.types import Sample, Stop
from ramify.sample.endpoint.client import Client, read_key
from ramify.sample.endpoint.pace import BackOff, StoppedError
from ramify.sample.endpoint.usage import Usage
from ramify.sample.sampler import OnSample, PromptTokens, PromptTurns, wanted_indices
from ramify.sample.streaming import cut_at

_EXTRAS = ("top_k", "min_p", "repetition_penalty")  # not of OpenAI's own; vLLM, SGLang, TGI and Ramify know them

_Job = tuple[PromptTurns, int]
_Found = Sample | BaseException | None  # a sample, why a thread gave up, or that it has nothing left to do


class EndpointSampler:
    """Draws from a model behind an endpoint; see `Sampler`. Its prompts are `PromptTurns`.

    Args:
        endpoint: where it is, and how it is treated.
        model: the endpoint's name of it, which samples are labelled with.
        back_off: how long to wait before a request is sent again.

    Raises:
        ConfigError: the environment variable of the key is not set.
    """

    def __init__(self, endpoint: Endpoint, model: str, back_off: BackOff | None = None) -> None:
        self._endpoint, self._model, self._back_off = endpoint, model, back_off
        self._spent = Usage()
        read_key(endpoint.key_env)  # refuses one that is not there

    @property
    def usage(self) -> Usage:
        """What was spent so far, in all calls."""
        return self._spent

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
            DataError: a prompt without turns, or a problem id twice.
            ModelError: the endpoint refused a request for good; the answers that were under way are waited for first.
        """
        wanted = wanted_indices(prompts, settings, indices)
        jobs: deque[_Job] = deque()
        for prompt, some in zip(prompts, wanted, strict=True):
            if not isinstance(prompt, PromptTurns) or not prompt.conversation:
                raise DataError(f"problem {prompt.problem_id!r}: an endpoint is asked with turns, and there are none")
            jobs.extend((prompt, index) for index in some)
        found: dict[tuple[str, int], Sample] = {}
        stopped = Event()
        client = Client(self._endpoint, stopped, self._back_off)
        try:
            for sample in _Asking(client, self._model, settings, seed, stopped).answers(jobs, self._endpoint.parallel):
                found[sample.problem_id, sample.index] = sample
                if on_sample is not None:
                    on_sample(sample)
        finally:
            stopped.set()
            self._spent += client.usage
            client.close()
        return [[found[p.problem_id, index] for index in some] for p, some in zip(prompts, wanted, strict=True)]


class _Asking:
    """One call of `sample`."""

    def __init__(self, client: Client, model: str, settings: Sampling, seed: int, stopped: Event) -> None:
        self._client, self._model, self._settings, self._seed = client, model, settings, seed
        self._stopped = stopped
        self._found: Queue[_Found] = Queue()

    def answers(self, jobs: deque[_Job], parallel: int) -> Iterator[Sample]:
        """Samples as they come; the first failure is raised when all that was under way has ended."""
        working = min(parallel, len(jobs))
        for _ in range(working):
            # A daemon, so that Ctrl-C need not wait for an answer that may take minutes.
            Thread(target=self._work, args=(jobs,), daemon=True, name="endpoint").start()
        failure: BaseException | None = None
        while working:
            found = self._next()
            if found is None:
                working -= 1
            elif isinstance(found, Sample):
                yield found
            else:
                failure = failure or found
                self._stopped.set()
        if failure is not None:
            raise failure

    def _next(self) -> _Found:
        while True:
            try:
                return self._found.get(timeout=0.5)  # in slices, so that Ctrl-C is heard on every system
            except Empty:
                continue

    def _work(self, jobs: deque[_Job]) -> None:
        try:
            while (job := _next_of(jobs)) is not None and not self._stopped.is_set():
                self._found.put(self._draw(*job))
        except StoppedError:
            pass
        except BaseException as error:
            self._found.put(error)
        finally:
            self._found.put(None)

    def _draw(self, prompt: PromptTurns, index: int) -> Sample:
        answer = self._client.ask(self._body(prompt, index))
        text = cut_at(answer.text, self._settings.stop)  # some endpoints leave the stop string in
        stop = Stop.STOP_STRING if len(text) < len(answer.text) else answer.stop
        return Sample(prompt.problem_id, index, (), (), text, stop, self._model, self._seed)

    def _body(self, prompt: PromptTurns, index: int) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in prompt.conversation],
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,  # always: what is left out is as the server's model has it
            "seed": key("sample", self._seed, prompt.problem_id, index) & 0x7FFFFFFF,
        }
        if settings.stop:
            body["stop"] = list(settings.stop)
        extras = {name: getattr(settings, name) for name in _EXTRAS}
        defaults = Sampling.model_fields
        return body | {name: value for name, value in extras.items() if value != defaults[name].default}


def _next_of(jobs: deque[_Job]) -> _Job | None:
    try:
        return jobs.popleft()
    except IndexError:  # asking first would let another thread come between
        return None

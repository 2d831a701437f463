"""What a sampler is: token prompts in, `Sample` records out. Engines implement the protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ramify.base.config import Sampling
from ramify.base.errors import DataError
from ramify.base.types import Conversation, Sample


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A rendered prompt: the problem it belongs to, and its token ids as the model sees them."""

    problem_id: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PromptTurns(PromptTokens):
    """A prompt for an engine that renders conversations itself: it has turns instead of ids."""

    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sampling run is.

    Attributes:
        done: finished samples.
        total: samples asked for.
        tokens: new tokens produced so far.
        prompt_tokens: prompt tokens computed so far (each shared token once).
        seconds: time since the run began.
        seconds_left: an estimate from the samples finished so far, or None before the first.
    """

    done: int
    total: int
    tokens: int
    prompt_tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """New tokens a second, prompts and all overhead included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated time to the end, or None before the first sample is finished."""
        if not self.done:
            return None
        return self.seconds / self.done * (self.total - self.done)


OnSample = Callable[[Sample], None]
OnProgress = Callable[[Progress], None]


class Sampler(Protocol):
    """Anything that completes prompts: the own engine, or a wrapper around another one."""

    def sample(
        self,
        prompts: Sequence[PromptTokens],
        settings: Sampling,
        *,
        seed: int,
        on_sample: OnSample | None = None,
        indices: Mapping[str, Sequence[int]] | None = None,
    ) -> list[list[Sample]]:
        """Draw `settings.n` completions of each prompt.

        Args:
            prompts: rendered prompts with distinct problem ids.
            settings: how tokens are drawn.
            seed: of every draw; a sample depends on (seed, problem id, index) alone.
            on_sample: called with each sample as it finishes, in the order of finishing.
            indices: per problem id, which sample indices to draw; None: 0 … n-1 of every problem, and problems
                that are missing from the mapping get none.

        Returns:
            For each prompt its samples, ordered by index.
        """
        ...


def wanted_indices(
    prompts: Sequence[PromptTokens], settings: Sampling, indices: Mapping[str, Sequence[int]] | None
) -> list[Sequence[int]]:
    """The sample indices that `Sampler.sample` is asked for, of each prompt.

    Raises:
        DataError: a problem id twice.
    """
    names = [prompt.problem_id for prompt in prompts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"problem id {twice!r} appears twice", hint="give each problem its own: draws depend on it")
    if indices is None:
        return [range(settings.n) for _ in prompts]
    return [sorted(set(indices.get(name, ()))) for name in names]

"""An opened GGUF file with its tokenizer, ready to sample and to serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

from transformers import PreTrainedTokenizerBase

from ramify.base.config import Sampling
from ramify.base.errors import DataError, LengthError, ModelError
from ramify.sample.choice import Ending, Order
from ramify.sample.llamacpp.engine import CacheType
from ramify.sample.llamacpp.runtime import Package, Runtime, open_runtime
from ramify.sample.llamacpp.tokenizer import open_tokenizer
from ramify.sample.streaming import StopStrings, special_stops


@dataclass(frozen=True)
class GgufModel:
    """What `LoadedModel` is to the own engine.

    Attributes:
        name: as the user wrote it; what samples are labelled with.
        stop_ids: tokens that end a completion: what llama.cpp stops at, and the tokenizer's eos.
        lock: held while a sampler uses the runtime.
    """

    runtime: Runtime
    tokenizer: PreTrainedTokenizerBase
    name: str
    stop_ids: tuple[int, ...]
    lock: RLock = field(default_factory=RLock, repr=False)

    @property
    def policy(self) -> str:
        """What a sample of this model is labelled with."""
        return self.name

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens."""
        return self.runtime.n_ctx

    def order(self, settings: Sampling, alternatives: int = 0) -> Order:
        """How samples under these settings are drawn, and what ends them."""
        strings = StopStrings(self.tokenizer, settings.stop) if settings.stop else None
        stop_ids = (*self.stop_ids, *special_stops(self.tokenizer, settings.stop))
        return Order(settings, Ending(stop_ids, strings), alternatives)

    def check(self, ids: Sequence[int], new_tokens: int, longest: int | None = None) -> None:
        """Refuse a prompt that cannot be completed.

        Args:
            longest: most tokens of prompt and completion; None: what the model allows.

        Raises:
            DataError: it is empty, or made by another tokenizer.
            LengthError: prompt and new tokens are too long.
        """
        if not ids:
            raise DataError("the prompt has no tokens")
        strange = next((token for token in ids if not 0 <= token < self.runtime.n_vocab), None)
        if strange is not None:
            raise DataError(f"token {strange} of the prompt is not in the vocabulary ({self.runtime.n_vocab} tokens)")
        limit = self.max_length if longest is None else longest
        if len(ids) + new_tokens > limit:
            raise LengthError(
                f"the prompt's {len(ids)} tokens and {new_tokens} new ones exceed the {limit} that fit",
                hint="lower max_new_tokens, or shorten the conversation",
            )

    def close(self) -> None:
        """Let the memory go."""
        self.runtime.close()


def open_gguf(
    path: Path | str,
    *,
    n_ctx: int | None = None,
    kv: CacheType = "f16",
    threads: int | None = None,
    package: Package | None = None,
) -> GgufModel:
    """Open a GGUF file with its tokenizer; see `open_runtime` for the settings.

    Raises:
        ModelError: the file or the tokenizer beside it cannot be used.
        ConfigError: llama.cpp is not installed.
    """
    runtime = open_runtime(Path(path), n_ctx=n_ctx, kv=kv, threads=threads, package=package)
    try:
        tokenizer = open_tokenizer(runtime)
    except ModelError:
        runtime.close()
        raise
    eos = () if tokenizer.eos_token_id is None else (int(tokenizer.eos_token_id),)
    return GgufModel(runtime, tokenizer, str(path), tuple(sorted({*runtime.stop_ids, *eos})))

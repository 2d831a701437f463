"""How probable held-out answers are: perplexity, and bits a token and a byte, by one pass over their prefix tree.

    perplexity = exp(mean over tokens of -log p(token | all before it))          Jelinek et al. 1977

Counted are the tokens of the answers and the stop token behind each, one like the other, whatever they are trained
with; prompts are not. Perplexities of different tokenizers cannot be compared; bits a byte of the answers' text can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import exp, log

import numpy as np
import numpy.typing as npt

from ramify.base.errors import DataError, LengthError
from ramify.base.rng import key
from ramify.base.types import Example, TokenSequence
from ramify.evaluate.scores import Rate
from ramify.model.load import LoadedModel
from ramify.model.logprobs import token_logprobs, without_dropout
from ramify.prompts.renderer import Renderer
from ramify.tree.pack import micro_batches, pack

_RESAMPLES = 10_000
_DRAWN_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What a model makes of held-out answers.

    Attributes:
        answers, tokens, bytes: how many were scored; bytes are those of their text in UTF-8.
        nats: minus the sum of all tokens' natural log-probabilities.
        by_answer: (nats, tokens) of each answer, in the order given.
    """

    answers: int
    tokens: int
    bytes: int
    nats: float
    by_answer: tuple[tuple[float, int], ...]

    @property
    def perplexity(self) -> float:
        """The exponential of the mean over tokens."""
        return exp(self.nats / self.tokens)

    @property
    def bits_per_token(self) -> float:
        """The mean over tokens, in bits."""
        return self.nats / self.tokens / log(2)

    @property
    def bits_per_byte(self) -> float:
        """All bits, those of the stop tokens included, over the bytes of the answers."""
        return self.nats / self.bytes / log(2)


def likelihood(loaded: LoadedModel, renderer: Renderer, examples: Sequence[Example], micro_tokens: int) -> Likelihood:
    """Score the answers of examples.

    Raises:
        DataError: there are none.
        LengthError: one is longer than the model allows, before anything is computed.
    """
    sequences = [each for example in examples for each in renderer.sequences(example)]
    texts = [completion.text for example in examples for completion in example.completions]
    if not sequences:
        raise DataError("there are no held-out answers to score")
    found = completion_logprobs(loaded, sequences, micro_tokens)
    by_answer = tuple((-sum(each), len(each)) for each in found)
    return Likelihood(
        answers=len(texts),
        tokens=sum(count for _, count in by_answer),
        bytes=sum(len(text.encode()) for text in texts),
        nats=sum(nats for nats, _ in by_answer),
        by_answer=by_answer,
    )


def completion_logprobs(
    loaded: LoadedModel, sequences: Sequence[TokenSequence], micro_tokens: int
) -> list[tuple[float, ...]]:
    """Natural log-probability of each trained token of each sequence; shared prefixes are computed once a group.

    Args:
        micro_tokens: packed tokens computed at once; bounds memory, never changes the result.

    Raises:
        LengthError: a sequence is longer than the model allows, with counts, before anything is computed.
    """
    check_lengths(loaded, sequences)
    found: list[tuple[float, ...]] = [()] * len(sequences)
    for group in micro_batches(sequences, micro_tokens):
        part = [sequences[index] for index in group]
        with without_dropout(loaded.network):
            values = iter(token_logprobs(loaded.network, pack(part).to(loaded.device)).tolist())
        for index, sequence in zip(group, part, strict=True):
            found[index] = tuple(islice(values, sum(weight != 0 for weight in sequence.weights)))
    return found


def check_lengths(loaded: LoadedModel, sequences: Sequence[TokenSequence]) -> None:
    """Refuse sequences that the model was not built for.

    Raises:
        LengthError: there are some; with counts.
    """
    lengths = [len(sequence.ids) for sequence in sequences]
    long = [length for length in lengths if length > loaded.max_length]
    if long:
        raise LengthError(
            f"{len(long)} of {len(lengths)} answers with their prompts exceed the model's {loaded.max_length} tokens; "
            f"the longest has {max(long)}"
        )


def mean_per_token(sums: Sequence[float], tokens: Sequence[int], purpose: str) -> Rate:
    """Mean per token of what was summed over each answer, with a 95 % percentile bootstrap over answers (Efron 1979).

    Answers are drawn whole, since the tokens of one depend on each other: the interval is that of the ratio of two
    sums. It is keyed by `purpose`, so equal figures give equal intervals.
    """
    values, counts = np.asarray(sums, np.float64), np.asarray(tokens, np.float64)
    draws = np.random.default_rng(key("mean per token", purpose, len(values)))
    means: npt.NDArray[np.float64] = np.empty(_RESAMPLES)
    step = max(1, _DRAWN_AT_ONCE // len(values))
    for start in range(0, _RESAMPLES, step):
        chosen = draws.integers(0, len(values), (min(step, _RESAMPLES - start), len(values)))
        means[start : start + step] = values[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Rate(float(values.sum() / counts.sum()), float(low), float(high))

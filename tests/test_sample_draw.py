"""Drawing against Transformers' processors, and against the distribution it claims to draw from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ramify.base.config import Sampling
from ramify.base.rng import uniforms
from ramify.sample.draw import draw, invert, thresholds

SETTINGS: list[dict[str, Any]] = [
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 50},
    {"top_p": 0.05},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"top_p": 0.9999},
    {"min_p": 0.1},
    {"top_k": 40, "top_p": 0.8},
    {"top_k": 5, "min_p": 0.3},
    {"top_p": 0.9, "min_p": 0.02},
    {"top_k": 30, "top_p": 0.7, "min_p": 0.05},
]


def reference(logits: torch.Tensor, settings: Sampling) -> torch.Tensor:
    """Filtered logits, by Transformers' own processors in its own order."""
    steps = LogitsProcessorList([TemperatureLogitsWarper(settings.temperature)])
    if settings.top_k:
        steps.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1:
        steps.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p:
        steps.append(MinPLogitsWarper(settings.min_p))
    return steps(torch.zeros(len(logits), 1, dtype=torch.long), logits)


@pytest.mark.parametrize("vocabulary", [90, 3000, 20000])
@pytest.mark.parametrize("asked", SETTINGS, ids=str)
def test_what_is_kept_is_what_transformers_keeps(asked: dict[str, Any], vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    for temperature, spread in ((1.0, 1.0), (0.7, 4.0), (1.5, 3.0)):
        settings = Sampling(temperature=temperature, **asked)
        logits = torch.randn(4, vocabulary, generator=generator) * spread
        scaled = logits / temperature
        bound = thresholds(scaled, settings)
        assert bound is not None
        # In double: added up in fp32, the mass of 20,000 tokens ends some tokens of the tail earlier or later.
        kept, expected = scaled >= bound[:, None], reference(logits.double(), settings).isfinite()
        # The mass of 20,000 tokens, added up in fp32 in another order, may end one token of the tail earlier or later.
        differ = (kept != expected).sum(dim=-1)
        assert (differ <= (1 if vocabulary * settings.top_p > 4000 and settings.top_p < 1 else 0)).all()


@pytest.mark.parametrize("asked", [{}, {"top_k": 12}, {"top_p": 0.8}, {"min_p": 0.2}], ids=str)
def test_frequencies_follow_the_filtered_distribution(asked: dict[str, Any]) -> None:
    """Chi-square of 40,000 draws with fixed keys: a p-value of 1e-4 or less would mean a wrong distribution."""
    settings = Sampling(temperature=0.8, **asked)
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(3)) * 1.5
    count = 40_000
    keys = np.full(count, 12345, dtype=np.uint64)
    numbers = torch.from_numpy(uniforms(keys, np.arange(count, dtype=np.uint64)))
    tokens, _ = draw(logits.expand(count, -1), settings, numbers)
    seen = np.bincount(tokens.numpy(), minlength=300)
    expected = torch.softmax(reference(logits, settings)[0].double(), dim=-1).numpy() * count
    assert (seen[expected == 0] == 0).all()
    often, rare = expected >= 5, (expected < 5) & (expected > 0)
    observed = np.append(seen[often], seen[rare].sum())
    wanted = np.append(expected[often], expected[rare].sum())
    used = wanted > 0
    assert stats.chisquare(observed[used], wanted[used] * observed.sum() / wanted.sum()).pvalue > 1e-4


def test_greedy_is_the_first_of_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0], [2.0, -1.0, 0.0, 1.0]])
    tokens, logprobs = draw(logits, Sampling(), None)
    assert tokens.tolist() == [1, 0]
    assert logprobs.tolist() == pytest.approx(torch.log_softmax(logits, -1)[[0, 1], [1, 0]].tolist(), abs=1e-6)


def test_logprobs_are_of_the_plain_model() -> None:
    logits = torch.randn(50, 400, generator=torch.Generator().manual_seed(0)) * 3
    numbers = torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tokens, logprobs = draw(logits, Sampling(temperature=0.5, top_k=10), numbers)
    expected = torch.log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
    assert torch.allclose(logprobs, expected, atol=1e-5)
    half, _ = draw(logits.to(torch.bfloat16), Sampling(temperature=0.5, top_k=10), numbers)
    assert half.shape == (50,)


@pytest.mark.parametrize("vocabulary", [3, 128, 129, 1000])
def test_inversion_never_chooses_weight_zero(vocabulary: int) -> None:
    weights = torch.zeros(64, vocabulary)
    chosen = torch.randint(vocabulary, (64,), generator=torch.Generator().manual_seed(vocabulary))
    weights[torch.arange(64), chosen] = 0.3
    for number in (0.0, 0.5, 1 - 2.0**-53):
        assert torch.equal(invert(weights, torch.full((64,), number, dtype=torch.float64)), chosen)


def test_inversion_is_the_inverse() -> None:
    weights = torch.rand(200, 700, generator=torch.Generator().manual_seed(0)) ** 6
    numbers = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    reached = weights.double().cumsum(-1) / weights.double().sum(-1, keepdim=True)
    tokens = invert(weights, numbers)
    high = reached.gather(1, tokens[:, None])[:, 0]
    low = high - weights.double().gather(1, tokens[:, None])[:, 0] / weights.double().sum(-1)
    assert ((low - 1e-6 <= numbers) & (numbers <= high + 1e-6)).all()

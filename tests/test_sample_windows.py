"""Sampling with windows: log-probabilities against separate forwards, however the prompts lie among each other."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from sample_setup import draw_samples, loaded_model
from test_families import separately, sequences
from tiny_models import VOCABULARY, tiny_model

from ramify.base.types import Sample
from ramify.model.logprobs import token_logprobs
from ramify.sample import engine, prefix
from ramify.sample.prefix import plan_prompts
from ramify.sample.sampler import PromptTokens
from ramify.tree.pack import pack

WINDOWED = [
    "mistral",
    "gemma2",
    "gemma3_text",
    "gpt_oss",
    "cohere2",
    "cwm",
    "olmo3",
    "exaone4",
    "ministral",
    "starcoder2",
    "vaultgemma",
]
ON_REQUEST = ["dots1", "ministral3", "mixtral", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3"]
"""Families whose tiny model has no window unless it is asked for one."""


def ids(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.randrange(3, VOCABULARY) for _ in range(count))


def largest_error(network: Any, prompts: list[PromptTokens], samples: list[list[Sample]]) -> float:
    """Of the samples' log-probabilities, against a forward of each sequence by Transformers."""
    worst = 0.0
    for prompt, group in zip(prompts, samples, strict=True):
        for sample in group:
            with torch.no_grad():
                logits = network(input_ids=torch.tensor([prompt.ids + sample.token_ids]), use_cache=False).logits[0]
            rows = logits.float().log_softmax(-1)[len(prompt.ids) - 1 :]
            exact = [float(row[token]) for row, token in zip(rows, sample.token_ids, strict=False)]
            worst = max(worst, *(abs(a - b) for a, b in zip(exact, sample.logprobs, strict=True)))
    return worst


@pytest.mark.parametrize("family", WINDOWED)
def test_a_copied_token_above_a_shared_span_leaves_the_window(family: str) -> None:
    """One common first token is copied into every slot; the long spans below it are read in place."""
    draw = random.Random(3)
    prompts = [PromptTokens(name, (1, *ids(draw, 300))) for name in "ab"]
    plan = plan_prompts([prompt.ids for prompt in prompts], [4, 4], 128, engine.CHUNK)
    assert [(len(span), span.shared) for span in plan.spans] == [(1, False), (300, True), (300, True)]
    loaded = loaded_model(family)
    samples = draw_samples(loaded, prompts, n=4, max_new_tokens=8)
    assert largest_error(loaded.network, prompts, samples) < 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_any_forest_shared_chunked_and_refilled_in_any_way(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr(prefix, "_WORTH_SHARING", draw.choice([1, 16, 32, 64]))
    monkeypatch.setattr(engine, "CHUNK", draw.choice([1, 3, 8, 40, 512]))
    forest = [ids(draw, draw.randint(1, 3))]  # short spans above long ones
    for _ in range(draw.randint(3, 9)):
        above = draw.choice(forest)
        forest.append(above[: draw.randint(0, len(above))] + ids(draw, draw.randint(1, 30)))
    prompts = [PromptTokens(f"q{number}", each) for number, each in enumerate(forest)]
    loaded = loaded_model(["mistral", "gemma2", "gpt_oss", "cohere2"][seed % 4], seed=seed)
    settings = {"n": draw.randint(2, 5), "max_new_tokens": draw.randint(4, 12), "live": draw.randint(1, 9)}
    samples = draw_samples(loaded, prompts, temperature=1.2, **settings)
    assert largest_error(loaded.network, prompts, samples) < 1e-4


@pytest.mark.filterwarnings("ignore:.*layer_types.*")
@pytest.mark.parametrize("family", ON_REQUEST)
def test_windows_that_a_configuration_asks_for(family: str) -> None:
    """Training's log-probabilities and the sampler's; some families tell attention, some put it into the mask alone."""
    layers = tiny_model(family).config.num_hidden_layers
    window = {"sliding_window": 6, "use_sliding_window": True, "layer_types": ["sliding_attention"] * layers}
    loaded, many = loaded_model(family, **window), sequences()
    with torch.no_grad():
        expected = separately(loaded.network, many)
        assert (separately(tiny_model(family, sliding_window=None), many) - expected).abs().max() > 0.1
    draw = random.Random(1)
    start = ids(draw, 14)
    prompts = [PromptTokens(name, start + ids(draw, 5)) for name in "ab"]
    samples = draw_samples(loaded, prompts, n=2, temperature=1.0, max_new_tokens=4)
    assert largest_error(loaded.network, prompts, samples) < 1e-4
    with torch.no_grad():
        assert (token_logprobs(loaded.network, pack(many)) - expected).abs().max() < 1e-4

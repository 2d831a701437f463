"""What the sampling tests share: a tiny model as a `LoadedModel`, and prompts that share prefixes."""

from __future__ import annotations

import random
from typing import Any

import torch
from tiny_models import VOCABULARY, tiny_model
from tiny_tokenizers import byte_level

from ramify.base.config import Sampling
from ramify.base.types import Sample
from ramify.model.load import LoadedModel
from ramify.sample.engine import TreeSampler
from ramify.sample.sampler import PromptTokens

EOS = 2


def as_loaded(network: Any, tokenizer: Any = None, stop_ids: tuple[int, ...] = (EOS,)) -> LoadedModel:
    return LoadedModel(
        network=network,
        tokenizer=byte_level() if tokenizer is None else tokenizer,
        name="tiny",
        base="tiny",
        stop_ids=stop_ids,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def loaded_model(family: str = "llama", stop_ids: tuple[int, ...] = (EOS,), **settings: Any) -> LoadedModel:
    return as_loaded(tiny_model(family, **settings), stop_ids=stop_ids)


def forked_prompts(seed: int = 0, common: int = 24) -> list[PromptTokens]:
    """A common start, forks of several depths, a prompt inside another one, equal prompts, and a stranger."""
    draw = random.Random(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCABULARY) for _ in range(count))

    start, fork = ids(common), ids(9)
    found = [start + ids(5), start + fork + ids(3), start + fork + ids(7), start + fork, start[:11], ids(4)]
    found.append(found[0])
    return [PromptTokens(f"p{number}", each) for number, each in enumerate(found)]


def draw_samples(
    loaded: LoadedModel, prompts: list[PromptTokens], seed: int = 7, **settings: Any
) -> list[list[Sample]]:
    return TreeSampler(loaded).sample(prompts, Sampling(**{"max_new_tokens": 10, **settings}), seed=seed)

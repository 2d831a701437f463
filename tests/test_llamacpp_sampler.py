"""Samples of llama.cpp are those of the own engine where the logits are: same random numbers, same rule."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from llamacpp_setup import nano_gguf, nano_loaded, prompts, tiny_gguf, tiny_loaded

from ramify.base.config import Sampling
from ramify.base.errors import DataError, LengthError
from ramify.base.rng import key
from ramify.base.types import Sample, Stop
from ramify.sample.engine import TreeSampler
from ramify.sample.llamacpp.lanes import Drawn, Lanes, Work
from ramify.sample.llamacpp.model import GgufModel, open_gguf
from ramify.sample.llamacpp.room import cell_bytes, cells_for, in_order
from ramify.sample.llamacpp.sampler import LlamaCppSampler
from ramify.sample.sampler import Progress, PromptTokens

NEW = 20
SETTINGS = {
    "greedy": Sampling(max_new_tokens=NEW),
    "warm": Sampling(n=3, temperature=1.0, max_new_tokens=NEW),
    "truncated": Sampling(n=3, temperature=0.8, top_k=40, top_p=0.9, max_new_tokens=NEW),
    "min_p": Sampling(n=3, temperature=1.3, min_p=0.05, max_new_tokens=NEW),
    "penalised": Sampling(n=2, temperature=0.9, repetition_penalty=1.3, max_new_tokens=NEW),
    "greedy, penalised": Sampling(repetition_penalty=1.5, max_new_tokens=NEW),
    "stop strings": Sampling(n=2, temperature=0.9, max_new_tokens=NEW, stop=(" is", "ab", "=")),
    "two at once": Sampling(n=3, temperature=1.0, max_new_tokens=NEW, live=2),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GgufModel]:
    opened = open_gguf(nano_gguf(tmp_path_factory.mktemp("gguf")), kv="f32")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GgufModel]:
    opened = open_gguf(tiny_gguf(tmp_path_factory.mktemp("gguf")), kv="f32")
    yield opened
    opened.close()


def _flat(found: list[list[Sample]]) -> list[Sample]:
    return [sample for samples in found for sample in samples]


def _same(found: list[list[Sample]], expected: list[list[Sample]]) -> None:
    for ours, theirs in zip(_flat(found), _flat(expected), strict=True):
        assert (ours.problem_id, ours.index, ours.seed) == (theirs.problem_id, theirs.index, theirs.seed)
        assert (ours.token_ids, ours.text, ours.stop) == (theirs.token_ids, theirs.text, theirs.stop)
        assert np.allclose(ours.logprobs, theirs.logprobs, atol=1e-3)


@pytest.mark.parametrize("name", SETTINGS)
def test_samples_are_those_of_the_own_engine(model: GgufModel, name: str) -> None:
    found = LlamaCppSampler(model).sample(prompts(), SETTINGS[name], seed=5)
    _same(found, TreeSampler(nano_loaded()).sample(prompts(), SETTINGS[name], seed=5))
    assert {sample.policy for sample in _flat(found)} == {model.name}


def test_broken_letters_are_those_of_the_own_engine(tiny: GgufModel) -> None:
    asked = [PromptTokens(f"q{n}", tuple(range(10 + n, 30 + n))) for n in range(4)]
    settings = Sampling(n=4, temperature=1.0, max_new_tokens=NEW, stop=("aq",))
    found = LlamaCppSampler(tiny).sample(asked, settings, seed=1)
    assert any("\ufffd" in sample.text for sample in _flat(found))
    assert {sample.stop for sample in _flat(found)} >= {Stop.LENGTH}
    _same(found, TreeSampler(tiny_loaded()).sample(asked, settings, seed=1))


def test_greedy_is_what_transformers_generates(model: GgufModel) -> None:
    for sample, prompt in zip(
        LlamaCppSampler(model).sample(prompts(), SETTINGS["greedy"], seed=0), prompts(), strict=True
    ):
        with torch.inference_mode():
            ids = nano_loaded().network.generate(
                torch.tensor([prompt.ids]), max_new_tokens=NEW, do_sample=False, eos_token_id=list(model.stop_ids)
            )
        assert sample[0].token_ids == tuple(ids[0, len(prompt.ids) :].tolist())


def test_a_shared_prefix_is_computed_once_and_changes_nothing(model: GgufModel) -> None:
    seen: list[Progress] = []
    sampler = LlamaCppSampler(model, on_progress=seen.append)
    together = sampler.sample(prompts(), SETTINGS["warm"], seed=2)
    tree = {prompt.ids[:length] for prompt in prompts() for length in range(1, len(prompt.ids) + 1)}
    all_of_them = sum(len(prompt.ids) for prompt in prompts())
    assert len(tree) <= seen[-1].prompt_tokens < len(tree) + 16 * len(prompts()) < all_of_them  # 16: not worth waiting
    assert seen[-1].done == seen[-1].total == 18
    assert seen[-1].tokens == sum(len(sample.token_ids) for sample in _flat(together))
    alone = [LlamaCppSampler(model).sample([prompt], SETTINGS["warm"], seed=2)[0] for prompt in prompts()]
    _same(together, alone)


def test_chosen_indices_are_the_samples_of_a_full_run(model: GgufModel) -> None:
    full = LlamaCppSampler(model).sample(prompts(), SETTINGS["warm"], seed=2)
    shown: list[Sample] = []
    wanted = {"p1": [2, 0], "p4": [1]}
    found = LlamaCppSampler(model).sample(prompts(), SETTINGS["warm"], seed=2, indices=wanted, on_sample=shown.append)
    _same(found, [[], [full[1][0], full[1][2]], [], [], [full[4][1]], []])
    assert sorted(shown, key=lambda s: (s.problem_id, s.index)) == _flat(found)


def test_a_context_that_is_nearly_too_small_only_takes_longer(model: GgufModel) -> None:
    settings = SETTINGS["warm"]
    expected = LlamaCppSampler(model).sample(prompts(), settings, seed=3)
    lanes = Lanes(model, cells=max(len(prompt.ids) for prompt in prompts()) + NEW + 5, lines=6, kept=2)
    works = [
        Work(prompt.ids, model.order(settings), tuple(key("sample", 3, prompt.problem_id, n) for n in range(3)))
        for prompt in prompts()
    ]
    for work in works:
        lanes.add(work)
    found: dict[tuple[int, int], list[int]] = {}
    steps = 0
    while lanes.busy:
        steps += 1
        for event in lanes.step():
            assert isinstance(event, Drawn)
            found.setdefault((works.index(event.work), event.place), []).append(event.token)
    assert steps > NEW
    for (prompt, place), tokens in found.items():
        assert tuple(tokens) == expected[prompt][place].token_ids
    assert len(found) == 18


def test_what_cannot_be_sampled_is_refused_before_the_first_step(model: GgufModel) -> None:
    sampler = LlamaCppSampler(model)
    with pytest.raises(LengthError, match=r"problem 'long'.*exceed"):
        sampler.sample([PromptTokens("long", (5,) * 2040)], SETTINGS["greedy"], seed=0)
    with pytest.raises(DataError, match=r"problem 'none'.*no tokens"):
        sampler.sample([PromptTokens("none", ())], SETTINGS["greedy"], seed=0)
    with pytest.raises(DataError, match="token 5000 of the prompt is not in the vocabulary"):
        sampler.sample([PromptTokens("strange", (5000,))], SETTINGS["greedy"], seed=0)
    with pytest.raises(DataError, match="appears twice"):
        sampler.sample([PromptTokens("a", (5,)), PromptTokens("a", (6,))], SETTINGS["greedy"], seed=0)
    assert sampler.sample(prompts()[:1], SETTINGS["warm"], seed=0, indices={}) == [[]]


def test_room_is_counted_in_the_order_of_sharing() -> None:
    asked = [(1, 2, 3, 4), (9, 9), (1, 2, 3), (1, 2, 7)]
    order = in_order(asked)
    assert [asked[number] for number in order] == sorted(asked)
    assert cells_for([asked[number] for number in order], lines=2, new_tokens=5) == 4 + 5 + 2 * (2 + 5)


def test_bytes_of_a_cell(model: GgufModel) -> None:
    config = nano_loaded().network.config
    width = config.num_key_value_heads * (config.hidden_size // config.num_attention_heads)
    assert cell_bytes(model.runtime.header, "f32") == 2 * config.num_hidden_layers * width * 4

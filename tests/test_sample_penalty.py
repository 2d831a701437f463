"""The repetition penalty against Transformers' processor and `generate`, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_setup import EOS, as_loaded, draw_samples, forked_prompts, loaded_model
from tiny_models import VOCABULARY, tiny_model
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TopPLogitsWarper

from ramify.base.config import Sampling
from ramify.base.types import TokenSequence
from ramify.model.logprobs import token_logprobs
from ramify.sample.draw import draw
from ramify.sample.engine import TreeSampler
from ramify.sample.penalty import Repeated, Seen
from ramify.tree.pack import pack


def generated(network: Any, ids: tuple[int, ...], tokens: int, penalty: float) -> tuple[int, ...]:
    prompt = torch.tensor([ids])
    out = network.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=tokens,
        repetition_penalty=penalty,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return tuple(out[0, prompt.shape[1] :].tolist())


@pytest.mark.parametrize("penalty", [1.3, 4.0, 0.7])
def test_logits_are_those_of_transformers(penalty: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 50, generator=generator) * 4
    ids = torch.randint(50, (5, 30), generator=generator)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(ids, logits.clone())
    before = logits.clone()
    assert torch.equal(Repeated(ids, torch.full((5, 1), penalty)).penalised(logits), expected)
    assert torch.equal(logits, before)


def test_every_row_has_a_penalty_of_its_own() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    ids, penalty = torch.tensor([[4, 5], [4, 4], [9, 1]]), torch.tensor([[1.0], [2.0], [1.5]])
    found = Repeated(ids, penalty).penalised(logits)
    for row, each in enumerate(penalty[:, 0].tolist()):
        alone = RepetitionPenaltyLogitsProcessor(each)(ids[row : row + 1], logits[row : row + 1].clone())
        assert torch.equal(found[row], alone[0])
    assert torch.equal(found[0], logits[0])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt2"])
@pytest.mark.parametrize("penalty", [1.5, 6.0])
def test_greedy_equals_generate(family: str, penalty: float) -> None:
    loaded, prompts = loaded_model(family), forked_prompts()[1:6]
    samples = draw_samples(loaded, prompts, max_new_tokens=12, n=2, live=3, repetition_penalty=penalty)
    plain = draw_samples(loaded, prompts, max_new_tokens=12)
    for prompt, group in zip(prompts, samples, strict=True):
        expected = generated(loaded.network, prompt.ids, 12, penalty)
        assert [sample.token_ids for sample in group] == [expected, expected]
    assert [group[0].token_ids for group in samples] != [group[0].token_ids for group in plain]


def test_it_comes_before_the_temperature_and_the_truncation() -> None:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(64, 200, generator=generator) * 3
    ids = torch.randint(200, (64, 20), generator=generator)
    numbers = torch.rand(64, generator=generator, dtype=torch.float64)
    settings = Sampling(temperature=0.8, top_p=0.7, repetition_penalty=1.7)
    repeated = Repeated(ids, torch.full((64, 1), 1.7))
    tokens, logprobs = draw(logits, settings, numbers, repeated)
    expected, _ = draw(RepetitionPenaltyLogitsProcessor(1.7)(ids, logits.clone()), settings, numbers)
    assert torch.equal(tokens, expected)
    chain = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(1.7)])
    kept = TopPLogitsWarper(0.7)(ids, chain(ids, logits.clone()) / 0.8)
    assert torch.isfinite(kept.gather(1, tokens[:, None])).all()
    plain = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    assert torch.allclose(logprobs, plain, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.2, "top_k": 30}], ids=str)
def test_logprobs_are_the_models_own(settings: dict[str, Any]) -> None:
    loaded, prompts = loaded_model(), forked_prompts()[:4]
    samples = draw_samples(loaded, prompts, n=2, repetition_penalty=3.0, **settings)
    flat = [(prompt, sample) for prompt, group in zip(prompts, samples, strict=True) for sample in group]
    batch = pack([TokenSequence.of(prompt.ids, sample.token_ids) for prompt, sample in flat])
    with torch.no_grad():
        trainer = token_logprobs(loaded.network, batch)
    for number, (_, sample) in enumerate(flat):
        assert trainer[batch.sequence == number].tolist() == pytest.approx(sample.logprobs, abs=1e-5)


def test_neighbours_and_slots_do_not_matter() -> None:
    loaded, prompts = loaded_model(), forked_prompts()
    settings: dict[str, Any] = {"n": 2, "temperature": 0.9, "repetition_penalty": 2.0, "max_new_tokens": 12}
    expected = draw_samples(loaded, prompts, live=64, **settings)
    for live in (2, 5):
        found = draw_samples(loaded, prompts[::-1], live=live, **settings)[::-1]
        assert [[s.token_ids for s in group] for group in found] == [[s.token_ids for s in group] for group in expected]


def test_a_stream_is_penalised_too() -> None:
    loaded = as_loaded(tiny_model("llama", vocab_size=400), stop_ids=())
    settings = Sampling(max_new_tokens=30, repetition_penalty=2.5)
    text = "".join(TreeSampler(loaded).stream((5, 6, 7), settings, seed=0))
    expected = generated(loaded.network, (5, 6, 7), 30, 2.5)
    assert text == loaded.tokenizer.decode(expected, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_without_a_penalty_nothing_is_computed_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise AssertionError("computed")

    for name in ("penalised", "of"):
        monkeypatch.setattr(Repeated, name, refused)
    monkeypatch.setattr(Seen, "of", refused)
    assert draw_samples(loaded_model(), forked_prompts()[:2], n=2, temperature=1.0)


@given(
    st.lists(st.lists(st.integers(0, VOCABULARY), min_size=1, max_size=90), min_size=3, max_size=3),
    st.lists(st.tuples(st.sets(st.integers(0, 2)), st.integers(0, VOCABULARY)), max_size=80),
)
def test_what_was_seen_is_followed(prompts: list[list[int]], pushed: list[tuple[set[int], int]]) -> None:
    seen, expected = Seen(4), [set(prompt) for prompt in prompts]
    for row, prompt in enumerate(prompts):
        seen.start(row, prompt)
    seen.start(3, None)
    for rows, token in pushed:
        chosen = np.array([*sorted(rows), 3])
        seen.push(chosen, np.full(len(chosen), token))
        for row in rows:
            expected[row].add(token)
    seen.move(0, 3)
    found = seen.of(np.arange(4), torch.ones(4, 1)).ids
    assert [set(row) for row in found.tolist()] == [*expected, expected[0]]

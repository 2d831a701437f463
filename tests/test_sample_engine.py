"""The engine against Transformers' `generate`, against the trainer's log-probabilities, and against itself."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from sample_setup import EOS, as_loaded, draw_samples, forked_prompts, loaded_model
from tiny_models import FAMILIES, tiny_model

from ramify.base.config import Sampling
from ramify.base.errors import DataError, LengthError, ModelError
from ramify.base.types import Sample, Stop, TokenSequence
from ramify.model.logprobs import token_logprobs
from ramify.sample import prefix
from ramify.sample.engine import TreeSampler
from ramify.sample.sampler import Progress, PromptTokens
from ramify.tree.pack import pack


@pytest.fixture
def share_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of a few tokens are read in place, so that tiny prompts reach that path too."""
    monkeypatch.setattr(prefix, "_WORTH_SHARING", 4)


def generated(network: torch.nn.Module, prompt: PromptTokens, tokens: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt.ids])
    out = network.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    return tuple(out[0, ids.shape[1] :].tolist())


def together(samples: list[list[Sample]]) -> dict[tuple[str, int], Sample]:
    return {(sample.problem_id, sample.index): sample for group in samples for sample in group}


def assert_equal_samples(left: list[list[Sample]], right: list[list[Sample]]) -> None:
    one, other = together(left), together(right)
    for name in one.keys() & other.keys():
        assert one[name].token_ids == other[name].token_ids
        assert one[name].logprobs == pytest.approx(other[name].logprobs, abs=1e-5)
    assert one.keys() & other.keys()


@pytest.mark.usefixtures("share_everything")
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate(family: str) -> None:
    loaded, prompts = loaded_model(family), forked_prompts()[1:6]
    samples = draw_samples(loaded, prompts, max_new_tokens=8, n=2, live=5)
    for prompt, group in zip(prompts, samples, strict=True):
        expected = generated(loaded.network, prompt, 8)
        assert [sample.token_ids for sample in group] == [expected, expected]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
def test_greedy_equals_generate_when_short_prefixes_are_copied(family: str) -> None:
    loaded, prompts = loaded_model(family), forked_prompts()
    for prompt, group in zip(prompts, draw_samples(loaded, prompts, live=3), strict=True):
        assert group[0].token_ids == generated(loaded.network, prompt, 10)


@pytest.mark.usefixtures("share_everything")
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_a_prompt_longer_than_a_chunk(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.sample.engine.CHUNK", 8)
    loaded, prompts = loaded_model(family), forked_prompts(common=45)
    for prompt, group in zip(prompts, draw_samples(loaded, prompts, live=3), strict=True):
        assert group[0].token_ids == generated(loaded.network, prompt, 10)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "smollm3"])
def test_logprobs_are_the_trainers(family: str) -> None:
    loaded, prompts = loaded_model(family), forked_prompts()
    samples = draw_samples(loaded, prompts, n=2, temperature=1.3, top_p=0.8)
    flat = [(prompt, sample) for prompt, group in zip(prompts, samples, strict=True) for sample in group]
    batch = pack([TokenSequence.of(prompt.ids, sample.token_ids) for prompt, sample in flat])
    with torch.no_grad():
        trainer = token_logprobs(loaded.network, batch)
    for number, (_, sample) in enumerate(flat):
        assert trainer[batch.sequence == number].tolist() == pytest.approx(sample.logprobs, abs=1e-5)


def test_alone_is_as_in_a_batch() -> None:
    loaded, prompts = loaded_model(), forked_prompts()
    settings = {"n": 3, "temperature": 1.0}
    batch = draw_samples(loaded, prompts, **settings)
    for prompt in prompts:
        assert_equal_samples(draw_samples(loaded, [prompt], **settings), batch)
    lone = TreeSampler(loaded).sample(
        [prompts[2]], Sampling(max_new_tokens=10, temperature=1.0), seed=7, indices={"p2": [2]}
    )
    assert [sample.index for sample in lone[0]] == [2]
    assert_equal_samples(lone, batch)


def test_order_and_live_do_not_matter() -> None:
    loaded, prompts = loaded_model(), forked_prompts()
    settings = {"n": 4, "temperature": 0.9, "top_k": 20}
    expected = draw_samples(loaded, prompts, live=64, **settings)
    assert_equal_samples(draw_samples(loaded, prompts, live=4, **settings), expected)
    assert_equal_samples(draw_samples(loaded, prompts, live=1, **settings), expected)
    assert_equal_samples(draw_samples(loaded, prompts[::-1], live=7, **settings), expected)
    sizes = [[sample.index for sample in group] for group in expected]
    assert sizes == [[0, 1, 2, 3]] * len(prompts)


def test_samples_of_a_problem_differ_and_seeds_matter() -> None:
    loaded, prompts = loaded_model(), forked_prompts()[:1]
    first = draw_samples(loaded, prompts, n=6, temperature=1.0)[0]
    assert len({sample.token_ids for sample in first}) > 1
    assert [s.token_ids for s in draw_samples(loaded, prompts, seed=8, n=6, temperature=1.0)[0]] != [
        sample.token_ids for sample in first
    ]
    assert draw_samples(loaded, prompts, n=6, temperature=1.0)[0] == first


def test_equal_prompts_of_two_problems_draw_apart() -> None:
    loaded, prompts = loaded_model(), forked_prompts()
    assert prompts[0].ids == prompts[-1].ids
    samples = draw_samples(loaded, [prompts[0], prompts[-1]], n=4, temperature=1.5)
    assert [s.token_ids for s in samples[0]] != [s.token_ids for s in samples[1]]


def test_resumed_run_draws_only_what_is_missing() -> None:
    loaded, prompts = loaded_model(), forked_prompts()[:3]
    settings = Sampling(n=4, temperature=1.0, max_new_tokens=6)
    whole = TreeSampler(loaded).sample(prompts, settings, seed=3)
    rest = TreeSampler(loaded).sample(prompts, settings, seed=3, indices={"p0": [3, 1], "p2": [0]})
    assert [[sample.index for sample in group] for group in rest] == [[1, 3], [], [0]]
    assert_equal_samples(rest, whole)


def test_how_samples_end() -> None:
    loaded = loaded_model(stop_ids=(EOS, 40))
    samples = together(draw_samples(loaded, forked_prompts(), n=30, temperature=2.0, max_new_tokens=20)).values()
    assert {sample.stop for sample in samples} == {Stop.EOS, Stop.LENGTH}
    for sample in samples:
        assert len(sample.logprobs) == len(sample.token_ids)
        assert not {EOS, 40} & set(sample.token_ids[:-1])
        if sample.stop is Stop.EOS:
            assert sample.token_ids[-1] in (EOS, 40)
        else:
            assert len(sample.token_ids) == 20
        assert sample.policy == "tiny" and sample.seed == 7
    assert any(len(sample.token_ids) == 1 for sample in samples)


def test_stop_strings_across_token_borders() -> None:
    loaded = as_loaded(tiny_model("llama", vocab_size=400), stop_ids=())
    prompts = forked_prompts()[:3]
    plain = draw_samples(loaded, prompts, n=4, temperature=1.0, max_new_tokens=24)
    text = plain[0][0].text
    inside = [place for place in range(1, len(text) - 2) if text.count(text[place : place + 2]) == 1]
    stop = text[inside[0] : inside[0] + 2]
    cut = together(draw_samples(loaded, prompts, n=4, temperature=1.0, max_new_tokens=24, stop=(stop,)))
    ended = 0
    for name, sample in together(plain).items():
        found = sample.text.find(stop)
        assert cut[name].text == (sample.text if found < 0 else sample.text[:found])
        assert cut[name].stop is (Stop.LENGTH if found < 0 else Stop.STOP_STRING)
        assert sample.token_ids[: len(cut[name].token_ids)] == cut[name].token_ids
        ended += found >= 0
    assert ended


def test_adapter_on_and_off() -> None:
    network, prompts = tiny_model("llama"), forked_prompts()
    base = draw_samples(as_loaded(network), prompts)
    adapted = get_peft_model(network, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    loaded = as_loaded(adapted.eval())
    settings = Sampling(max_new_tokens=10)
    assert TreeSampler(loaded, adapter=False).sample(prompts, settings, seed=7) == base
    for prompt, group in zip(prompts, TreeSampler(loaded).sample(prompts, settings, seed=7), strict=True):
        assert group[0].token_ids == generated(adapted, prompt, 10)


def test_network_is_left_as_it_was() -> None:
    loaded = loaded_model()
    loaded.network.train()
    draw_samples(loaded, forked_prompts())
    assert loaded.network.training
    assert loaded.network.config._attn_implementation == "eager"


def test_half_precision_weights_come_back() -> None:
    network = tiny_model("llama").to(torch.bfloat16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    samples = draw_samples(as_loaded(network), forked_prompts(), n=2, temperature=1.0)
    assert all(len(group) == 2 for group in samples)
    after = network.state_dict()
    assert all(after[name].dtype == torch.bfloat16 and torch.equal(after[name], before[name]) for name in before)
    assert torch.zeros(1, requires_grad=True).add(next(network.parameters()).sum()).requires_grad


def test_too_long_is_refused_with_counts_before_the_first_step() -> None:
    loaded, prompts = loaded_model(max_position_embeddings=32), forked_prompts()
    seen: list[Sample] = []
    with pytest.raises(LengthError, match=r"5 of 7 prompts with 10 new tokens exceed the model's 32 tokens") as error:
        TreeSampler(loaded).sample(prompts, Sampling(max_new_tokens=10), seed=0, on_sample=seen.append)
    assert "longest: 50, problem 'p2'" in str(error.value) and not seen


def test_no_prompt_rescales_the_embeddings_of_its_neighbours() -> None:
    """Longrope rescales with the longest sequence of a batch: refused past its original length, with counts."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 10000.0}
    rope |= {"original_max_position_embeddings": 30, "factor": 4.0}
    loaded = loaded_model("phi3", rope_parameters=rope, original_max_position_embeddings=30)
    prompts = forked_prompts()
    assert loaded.max_length == 30
    with pytest.raises(LengthError, match=r"5 of 7 prompts with 10 new tokens exceed the model's 30 tokens"):
        draw_samples(loaded, prompts)
    assert len(draw_samples(loaded, [prompts[4], prompts[5]])) == 2


def test_bad_prompts_are_refused() -> None:
    loaded = loaded_model()
    with pytest.raises(DataError, match="'a' appears twice"):
        draw_samples(loaded, [PromptTokens("a", (5,)), PromptTokens("a", (6,))])
    with pytest.raises(DataError, match="'b': the prompt has no tokens"):
        draw_samples(loaded, [PromptTokens("a", (5,)), PromptTokens("b", ())])
    assert draw_samples(loaded, []) == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_end_the_run(broken: float, temperature: float) -> None:
    loaded = loaded_model()
    loaded.network.model.layers[0].mlp.down_proj.weight.data[0, 0] = broken
    with pytest.raises(ModelError, match=r"logits are NaN or infinite in float32 .*train\.dtype=bf16"):
        draw_samples(loaded, forked_prompts(), n=2, temperature=temperature)


def test_a_special_token_can_be_a_stop_string() -> None:
    """Text never shows it, so it ends a completion by its id, in this run alone."""
    loaded = as_loaded(tiny_model("llama", vocab_size=400), stop_ids=())
    bos = loaded.tokenizer.bos_token_id
    prompts = forked_prompts()[:4]
    plain = draw_samples(loaded, prompts, n=30, temperature=3.0, max_new_tokens=30)
    found = together(draw_samples(loaded, prompts, n=30, temperature=3.0, max_new_tokens=30, stop=("<s>",)))
    assert loaded.tokenizer.convert_ids_to_tokens(bos) == "<s>"
    with_bos = [sample for sample in together(plain).values() if bos in sample.token_ids]
    assert with_bos
    for sample in with_bos:
        ended = found[sample.problem_id, sample.index]
        assert ended.token_ids == sample.token_ids[: sample.token_ids.index(bos) + 1] and ended.stop is Stop.EOS
        assert sample.text.startswith(ended.text)


def test_interrupted_run_has_delivered_what_was_finished() -> None:
    loaded, prompts = loaded_model(), forked_prompts()
    settings = Sampling(n=4, temperature=1.0, max_new_tokens=8, live=6)
    whole = together(TreeSampler(loaded).sample(prompts, settings, seed=1))
    delivered: list[Sample] = []

    def stop_after_nine(sample: Sample) -> None:
        delivered.append(sample)
        if len(delivered) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TreeSampler(loaded).sample(prompts, settings, seed=1, on_sample=stop_after_nine)
    assert [sample.token_ids for sample in delivered] == [
        whole[sample.problem_id, sample.index].token_ids for sample in delivered
    ]
    assert loaded.network.config._attn_implementation == "eager"


def test_progress_counts_every_token_once() -> None:
    loaded, prompts = loaded_model(), forked_prompts()
    seen: list[Progress] = []
    sampler = TreeSampler(loaded, on_progress=seen.append)
    samples = together(sampler.sample(prompts, Sampling(n=3, temperature=1.5, max_new_tokens=9, live=5), seed=1))
    assert seen[-1].done == seen[-1].total == len(samples) == 21
    assert seen[-1].tokens == sum(len(sample.token_ids) for sample in samples.values())
    assert seen[-1].prompt_tokens == len({prompt.ids[:n] for prompt in prompts for n in range(1, len(prompt.ids) + 1)})
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert Progress(5, 20, 100, 30, 2.0).tokens_per_second == 50
    assert Progress(5, 20, 100, 30, 2.0).seconds_left == pytest.approx(6)
    assert Progress(0, 20, 0, 30, 2.0).seconds_left is None


@pytest.mark.parametrize("stop", [(), ("e",), ("a", "on")])
def test_stream_is_the_text_of_the_sample(stop: tuple[str, ...]) -> None:
    loaded = as_loaded(tiny_model("llama", vocab_size=400))
    settings = Sampling(max_new_tokens=40, temperature=1.0, stop=stop)
    for seed in range(4):
        sampler = TreeSampler(loaded)
        whole = sampler.sample([PromptTokens("", (5, 6, 7))], settings, seed=seed)[0][0]
        pieces = list(sampler.stream((5, 6, 7), settings, seed=seed))
        assert "".join(pieces) == whole.text
        assert len(pieces) > 1 or len(whole.text) < 8
    assert not torch.is_inference_mode_enabled()

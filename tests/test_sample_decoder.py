"""The fast forward against the network's own, and what it leaves to the network."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from sample_setup import as_loaded, draw_samples, forked_prompts, loaded_model
from tiny_models import VOCABULARY, tiny_model
from torch import Tensor

from ramify.base.config import Sampling
from ramify.base.types import TokenSequence
from ramify.model import rates
from ramify.model.logprobs import token_logprobs
from ramify.sample import attention, decoder, prefix
from ramify.sample.decoder import FAMILIES, decoder_of
from ramify.sample.engine import TreeSampler
from ramify.sample.forward import NetworkForward
from ramify.sample.passes import PrefillPass
from ramify.sample.weights import fast_weights
from ramify.tree.pack import pack

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": None},
    "qwen2": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "qwen3": {"tie_word_embeddings": True},
    "smollm3": {"num_key_value_heads": 1},
}


@pytest.mark.parametrize("plain", [True, False], ids=["default", "variant"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_fast_forward_is_the_networks_own(family: str, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "_WORTH_SHARING", 4)
    loaded, prompts = loaded_model(family, **({} if plain else VARIANTS[family])), forked_prompts()[1:5]
    assert decoder_of(loaded.network) is not None
    fast = draw_samples(loaded, prompts, n=2, temperature=1.0, max_new_tokens=6)
    monkeypatch.setattr(decoder, "FAMILIES", frozenset())
    assert decoder_of(loaded.network) is None
    own = draw_samples(loaded, prompts, n=2, temperature=1.0, max_new_tokens=6)
    for left, right in zip(chain(*fast), chain(*own), strict=True):
        assert left.token_ids == right.token_ids
        assert left.logprobs == pytest.approx(right.logprobs, abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"use_dora": True}, {"lora_dropout": 0.5}], ids=str)
def test_adapters_sample_as_they_are_trained(settings: dict[str, Any]) -> None:
    network = get_peft_model(
        tiny_model("llama"), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **settings)
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert (decoder_of(network) is None) == ("use_dora" in settings)
    prompts = forked_prompts()[:3]
    samples = TreeSampler(as_loaded(network.train())).sample(
        prompts, Sampling(max_new_tokens=6, temperature=1.0), seed=7
    )
    batch = pack([TokenSequence.of(p.ids, group[0].token_ids) for p, group in zip(prompts, samples, strict=True)])
    with torch.no_grad():
        trainer = token_logprobs(network.eval(), batch)
    for number, group in enumerate(samples):
        assert trainer[batch.sequence == number].tolist() == pytest.approx(group[0].logprobs, abs=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def adapted(seed: int, targets: Any, names: tuple[str, ...]) -> Any:
    network = tiny_model("qwen3", seed=seed, num_hidden_layers=4, attention_bias=True).to(torch.bfloat16)
    torch.manual_seed(seed)
    for name in names:
        config = LoraConfig(r=4, lora_alpha=6, target_modules=targets, init_lora_weights=False)
        network = network if isinstance(network, PeftModel) else get_peft_model(network, config, name)
        if name not in network.peft_config:
            network.add_adapter(name, config)
    network.base_model.set_adapter(list(names))
    attention.register()
    network.set_attn_implementation(attention.NAME)
    return network.eval()


@torch.inference_mode()
def logits(forward: Any, ids: Tensor) -> Tensor:
    position = torch.arange(len(ids))
    found: Tensor = forward(PrefillPass(position, torch.full_like(position, len(ids)), []), ids, position)
    return found.double()


@pytest.mark.parametrize("names", [("one",), ("one", "two")], ids=str)
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["k_proj", "o_proj", "up_proj"]], ids=str)
def test_adapters_in_half_precision_are_as_exact_as_the_networks_own(targets: Any, names: tuple[str, ...]) -> None:
    """How one model rounds is a draw, so several are taken together."""
    found_error = own_error = 0.0
    for seed in range(8):
        network = adapted(seed, targets, names)
        ids = torch.randint(3, VOCABULARY, (40,), generator=torch.Generator().manual_seed(seed))
        with rates.assume_native(torch.bfloat16), fast_weights(network):
            fast = decoder_of(network)
            assert fast is not None
            found, own = logits(fast, ids), logits(NetworkForward(network), ids)
        expected = logits(NetworkForward(network.float()), ids)
        found_error += float((found - expected).norm() / expected.norm())
        own_error += float((own - expected).norm() / expected.norm())
    assert found_error <= 1.05 * own_error


def test_what_it_leaves_to_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoder_of(tiny_model("gpt2")) is None
    dora = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules="all-linear", use_dora=True))
    assert decoder_of(dora) is None
    with dora.disable_adapter():
        assert decoder_of(dora) is not None
    monkeypatch.setattr(decoder, "free_memory", lambda: 1000.0)
    assert decoder_of(tiny_model("llama")) is None

"""Log-probabilities of a packed batch: adapters, checkpointing, micro-batches, kinds of heads, types, empty batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from tiny_models import tiny_model
from torch import Tensor

from ramify.base.errors import ModelError
from ramify.base.types import TokenSequence
from ramify.model.logprobs import hidden_states, sequence_logprobs, token_logprobs, weighted_nll
from ramify.tree.pack import micro_batches, pack

PROMPT = (5, 17, 60, 33, 8, 90, 41)
MANY = [
    TokenSequence.of(PROMPT, (7, 8, 2)),
    TokenSequence.of(PROMPT, (9, 10, 11, 2), 0.5),
    TokenSequence.of((*PROMPT, 9), (12, 2)),
    TokenSequence.of((50, 51), (52, 53, 2)),
    TokenSequence.of((50, 51), (52, 53, 2)),
    TokenSequence((60, 61, 62), (0.0, 1.0, -1.0)),
]


def adapted(family: str = "llama", tied: bool = False, **settings: Any) -> PeftModel:
    """A tiny model with an adapter that is not at its start."""
    targets = settings.pop("target_modules", ["q_proj", "v_proj", "up_proj"])
    config = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **settings)
    torch.manual_seed(0)
    network = get_peft_model(tiny_model(family, tie_word_embeddings=tied), config)
    for weight in network.parameters():
        if weight.requires_grad:
            weight.data.add_(torch.randn_like(weight) * 0.1)
    return network


def separately(network: Any, many: list[TokenSequence]) -> Tensor:
    """[S], each sequence in a forward pass of its own, through the model's own head."""
    found = []
    for each in many:
        scores = network(input_ids=torch.tensor([each.ids]), use_cache=False).logits[0].float().log_softmax(-1)
        found += [scores[place - 1, each.ids[place]] for place, weight in enumerate(each.weights) if weight]
    return torch.stack(found)


def trained(network: torch.nn.Module) -> list[Tensor]:
    """The parameters that get a gradient."""
    return [weight for weight in network.parameters() if weight.requires_grad]


def assert_all_close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Within 1e-5 of the largest entry of all."""
    largest = max(each.abs().max().item() for each in expected)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max().item() <= 1e-5 * largest


HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "trained whole": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "low rank": {"target_modules": ["q_proj", "lm_head"]},
    "trained rows": {"trainable_token_indices": {"embed_tokens": [3, 4], "lm_head": [3, 7, 9]}},
}


@pytest.mark.filterwarnings("ignore:.*tie")
@pytest.mark.parametrize(
    ("head", "tied"),
    [*((name, False) for name in HEADS), ("plain", True), ("trained rows", True)],
)
def test_adapters_on_and_off(head: str, tied: bool) -> None:
    """Loss, gradients of all trained weights, and the base's log-probabilities with the adapter off."""
    settings = dict(HEADS[head])
    if tied and head == "trained rows":
        settings = {"trainable_token_indices": {"embed_tokens": [3, 7, 9]}, "ensure_weight_tying": True}
    network, batch = adapted(tied=tied, **settings), pack(MANY)
    expected = separately(network, MANY)
    loss = -(expected * batch.weights).sum() / 7.0
    expected_grads = torch.autograd.grad(loss, trained(network))
    with network.disable_adapter():
        base = separately(network, MANY)
    assert (base - expected).abs().max() > 0.1
    found = weighted_nll(network, batch, 7.0)
    assert_all_close(torch.autograd.grad(found, trained(network)), expected_grads)
    assert_all_close((found, token_logprobs(network, batch)), (loss, expected))
    with network.disable_adapter():
        assert_all_close((token_logprobs(network, batch),), (base,))


def test_a_fresh_adapter_changes_nothing() -> None:
    """LoRA's B starts at 0: the same bits as the base."""
    network = tiny_model("llama")
    batch = pack(MANY)
    base = token_logprobs(network, batch)
    fresh = get_peft_model(network, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    assert torch.equal(token_logprobs(fresh, batch), base)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_gradient_checkpointing_gives_the_same_gradients(family: str) -> None:
    """Layers computed again in the backward pass attend on the same tree."""
    network = tiny_model(family).train()
    batch = pack(MANY)
    expected = torch.autograd.grad(weighted_nll(network, batch, 3.0), trained(network))
    network.gradient_checkpointing_enable({"use_reentrant": False})
    assert network.is_gradient_checkpointing
    assert_all_close(torch.autograd.grad(weighted_nll(network, batch, 3.0), trained(network)), expected)


def test_gradient_checkpointing_is_refused_where_the_layout_would_be_lost() -> None:
    """Families that drop keywords would attend across sequences when computed again."""
    network = tiny_model("nemotron").train()
    network.gradient_checkpointing_enable({"use_reentrant": False})
    with pytest.raises(ModelError, match="checkpointing"):
        token_logprobs(network, pack(MANY))


@pytest.mark.parametrize("budget", [1, 12, 18, 1000])
def test_micro_batches_never_change_the_result(budget: int) -> None:
    """Sum, then divide by the weight of the whole step: loss and gradients whatever the budget."""
    network = tiny_model("llama")
    divisor = sum(each.trained for each in MANY)
    whole = weighted_nll(network, pack(MANY), divisor)
    expected = torch.autograd.grad(whole, trained(network))
    parts = [pack([MANY[index] for index in group]) for group in micro_batches(MANY, budget)]
    assert (len(parts) > 1) == (budget < 1000)
    total = torch.stack([weighted_nll(network, part, divisor) for part in parts]).sum()
    assert_all_close((total, *torch.autograd.grad(total, trained(network))), (whole, *expected))


def test_sequence_logprobs_sum_the_weighted_tokens_of_each() -> None:
    """One number a sequence, in the order given; a sequence without trained tokens has 0."""
    network = tiny_model("qwen3")
    many = [*MANY[:2], TokenSequence((4, 5), (0.0, 0.0)), *MANY[2:]]
    expected = [
        sum((separately(network, [each]) * pack([each]).weights).tolist()) if each.trained or any(each.weights) else 0.0
        for each in many
    ]
    found = sequence_logprobs(network, pack(many))
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_bf16_models_stay_close_to_fp32() -> None:
    """Softmax and sums in fp32: what is left is the rounding of weights and activations."""
    network, batch = tiny_model("llama"), pack(MANY)
    expected = token_logprobs(network, batch)
    found = token_logprobs(network.bfloat16(), batch)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.3


def test_batches_without_targets() -> None:
    """Nothing to predict, and nothing at all: loss 0, with a graph."""
    network = tiny_model("llama")
    for many in ([], [TokenSequence((3, 4, 5), (0.0, 0.0, 0.0))]):
        batch = pack(many)
        assert hidden_states(network, batch).shape == (len(batch.input_ids), 32)
        assert token_logprobs(network, batch).shape == (0,)
        assert sequence_logprobs(network, batch).tolist() == [0.0] * len(many)
        assert weighted_nll(network, batch, 1.0).item() == 0.0


def test_prompt_tuning_is_refused() -> None:
    """Virtual tokens in front of each sequence are not in the tree."""
    network = get_peft_model(tiny_model("llama"), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    with pytest.raises(ModelError, match="PROMPT_TUNING"):
        token_logprobs(network, pack(MANY))

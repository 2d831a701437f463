"""Hand-written layers give what the plain ones give: losses, gradients of every weight, and what they leave alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from statistics import geometric_mean
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import VOCABULARY, tiny_model
from torch import Tensor, nn

from ramify.base.types import TokenSequence
from ramify.model import rates
from ramify.model.fused import FAMILIES, fuse, is_fused, unfuse
from ramify.model.logprobs import token_logprobs, weighted_nll
from ramify.tree.pack import Batch, pack

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {"none": None, "all": ALL, "query and value": ["q_proj", "v_proj"], "others": ["k_proj", "o_proj", "up_proj"]}
Gradients = dict[str, Tensor]


def adapted(network: nn.Module, targets: list[str] | None, *, draw: bool = True, **settings: Any) -> nn.Module:
    """The network with a LoRA whose B is not 0, or itself."""
    if targets is None:
        return network.train()
    settings = {"r": 4, "lora_alpha": 6, **settings}
    network = get_peft_model(network, LoraConfig(target_modules=targets, task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in network.named_parameters():
        if "lora_A" in name or ("lora_B" in name and draw):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    return network.train()


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def padded_loss(network: nn.Module, length: int = 19) -> Tensor:
    """Two rows, the second one padded on the left, under sdpa."""
    ids = tokens(2, length)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    network.set_attn_implementation("sdpa")
    loss: Tensor = network(input_ids=ids, attention_mask=mask, labels=ids.where(mask > 0, -100), use_cache=False).loss
    return loss


def batch() -> Batch:
    """Two trees; forks inside prompts and completions."""
    prompt, other = tuple(tokens(9).tolist()), tuple(tokens(6, seed=2).tolist())
    ends = [tuple(tokens(n, seed=n).tolist()) for n in (5, 7, 3, 11)]
    rows = [(prompt, ends[0]), (prompt, ends[1]), (prompt[:5], ends[2]), (other, ends[3])]
    return pack([TokenSequence.of(*row, weight=0.5 + i) for i, row in enumerate(rows)])


def gradients(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> tuple[Tensor, Gradients]:
    network.zero_grad()
    value = loss(network)
    value.backward()
    return value.detach(), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def fused_gradients(network: nn.Module, loss: Callable[[nn.Module], Tensor]) -> tuple[Tensor, Gradients]:
    assert fuse(network) and is_fused(network)
    found = gradients(network, loss)
    unfuse(network)
    assert not is_fused(network)
    return found


def assert_same(network: nn.Module, loss: Callable[[nn.Module], Tensor], share: float = 1e-5) -> None:
    expected_loss, expected = gradients(network, loss)
    found_loss, found = fused_gradients(network, loss)
    torch.testing.assert_close(found_loss, expected_loss, rtol=1e-6, atol=1e-6)
    assert found.keys() == expected.keys() and found
    for name, gradient in found.items():
        largest = expected[name].abs().max()
        assert (gradient - expected[name]).abs().max() <= share * largest, name
        assert largest > 0, name


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_padded_rows_equal_the_plain_path(family: str, targets: str) -> None:
    assert_same(adapted(tiny_model(family), TARGETS[targets]), padded_loss)


@pytest.mark.parametrize("targets", ["none", "all"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_packed_rows_equal_the_plain_path(family: str, targets: str) -> None:
    packed = batch()
    assert_same(adapted(tiny_model(family), TARGETS[targets]), lambda network: weighted_nll(network, packed, 7.0))


@pytest.mark.parametrize("length", [5, 60])
def test_few_and_many_rows_equal_the_plain_path(length: int) -> None:
    """More rows than inputs: the adapter is added to the weights; fewer: to the outputs."""
    assert_same(adapted(tiny_model("llama"), ALL, use_rslora=True), lambda network: padded_loss(network, length))


@pytest.mark.parametrize("targets", ["none", "all"])
def test_biases_everywhere_equal_the_plain_path(targets: str) -> None:
    network = tiny_model("llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
    assert_same(adapted(network, TARGETS[targets]), padded_loss)


def test_checkpointing_equals_the_plain_path() -> None:
    network = adapted(tiny_model("qwen3"), ALL)
    network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_same(network, padded_loss)


def error(found: Gradients, exact: Gradients) -> float:
    """Distance of all gradients together."""
    off = sum(float((found[name].double() - exact[name].double()).square().sum()) for name in exact)
    return (off / sum(float(each.double().square().sum()) for each in exact.values())) ** 0.5


def weighted(network: nn.Module) -> Tensor:
    return weighted_nll(network, batch(), 7.0)


def exact_and_rough(seed: int, dtype: torch.dtype, targets: str) -> tuple[nn.Module, nn.Module]:
    """One random model in fp32 and in half precision, with the same adapters."""
    network = tiny_model("qwen3", seed=seed, num_hidden_layers=4).to(dtype)
    return adapted(copy.deepcopy(network).float(), TARGETS[targets]), adapted(network, TARGETS[targets])


# How one model rounds is a draw: the errors' ratio of a single one goes from 0.7 to 1.3. So 24 are taken together, by
# the geometric mean, in which no model counts more than another. Native products round as the plain path does (a mean
# of 0.90 to 0.94 for gradients); products in fp32 keep less than half of its error.
DRAWS = 24
HALF = [
    pytest.mark.parametrize("targets", ["none", "all"]),
    pytest.mark.parametrize("is_native", [True, False]),
    pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16]),
]


def half_precision(test: Any) -> Any:
    for mark in HALF:
        test = mark(test)
    return test


@half_precision
def test_half_precision_gradients_are_no_worse_than_the_plain_path(
    dtype: torch.dtype, is_native: bool, targets: str
) -> None:
    ratios = []
    for seed in range(DRAWS):
        exact, network = exact_and_rough(seed, dtype, targets)
        _, expected = gradients(exact, weighted)
        _, rough = gradients(network, weighted)
        with rates.assume_native(dtype) if is_native else rates.assume_native():
            _, found = fused_gradients(network, weighted)
        assert all(gradient.dtype == rough[name].dtype for name, gradient in found.items())
        ratios.append(error(found, expected) / error(rough, expected))
    assert geometric_mean(ratios) < (1.1 if is_native else 0.65)


@half_precision
@torch.no_grad()
def test_half_precision_loss_is_no_worse_than_the_plain_path(dtype: torch.dtype, is_native: bool, targets: str) -> None:
    """Of each token: the sum of all is one number, in which errors cancel by chance."""
    packed, ratios = batch(), []
    for seed in range(DRAWS):
        exact, network = exact_and_rough(seed, dtype, targets)
        expected, rough = token_logprobs(exact, packed), token_logprobs(network, packed)
        assert fuse(network)
        with rates.assume_native(dtype) if is_native else rates.assume_native():
            found, total = token_logprobs(network, packed), weighted(network)
        torch.testing.assert_close(total, -(packed.weights * found).sum() / 7.0, rtol=1e-3, atol=0)
        ratios.append(float((found - expected).norm() / (rough - expected).norm()))
    assert geometric_mean(ratios) < (1.3 if is_native else 0.75)


def test_products_in_fp32_are_more_exact() -> None:
    network = tiny_model("llama", num_hidden_layers=4).to(torch.bfloat16)
    exact, network = adapted(copy.deepcopy(network).float(), ALL), adapted(network, ALL)
    _, expected = gradients(exact, padded_loss)
    _, rough = gradients(network, padded_loss)
    with rates.assume_native():
        _, found = fused_gradients(network, padded_loss)
    assert error(found, expected) < 0.7 * error(rough, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_at_the_start_and_adapters_off_are_the_base_exactly(dtype: torch.dtype) -> None:
    packed = batch()
    base = tiny_model("llama").to(dtype)
    fuse(base)
    with torch.no_grad():
        expected = token_logprobs(base, packed)
        network = adapted(base, ALL, draw=False)
        torch.testing.assert_close(token_logprobs(network, packed), expected, rtol=0, atol=0)
        network = adapted(network.unload(), ALL)
        assert is_fused(network)
        assert not torch.equal(token_logprobs(network, packed), expected)
        with network.disable_adapter():
            torch.testing.assert_close(token_logprobs(network, packed), expected, rtol=0, atol=0)


def test_merging_and_copies_are_seen() -> None:
    network = adapted(tiny_model("mistral"), ALL)
    packed = batch()
    fuse(network)
    with torch.no_grad():
        expected = token_logprobs(network, packed)
        merged = copy.deepcopy(network).merge_and_unload()
        assert is_fused(merged) and not isinstance(merged, PeftModel)
        torch.testing.assert_close(token_logprobs(merged, packed), expected, rtol=0, atol=1e-4)
        for parameter in merged.parameters():
            parameter.zero_()
        torch.testing.assert_close(token_logprobs(network, packed), expected, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_dropout": 0.3}, {"lora_bias": True}])
def test_what_is_not_covered_is_left_to_the_layers(settings: dict[str, Any]) -> None:
    network = tiny_model("llama", attention_bias=True, mlp_bias=True)
    network = adapted(network, ALL, **settings)

    def loss(network: nn.Module) -> Tensor:
        torch.manual_seed(3)
        return padded_loss(network)

    expected_loss, expected = gradients(network, loss)
    found_loss, found = fused_gradients(network, loss)
    assert torch.equal(found_loss, expected_loss)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_several_adapters_at_once_are_left_to_the_layers() -> None:
    network = adapted(tiny_model("llama"), ALL)
    network.add_adapter("second", LoraConfig(r=2, target_modules=ALL))
    for name, parameter in network.named_parameters():
        if "lora_B.second" in name:
            parameter.data = torch.full_like(parameter, 0.05)
    network.base_model.set_adapter(["default", "second"])
    expected_loss, expected = gradients(network, padded_loss)
    found_loss, found = fused_gradients(network, padded_loss)
    assert torch.equal(found_loss, expected_loss) and found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    network.set_adapter("second")
    assert_same(network, padded_loss)


def test_other_families_are_not_touched() -> None:
    for family in ("gemma2", "gpt2"):
        network = tiny_model(family)
        assert not fuse(network) and not is_fused(network)
        unfuse(network)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_generation_with_a_cache_is_the_same(family: str) -> None:
    network = adapted(tiny_model(family), ALL).eval()
    network.set_attn_implementation("sdpa")
    prompt = tokens(1, 12)

    def generate() -> Tensor:
        found: Tensor = network.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
        )
        return found

    expected = generate()
    fuse(network)
    assert torch.equal(generate(), expected)


def test_hidden_states_are_recorded_and_end_in_the_models_type() -> None:
    network = tiny_model("llama").to(torch.bfloat16)
    ids = tokens(1, 8)
    expected = network(input_ids=ids, output_hidden_states=True)
    fuse(network)
    with rates.assume_native():
        found = network(input_ids=ids, output_hidden_states=True)
    assert found.logits.dtype == torch.bfloat16 and len(found.hidden_states) == len(expected.hidden_states)
    for one, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert (one.float() - other.float()).norm() < 0.02 * other.float().norm()


def test_the_gradient_can_be_asked_for_twice() -> None:
    network = adapted(tiny_model("qwen3").to(torch.bfloat16), ALL)
    fuse(network)
    leaves = [each for each in network.parameters() if each.requires_grad]
    for native in ((), (torch.bfloat16,)):
        with rates.assume_native(*native):
            loss = padded_loss(network)
            first = torch.autograd.grad(loss, leaves, retain_graph=True)
            second = torch.autograd.grad(loss, leaves)
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("is_native", [True, False])
def test_passes_that_lie_between_forward_and_backward_change_nothing(is_native: bool) -> None:
    """Memory that is written over again belongs to no result."""
    network = adapted(tiny_model("llama").to(torch.bfloat16), ALL)
    fuse(network)
    leaves = [each for each in network.parameters() if each.requires_grad]
    network.set_attn_implementation("sdpa")
    with rates.assume_native(torch.bfloat16) if is_native else rates.assume_native():
        expected = [torch.autograd.grad(weighted(network), leaves), torch.autograd.grad(padded_loss(network), leaves)]
        losses = [weighted(network), padded_loss(network)]
        found = [torch.autograd.grad(loss, leaves) for loss in losses]
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def kept_bytes(network: nn.Module, packed: Batch) -> int:
    """Bytes that the body keeps for the backward pass, parameters left out, storage shared by several counted once."""
    own = {each.untyped_storage().data_ptr() for each in network.parameters()}
    found: dict[int, int] = {}
    alive = []

    def pack_tensor(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack_tensor, lambda tensor: tensor):
        weighted_nll(network, packed, 1.0)
    return sum(found.values())


@pytest.mark.parametrize("is_native", [True, False])
def test_little_is_kept_for_the_backward_pass(is_native: bool) -> None:
    network = adapted(tiny_model("llama", num_hidden_layers=6).to(torch.bfloat16), ALL)
    packed = batch()
    plain = kept_bytes(network, packed)
    fuse(network)
    with rates.assume_native(torch.bfloat16) if is_native else rates.assume_native():
        fused = kept_bytes(network, packed)
    n_tokens = packed.input_ids.shape[0]
    # Stream twice, attention's output, query, key, value, gate, up; statistics in fp32; ends of the network.
    a_layer = 2 * (3 * 32 + 64 + 2 * 48) + 4 * (2 + 4)
    assert fused <= n_tokens * (6 * a_layer + 500)
    assert fused < 0.4 * plain

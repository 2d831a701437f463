"""Every family on a packed tree against separate forwards with Transformers' own attention: values and gradients."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, REQUIRED, tiny_model
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from ramify.base.errors import LengthError, ModelError
from ramify.base.types import TokenSequence
from ramify.model.families import EXACT, check_depth, check_family
from ramify.model.logprobs import logits, token_logprobs
from ramify.tree.attention import Backend, backend
from ramify.tree.pack import Batch, pack

TOLERANCE = 1e-5


def sequences() -> list[TokenSequence]:
    """A tree of depth 4: forks inside the prompt, a prompt that is a completion's prefix, a duplicate, a lone root,
    trained prompt tokens, weights other than 1; paths longer than the tiny models' windows."""
    trunk = (5, 17, 60, 33, 8, 90, 41, 12, 77)
    longer = (*trunk, 21, 64, 9, 30)
    return [
        TokenSequence.of(trunk, (7, 8, 2)),
        TokenSequence.of(trunk, (9, 10, 11, 12, 13, 14, 15, 2)),
        TokenSequence.of(longer, (16, 2)),
        TokenSequence.of((*longer, 4, 5), (18, 2), 0.5),
        TokenSequence.of((*longer, 4, 5), (18, 19, 2)),
        TokenSequence.of((*longer, 4, 5), (18, 19, 2)),
        TokenSequence.of((50, 51), (52,)),
        TokenSequence(longer[:12], (0.0, *[1.0] * 11)),
    ]


def separately(network: PreTrainedModel, many: list[TokenSequence]) -> Tensor:
    """[S] log-probabilities of the trained tokens, each sequence in a forward pass of its own."""
    found = []
    for each in many:
        scores = network(input_ids=torch.tensor([each.ids]), use_cache=False).logits[0].float().log_softmax(-1)
        found += [scores[place - 1, each.ids[place]] for place, weight in enumerate(each.weights) if weight]
    return torch.stack(found)


def gradients(network: PreTrainedModel, logprobs: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Gradient of the weighted loss in every weight that has one."""
    network.zero_grad()
    (-(logprobs * batch.weights).sum() / 3.0).backward()
    return {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}


def assert_same(network: PreTrainedModel, names: tuple[Backend, ...]) -> None:
    """Log-probabilities, and gradients within 1e-5 of the largest entry."""
    many = sequences()
    batch = pack(many)
    expected = separately(network, many)
    expected_grads = gradients(network, expected, batch)
    largest = max(grad.abs().max().item() for grad in expected_grads.values())
    for name in names:
        with backend(name):
            found = token_logprobs(network, batch)
            grads = gradients(network, found, batch)
        assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
        assert grads.keys() == expected_grads.keys()
        for weight, grad in grads.items():
            assert (grad - expected_grads[weight]).abs().max() <= TOLERANCE * largest, weight


@pytest.mark.filterwarnings("ignore:.*xIELU.*")
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_separate_forwards(family: str) -> None:
    """fp32, tiny random weights; the families every part is tested on with the dense reference too."""
    assert_same(tiny_model(family), ("dense", "cpu") if family in REQUIRED else ("cpu",))


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3"])
def test_tied_heads(family: str) -> None:
    """Gradients of embedding and head add up in one matrix."""
    network = tiny_model(family, tie_word_embeddings=True)
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight
    assert_same(network, ("cpu",))


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "granite", "gpt2"])
def test_logits_are_the_models_own(family: str) -> None:
    """Scale and soft cap of the head, applied to hidden states."""
    network = tiny_model(family)
    ids = torch.tensor([[5, 6, 7, 8]])
    hidden = network.base_model(input_ids=ids).last_hidden_state
    assert torch.allclose(logits(network, hidden), network(input_ids=ids).logits, atol=1e-6)


def test_every_listed_family_is_tested() -> None:
    """The list of exact families is the list of this file's parameters."""
    assert set(FAMILIES) == EXACT
    assert set(REQUIRED) <= EXACT


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("mamba", "recurrent"),
        ("mamba2", "recurrent"),
        ("falcon_mamba", "recurrent"),
        ("lfm2", "recurrent"),
        ("qwen3_next", "recurrent"),
        ("falcon_h1", "recurrent"),
        ("rwkv", "recurrent"),
        ("jamba", "recurrent"),
        ("falcon", "interface"),
        ("bloom", "interface"),
        ("mpt", "interface"),
        ("deepseek_v32", "place in the row"),
        ("bert", "not among"),
    ],
)
def test_other_families_are_refused_by_name(family: str, why: str) -> None:
    """One line with the name and the reason."""
    with pytest.raises(ModelError, match=f"'{family}'.*{why}"):
        check_family(AutoConfig.for_model(family))


def test_a_refused_family_never_runs() -> None:
    """The check is in the forward pass too, for models that were loaded elsewhere."""
    config = AutoConfig.for_model("falcon", vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    from transformers import AutoModelForCausalLM

    with pytest.raises(ModelError, match="falcon"):
        token_logprobs(AutoModelForCausalLM.from_config(config), pack(sequences()))


def test_embeddings_that_rescale_with_the_longest_path_are_refused_past_their_length() -> None:
    """Dynamic NTK: exact up to the original length, an error beyond it."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    network = tiny_model("llama", max_position_embeddings=20, rope_parameters=rope)
    assert_same(network, ("cpu",))
    with pytest.raises(LengthError, match="21 tokens is past the 20"):
        check_depth(network.config, 21)
    with pytest.raises(LengthError):
        token_logprobs(network, pack([TokenSequence.of((1,) * 20, (2,)), TokenSequence.of((3,), (4,))]))


def test_longrope_is_refused_past_its_original_length() -> None:
    """Longrope: the short factors hold for every path up to the original length."""
    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 20,
        "factor": 4.0,
    }
    network = tiny_model("phi3", max_position_embeddings=80, original_max_position_embeddings=20, rope_parameters=rope)
    assert_same(network, ("cpu",))
    with pytest.raises(LengthError, match="longrope"):
        check_depth(network.config, 21)

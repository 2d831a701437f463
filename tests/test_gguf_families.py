"""What is refused before a weight is read, and what llama.cpp is told of rotary embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_setup import CASES, case, llama_logits, some_ids, tiny_export, transformers_logits
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ramify import nano
from ramify.base.errors import ModelError
from ramify.export.gguf.families import check_exportable, examine
from ramify.export.gguf.metadata import network_fields
from ramify.export.gguf.rope import rope_factors
from ramify.export.gguf.tensors import interleave
from ramify.export.gguf.writer import write_gguf


def change(folder: Path, **settings: Any) -> Path:
    """Other values in a folder's config.json; None takes an entry out."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return folder


def reweigh(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Other tensors in a folder's weights."""
    weights = load_file(str(folder / "model.safetensors"))
    edit(weights)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("name", CASES)
def test_accepted(name: str, tmp_path: Path) -> None:
    case(tmp_path, name)
    assert check_exportable(tmp_path).name == CASES[name][0]


def test_nano_is_a_llama() -> None:
    assert check_exportable(nano.path()).arch == "llama"


ROPE = {"rope_theta": 1e4}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"hidden_act": "gelu"}, "its activation is 'gelu', llama.cpp computes 'silu'"),
    ("llama", {"quantization_config": {"quant_method": "fp8"}}, "its weights are quantised already"),
    (
        "llama",
        {"rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 2.0}},
        "is of type 'dynamic', and llama.cpp computes there: default, linear, llama3, yarn",
    ),
    ("llama", {"rope_parameters": {**ROPE, "rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary"),
    ("qwen2", {"rope_parameters": CASES["llama, llama3 rope"][1]["rope_parameters"]}, "is of type 'llama3'"),
    ("gemma", {"rope_parameters": CASES["qwen2, yarn"][1]["rope_parameters"]}, "is of type 'yarn'"),
    (
        "llama",
        {"rope_parameters": {**CASES["qwen2, yarn"][1]["rope_parameters"], "truncate": False}},
        "truncate = False",
    ),
    ("qwen3", {"attention_bias": True}, "llama.cpp knows no attention_bias in qwen3"),
    ("gemma", {"tie_word_embeddings": False}, "llama.cpp ties its head"),
    ("gemma", {"use_bidirectional_attention": True}, "it attends to both sides"),
    ("gemma2", {"query_pre_attn_scalar": 32}, "query_pre_attn_scalar is 32, llama.cpp computes with 16"),
    ("gemma2", {"layer_types": ["full_attention"] + ["sliding_attention"] * 3}, "do not come at a fixed distance"),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0, and llama.cpp has none"),
    ("gemma3_text", {"query_pre_attn_scalar": 256}, "query_pre_attn_scalar is 256, llama.cpp computes with 16"),
]


@pytest.mark.parametrize("family, settings, reason", REFUSED)
def test_settings_that_llama_cpp_would_not_follow(
    family: str, settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    own = {"gemma2": CASES["gemma2"][1], "gemma3_text": CASES["gemma3"][1]}.get(family, {})
    tiny_export(tmp_path, family, **own)
    (tmp_path / "model.safetensors").unlink()  # nothing of the weights is needed to refuse
    with pytest.raises(ModelError, match=reason.replace("(", r"\(")):
        check_exportable(change(tmp_path, **settings))


def test_soft_caps_that_are_missing(tmp_path: Path) -> None:
    tiny_export(tmp_path, "gemma2", **{**CASES["gemma2"][1], "attn_logit_softcapping": None})
    with pytest.raises(ModelError, match=r"attn_logit_softcapping is None, and llama\.cpp needs one"):
        check_exportable(tmp_path)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"model_type": "phi3"}, r"family 'phi3' is not among those written as GGUF \(llama, mistral, .*--llama-cpp"),
        ({"model_type": "gemma3"}, "a Gemma 3 with images cannot be written"),
        ({"model_type": "qwen3_moe"}, "the nearest is 'qwen3'"),
    ],
)
def test_other_families(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    tiny_export(tmp_path, "llama")
    with pytest.raises(ModelError, match=reason):
        check_exportable(change(tmp_path, **settings))


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights.__delitem__(name)


def put(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights.__setitem__(name, value)


@pytest.mark.parametrize(
    "edit, reason",
    [
        (drop("model.layers.1.mlp.up_proj.weight"), r"model\.layers\.1\.mlp\.up_proj\.weight is missing"),
        (drop("lm_head.weight"), r"lm_head\.weight is missing"),
        (
            put("model.norm.weight", torch.ones(3)),
            r"model\.norm\.weight has the shape \(3,\), its config asks for \(64,\)",
        ),
        (put("model.norm.weight", torch.ones(64, dtype=torch.int8)), "is held as I8, not in full precision"),
        (put("model.layers.0.self_attn.q_proj.bias", torch.ones(64)), r"1 tensors have no place .*q_proj\.bias"),
    ],
)
def test_tensors_that_do_not_belong(edit: Any, reason: str, tmp_path: Path) -> None:
    tiny_export(tmp_path, "llama")
    with pytest.raises(ModelError, match=reason):
        check_exportable(reweigh(tmp_path, edit))


def test_a_tied_head_in_the_file_has_to_be_the_embedding(tmp_path: Path) -> None:
    network = tiny_export(tmp_path, "llama", tie_word_embeddings=True)
    table = network.model.embed_tokens.weight.detach().clone()
    check_exportable(reweigh(tmp_path, put("lm_head.weight", table)))
    with pytest.raises(ModelError, match=r"ties the head to the embedding, and lm_head\.weight is another one"):
        check_exportable(reweigh(tmp_path, put("lm_head.weight", table + 1)))


def test_no_weights_and_cut_off_weights(tmp_path: Path) -> None:
    tiny_export(tmp_path, "llama")
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        check_exportable(tmp_path)
    file.unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors there"):
        check_exportable(tmp_path)


def test_a_window_that_llama_cpp_lacks_bounds_the_context(tmp_path: Path) -> None:
    network = tiny_export(tmp_path, "mistral", sliding_window=40)
    report = write_gguf(tmp_path, tmp_path / "m.gguf", "f32")
    assert report.notes == ("llama.cpp has no sliding window for llama: the context is one window, 40 tokens",)
    ids = some_ids(network, 40)
    assert np.abs(llama_logits(report.path, ids) - transformers_logits(network, ids)).max() < 1e-4
    assert network_fields(examine(tmp_path))["llama.context_length"] == 40


def test_rope_factors_are_the_ratio_of_frequencies(tmp_path: Path) -> None:
    case(tmp_path, "llama, llama3 rope")
    config: Any = AutoConfig.from_pretrained(str(tmp_path))
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = config.rope_parameters["rope_theta"] ** (-torch.arange(0, 16, 2) / 16)
    factors = rope_factors(config, 16)
    assert factors is not None and factors[0] == 1.0 and factors[-1] == 8.0
    torch.testing.assert_close(torch.from_numpy(factors), plain / scaled, rtol=1e-5, atol=0)


def test_interleave_by_hand() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert interleave(rows[:, 0], 1).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]

"""Adapters alone as GGUF: base file and adapter file together are the merged file, and llama.cpp takes both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from cyllama.llama.llama_cpp import LlamaModel, LlamaModelParams
from export_setup import tiny_export
from peft import LoraConfig, get_peft_model

from ramify.base.errors import ModelError
from ramify.export.gguf.adapter import write_adapter_gguf
from ramify.export.gguf.families import FAMILIES
from ramify.export.gguf.writer import write_gguf
from ramify.export.merge import merge


def adapted(base: Path, folder: Path, **settings: Any) -> Path:
    """A random adapter on a random tiny model, both saved."""
    family = settings.pop("family", "llama")
    own = {"query_pre_attn_scalar": 16} if family == "gemma2" else {}
    network = tiny_export(base, family, **own)
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": "all-linear", **settings})
    peft = get_peft_model(network, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in peft.parameters():
            if weight.requires_grad:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    peft.save_pretrained(str(folder), save_embedding_layers=False)
    config_file = folder / "adapter_config.json"
    found = json.loads(config_file.read_text())
    config_file.write_text(json.dumps({**found, "base_model_name_or_path": str(base)}))
    return folder


def arrays(path: Path) -> dict[str, Any]:
    """Tensors of a GGUF file, as Transformers counts dimensions."""
    return {each.name: np.array(each.data) for each in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(
    "family, settings",
    [
        *((family, {}) for family in FAMILIES if family != "gemma3_text"),
        ("llama", {"use_rslora": True}),
        ("llama", {"rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 8}, "alpha_pattern": {"k_proj": 1}}),
    ],
)
def test_base_and_adapter_are_the_merged_model(family: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """llama.cpp adds (alpha / rank) · B A to each matrix: what comes out has to be the merged file's matrix."""
    folder = adapted(tmp_path / "base", tmp_path / "adapter", family=family, **settings)
    base = write_gguf(tmp_path / "base", tmp_path / "base.gguf", "f32").path
    target = tmp_path / "tuned-adapter.gguf"
    report = write_adapter_gguf(folder, tmp_path / "base", target, "f32")
    merged = write_gguf(merge(folder, tmp_path / "merged", "fp32"), tmp_path / "merged.gguf", "f32").path
    reader = gguf.GGUFReader(target)
    assert reader.fields["general.type"].contents() == "adapter" and reader.fields["adapter.type"].contents() == "lora"
    alpha, factors, plain = reader.fields["adapter.lora.alpha"].contents(), arrays(target), arrays(base)
    layers = sum(name.endswith("attn_norm.weight") for name in plain)
    assert report.tensors == len(factors) == layers * 7 * 2
    for name, expected in arrays(merged).items():
        if f"{name}.lora_a" in factors:
            left, right = factors[f"{name}.lora_a"], factors[f"{name}.lora_b"]
            plain[name] = plain[name] + alpha / right.shape[1] * right @ left
        np.testing.assert_allclose(plain[name], expected, atol=2e-6)
    opened = LlamaModel(str(base), LlamaModelParams(), False)
    opened.lora_adapter_init(str(target))
    opened.close()


def test_of_another_model(tmp_path: Path) -> None:
    folder = adapted(tmp_path / "base", tmp_path / "adapter")
    tiny_export(tmp_path / "other", "llama", hidden_size=32)
    with pytest.raises(ModelError, match="the adapter was made on another model"):
        write_adapter_gguf(folder, tmp_path / "other", tmp_path / "a.gguf", "f16")
    tiny_export(tmp_path / "smaller", "llama", num_hidden_layers=1)
    with pytest.raises(ModelError, match=r"layers\.1\..* has no place in an adapter of llama\.cpp"):
        write_adapter_gguf(folder, tmp_path / "smaller", tmp_path / "a.gguf", "f16")


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"use_dora": True}, "it is a DoRA"),
        ({"trainable_token_indices": {"embed_tokens": [5]}}, "rows of the embedding were trained"),
        ({"modules_to_save": ["lm_head"]}, "whole layers were trained with it"),
        ({"init_lora_weights": "pissa"}, r"it changed the base weights when it began \(pissa\)"),
        ({"bias": "all"}, "biases were trained"),
    ],
)
def test_what_llama_cpp_would_leave_out(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    folder = adapted(tmp_path / "base", tmp_path / "adapter", **settings)
    with pytest.raises(ModelError, match=f"cannot be an adapter of llama.cpp: {reason}.*--to merged"):
        write_adapter_gguf(folder, tmp_path / "base", tmp_path / "a.gguf", "f16")


def test_an_embedding_has_no_place(tmp_path: Path) -> None:
    folder = adapted(tmp_path / "base", tmp_path / "adapter", target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(ModelError, match=r"embed_tokens.* has no place"):
        write_adapter_gguf(folder, tmp_path / "base", tmp_path / "a.gguf", "f16")


def test_smaller_kinds(tmp_path: Path) -> None:
    folder = adapted(tmp_path / "base", tmp_path / "adapter")
    sizes = []
    for kind in ("f32", "f16", "q8_0"):
        report = write_adapter_gguf(folder, tmp_path / "base", tmp_path / f"a-{kind}.gguf", kind)
        sizes.append(report.size)
        assert len(report.fallen_back) == (14 if kind == "q8_0" else 0)  # a rank of 4 is no row of q8_0
    assert sizes == sorted(sizes, reverse=True)

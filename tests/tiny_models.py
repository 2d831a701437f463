"""Random tiny models of every tested family: what the equality tests compute on.

    network = tiny_model("llama")                  # hidden 32, 2 layers (4 where layers alternate), vocabulary 96, fp32
    network = tiny_model("llama", seed=3, tie_word_embeddings=True)

Weights are drawn large enough that attention, norms, biases and sinks all matter: a default initialisation (0.02) is so
close to linear that wrong attention would hide below the tolerance.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 96

_LLAMA: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_HEAD = {"head_dim": 8}
_WINDOW = {"sliding_window": 6}
_ALTERNATE = {"num_hidden_layers": 4, **_WINDOW}
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
_NO_GROUPS = {"num_key_value_heads": 4}

# The sliding windows are small so that they bite.
_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {**_HEAD, **_WINDOW},
    "qwen2": {},
    "qwen3": {**_HEAD},
    "gemma": {**_HEAD},
    "gemma2": {**_HEAD, **_ALTERNATE, "query_pre_attn_scalar": 8, "final_logit_softcapping": 5.0},
    "gemma3_text": {**_HEAD, **_ALTERNATE, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi": {**_NO_GROUPS},
    "phi3": {},
    "smollm3": {"num_hidden_layers": 4, "no_rope_layer_interval": 2},
    "olmo": {"clip_qkv": 4.0},
    "olmo2": {},
    "olmo3": {**_ALTERNATE, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "granite": {"logits_scaling": 2.0, "attention_multiplier": 0.4, "residual_multiplier": 0.7},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "starcoder2": {**_WINDOW},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {**_HEAD, **_ALTERNATE, "logit_scale": 0.3},
    "glm": {**_HEAD},
    "glm4": {**_HEAD},
    "exaone4": {**_ALTERNATE, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "mixtral": {**_MOE},
    "qwen3_moe": {**_HEAD, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "gpt_oss": {**_HEAD, **_MOE, **_WINDOW},
    "stablelm": {},
    "nemotron": {},
    "apertus": {},
    "arcee": {},
    "cwm": {**_HEAD, "layer_types": ["sliding_attention", "full_attention"], **_WINDOW},
    "dots1": {
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "n_shared_experts": 1,
    },
    "ernie4_5": {**_HEAD},
    "granitemoe": {**_MOE, "logits_scaling": 2.0},
    "helium": {**_HEAD},
    "hunyuan_v1_dense": {**_HEAD},
    "jais2": {**_HEAD},
    "ministral": {**_HEAD, **_ALTERNATE, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "ministral3": {**_HEAD},
    "nanochat": {"final_logit_softcapping": 5.0},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "persimmon": {**_NO_GROUPS},
    "qwen2_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "seed_oss": {**_HEAD},
    "vaultgemma": {**_HEAD, **_ALTERNATE, "query_pre_attn_scalar": 8, "final_logit_softcapping": 5.0},
}

REQUIRED = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2", "olmo2", "smollm3")
"""Families that every part is tested on."""

FAMILIES = tuple(_CONFIGS)
"""All families with a tiny configuration."""


def tiny_model(family: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A random fp32 model of `family` in eval mode; `settings` replace entries of its configuration."""
    config = AutoConfig.for_model(family, **{**_LLAMA, **_CONFIGS[family], **settings})
    for name in ("attention_dropout", "hidden_dropout", "attn_pdrop", "dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    network = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    _draw(network, seed)
    return network


@torch.no_grad()
def _draw(network: PreTrainedModel, seed: int) -> None:
    """Matrices N(0, 1.5 / fan-in), vectors shifted by N(0, 0.3²): the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() >= 2:
            parameter.copy_(noise * (1.5 / parameter.shape[-1]) ** 0.5)
        else:
            parameter.add_(noise * 0.3)

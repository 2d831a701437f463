"""Random tiny models as Transformers folders, and what llama.cpp and Transformers compute of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tiny_models import tiny_model
from tiny_tokenizers import byte_level, metaspace

from ramify.sample.llamacpp.runtime import open_runtime

Logits = NDArray[np.float32]
_SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
_HALF_WINDOWS = {"layer_types": ["sliding_attention", "full_attention"] * 2}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 128}
_LINEAR = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}
_GEMMA2 = {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 3.0}
_GEMMA3 = {"query_pre_attn_scalar": 16, **_HALF_WINDOWS}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, wide heads": ("llama", {"head_dim": 32, "num_key_value_heads": 1}),
    "llama, llama3 rope": ("llama", {"rope_parameters": _LLAMA3}),
    "llama, linear rope": ("llama", {"rope_parameters": _LINEAR}),
    "llama, yarn": ("llama", {"rope_parameters": {**_YARN, "beta_fast": 20.0, "beta_slow": 2.0}}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 32}),
    "qwen2": ("qwen2", {}),
    "qwen2, yarn": ("qwen2", {"rope_parameters": {**_YARN, "attention_factor": 1.4}}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3, tied": ("qwen3", {"tie_word_embeddings": True}),
    "gemma": ("gemma", {"head_dim": 32}),
    "gemma2": ("gemma2", _GEMMA2),
    "gemma3": ("gemma3_text", _GEMMA3),
    "gemma3, linear rope": (
        "gemma3_text",
        {
            **_GEMMA3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 50000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
}
"""Name to family and settings: all families, and what a config may ask of them."""


def tiny_export(folder: Path, family: str, **settings: Any) -> Any:
    """A random model of `family` with a tokenizer, saved to `folder`; the network is returned."""
    spaced = family in ("mistral", "gemma", "gemma2", "gemma3_text")
    tokenizer = metaspace(bos=True) if spaced else byte_level()
    sizes = {name: value for name, value in _SIZES.items() if name != "head_dim" or family not in ("llama", "qwen2")}
    network = tiny_model(family, **{**sizes, "vocab_size": len(tokenizer), "pad_token_id": None, **settings})
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return network


def case(folder: Path, name: str) -> Any:
    """One of `CASES`, saved to `folder`."""
    family, settings = CASES[name]
    return tiny_export(folder, family, **settings)


def some_ids(network: Any, count: int = 200) -> list[int]:
    """Token ids that use all of the vocabulary, the same each time."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(3, network.config.vocab_size, (count,), generator=generator).tolist()


def transformers_logits(network: Any, ids: Sequence[int]) -> Logits:
    """Float32 [tokens, vocabulary]."""
    with torch.inference_mode():
        return np.asarray(network(input_ids=torch.tensor([list(ids)])).logits[0].float().numpy())


class TableGelu(torch.nn.Module):
    """tanh-GELU as ggml has it on a CPU: looked up in a table from f16 to f16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x.half().float(), approximate="tanh").half().float()


def with_table(network: Any) -> Any:
    """A Gemma that computes its activation as ggml does; others as they are."""
    if network.config.model_type.startswith("gemma"):
        network = copy.deepcopy(network)
        for layer in network.model.layers:
            layer.mlp.act_fn = TableGelu()
    return network


def llama_logits(path: Path, ids: Sequence[int]) -> Logits:
    """Float32 [tokens, vocabulary], keys and values in fp32."""
    with closing(open_runtime(path, n_ctx=len(ids), kv="f32")) as runtime:
        return np.asarray(runtime.logits(ids))


def divergence(reference: Logits, other: Logits) -> float:
    """Mean of KL(reference ‖ other) over the positions, in nats."""
    expected, found = (torch.from_numpy(each).double().log_softmax(-1) for each in (reference, other))
    return float((expected.exp() * (expected - found)).sum(-1).mean())


class Watcher:
    """Notes down what it is told."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.done: list[int] = []
        self.notes: list[str] = []
        self.closed = 0

    def start(self, stage: str, total: int | None, done: int = 0) -> None:
        self.stages.append((stage, total))

    def update(self, done: int, **values: float) -> None:
        self.done.append(done)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def close(self) -> None:
        self.closed += 1


def leftovers(folder: Path) -> Iterator[Path]:
    """Files and folders that were not tidied away."""
    yield from folder.glob(".*")

"""Rotary embeddings as llama.cpp is told of them.

default  base frequency alone
linear   positions divided by a factor
yarn     Peng et al. 2023, arXiv 2309.00071: low frequencies divided, high ones kept, a ramp between
llama3   frequencies divided one by one, by a tensor of factors (`rope_freqs`), as Llama 3.1 has it
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ramify.export.gguf.layout import Family
from ramify.export.stored import Floats

_ALLOWED = {
    "default": {"rope_theta"},
    "linear": {"rope_theta", "factor"},
    "yarn": {
        *("rope_theta", "factor", "original_max_position_embeddings", "attention_factor"),
        *("beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    },
    "llama3": {
        *("rope_theta", "factor", "original_max_position_embeddings"),
        *("low_freq_factor", "high_freq_factor"),
    },
}
_WITHOUT_EFFECT = {"rope_type", "type"}
_NEUTRAL = {"partial_rotary_factor": 1.0, "truncate": True}
"""Entries that llama.cpp has no name for, with the value at which they change nothing."""


def ropes(config: Any) -> dict[str, dict[str, Any]]:
    """Rotary settings by kind of layer; one entry, `full_attention`, where all layers have the same."""
    found = dict(config.rope_parameters)
    if "rope_type" in found or "rope_theta" in found:
        return {"full_attention": found}
    return {name: dict(inner) for name, inner in found.items() if isinstance(inner, Mapping)}


def refused_rope(family: Family, config: Any) -> str | None:
    """Why llama.cpp would rotate differently, or None."""
    for layers, rope in ropes(config).items():
        kind = str(rope.get("rope_type", "default"))
        if kind not in family.ropes or (layers != "full_attention" and kind != "default"):
            allowed = ", ".join(sorted(family.ropes))
            return f"its rotary embedding is of type {kind!r}, and llama.cpp computes there: {allowed}"
        for name, value in rope.items():
            if name not in _ALLOWED[kind] | _WITHOUT_EFFECT and value != _NEUTRAL.get(name):
                return f"its rotary embedding ({kind}) has {name} = {value}, which llama.cpp has no name for"
    return None


def rope_fields(arch: str, config: Any) -> dict[str, Any]:
    """Keys and values of the GGUF file that say how to rotate."""
    by_layer = ropes(config)
    rope = by_layer["full_attention"]
    prefix = f"{arch}.rope"
    fields: dict[str, Any] = {f"{prefix}.freq_base": float(rope["rope_theta"])}
    if "sliding_attention" in by_layer:
        fields[f"{prefix}.freq_base_swa"] = float(by_layer["sliding_attention"]["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        fields[f"{prefix}.scaling.type"] = kind
        fields[f"{prefix}.scaling.factor"] = _factor(rope, config)
    if kind == "yarn":
        fields |= {f"{prefix}.scaling.{name}": value for name, value in _yarn(rope, config).items()}
    return fields


def _yarn(rope: dict[str, Any], config: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"original_context_length": int(rope["original_max_position_embeddings"])}
    for name in ("beta_fast", "beta_slow"):
        if rope.get(name) is not None:
            fields[f"yarn_{name}"] = float(rope[name])
    # llama.cpp multiplies by what the paper suggests and then by this.
    suggested = _attention(_factor(rope, config), 1.0)
    if (asked := _asked_attention(rope, config)) != suggested:
        fields["attn_factor"] = asked / suggested
    return fields


def _asked_attention(rope: dict[str, Any], config: Any) -> float:
    """What cosines and sines are multiplied by, as Transformers reads the settings."""
    given, mscale, all_dims = (rope.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim"))
    factor = _factor(rope, config)
    if given is not None:
        return float(given)
    if mscale and all_dims:
        return _attention(factor, mscale) / _attention(factor, all_dims)
    return _attention(factor, 1.0)


def _attention(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _factor(rope: dict[str, Any], config: Any) -> float:
    given = rope.get("factor")
    return float(config.max_position_embeddings / rope["original_max_position_embeddings"] if given is None else given)


def rope_factors(config: Any, head: int) -> Floats | None:
    """What each frequency is divided by, float32 [head / 2], for llama3; None for the others.

    Waves shorter than original length / high_freq_factor are kept, those longer than original length /
    low_freq_factor are divided by the factor, and between them the two are mixed.
    """
    rope = ropes(config)["full_attention"]
    if rope.get("rope_type") != "llama3":
        return None
    low, high, factor = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor", "factor"))
    waves = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, head, 2) / head)
    turns = float(rope.get("original_max_position_embeddings") or config.max_position_embeddings) / waves
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return np.asarray(1.0 / (kept + (1.0 - kept) / factor), dtype=np.float32)

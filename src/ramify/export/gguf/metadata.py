"""Keys and values of a GGUF file about the network: sizes, rotation, windows, caps; where the model comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ramify.export.gguf.families import Checked, window_period
from ramify.export.gguf.layout import sizes, windows
from ramify.export.gguf.rope import rope_fields

Fields = dict[str, Any]
"""Key to value. Whole numbers are written as uint32, others as float32, lists as arrays of what they hold."""


def network_fields(checked: Checked) -> Fields:
    """What llama.cpp builds the network from."""
    arch, config, size = checked.family.arch, checked.config, sizes(checked.config)
    named: Fields = {
        "vocab_size": size.vocabulary,
        "context_length": checked.context,
        "embedding_length": size.hidden,
        "block_count": size.layers,
        "feed_forward_length": size.inner,
        "attention.head_count": size.heads,
        "attention.head_count_kv": size.key_heads,
        "attention.key_length": size.head,
        "attention.value_length": size.head,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": size.head,
    }
    if checked.family.windows:
        named["attention.sliding_window"] = windows(config) or int(config.sliding_window)
        named["attention.sliding_window_pattern"] = window_period(config)
    if checked.family.soft_caps:
        named["attn_logit_softcapping"] = float(config.attn_logit_softcapping)
        named["final_logit_softcapping"] = float(config.final_logit_softcapping)
    return {f"{arch}.{key}": value for key, value in named.items()} | rope_fields(arch, config)


def general_fields(folder: Path, name: str, parameters: int) -> Fields:
    """Name, size and, where the folder's model card states it, licence."""
    import gguf

    fields: Fields = {
        "general.type": "model",
        "general.name": name,
        "general.size_label": gguf.size_label(parameters, parameters, 0, 0),
    }
    licence = _card(folder).get("license")
    return fields | ({"general.license": licence} if isinstance(licence, str) and licence else {})


def _card(folder: Path) -> dict[str, Any]:
    """The settings at the top of README.md; empty when there are none that can be read."""
    try:
        start, settings, _ = (folder / "README.md").read_text(encoding="utf-8").split("---", 2)
        found = yaml.safe_load(settings) if not start.strip() else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}

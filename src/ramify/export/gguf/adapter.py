"""A LoRA adapter alone as a GGUF file, which llama.cpp puts on top of the base model's.

llama.cpp computes W x + (alpha / rank) · B (A x). Where PEFT scales differently (rank-stabilised: alpha / √rank; other
ranks or scales for some layers) alpha is written so that the scale comes out, and B takes what still differs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

from ramify.base.errors import ModelError
from ramify.base.progress import SILENT, Progress
from ramify.export.gguf.families import read_family
from ramify.export.gguf.layout import Expected, Family, expected
from ramify.export.gguf.package import require_gguf
from ramify.export.gguf.tensors import Kind, Tensor, fitting, kind_named
from ramify.export.gguf.writer import GgufReport, write_file
from ramify.export.stored import Stored, stored
from ramify.model.failures import one_line

_FACTOR = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])\.weight")
_MERGE = "merge it into the model: --to merged or --to gguf"
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin an adapter that leave the base model's weights as they are."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """The two factors of one layer, and the layer that they are for."""

    layer: Expected
    left: Stored
    right: Stored
    scale: float


def write_adapter_gguf(
    adapter: Path, base: Path, target: Path, kind: str = "f16", *, progress: Progress = SILENT
) -> GgufReport:
    """Write a PEFT adapter folder as a GGUF file for llama.cpp, whole or not at all.

    Args:
        adapter: adapter_config.json and adapter_model.safetensors.
        base: Transformers folder of the model that it was made on; only its configuration is read.
        target: the file; an older one is replaced.
        kind: f32, f16, bf16 or q8_0.

    Raises:
        ConfigError: the package gguf is not installed, or the kind is none of those.
        ModelError: the adapter holds more than factors of layers (DoRA, token rows, …), or is for another model.
        RunError: the disk has no room, or the file cannot be written.
    """
    require_gguf()
    family, config = read_family(base)
    settings = _settings(adapter)
    pairs = _pairs(adapter, family, config, settings)
    alpha = pairs[0].scale * pairs[0].left.shape[0]
    tensors = _tensors(pairs, alpha, kind_named(kind))
    fields = {
        "general.type": "adapter",
        "general.name": target.stem.removesuffix(f"-{kind.upper()}") or target.stem,
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
    }
    written = write_file(target, family.arch, kind_named(kind), fields, tensors, progress)
    fallen = tuple(each.name for each in tensors if each.kind is Kind.F16 and kind_named(kind) is Kind.Q8_0)
    return GgufReport(target, kind, written, len(tensors), fallen, ())


def _settings(adapter: Path) -> dict[str, Any]:
    path = adapter / "adapter_config.json"
    with one_line(str(path)):
        found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ModelError(f"{path}: a JSON object is needed, found {type(found).__name__}")
    reason = _refused(found)
    if reason is not None:
        raise ModelError(f"{adapter}: cannot be an adapter of llama.cpp: {reason}", hint=_MERGE)
    return found


def _refused(settings: Mapping[str, Any]) -> str | None:
    """Why llama.cpp would compute something else than PEFT, or None."""
    if settings.get("peft_type") != "LORA":
        return f"it is a {settings.get('peft_type')}, not a LoRA"
    start = settings.get("init_lora_weights", True)
    reasons = {
        "it is a DoRA: the norms of its weights are trained too": settings.get("use_dora"),
        "rows of the embedding were trained with it": settings.get("trainable_token_indices"),
        "whole layers were trained with it (modules_to_save)": settings.get("modules_to_save"),
        "biases were trained with it": settings.get("bias", "none") != "none" or settings.get("lora_bias"),
        "its matrices are transposed (fan_in_fan_out)": settings.get("fan_in_fan_out"),
        "layers are repeated (layer_replication)": settings.get("layer_replication"),
        "parameters that are no layers are adapted": settings.get("target_parameters"),
        "it begins behind given tokens (aLoRA)": settings.get("alora_invocation_tokens"),
        f"it changed the base weights when it began ({start})": start not in _PLAIN_STARTS,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _pairs(adapter: Path, family: Family, config: Any, settings: Mapping[str, Any]) -> list[_Pair]:
    layers = {each.source.removesuffix(".weight"): each for each in expected(family, config) if len(each.shape) == 2}
    factors: dict[str, dict[str, Stored]] = {}
    for name, each in stored(adapter).items():
        match = _FACTOR.fullmatch(name)
        if match is None or match["layer"] not in layers or match["layer"] == "model.embed_tokens":
            raise ModelError(f"{adapter}: {name} has no place in an adapter of llama.cpp", hint=_MERGE)
        factors.setdefault(match["layer"], {})[match["side"]] = each
    if not factors:
        raise ModelError(f"{adapter}: the adapter is empty")
    return [_pair(adapter, layers[name], sides, _scale(name, settings)) for name, sides in sorted(factors.items())]


def _pair(adapter: Path, layer: Expected, sides: Mapping[str, Stored], scale: float) -> _Pair:
    left, right = sides.get("A"), sides.get("B")
    if left is None or right is None:
        raise ModelError(f"{adapter}: one of the two factors of {layer.source} is missing")
    rank = left.shape[0]
    if left.shape != (rank, layer.shape[1]) or right.shape != (layer.shape[0], rank):
        raise ModelError(
            f"{adapter}: the factors of {layer.source} are {right.shape} and {left.shape}, "
            f"the base model's matrix is {layer.shape}",
            hint="the adapter was made on another model",
        )
    return _Pair(layer, left, right, scale)


def _scale(layer: str, settings: Mapping[str, Any]) -> float:
    """What PEFT multiplies this layer's B A by."""
    rank = _by_pattern(layer, settings.get("rank_pattern"), settings["r"])
    alpha = _by_pattern(layer, settings.get("alpha_pattern"), settings["lora_alpha"])
    return float(alpha / sqrt(rank) if settings.get("use_rslora") else alpha / rank)


def _by_pattern(layer: str, patterns: Mapping[str, Any] | None, usual: Any) -> Any:
    """The value of the first pattern that ends the layer's path, as PEFT matches them."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            return value
    return usual


def _tensors(pairs: list[_Pair], alpha: float, kind: Kind) -> list[Tensor]:
    tensors = []
    for pair in pairs:
        left, right, name = pair.left, pair.right, pair.layer.name
        factor = pair.scale * left.shape[0] / alpha
        tensors.append(Tensor(f"{name}.lora_a", left, fitting(left.shape, kind)))
        tensors.append(Tensor(f"{name}.lora_b", right, fitting(right.shape, kind), pair.layer.heads, factor=factor))
    return tensors

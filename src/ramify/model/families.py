"""Which model families compute the same as a tree as they do alone, and how each of them ends in logits.

A family is listed when a test holds that its log-probabilities and gradients on a packed tree equal those of the
separate sequences. Everything else is refused by name, with the reason where it is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig

from ramify.base.errors import LengthError, ModelError, nearest

# fmt: off
EXACT = frozenset({
    "apertus", "arcee", "cohere", "cohere2", "cwm", "dots1", "ernie4_5", "exaone4", "gemma", "gemma2",
    "gemma3_text", "glm", "glm4", "gpt2", "gpt_neox", "gpt_oss", "granite", "granitemoe", "helium",
    "hunyuan_v1_dense", "jais2", "llama", "ministral", "ministral3", "mistral", "mixtral", "nanochat", "nemotron",
    "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2", "vaultgemma",
})
"""Families (`model_type`) that are tested to be exact."""

DROPS_KEYWORDS = frozenset({
    "stablelm", "nemotron", "persimmon",
})
"""Families whose layers do not hand keywords on: the layout reaches them through a context variable."""

_RECURRENT = frozenset({
    "bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2",
    "lfm2_moe", "lfm3", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe",
    "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "qwen4_exp", "recurrent_gemma", "rwkv", "xlstm", "zamba",
    "zamba2", "zaya",
})
_OWN_ATTENTION = frozenset({
    "biogpt", "bloom", "codegen", "ctrl", "falcon", "gpt_neo", "gpt_neox_japanese", "gptj", "mpt", "openai-gpt",
    "xlnet",
})
_SPARSE = frozenset({
    "deepseek_v32", "deepseek_v4", "dots3_note", "glm_moe_dsa", "llama4", "llama4_text", "minimax_m3_vl_text",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class HeadForm:
    """What happens to the product of hidden states and head: first `scale`, then the soft cap.

    Attributes:
        scale: factor on the logits.
        softcap: logits become softcap · tanh(logit / softcap); None: unchanged.
    """

    scale: float = 1.0
    softcap: float | None = None

    def apply(self, logits: Tensor) -> Tensor:
        """The model's logits from the plain products."""
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()


def check_family(config: PreTrainedConfig) -> None:
    """Refuse models that a packed tree would compute wrongly.

    Raises:
        ModelError: the family is recurrent or convolutional, has attention of its own, or is not known to be exact.
    """
    name = str(config.model_type)
    if name in EXACT:
        return
    if name in _RECURRENT:
        why = "its recurrent or convolutional layers would carry one branch of the tree into the next"
    elif name in _OWN_ATTENTION:
        why = "its attention does not go through the Transformers interface"
    elif name in _SPARSE:
        why = "its layers choose or cut keys by their place in the row"
    else:
        guess = nearest(name, sorted(EXACT))
        why = "it is not among those tested to be exact" + (f"; the nearest is {guess!r}" if guess else "")
    raise ModelError(
        f"model family {name!r} cannot be computed as a tree: {why}", hint="tested: " + ", ".join(sorted(EXACT))
    )


def check_depth(config: PreTrainedConfig, depth: int) -> None:
    """Refuse paths at which rotary embeddings would depend on the longest path of the batch.

    Dynamic-NTK and longrope rescale all positions once any exceeds the original length, so a short sequence would not
    be what it is alone.

    Args:
        config: of the model.
        depth: tokens on the longest path.

    Raises:
        LengthError: the longest path is past the original length of such an embedding.
    """
    for kind, limit in _rescaling(config):
        if depth > limit:
            raise LengthError(
                f"a sequence of {depth} tokens is past the {limit} where {kind} embeddings rescale the whole batch",
                hint=f"data.max_length={limit}",
            )


def longest(config: PreTrainedConfig) -> int:
    """Longest sequence in tokens that the model computes as if it were alone; see `check_depth`."""
    positions = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
    return min([positions, *(limit for _, limit in _rescaling(config))])


def _rescaling(config: PreTrainedConfig) -> Iterator[tuple[str, int]]:
    """(kind, tokens up to which it rescales nothing) of each such embedding."""
    for rope in _ropes(config):
        kind = str(rope.get("rope_type", "default"))
        if kind in ("dynamic", "longrope"):
            limit = rope.get("original_max_position_embeddings")
            limit = limit or getattr(config, "original_max_position_embeddings", None)
            yield kind, int(limit or config.max_position_embeddings)


def head_form(config: PreTrainedConfig) -> HeadForm:
    """Scale and soft cap of the family's logits."""
    scale = getattr(config, "logit_scale", None)  # cohere
    divisor = getattr(config, "logits_scaling", None)  # granite
    softcap = getattr(config, "final_logit_softcapping", None)  # gemma 2
    factor = float(scale) if scale is not None else 1.0 / float(divisor) if divisor is not None else 1.0
    return HeadForm(factor, None if softcap is None else float(softcap))


def _ropes(config: PreTrainedConfig) -> Iterator[dict[str, Any]]:
    """The rotary settings: one mapping, or one for each kind of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in rope:
        yield rope
    else:
        yield from (inner for inner in rope.values() if isinstance(inner, dict))

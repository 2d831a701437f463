"""The families that are written as GGUF, and everything that is checked before a weight is read.

A setting of the model that would change its results and that llama.cpp has no name for is refused here, by name: a
file that loads and computes something else is worse than none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from ramify.base.errors import ModelError, nearest
from ramify.export.gguf.layout import FOUR_NORMS, HEAD_NORMS, TWO_NORMS, Expected, Family, expected, sizes, windows
from ramify.export.gguf.rope import refused_rope
from ramify.export.stored import FLOATING, Stored, stored
from ramify.model.failures import INCOMPLETE, one_line

_LINEAR = frozenset({"default", "linear"})
_ALL_ROPES = frozenset({"default", "linear", "yarn", "llama3"})
_GELU = "gelu_pytorch_tanh"

FAMILIES = {
    family.name: family
    for family in (
        Family("llama", "llama", permuted=True, optional_bias=True, ropes=_ALL_ROPES),
        Family("mistral", "llama", permuted=True, ropes=_ALL_ROPES),
        Family("qwen2", "qwen2", qkv_bias=True),
        Family("qwen3", "qwen3", norms=(*TWO_NORMS, *HEAD_NORMS)),
        Family("gemma", "gemma", _GELU, norm_offset=1.0, tied=True, ropes=_LINEAR),
        Family(
            name="gemma2",
            arch="gemma2",
            activation=_GELU,
            norms=FOUR_NORMS,
            norm_offset=1.0,
            tied=True,
            ropes=_LINEAR,
            windows=True,
            soft_caps=True,
            wide_layers=46,
        ),
        Family(
            name="gemma3_text",
            arch="gemma3",
            activation=_GELU,
            norms=(*FOUR_NORMS, *HEAD_NORMS),
            norm_offset=1.0,
            tied=True,
            ropes=_LINEAR,
            windows=True,
            wide_layers=62,
        ),
    )
}
"""By `model_type`. SmolLM2 and TinyLlama are Llamas."""

_ELSEWHERE = "other families: --llama-cpp DIR hands the model to llama.cpp's own converter there"
_FULL_PRECISION = "merge into the full-precision model first; --quant then chooses how the file is quantised"
_BUFFERS = ("rotary_emb.inv_freq",)


@dataclass(frozen=True, slots=True)
class Checked:
    """A Transformers folder that can be written.

    Attributes:
        config: as Transformers reads it.
        tensors: what will be written, in order, each with where it lies.
        notes: what the user should know.
    """

    folder: Path
    family: Family
    config: Any
    tensors: tuple[tuple[Expected, Stored], ...]
    notes: tuple[str, ...]

    @property
    def context(self) -> int:
        """Longest text in tokens that llama.cpp computes as Transformers does."""
        longest = int(self.config.max_position_embeddings)
        window = windows(self.config)
        return longest if window is None or self.family.windows else min(longest, window)


def check_exportable(folder: Path) -> Family:
    """The family of a Transformers folder, when all of it can be written as GGUF.

    Raises:
        ModelError: it cannot, with the reason; no weight was read.
    """
    return examine(folder).family


def examine(folder: Path) -> Checked:
    """Configuration and headers of a Transformers folder, checked; see `check_exportable`."""
    family, config = read_family(folder)
    found = stored(folder)
    _refuse_unknown(folder, config, found, {each.source for each in expected(family, config)})
    tensors = tuple((each, _lies(folder, each, found)) for each in expected(family, config))
    return Checked(folder, family, config, tensors, tuple(_notes(family, config)))


def read_family(folder: Path) -> tuple[Family, Any]:
    """Family and configuration of a Transformers folder, weights aside.

    Raises:
        ModelError: the family is not written, or the configuration asks for what llama.cpp does not compute there.
    """
    with one_line(str(folder)):
        config: Any = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    family = FAMILIES.get(str(config.model_type))
    if family is None:
        raise ModelError(f"{folder}: {_unknown_family(str(config.model_type))}", hint=_ELSEWHERE)
    for rule in _RULES:
        reason = rule(family, config)
        if reason is not None:
            raise ModelError(f"{folder}: cannot be written as GGUF ({family.name}): {reason}")
    return family, config


def _unknown_family(name: str) -> str:
    known = ", ".join(FAMILIES)
    if name == "gemma3":
        return "a Gemma 3 with images cannot be written as GGUF, only its text model (gemma3_text)"
    guess = nearest(name, FAMILIES)
    asked = f"; the nearest is {guess!r}" if guess else ""
    return f"family {name!r} is not among those written as GGUF ({known}){asked}"


def _lies(folder: Path, each: Expected, found: dict[str, Stored]) -> Stored:
    there = found.get(each.source)
    if there is None:
        raise ModelError(f"{folder}: the tensor {each.source} is missing", hint=INCOMPLETE)
    if there.dtype not in FLOATING:
        raise ModelError(
            f"{folder}: {each.source} is held as {there.dtype}, not in full precision", hint=_FULL_PRECISION
        )
    if there.shape != each.shape:
        raise ModelError(f"{folder}: {each.source} has the shape {there.shape}, its config asks for {each.shape}")
    return there


def _refuse_unknown(folder: Path, config: Any, found: dict[str, Stored], known: set[str]) -> None:
    """A tensor that would not be written is one that changes the result and is lost."""
    if config.tie_word_embeddings and "lm_head.weight" in found and "lm_head.weight" not in known:
        _refuse_other_head(folder, found)
        known = known | {"lm_head.weight"}
    extra = sorted(name for name in found if name not in known and not name.endswith(_BUFFERS))
    if extra:
        raise ModelError(f"{folder}: {len(extra)} tensors have no place in a GGUF file of its family: {extra[0]}, …")


def _refuse_other_head(folder: Path, found: dict[str, Stored]) -> None:
    """A tied head may be in the file too; then it has to be the embedding."""
    head, table = found["lm_head.weight"], found.get("model.embed_tokens.weight")
    if table is None or table.shape != head.shape or not _equal(head, table):
        raise ModelError(f"{folder}: the config ties the head to the embedding, and lm_head.weight is another one")


def _equal(one: Stored, other: Stored) -> bool:
    rows = 1024
    return all(np.array_equal(a, b) for a, b in zip(one.blocks(rows), other.blocks(rows), strict=True))


def _notes(family: Family, config: Any) -> list[str]:
    window = windows(config)
    if not family.windows and window is not None and window < config.max_position_embeddings:
        return [f"llama.cpp has no sliding window for {family.arch}: the context is one window, {window} tokens"]
    return []


# Each rule gives the reason for which a configuration cannot be written, or None.


def _quantised(family: Family, config: Any) -> str | None:
    held = getattr(config, "quantization_config", None)
    return None if held is None else f"its weights are quantised already; {_FULL_PRECISION}"


def _activation(family: Family, config: Any) -> str | None:
    found = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    wanted = family.activation
    return None if found == wanted else f"its activation is {found!r}, llama.cpp computes {wanted!r}"


def _biases(family: Family, config: Any) -> str | None:
    asked = [name for name in ("attention_bias", "mlp_bias") if getattr(config, name, False)]
    return None if family.optional_bias or not asked else f"llama.cpp knows no {asked[0]} in {family.arch}"


def _two_sided(family: Family, config: Any) -> str | None:
    return "it attends to both sides" if getattr(config, "use_bidirectional_attention", False) else None


def _head(family: Family, config: Any) -> str | None:
    return "llama.cpp ties its head to the embedding" if family.tied and not config.tie_word_embeddings else None


def _caps(family: Family, config: Any) -> str | None:
    for name in ("final_logit_softcapping", "attn_logit_softcapping"):
        value = getattr(config, name, None)
        if family.soft_caps != (value is not None):
            return f"{name} is {value}, and llama.cpp " + ("needs one" if family.soft_caps else "has none there")
    return None


def _attention_scale(family: Family, config: Any) -> str | None:
    scalar = getattr(config, "query_pre_attn_scalar", None)
    size = sizes(config)
    there = size.hidden // size.heads if size.layers == family.wide_layers else size.head
    if scalar is None or family.wide_layers is None or scalar == there:
        return None
    return f"query_pre_attn_scalar is {scalar}, llama.cpp computes with {there}"


def _window_pattern(family: Family, config: Any) -> str | None:
    if not family.windows:
        return None
    slides = [kind == "sliding_attention" for kind in config.layer_types]
    period = window_period(config)
    if slides != [layer % period < period - 1 for layer in range(len(slides))]:
        return "its layers with a sliding window do not come at a fixed distance"
    return None if config.sliding_window else "its sliding window has no size"


_RULES: tuple[Callable[[Family, Any], str | None], ...] = (
    *(_quantised, _activation, _biases, _two_sided, _head, _caps),
    *(_attention_scale, _window_pattern, refused_rope),
)


def window_period(config: Any) -> int:
    """After how many layers one sees everything."""
    kinds = list(config.layer_types)
    return kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1

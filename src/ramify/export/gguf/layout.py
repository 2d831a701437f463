"""What a family's network consists of, under Transformers' names and under llama.cpp's.

Sizes: H hidden, Q heads × head, K key heads × head, F inner (feed-forward), V vocabulary, D one head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# (Transformers, llama.cpp, rows, columns) of the matrices of a layer; a bias has the rows.
_MATRICES = (
    ("self_attn.q_proj", "attn_q", "Q", "H"),
    ("self_attn.k_proj", "attn_k", "K", "H"),
    ("self_attn.v_proj", "attn_v", "K", "H"),
    ("self_attn.o_proj", "attn_output", "H", "Q"),
    ("mlp.gate_proj", "ffn_gate", "F", "H"),
    ("mlp.up_proj", "ffn_up", "F", "H"),
    ("mlp.down_proj", "ffn_down", "H", "F"),
)
_QKV = frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"})
_MLP = frozenset({"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
_ROTATED = {"self_attn.q_proj": "heads", "self_attn.k_proj": "key_heads"}

# (Transformers, llama.cpp, size) of a layer's norms.
TWO_NORMS = (("input_layernorm", "attn_norm", "H"), ("post_attention_layernorm", "ffn_norm", "H"))
FOUR_NORMS = (
    ("input_layernorm", "attn_norm", "H"),
    ("post_attention_layernorm", "post_attention_norm", "H"),
    ("pre_feedforward_layernorm", "ffn_norm", "H"),
    ("post_feedforward_layernorm", "post_ffw_norm", "H"),
)
HEAD_NORMS = (("self_attn.q_norm", "attn_q_norm", "D"), ("self_attn.k_norm", "attn_k_norm", "D"))


@dataclass(frozen=True, slots=True)
class Family:
    """How networks of one `model_type` are written down for llama.cpp.

    Attributes:
        name: Transformers' name (`model_type`).
        arch: llama.cpp's name.
        activation: the only one that llama.cpp computes there.
        norms: those of a layer: (Transformers, llama.cpp, size).
        permuted: whether llama.cpp rotates neighbouring numbers of queries and keys, where Transformers rotates the
            first half of a head with the second: the rows then change places.
        norm_offset: what is added to norm weights: Gemma multiplies by 1 + weight.
        qkv_bias: whether queries, keys and values always have a bias.
        optional_bias: whether the config may ask for biases (`attention_bias`, `mlp_bias`).
        tied: whether the head can only be the embedding.
        ropes: kinds of rotary embedding that llama.cpp computes there.
        windows: whether llama.cpp has layers with a sliding window there.
        soft_caps: whether logits and attention are capped.
        wide_layers: the number of layers at which llama.cpp takes H / heads in place of D for the scale of attention.
    """

    name: str
    arch: str
    activation: str = "silu"
    norms: tuple[tuple[str, str, str], ...] = TWO_NORMS
    permuted: bool = False
    norm_offset: float = 0.0
    qkv_bias: bool = False
    optional_bias: bool = False
    tied: bool = False
    ropes: frozenset[str] = frozenset({"default", "linear", "yarn"})
    windows: bool = False
    soft_caps: bool = False
    wide_layers: int | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a config that decide shapes."""

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head: int
    inner: int
    vocabulary: int

    def of(self, letter: str) -> int:
        """The size that the tables above call by this letter."""
        if letter in "QK":
            return self.head * (self.heads if letter == "Q" else self.key_heads)
        return {"H": self.hidden, "F": self.inner, "V": self.vocabulary, "D": self.head}[letter]


@dataclass(frozen=True, slots=True)
class Expected:
    """A tensor that a network of these sizes has.

    Attributes:
        source: Transformers' name.
        name: llama.cpp's name.
        heads: within how many heads its rows change places; 0: they do not.
        offset: what is added to its values.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    heads: int = 0
    offset: float = 0.0


def sizes(config: Any) -> Sizes:
    """The sizes that a Transformers config states."""
    heads = int(config.num_attention_heads)
    return Sizes(
        hidden=int(config.hidden_size),
        layers=int(config.num_hidden_layers),
        heads=heads,
        key_heads=int(config.num_key_value_heads),
        head=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        inner=int(config.intermediate_size),
        vocabulary=int(config.vocab_size),
    )


def expected(family: Family, config: Any) -> Iterator[Expected]:
    """Every tensor of a network, in the order of the GGUF file."""
    size = sizes(config)
    table = (size.vocabulary, size.hidden)
    yield Expected("model.embed_tokens.weight", "token_embd.weight", table)
    yield Expected("model.norm.weight", "output_norm.weight", (size.hidden,), offset=family.norm_offset)
    if not config.tie_word_embeddings:
        yield Expected("lm_head.weight", "output.weight", table)
    for layer in range(size.layers):
        yield from _layer(family, size, biased(family, config), layer)


def _layer(family: Family, size: Sizes, biases: frozenset[str], layer: int) -> Iterator[Expected]:
    source, name = f"model.layers.{layer}.", f"blk.{layer}."
    for norm, there, letter in family.norms:
        yield Expected(f"{source}{norm}.weight", f"{name}{there}.weight", (size.of(letter),), offset=family.norm_offset)
    for matrix, there, rows, columns in _MATRICES:
        heads = rotated(family, size, matrix)
        shape = (size.of(rows), size.of(columns))
        yield Expected(f"{source}{matrix}.weight", f"{name}{there}.weight", shape, heads)
        if matrix in biases:
            yield Expected(f"{source}{matrix}.bias", f"{name}{there}.bias", shape[:1], heads)


def rotated(family: Family, size: Sizes, matrix: str) -> int:
    """Within how many heads the rows of a layer's matrix change places; 0: they do not."""
    number = _ROTATED.get(matrix)
    return 0 if number is None or not family.permuted else int(getattr(size, number))


def biased(family: Family, config: Any) -> frozenset[str]:
    """Matrices of a layer that have a bias."""
    if family.qkv_bias:
        return _QKV
    found: frozenset[str] = frozenset()
    if getattr(config, "attention_bias", False):
        found |= _QKV | {"self_attn.o_proj"}
    if getattr(config, "mlp_bias", False):
        found |= _MLP
    return found


def windows(config: Any) -> int | None:
    """The sliding window in tokens, when any layer has one."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not window or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window)

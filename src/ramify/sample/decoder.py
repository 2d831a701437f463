"""The forward of plain decoder families in few and large operations: what a decode step costs besides its products.

A copy of the weights is made for one sampling run: query, key and value (gate and up) projections stacked into one
product each, adapters added in (in fp32 only, where that costs no accuracy), and the halves of each query and key
head interleaved, so that the rotary embedding is one complex product (the order of a head's components is free as
long as queries and keys agree). Networks this does not fit are computed by their own forward.

Shapes: T rows, W width, F feed-forward width, H key-value heads, G queries per key-value head, D head size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.sample.attention import Pass, Scoring
from ramify.sample.weights import SPARE, free_memory

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})
"""Families (`config.model_type`) whose layers are computed here."""


@dataclass(frozen=True, slots=True)
class Product:
    """x -> x @ weight.T + bias, weight [out, in]."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] -> [T, out]."""
        return F.linear(x, self.weight, self.bias)

    def added_to(self, x: Tensor, y: Tensor) -> Tensor:
        """x + self(y), in one pass when there is no bias."""
        return torch.addmm(x, y, self.weight.t()) if self.bias is None else x + self(y)


@dataclass(frozen=True, slots=True)
class Norm:
    """Root mean square norm (Zhang & Sennrich 2019, arXiv 1910.07467), computed in fp32 like Transformers does."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Over the last dimension."""
        wide = x.float()
        size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = size.square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()
        normed: Tensor = (wide * scale).to(x.dtype) * self.weight
        return normed


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer: products, norms, and how its attention scores."""

    before_attention: Norm
    projections: Product
    head_norms: tuple[Norm, Norm] | None
    rotary: bool
    scoring: Scoring
    out: Product
    before_feed_forward: Norm
    gate_and_up: Product
    down: Product


class Decoder:
    """Computes what `network(...).logits` would be; made by `decoder_of`."""

    def __init__(self, body: Any, head: Any, layers: list[Layer]) -> None:
        config = body.config
        self._embed, self._rotary, self._head = body.embed_tokens, body.rotary_emb, head
        self._norm = Norm(body.norm.weight, body.norm.variance_epsilon)
        self._layers = layers
        self._size = int(body.layers[0].self_attn.head_dim)
        self._queries, self._keys = int(config.num_attention_heads), int(config.num_key_value_heads)

    def __call__(self, current: Pass, ids: Tensor, position: Tensor, rows: Tensor | None = None) -> Tensor:
        """See `Forward`."""
        x: Tensor = self._embed(ids)
        cos, sin = self._rotary(x[None], position[None])
        half = self._size // 2
        turn = torch.complex(cos[0, :, None, :half].float(), sin[0, :, None, :half].float())
        for index, layer in enumerate(self._layers):
            x = self._attended(index, layer, x, turn, current)
            gate, up = layer.gate_and_up(layer.before_feed_forward(x)).chunk(2, dim=-1)
            x = layer.down.added_to(x, F.silu(gate).mul_(up))
        logits: Tensor = self._head(self._norm(x if rows is None else x[rows]))
        return logits

    def _attended(self, index: int, layer: Layer, x: Tensor, turn: Tensor, current: Pass) -> Tensor:
        """x + attention(x)."""
        tokens, turned = len(x), self._queries + self._keys
        states = layer.projections(layer.before_attention(x)).view(tokens, turned + self._keys, self._size)
        front, value = states[:, :turned], states[:, turned:]
        if layer.head_norms is not None:
            query_norm, key_norm = layer.head_norms
            front = torch.cat([query_norm(front[:, : self._queries]), key_norm(front[:, self._queries :])], dim=1)
        if layer.rotary:
            pairs = torch.view_as_complex(front.float().view(tokens, turned, -1, 2))
            front = torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
        query = front[:, : self._queries].reshape(tokens, self._keys, -1, self._size)
        out = current.attend(index, query, front[:, self._queries :], value, layer.scoring)
        return layer.out.added_to(x, out.reshape(tokens, -1))


def decoder_of(network: Any) -> Decoder | None:
    """The fast forward of a network as it is now, or None when something about it is not plain."""
    causal: Any = network.get_base_model() if isinstance(network, PeftModel) else network
    config = causal.config
    if config.model_type not in FAMILIES or config.hidden_act not in ("silu", "swish"):
        return None
    body, head = causal.model, causal.lm_head
    size = body.layers[0].self_attn.head_dim
    if type(head) is not nn.Linear or type(body.embed_tokens) is not nn.Embedding or size % 2:
        return None
    if body.rotary_emb.inv_freq.shape[-1] * 2 != size:
        return None
    if sum(weight.numel() * weight.element_size() for weight in body.layers.parameters()) > SPARE * free_memory():
        return None
    layers = [_layer(layer, config) for layer in body.layers]
    found = [layer for layer in layers if layer is not None]
    return Decoder(body, head, found) if len(found) == len(layers) else None


def _layer(layer: Any, config: Any) -> Layer | None:
    attention, feed_forward = layer.self_attn, layer.mlp
    size, rotary = int(attention.head_dim), bool(getattr(attention, "use_rope", True))
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    parts = [_plain(getattr(attention, name)) for name in names]
    parts += [_plain(getattr(feed_forward, name)) for name in ("gate_proj", "up_proj", "down_proj")]
    plain = [part for part in parts if part is not None]
    if len(plain) < len(parts):
        return None
    query, key, value, out, gate, up, down = plain
    if rotary:
        query, key = (_interleaved(part, size) for part in (query, key))
    norms = [
        Norm(each.weight, each.variance_epsilon) for each in (layer.input_layernorm, layer.post_attention_layernorm)
    ]
    return Layer(
        before_attention=norms[0],
        projections=_stacked((query, key, value)),
        head_norms=_head_norms(attention, size, rotary),
        rotary=rotary,
        scoring=Scoring(attention.scaling, None, _window(attention, config), None),
        out=out,
        before_feed_forward=norms[1],
        gate_and_up=_stacked((gate, up)),
        down=down,
    )


def _window(attention: Any, config: Any) -> int | None:
    """Llama has no windows, Mistral one for all layers, the others say it layer by layer."""
    owner = config if config.model_type == "mistral" else attention
    window = None if config.model_type == "llama" else getattr(owner, "sliding_window", None)
    return None if window is None else int(window)


def _plain(module: Any) -> Product | None:
    """Weight and bias of a linear layer, its adapter added in; None when that is not exact."""
    if type(module) is nn.Linear:
        return Product(module.weight, module.bias)
    if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear:
        return None
    base = module.base_layer
    active = (
        [] if module.disable_adapters or module.merged else [a for a in module.active_adapters if a in module.lora_A]
    )
    if not active:
        return None if module.disable_adapters and module.merged else Product(base.weight, base.bias)
    if base.weight.dtype != torch.float32 or any(a in module.lora_variant or module.lora_bias[a] for a in active):
        return None
    weight = base.weight.detach().clone()
    for adapter in active:
        weight += module.get_delta_weight(adapter).to(weight.dtype)
    return Product(weight, base.bias)


def _interleaved(part: Product, size: int) -> Product:
    """Rows i and i + D/2 of each head side by side."""
    bias = None if part.bias is None else _pairs(part.bias, size)
    return Product(_pairs(part.weight, size), bias)


def _pairs(rows: Tensor, size: int) -> Tensor:
    return rows.view(-1, 2, size // 2, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def _head_norms(attention: Any, size: int, rotary: bool) -> tuple[Norm, Norm] | None:
    """Norms of query and key heads (Qwen 3)."""
    if not hasattr(attention, "q_norm"):
        return None
    query, key = (
        Norm(_pairs(norm.weight, size) if rotary else norm.weight, norm.variance_epsilon)
        for norm in (attention.q_norm, attention.k_norm)
    )
    return query, key


def _stacked(parts: Iterable[Product]) -> Product:
    """Products of the same input as one."""
    products = tuple(parts)
    weight = torch.cat([part.weight for part in products])
    if all(part.bias is None for part in products):
        return Product(weight, None)
    biases = [weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in products]
    return Product(weight, torch.cat(biases))

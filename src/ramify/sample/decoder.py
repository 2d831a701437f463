"""The forward of plain decoder families in few and large operations: what a decode step costs besides its products.

A copy of the weights is made for one sampling run, or for as long as a service is open: query, key and value (gate and
up) projections stacked into one product each, and the halves of each query and key head interleaved, so that the rotary
embedding is one complex product (the order of a head's components is free as long as queries and keys agree). An
adapter is added to weights in fp32, where that costs no accuracy. Smaller types would round it away; there it widens
the product, [x, x Aᵀ] [W, s B]ᵀ, whose sum is rounded once. It does so too where the base is wanted beside it: the base
then reads the same weights, less the last rows. Networks this does not fit are computed by their own forward.

Shapes: T rows, W width, F feed-forward width, H key-value heads, G queries per key-value head, D head size, R ranks
of the adapters of a product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F

from ramify.model.fused.linears import Linear
from ramify.sample.attention import Pass, Scoring
from ramify.sample.weights import SPARE, free_memory

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})
"""Families (`config.model_type`) whose layers are computed here."""


_GAP = 16
"""Columns between the rows of fp32 weights: at distances of a power of two they would share places in the cache."""


@dataclass(frozen=True, slots=True)
class Product:
    """x -> [x, x @ down] @ weight + bias.

    Attributes:
        weight: [in + R, out]; the last rows are the adapters'.
        bias: [out], or None.
        down: [in, R], or None without adapters.
    """

    weight: Tensor
    bias: Tensor | None
    down: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[T, in] -> [T, out]."""
        x = self._widened(x)
        return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def without_adapters(self) -> Product:
        """The same weights, less the adapters' rows."""
        return self if self.down is None else Product(self.weight[: len(self.weight) - self.down.shape[1]], self.bias)

    def added_to(self, x: Tensor, y: Tensor) -> Tensor:
        """x + self(y), in one pass when there is no bias."""
        return torch.addmm(x, self._widened(y), self.weight) if self.bias is None else x + self(y)

    def _widened(self, x: Tensor) -> Tensor:
        return x if self.down is None else torch.cat([x, x @ self.down], dim=-1)


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

    def without_adapters(self) -> Layer:
        """The same weights, less the adapters'."""
        products = {name: getattr(self, name) for name in ("projections", "out", "gate_and_up", "down")}
        return replace(self, **{name: each.without_adapters() for name, each in products.items()})


class Decoder:
    """Computes what `network(...).logits` would be; made by `decoder_of`."""

    def __init__(self, body: Any, head: Any, layers: list[Layer]) -> None:
        config = body.config
        self._body = body
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

    def without_adapters(self) -> Decoder:
        """The base model on the same weights; what adapters were merged into stays as it is."""
        return Decoder(self._body, self._head, [layer.without_adapters() for layer in self._layers])

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


def decoder_of(network: Any, *, merge: bool = True) -> Decoder | None:
    """The fast forward of a network as it is now, or None when something about it is not plain.

    Args:
        network: the network, ready to sample.
        merge: whether an adapter may be added to the weights; if not, the decoder has one without adapters in it.
    """
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
    layers = [_layer(layer, config, merge) for layer in body.layers]
    found = [layer for layer in layers if layer is not None]
    return Decoder(body, head, found) if len(found) == len(layers) else None


def _layer(layer: Any, config: Any, merge: bool) -> Layer | None:
    attention, feed_forward = layer.self_attn, layer.mlp
    size, rotary = int(attention.head_dim), bool(getattr(attention, "use_rope", True))
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    parts = [_plain(getattr(attention, name), merge) for name in names]
    parts += [_plain(getattr(feed_forward, name), merge) for name in ("gate_proj", "up_proj", "down_proj")]
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
        projections=_product(query, key, value),
        head_norms=_head_norms(attention, size, rotary),
        rotary=rotary,
        scoring=Scoring(attention.scaling, None, _window(attention, config), None),
        out=_product(out),
        before_feed_forward=norms[1],
        gate_and_up=_product(gate, up),
        down=_product(down),
    )


def _window(attention: Any, config: Any) -> int | None:
    """Llama has no windows, Mistral one for all layers, the others say it layer by layer."""
    owner = config if config.model_type == "mistral" else attention
    window = None if config.model_type == "llama" else getattr(owner, "sliding_window", None)
    return None if window is None else int(window)


def _plain(module: Any, merge: bool) -> Linear | None:
    """A linear layer with its adapters added in (where that is allowed and exact) or beside it; None when not plain."""
    if type(module) is nn.Linear:
        return Linear(module.weight, module.bias)
    if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear:
        return None
    base = module.base_layer
    active = (
        [] if module.disable_adapters or module.merged else [a for a in module.active_adapters if a in module.lora_A]
    )
    if not active:
        return None if module.disable_adapters and module.merged else Linear(base.weight, base.bias)
    if any(a in module.lora_variant or module.lora_bias[a] for a in active):
        return None
    kind = base.weight.dtype
    if kind != torch.float32 or not merge:
        adapters: list[Any] = [(module.lora_A[a], module.lora_B[a], module.scaling[a]) for a in active]
        downs, ups = [down.weight for down, _, _ in adapters], [up.weight * scale for _, up, scale in adapters]
        return Linear(base.weight, base.bias, torch.cat(downs).to(kind), torch.cat(ups, dim=1).to(kind))
    weight = base.weight.detach().clone()
    for adapter in active:
        weight += module.get_delta_weight(adapter).to(kind)
    return Linear(weight, base.bias)


def _interleaved(part: Linear, size: int) -> Linear:
    """Rows i and i + D/2 of each head side by side."""
    bias, up = (None if each is None else _pairs(each, size) for each in (part.bias, part.up))
    return Linear(_pairs(part.weight, size), bias, part.down, up)


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


def _product(*parts: Linear) -> Product:
    """Linear layers of the same input as one; the adapters' blocks lie on the diagonal."""
    weight = parts[0].weight if len(parts) == 1 else torch.cat([part.weight for part in parts])
    bias = None
    if any(part.bias is not None for part in parts):
        bias = torch.cat([weight.new_zeros(len(p.weight)) if p.bias is None else p.bias for p in parts])
    downs = [part.down for part in parts if part.down is not None]
    if not downs:
        return Product(_laid_out(weight), bias)
    ups = [weight.new_empty(len(part.weight), 0) if part.up is None else part.up for part in parts]
    diagonal: Callable[..., Tensor] = torch.block_diag  # untyped in torch
    return Product(_laid_out(torch.cat([weight, diagonal(*ups)], dim=1)), bias, torch.cat(downs).t())


def _laid_out(weight: Tensor) -> Tensor:
    """[in, out]; in fp32 on a CPU a copy in this order, which makes products of few rows up to twice as fast."""
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        return weight.t()
    rows, columns = weight.shape[1], weight.shape[0]
    return weight.new_empty(rows, columns + _GAP)[:, :columns].copy_(weight.t())

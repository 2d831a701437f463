"""Which models get hand-written layers, and how they are put in and taken out.

A fused layer reads the modules it stands for each time it runs: an adapter that is switched, merged or disabled, or a
weight that is replaced, is seen at once. What it does not compute (dropout, DoRA, several adapters at a time, quantised
weights) it leaves to the layer itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ramify.model.fused.elementwise import Rotary
from ramify.model.fused.functions import Settings, feed_forward, project, put_out
from ramify.model.fused.linears import Linear
from ramify.model.rates import product_dtype

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3"})
"""Families (`config.model_type`) whose layers are written by hand here."""
_ACTIVATIONS = ("silu", "swish")
_QKV = ("q_proj", "k_proj", "v_proj")
_OUTPUT = ("o_proj",)
_FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def fuse(network: nn.Module) -> bool:
    """Swap hand-written layers in; the numbers stay the same.

    Returns:
        False, with nothing changed, when the family is not in `FAMILIES`.
    """
    config: Any = network.config
    if config.model_type not in FAMILIES or config.hidden_act not in _ACTIVATIONS:
        return False
    layers = _layers(network)
    for layer in layers:
        layer.forward = FusedLayer(
            layer, is_last=layer is layers[-1]
        )  # an attribute of the instance hides the class's method
    return True


def unfuse(network: nn.Module) -> None:
    """Take the hand-written layers out again; nothing happens when there are none."""
    for layer in _layers(network):
        if isinstance(layer.__dict__.get("forward"), FusedLayer):
            del layer.forward


def is_fused(network: nn.Module) -> bool:
    """Whether hand-written layers are in."""
    return any(isinstance(layer.__dict__.get("forward"), FusedLayer) for layer in _layers(network))


def _layers(network: nn.Module) -> list[nn.Module]:
    body: Any = network.get_base_model() if isinstance(network, PeftModel) else network
    return list(getattr(body.base_model, "layers", ()))


class FusedLayer:
    """Stands in for the `forward` of one decoder layer."""

    def __init__(self, layer: Any, *, is_last: bool) -> None:
        self.layer = layer
        self.is_last = is_last

    def __call__(self, hidden_states: Tensor, **keywords: Any) -> Tensor:
        """Hidden states [B, T, H] to hidden states; keywords as Transformers gives them to its layers."""
        layer = self.layer
        parts = _read(layer)
        if parts is None or keywords.get("output_attentions"):
            own = hidden_states.to(layer.input_layernorm.weight.dtype)
            plain: Tensor = type(layer).forward(layer, own, **keywords)
            return plain
        if layer.gradient_checkpointing and layer.training:
            keywords.update(use_cache=False, past_key_values=None)
            again: Tensor = layer._gradient_checkpointing_func(partial(self._forward, parts, **keywords), hidden_states)
            return again
        return self._forward(parts, hidden_states, **keywords)

    def _forward(
        self,
        parts: _Parts,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **keywords: Any,
    ) -> Tensor:
        layer, attention = self.layer, self.layer.self_attn
        stored, kind = parts["q_proj"].weight.dtype, product_dtype(parts["q_proj"].weight)
        rows, width = hidden_states.shape[:-1], hidden_states.shape[-1]

        def settings(names: tuple[str, ...], **more: Any) -> Settings:
            return Settings(kind, stored, torch.is_grad_enabled(), tuple(parts[name].scale for name in names), **more)

        rotary = _rotary(position_embeddings, rows, kind) if getattr(attention, "use_rope", True) else None
        # Tree attention computes in fp32 from any type; a cache holds the network's type.
        seen = stored if past_key_values is not None or "tree_layout" in keywords else kind
        norm = layer.input_layernorm
        query, key, value, residual = project(
            hidden_states.reshape(-1, width).to(kind),
            norm.weight,
            *_head_norms(attention),
            settings(_QKV, eps=norm.variance_epsilon, head_dim=attention.head_dim, rotary=rotary, attention=seen),
            *_tensors(parts, _QKV),
        )
        query, key, value = (each.view(*rows, *each.shape[1:]).transpose(1, 2) for each in (query, key, value))
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, attention.layer_idx)
        attended = _attend(attention, (query, key, value), attention_mask, keywords).reshape(residual.shape[0], -1)
        x = put_out(attended, residual, settings(_OUTPUT), *_tensors(parts, _OUTPUT))
        norm = layer.post_attention_layernorm
        x = feed_forward(
            x, norm.weight, settings(_FEED_FORWARD, eps=norm.variance_epsilon), *_tensors(parts, _FEED_FORWARD)
        )
        out: Tensor = x.view(*rows, width)
        return out.to(stored) if self.is_last else out


_Parts = dict[str, Linear]


def _read(layer: Any) -> _Parts | None:
    """The linear layers and adapters of a decoder layer as they are now; None when one of them is not covered."""
    found: _Parts = {}
    for parent, names in ((layer.self_attn, _QKV + _OUTPUT), (layer.mlp, _FEED_FORWARD)):
        for name in names:
            linear = _read_linear(getattr(parent, name))
            if linear is None:
                return None
            found[name] = linear
    weights = [linear.weight for linear in found.values()]
    alike = all(weight.dtype == weights[0].dtype and weight.is_floating_point() for weight in weights)
    return found if alike else None


def _read_linear(module: Any) -> Linear | None:
    if type(module) is nn.Linear:
        return Linear(module.weight, module.bias)
    if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear:
        return None
    base = Linear(module.base_layer.weight, module.base_layer.bias)
    if module.disable_adapters:
        return None if module.merged else base
    active = [name for name in module.active_adapters if name in module.lora_A]
    if module.merged or not active:
        return base
    (name, *others) = active
    if others or name in module.lora_variant or module.lora_bias[name] or module.fan_in_fan_out:
        return None
    dropout = module.lora_dropout[name]
    if isinstance(dropout, nn.Dropout) and dropout.p > 0 and dropout.training:
        return None
    adapter: Any = (module.lora_A[name], module.lora_B[name])
    return Linear(base.weight, base.bias, adapter[0].weight, adapter[1].weight, float(module.scaling[name]))


def _tensors(parts: _Parts, names: tuple[str, ...]) -> list[Tensor | None]:
    return [tensor for name in names for tensor in parts[name].tensors]


def _head_norms(attention: Any) -> tuple[Tensor | None, Tensor | None]:
    if not hasattr(attention, "q_norm"):
        return None, None
    return attention.q_norm.weight, attention.k_norm.weight


def _rotary(embeddings: tuple[Tensor, Tensor] | None, rows: torch.Size, kind: torch.dtype) -> Rotary:
    assert embeddings is not None
    cos, sin = (each.expand(*rows, -1).reshape(-1, 1, each.shape[-1]).to(kind) for each in embeddings)
    return Rotary(cos, sin)


def _attend(attention: Any, states: tuple[Tensor, ...], mask: Tensor | None, keywords: dict[str, Any]) -> Tensor:
    """The registered attention on query, key, value [B, heads, T, D]; [B, T, heads, D]."""
    config = attention.config
    eager = sys.modules[type(attention).__module__].eager_attention_forward
    function: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)
    window = config.sliding_window if config.model_type == "mistral" else getattr(attention, "sliding_window", None)
    if config.model_type != "llama":
        keywords = {**keywords, "sliding_window": window}
    dropout = attention.attention_dropout if attention.training else 0.0
    result: Tensor = function(attention, *states, mask, dropout=dropout, scaling=attention.scaling, **keywords)[0]
    return result

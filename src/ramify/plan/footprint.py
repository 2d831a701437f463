"""Bytes that a training cannot do without, from the shape of its model alone: no weight is read.

Weights in the type they are held in; for every trained number an fp32 gradient, AdamW's two moments (Loshchilov &
Hutter 2019, arXiv 1711.05101) and, where it is not fp32 itself, an fp32 master and the gradient it is summed from.
Activations come on top: a plan measures them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from ramify.base.config import LoRA, RunConfig
from ramify.model.failures import one_line, quiet
from ramify.model.load import choose_device
from ramify.model.lora import adapter_targets, linear_layers
from ramify.model.rates import fastest_dtype
from ramify.model.source import Source, resolve
from ramify.train.losses import REFERENCE_FREE

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_STATE = 4 + 8
"""Bytes of gradient and moments for each trained number."""
_NF4 = 0.52
"""Bytes of a weight in 4 bits, with the scales of its block."""
_SPARE = 16 << 20
"""Bytes of disk beside checkpoints: tokenizer, metrics, pages."""


@dataclass(frozen=True)
class Footprint:
    """What a run takes at least.

    Attributes:
        parameters: numbers in the model, without an adapter.
        trained: numbers that are trained.
        on_cuda: whether they are to lie on a GPU of NVIDIA.
        dtype: of the frozen weights: fp32, bf16, fp16 or nf4.
        weights: bytes of all weights.
        state: bytes of gradients, moments and masters.
        checkpoint: bytes of one checkpoint.
        disk: bytes of all that lies in the run folder at once.
    """

    parameters: int
    trained: int
    on_cuda: bool
    dtype: str
    weights: int
    state: int
    checkpoint: int
    disk: int

    @property
    def memory(self) -> int:
        """Bytes of weights and optimizer state."""
        return self.weights + self.state


def footprint(config: RunConfig) -> Footprint:
    """What a run with these settings takes at least.

    Raises:
        ModelError: the model is not known, or has not the layers that the adapter is to go on.
    """
    source = resolve(config.model, config.adapter)
    with one_line(config.model), quiet(), torch.device("meta"):
        settings = AutoConfig.from_pretrained(
            source.location, revision=config.revision or source.revision, trust_remote_code=False
        )
        auto: Any = AutoModelForCausalLM  # declared as if it returned the model alone
        network = auto.from_config(settings)
    parameters = sum(each.numel() for each in network.parameters())
    dtype = _dtype(config)
    size = 4 if dtype == "fp32" else 2
    stored = getattr(settings, "quantization_config", None) is not None
    weights = _in_nf4(network, parameters) if stored or dtype == "nf4" else size * parameters
    if config.lora is None:
        trained, kept, copied = parameters, size, dtype != "fp32"
    else:
        trained, kept, copied = _adapter(source, network, config.lora), 4, False
        weights += kept * trained
    state = (_STATE + (4 + size if copied else 0)) * trained
    checkpoint = (kept + 8 + (4 if copied else 0)) * trained
    return Footprint(
        parameters=parameters,
        trained=trained,
        on_cuda=choose_device(config.train.device).type == "cuda",
        dtype=dtype,
        weights=weights,
        state=state,
        checkpoint=checkpoint,
        disk=checkpoint * _copies(config) + kept * trained + _SPARE,
    )


def uses_reference(config: RunConfig) -> bool:
    """Whether log-probabilities of a reference are computed before the first step."""
    return config.method == "dpo" and config.dpo.loss not in REFERENCE_FREE


def _dtype(config: RunConfig) -> str:
    if config.train.quantize is not None:
        return config.train.quantize
    if config.train.dtype != "auto":
        return config.train.dtype
    kind = fastest_dtype(choose_device(config.train.device))
    return next(name for name, each in _DTYPES.items() if each == kind)


def _in_nf4(network: Any, parameters: int) -> int:
    """Linear layers in 4 bits, all else in bf16."""
    names = linear_layers(network)
    linear = sum(
        module.weight.numel()
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and path.rsplit(".", 1)[-1] in names
    )
    return round(_NF4 * linear) + 2 * (parameters - linear)


def _adapter(source: Source, network: Any, lora: LoRA) -> int:
    """Numbers of the adapter that is trained on, or of the one that will be put on."""
    if source.adapter is not None:
        with safe_open(str(source.adapter / "adapter_model.safetensors"), framework="pt") as file:
            return sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in sorted(file.keys()))
    alpha: Any = lora.alpha  # PEFT scales by any number, but declares whole ones
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=alpha,
        target_modules=adapter_targets(network, lora),
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    with torch.device("meta"):
        adapted = get_peft_model(network, settings, low_cpu_mem_usage=True)
    return sum(each.numel() for each in adapted.parameters() if each.requires_grad)


def _copies(config: RunConfig) -> int:
    """Checkpoints that lie in the folder at once: those kept, the best one, and the one being written."""
    has_best = config.train.load_best and (config.data.valid is not None or config.data.valid_split is not None)
    return config.train.keep + 1 + has_best

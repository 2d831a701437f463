"""Frozen weights in 4 bits: NF4, doubly quantised (Dettmers et al. 2023, QLoRA, arXiv 2305.14314, section 3).

The weights of the linear layers are held in 4 bits by bitsandbytes and turned into bf16 right before each product;
embeddings, norms and the head stay bf16. Such weights are never trained: an adapter on top of them is.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from ramify.base.errors import ModelError

NF4 = "nf4"
"""What `load_model` is given as `dtype`."""
COMPUTE = torch.bfloat16
"""Type of the products, and of what is not quantised."""
_PACKAGE = "bitsandbytes"


def nf4_settings(device: torch.device) -> dict[str, Any]:
    """What Transformers is given to load a model in NF4 onto this device.

    Raises:
        ModelError: bitsandbytes is missing, cannot be used here, or does not know the device.
    """
    if find_spec(_PACKAGE) is None:
        raise ModelError(
            "4-bit weights (nf4) need bitsandbytes, which is not installed",
            hint="pip install 'ramify[quant]', or leave train.quantize out",
        )
    try:
        package: Any = importlib.import_module(_PACKAGE)
    except (ImportError, OSError, RuntimeError) as error:  # a library of CUDA that is not there, and the like
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"bitsandbytes is installed, but cannot be used: {reason[0][:200] if reason else type(error).__name__}",
            hint="leave train.quantize out",
        ) from error
    known = {str(each).split(":")[0] for each in getattr(package, "supported_torch_devices", ("cuda",))}
    if device.type not in known:
        raise ModelError(
            f"4-bit weights (nf4): this bitsandbytes cannot compute on {device.type} (it can on: "
            f"{', '.join(sorted(known))})",
            hint="train.device names another device; without train.quantize any device will do",
        )
    declared: Any = BitsAndBytesConfig  # without types
    settings = declared(
        load_in_4bit=True,
        bnb_4bit_quant_type=NF4,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=COMPUTE,
    )
    return {"quantization_config": settings, "device_map": {"": device}}


def is_quantised(network: Any) -> bool:
    """Whether weights of a Transformers or PEFT model are held in 4 bits."""
    return bool(getattr(network, "is_loaded_in_4bit", False))

"""Models by hub id, local folder, run, adapter folder, or `nano`: one function, one line for each way it fails.

Weights are read from safetensors only (no pickle), remote code is never run.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ramify.base.errors import ModelError
from ramify.model.embeddings import fit_embeddings
from ramify.model.failures import INCOMPLETE, one_line, quiet
from ramify.model.families import check_family, longest
from ramify.model.outline import ADAPTER_WEIGHTS, Outline, load_tokenizer, read_config, stop_ids, tensors
from ramify.model.quantize import COMPUTE, NF4, nf4_settings
from ramify.model.rates import fastest_dtype
from ramify.model.source import at_revision, resolve

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, NF4: COMPUTE}


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer, ready to sample, score and train.

    Attributes:
        network: the Transformers model, or the PEFT model around it.
        name: as the user wrote it; what samples are labelled with.
        base: what the weights under an adapter came from: a hub id, a folder, or `nano`.
        stop_ids: tokens that end a completion, from the tokenizer and the generation config.
        adapter: the adapter that was put on top of `name`, as the user wrote it, or None.
        revision: of `base`, when it is not the default one.
    """

    network: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    base: str
    stop_ids: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    adapter: str | None = None
    revision: str | None = None

    @property
    def policy(self) -> str:
        """What a sample of this model is labelled with."""
        return self.name if self.adapter is None else f"{self.name}+{self.adapter}"

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens that the model was built for."""
        return longest(self.network.config)

    @property
    def outline(self) -> Outline:
        """What is left of it without its weights."""
        return Outline(self.tokenizer, self.max_length, self.stop_ids)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base model inside the block; nothing changes when there is no adapter."""
        if isinstance(self.network, PeftModel):
            with self.network.disable_adapter():
                yield
        else:
            yield


def load_model(
    name: str,
    *,
    adapter: str | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    trainable: bool = False,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        name: `nano`, a hub id, a local model folder, an adapter folder, or a run folder.
        adapter: an adapter folder or a run to put on top of it.
        revision: of a hub model; None: the one that the adapter was made on, else the default one.
        dtype: fp32, bf16, fp16, auto (whichever multiplies fastest here, by measurement), or nf4 (frozen weights in 4
            bits, all else in bf16).
        device: cpu, cuda, cuda:N, mps, or auto.
        trainable: whether a loaded adapter will be trained on.

    Raises:
        ModelError: one line for each way it can fail: unknown name, no network, gated, half-downloaded, weights that
            are missing, a family that cannot be computed as a tree, 4-bit weights where they cannot be had.
    """
    source = at_revision(resolve(name, adapter), revision)
    where = choose_device(device)
    kind = _DTYPES[dtype] if dtype != "auto" else fastest_dtype(where)
    quantised = nf4_settings(where) if dtype == NF4 else {}
    with one_line(name), quiet():
        config = read_config(source)
        check_family(config)
        _no_attention_dropout(config)
        tokenizer = load_tokenizer(source)
        auto: Any = AutoModelForCausalLM  # declared as if it returned the model alone
        network, loading = auto.from_pretrained(
            source.location,
            config=config,
            revision=source.revision,
            trust_remote_code=False,
            dtype=kind,
            use_safetensors=True,
            output_loading_info=True,
            **quantised,
        )
    _refuse_missing(name, loading["missing_keys"])
    fit_embeddings(network, len(tokenizer))
    if source.adapter is not None:
        network = _with_adapter(network, source.adapter, trainable)
    network = network.to(where).eval()
    return LoadedModel(
        network=network,
        tokenizer=tokenizer,
        name=name,
        base=source.base,
        stop_ids=stop_ids(network.generation_config, tokenizer),
        device=where,
        dtype=kind,
        adapter=adapter,
        revision=source.revision,
    )


def _with_adapter(network: Any, folder: Path, trainable: bool) -> PeftModel:
    """The network with the adapter of that folder, every weight of it read from the file."""
    with one_line(str(folder)), quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # refused below
        saved = tensors(folder / ADAPTER_WEIGHTS)
        adapted = PeftModel.from_pretrained(network, str(folder), is_trainable=trainable)
    needed = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    _refuse_missing(str(folder), needed.keys() - saved)
    return adapted


def _refuse_missing(name: str, missing: Collection[str]) -> None:
    """Transformers and PEFT would go on with random weights.

    Raises:
        ModelError: a weight of the model is in none of its files.
    """
    if missing:
        raise ModelError(f"model {name}: {len(missing)} weights are missing (first: {min(missing)})", hint=INCOMPLETE)


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ModelError: the name is not a device, or the device is not there.
    """
    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(f"unknown device {name!r} (allowed: auto, cpu, cuda, cuda:N, mps)") from None
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise ModelError(f"device {name!r} is not available on this machine", hint="device=auto takes what is there")
    return device


def _no_attention_dropout(config: Any) -> None:
    """What is computed once for many sequences cannot be dropped differently for each: older families train with 0."""
    for name in ("attention_dropout", "attn_pdrop"):
        if getattr(config, name, 0):
            setattr(config, name, 0.0)

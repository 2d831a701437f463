"""Adapters: put on, told what is trained, saved in PEFT's layout, merged.

Also what a chat template needs of a base model without one: its special tokens are added, their embedding rows are
trained with the adapter, and tokenizer and stop tokens travel with everything that is saved.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from ramify.base.config import LoRA, Prompting
from ramify.base.errors import ModelError, RunError, unknown
from ramify.model.embeddings import grow_embeddings
from ramify.model.failures import quiet
from ramify.model.load import LoadedModel
from ramify.model.logprobs import base_network
from ramify.model.quantize import is_quantised
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import extend_tokenizer, find_template

SHARD_BYTES = 5_000_000_000
"""Weights of a full model are saved in files of at most this size."""
_WRAPPED = re.compile(r"base_layer|lora_|original_module|modules_to_save|token_adapter")
"""In the paths of what PEFT puts around a layer, and into it."""


def linear_layers(network: Any) -> dict[str, int]:
    """Names (last part) of the linear layers an adapter can go on, with how many there are; the head is left out."""
    head = network.get_output_embeddings() if hasattr(network, "get_output_embeddings") else None
    names: dict[str, int] = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            leaf = path.rsplit(".", 1)[-1]
            names[leaf] = names.get(leaf, 0) + 1
    return names


def add_adapter(loaded: LoadedModel, lora: LoRA, *, seed: int, train_tokens: Iterable[int] = ()) -> LoadedModel:
    """Put a fresh adapter on a model; its output is unchanged until it is trained (B starts at 0).

    Args:
        lora: rank, scale, targets, variants. Adapter weights are kept in fp32.
        seed: of the adapter's initial A matrices.
        train_tokens: ids of added special tokens, whose embedding rows are trained too (in the input embedding, and
            in the head: the same rows when tied).

    Raises:
        ModelError: a target that the model does not have (lists those it has), or an adapter is there already.
    """
    if isinstance(loaded.network, PeftModel):
        raise ModelError(f"{loaded.name} has an adapter already", hint="train on with adapter=…, or merge it first")
    targets = adapter_targets(loaded.network, lora)
    alpha: Any = lora.alpha  # PEFT scales by any number, but declares whole ones
    config = LoraConfig(
        r=lora.r,
        lora_alpha=alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
        fan_in_fan_out=_is_transposed(loaded.network, targets),
        revision=loaded.revision,
        **_token_rows(loaded.network, tuple(train_tokens)),
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(fan_in_fan_out|tie_word_embeddings|tied).*")
        torch.manual_seed(seed)
        network = get_peft_model(loaded.network, config)
    config.base_model_name_or_path = loaded.base  # PEFT puts the folder that the weights were read from there
    return replace(loaded, network=network)


def adapter_targets(network: Any, lora: LoRA) -> list[str]:
    """Names (last part) of the layers that an adapter with these settings goes on.

    Raises:
        ModelError: the model does not have one of them; lists those it has.
    """
    has = linear_layers(network)
    targets = sorted(has) if lora.targets == "all-linear" else list(lora.targets)
    for target in targets:
        if target not in has:
            raise ModelError(f"lora.targets: {unknown('layer', target, has)}")
    return targets


def unused_settings(network: PeftModel, lora: LoRA) -> str | None:
    """A line for the user when an adapter that is trained on was made with other settings than these, or None."""
    own = network.peft_config[network.active_adapter]
    if not isinstance(own, LoraConfig):
        return f"the adapter is a {own.peft_type}; lora.* is not used"
    adapted = {path.rsplit(".", 1)[-1] for path, module in network.named_modules() if isinstance(module, LoraLayer)}
    wanted = adapted | _unadapted(network) if lora.targets == "all-linear" else set(lora.targets)
    made = (own.r, own.lora_alpha, own.lora_dropout, own.use_rslora, own.use_dora, adapted)
    if made == (lora.r, lora.alpha, lora.dropout, lora.rslora, lora.dora, wanted):
        return None
    return f"the adapter's own settings are kept (r {own.r}, alpha {own.lora_alpha:g}); lora.* is not used"


def _unadapted(network: Any) -> set[str]:
    """Names (last part) of linear layers beside the head that an adapter does not wrap."""
    head = network.get_output_embeddings()
    return {
        path.rsplit(".", 1)[-1]
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not _WRAPPED.search(path)
    }


def _is_transposed(network: nn.Module, targets: list[str]) -> bool:
    layers = [module for path, module in network.named_modules() if path.rsplit(".", 1)[-1] in targets]
    return any(isinstance(layer, Conv1D) for layer in layers)


def _token_rows(network: Any, ids: tuple[int, ...]) -> dict[str, Any]:
    if not ids:
        return {}
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    names = {id(module): path for path, module in network.named_modules()}
    rows = {names[id(embedding)].rsplit(".", 1)[-1]: list(ids)}
    if head.weight is not embedding.weight:
        rows[names[id(head)].rsplit(".", 1)[-1]] = list(ids)
    return {"trainable_token_indices": rows}  # PEFT ties a tied head's rows by itself


def fit_template(loaded: LoadedModel, prompting: Prompting) -> tuple[LoadedModel, Renderer, tuple[int, ...]]:
    """The model and the renderer that belong together under these settings, and the ids of the tokens that were added.

    Special tokens that the template needs are added to tokenizer and embeddings (rows start at the mean of the
    others), and the model stops on what ends a turn: sampling, training and evaluation all start from here.

    Raises:
        ConfigError: the template cannot be used with this model.
    """
    template = find_template(prompting.chat_template, loaded.tokenizer)
    tokenizer, tokens = extend_tokenizer(loaded.tokenizer, template)
    ids: Any = tokenizer.convert_tokens_to_ids(list(tokens))
    if ids:
        grow_embeddings(base_network(loaded.network), len(tokenizer), ids)
    renderer = Renderer(tokenizer, prompting, stop_ids=loaded.stop_ids)
    return replace(loaded, tokenizer=tokenizer, stop_ids=renderer.stop_ids), renderer, tuple(ids)


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that receive gradients, by name."""
    return {name: each for name, each in network.named_parameters() if each.requires_grad}


def save_trained(loaded: LoadedModel, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Save what was trained: a PEFT adapter folder, or a Transformers folder after full fine-tuning; the tokenizer too.

    Args:
        shard_bytes: weights of a full model are split into files of at most this size.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        with quiet():
            _save_network(loaded.network, folder, shard_bytes)
            loaded.tokenizer.save_pretrained(str(folder))
            stops = copy.deepcopy(loaded.network.generation_config)
            stops.eos_token_id = list(loaded.stop_ids)
            stops.save_pretrained(str(folder))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _save_network(network: Any, folder: Path, shard_bytes: int) -> None:
    if not isinstance(network, PeftModel):
        network.save_pretrained(str(folder), max_shard_size=shard_bytes)
        return
    # Left to itself PEFT asks the hub whether the vocabulary was resized; added rows are in the adapter already.
    network.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty card full of placeholders


def merged(loaded: LoadedModel, dtype: torch.dtype | None = None) -> LoadedModel:
    """A copy with the adapter added into the weights in fp32, then cast to `dtype` (None: the model's own).

    Merging into bf16 directly would lose up to 0.08 in the logits.

    Raises:
        ModelError: the weights are held in 4 bits.
    """
    if is_quantised(loaded.network):
        raise ModelError(f"{loaded.name} is held in 4 bits", hint="load it without quantising to merge the adapter")
    network = copy.deepcopy(loaded.network).float()
    if isinstance(network, PeftModel):
        network = network.merge_and_unload()
    kind = loaded.dtype if dtype is None else dtype
    network = network.to(kind)
    network.config.dtype = kind
    return replace(loaded, network=network, dtype=kind, adapter=None)

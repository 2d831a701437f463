"""A model made ready to be trained: its template's tokens, its adapter, what receives gradients, its fast layers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError
from ramify.base.rng import key
from ramify.model.fused import fuse
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import add_adapter, fit_template
from ramify.prompts.renderer import Renderer


@dataclass(frozen=True)
class Prepared:
    """A trainable model and the renderer that goes with it."""

    loaded: LoadedModel
    renderer: Renderer
    fused: bool


def prepare(config: RunConfig, checkpoint: Path | None = None, loaded: LoadedModel | None = None) -> Prepared:
    """Load a model (or take the one given) and make it trainable as the settings say.

    Args:
        checkpoint: a checkpoint folder whose weights are taken instead of the start's.
        loaded: a model that is loaded already; it gets the adapter and is trained in place.

    Raises:
        ModelError: the model cannot be loaded, or has not the layers asked for.
        ConfigError: an adapter and full fine-tuning contradict each other.
    """
    start = _load(config, checkpoint) if loaded is None or checkpoint is not None else loaded
    start, renderer, added = fit_template(start, config.prompt)
    if config.lora is None:
        trained = _train_everything(start)
    elif isinstance(start.network, PeftModel):
        trained = start
    else:
        seed = key(config.seed, "lora") >> 1
        trained = add_adapter(start, config.lora, seed=seed, train_tokens=added)
    network = trained.network
    if config.train.checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Prepared(trained, renderer, fuse(network))


def fingerprint(network: Any) -> str:
    """SHA-256 over names, shapes and some values of the frozen weights: whether a resumed run has the same base."""
    found = hashlib.sha256()
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            continue
        flat = weight.detach().reshape(-1)
        some = torch.cat([flat[:8], flat[-8:]]).float().cpu()
        found.update(f"{name}{tuple(weight.shape)}".encode() + some.numpy().tobytes())
    return found.hexdigest()


def _load(config: RunConfig, checkpoint: Path | None) -> LoadedModel:
    settings = config.train
    full = config.lora is None
    name = config.model if checkpoint is None or not full else str(checkpoint)
    adapter = config.adapter if checkpoint is None else None if full else str(checkpoint)
    loaded = load_model(
        name, adapter=adapter, revision=config.revision, dtype=settings.dtype, device=settings.device, trainable=True
    )
    return loaded if checkpoint is None else replace(loaded, name=config.model, adapter=config.adapter)


def _train_everything(loaded: LoadedModel) -> LoadedModel:
    if isinstance(loaded.network, PeftModel):
        raise ConfigError(
            f"lora is null, but {loaded.policy} has an adapter", hint="merge it first, or leave lora on to train it on"
        )
    loaded.network.requires_grad_(True)
    return loaded

"""A model made ready to be trained: its template's tokens, its adapter, what receives gradients, its fast layers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from ramify.base.config import RunConfig
from ramify.base.rng import key
from ramify.model.fused import fuse
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import adapter_targets, add_adapter, fit_template, unused_settings
from ramify.model.outline import Outline, load_outline
from ramify.model.source import resolve
from ramify.prompts.renderer import Renderer
from ramify.train.checks import check_adapter


@dataclass(frozen=True)
class Prepared:
    """A trainable model and the renderer that goes with it.

    Attributes:
        fused: whether its layers were swapped for hand-written ones.
        fresh: whether its adapter was put on here: until it is trained the model without it is the same.
        notes: what the user should know of it.
    """

    loaded: LoadedModel
    renderer: Renderer
    fused: bool
    fresh: bool
    notes: tuple[str, ...] = ()


def prepare(config: RunConfig, checkpoint: Path | None = None, loaded: LoadedModel | None = None) -> Prepared:
    """Load a model (or take the one given) and make it trainable as the settings say.

    Args:
        checkpoint: a checkpoint folder whose weights are taken instead of the start's.
        loaded: a model that is loaded already; it gets the adapter and is trained in place.

    Raises:
        ModelError: the model cannot be loaded, or has not the layers asked for.
        ConfigError: an adapter cannot be trained on with these settings.
    """
    start = _load(config, checkpoint) if loaded is None or checkpoint is not None else loaded
    check_start(config, start)
    start, renderer, added = fit_template(start, config.prompt)
    note, fresh = None, False
    if config.lora is None:
        trained = start
        trained.network.requires_grad_(True)
    elif isinstance(start.network, PeftModel):
        trained, note = start, unused_settings(start.network, config.lora)
    else:
        seed = key(config.seed, "lora") >> 1
        trained, fresh = add_adapter(start, config.lora, seed=seed, train_tokens=added), True
    network = trained.network
    if config.train.checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return Prepared(trained, renderer, fuse(network), fresh, () if note is None else (note,))


def check_start(config: RunConfig, loaded: LoadedModel) -> None:
    """Refuse a model that cannot be trained as the settings say; nothing is changed.

    Raises:
        ModelError: it has not the layers that the adapter is to go on.
        ConfigError: it has an adapter that cannot be trained on with these settings.
    """
    has_adapter = isinstance(loaded.network, PeftModel)
    check_adapter(config, loaded.tokenizer, loaded.policy if has_adapter else None)
    if config.lora is not None and not has_adapter:
        adapter_targets(loaded.network, config.lora)


def fingerprint(network: Any, *, trained: bool = False) -> str:
    """SHA-256 over names, shapes and some values of the frozen weights: whether a resumed run has the same base.

    The values are the first ones: the last rows of an embedding may have been made for added tokens.

    Args:
        trained: whether the weights that are trained count too.
    """
    found = hashlib.sha256()
    for name, weight in network.named_parameters():
        if weight.requires_grad and not trained:
            continue
        flat = weight.detach().reshape(-1)
        some = flat[:16].float().cpu()
        found.update(f"{name}{tuple(weight.shape)}".encode() + some.numpy().tobytes())
    return found.hexdigest()


def outline_of(config: RunConfig, checkpoint: Path | None = None) -> Outline:
    """What is known of the model that `prepare` would load, without its weights.

    Raises:
        ModelError: the model is not known, or is not there whole.
    """
    name, adapter = _names(config, checkpoint)
    return load_outline(name, adapter=adapter, revision=config.revision)


def _names(config: RunConfig, checkpoint: Path | None) -> tuple[str, str | None]:
    """The model and the adapter to load. A checkpoint's adapter takes the place of the one that the run began with."""
    if checkpoint is None:
        return config.model, config.adapter
    if config.lora is None:
        return str(checkpoint), None
    return resolve(config.model).base, str(checkpoint)


def _load(config: RunConfig, checkpoint: Path | None) -> LoadedModel:
    settings = config.train
    name, adapter = _names(config, checkpoint)
    loaded = load_model(
        name,
        adapter=adapter,
        revision=config.revision,
        dtype=settings.quantize or settings.dtype,
        device=settings.device,
        trainable=True,
    )
    return loaded if checkpoint is None else replace(loaded, name=config.model, adapter=config.adapter)

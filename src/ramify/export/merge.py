"""Adapters merged into a copy of the model they were made on, saved as a Transformers folder.

Layer by layer: a layer's weights in fp32, the adapter added, cast to the type that is saved. The model lies in memory
once, in the type of its files; a layer more is there while it is merged. A run that was trained on 4-bit weights is
merged into the full-precision ones that those were made from.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from ramify.base.errors import ConfigError, ModelError, unknown
from ramify.base.progress import SILENT, Progress
from ramify.base.runs import Run, is_run
from ramify.export.stored import Stored, load_dtype, stored
from ramify.export.whole import refuse_occupied, require_space, whole_folder
from ramify.model.failures import one_line
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import SHARD_BYTES, save_trained
from ramify.model.source import Source, resolve

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def merge(
    model: str | Path,
    out: Path,
    dtype: str = "bf16",
    *,
    adapter: str | None = None,
    progress: Progress = SILENT,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write a run or a model as one Transformers folder: weights, tokenizer, chat template, stop tokens.

    A model without an adapter (a full fine-tuning, too) is copied and cast.

    Args:
        model: a run, an adapter folder, a model folder, a hub id, or `nano`.
        out: a folder that is not there yet, or is empty.
        dtype: bf16, fp16 or fp32.
        adapter: an adapter folder or a run to put on top of `model`.
        shard_bytes: weights are split into files of at most this size.

    Returns:
        `out`.

    Raises:
        ConfigError: the type is none of those.
        ModelError: the model cannot be read, or a merged value is not finite or does not fit fp16.
        RunError: `out` is taken, the disk has no room, or the folder cannot be written.
    """
    if dtype not in DTYPES:
        raise ConfigError(unknown("type of merged weights", dtype, DTYPES))
    kind, name = DTYPES[dtype], str(model)
    refuse_occupied(out)
    source = resolve(name, adapter)
    tensors = _tensors(source)
    require_space(out, sum(each.numel for each in tensors.values()) * kind.itemsize)
    with stage(progress, "reading weights"):
        loaded = load_model(name, adapter=adapter, dtype=load_dtype(tensors), device="cpu")
    if _trained_on_4_bits(model):
        progress.note("trained on 4-bit weights, merged into the full-precision ones: answers differ a little")
    whole = _merged(loaded, kind, progress)
    with stage(progress, "writing"), whole_folder(out) as folder:
        save_trained(replace(whole, stop_ids=_stop_ids(whole, source)), folder, shard_bytes=shard_bytes)
    return out


@contextmanager
def stage(progress: Progress, name: str, total: int | None = None) -> Iterator[None]:
    """A stage of an export, closed also when it fails."""
    progress.start(name, total)
    try:
        yield
    finally:
        progress.close()


def base_folder(source: Source) -> Path | None:
    """Where the base lies on this machine; None: on the hub, and not fetched yet."""
    if Path(source.location).is_dir():
        return Path(source.location)
    found = try_to_load_from_cache(source.location, "config.json", revision=source.revision)
    return Path(found).parent if isinstance(found, str) else None


def parameters(source: Source) -> int:
    """Numbers in the base weights, as far as they are on this machine; reads headers alone.

    Raises:
        ModelError: the weights of a folder are missing or cut off.
    """
    return sum(each.numel for each in _lying(source).values())


def _tensors(source: Source) -> dict[str, Stored]:
    """The base weights on this machine, refused where they are quantised; empty when they have to be fetched first."""
    folder = base_folder(source)
    if folder is not None:
        _refuse_quantised(folder)
    return _lying(source)


def _lying(source: Source) -> dict[str, Stored]:
    folder = base_folder(source)
    try:
        return {} if folder is None else stored(folder)
    except ModelError:
        if Path(source.location).is_dir():
            raise
        return {}  # the configuration alone was fetched


def _refuse_quantised(folder: Path) -> None:
    with one_line(str(folder)):
        held = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if held is not None:
        method = held.get("quant_method", "unknown") if isinstance(held, dict) else held
        raise ModelError(
            f"{folder}: its weights are quantised already ({method}): nothing can be merged into them exactly",
            hint="give the full-precision model that they were made of, and the adapter with --adapter",
        )


def _trained_on_4_bits(model: str | Path) -> bool:
    if not is_run(model):
        return False
    settings = Run(Path(model)).record.get("config") or {}
    return (settings.get("train") or {}).get("quantize") is not None


def _merged(loaded: LoadedModel, kind: torch.dtype, progress: Progress) -> LoadedModel:
    """The model with its adapter in its weights, in this type; `loaded` is used up."""
    network: Any = loaded.network
    if isinstance(network, PeftModel):
        layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
        with stage(progress, "merging", len(layers)):
            for done, layer in enumerate(layers, start=1):
                _merge_layer(loaded.name, layer, kind)
                progress.update(done)
        network = _unwrapped(network)
    network = network.to(kind)
    _refuse_infinite(loaded.name, network)
    network.config.dtype = kind
    return replace(loaded, network=network, dtype=kind, adapter=None)


def _merge_layer(name: str, layer: Any, kind: torch.dtype) -> None:
    """In fp32: added to bf16 weights directly, a small change would be lost in their rounding."""
    base = layer.get_base_layer().float()
    try:
        layer.merge(safe_merge=True)
    except ValueError as error:  # not finite
        raise ModelError(f"{name}: {error}", hint="see the report of its training") from None
    base.to(kind)


def _unwrapped(network: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")  # they are: by `_merge_layer`
        return network.merge_and_unload()


def _refuse_infinite(name: str, network: Any) -> None:
    """Half precision ends at 65504: a model from bf16 or fp32 may hold more."""
    for path, weight in network.named_parameters():
        if not torch.isfinite(weight).all():
            raise ModelError(f"{name}: {path} is not finite as {weight.dtype}", hint="use bf16 or fp32")


def _stop_ids(loaded: LoadedModel, source: Source) -> tuple[int, ...]:
    """What the run stops at: the model's own stop tokens, and those saved with the adapter."""
    return tuple(sorted({*loaded.stop_ids, *_saved_stops(source.adapter)}))


def _saved_stops(adapter: Path | None) -> Iterator[int]:
    path = None if adapter is None else adapter / "generation_config.json"
    if path is None or not path.is_file():
        return
    with one_line(str(path)):
        found = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    yield from [found] if isinstance(found, int) else found or []

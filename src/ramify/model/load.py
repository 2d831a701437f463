"""Models by hub id, local folder, run, adapter folder, or `nano`: one function, one line for each way it fails.

Weights are read from safetensors only (no pickle), remote code is never run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import errors as hub
from peft import PeftModel
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ramify import nano
from ramify.base.errors import ModelError, nearest
from ramify.base.runs import Run, is_run
from ramify.model.families import check_family
from ramify.model.rates import fastest_dtype

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer, ready to sample, score and train.

    Attributes:
        network: the Transformers model, or the PEFT model around it.
        name: as the user wrote it; what samples are labelled with.
        base: what the weights under an adapter came from: a hub id, a folder, or `nano`.
        stop_ids: tokens that end a completion, from the tokenizer and the generation config.
        adapter: the adapter that was put on top of `name`, as the user wrote it, or None.
    """

    network: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    base: str
    stop_ids: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    adapter: str | None = None

    @property
    def policy(self) -> str:
        """What a sample of this model is labelled with."""
        return self.name if self.adapter is None else f"{self.name}+{self.adapter}"

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens that the model was built for."""
        return int(getattr(self.network.config, "max_position_embeddings", 1 << 30))

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base model inside the block; nothing changes when there is no adapter."""
        if isinstance(self.network, PeftModel):
            with self.network.disable_adapter():
                yield
        else:
            yield


@dataclass(frozen=True)
class Source:
    """Where a model's parts lie: the base weights, and an adapter on top."""

    base: str
    adapter: Path | None = None

    @property
    def location(self) -> str:
        """What Transformers is given for the base."""
        return str(nano.path()) if self.base == "nano" else self.base


def resolve(name: str, adapter: str | None = None) -> Source:
    """Find out what `name` is: `nano`, a run, an adapter folder, a model folder, or a hub id.

    Raises:
        ModelError: nothing of that name can be a model.
    """
    found = _resolve_name(name)
    if adapter is None:
        return found
    if found.adapter is not None:
        raise ModelError(f"{name} already has the adapter {found.adapter}", hint=f"base model: {found.base}")
    folder = _run_adapter(Run(Path(adapter))) if is_run(adapter) else Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"adapter {adapter}: no adapter_config.json there", hint="give an adapter folder or a run")
    return replace(found, adapter=folder)


def _resolve_name(name: str) -> Source:
    folder = Path(name)
    if name == "nano":
        return Source("nano")
    if is_run(folder):
        return _resolve_run(Run(folder))
    if (folder / "adapter_config.json").is_file():
        return Source(_base_of_adapter(folder), folder)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"model {name}: the folder has no config.json, adapter_config.json or run.json")
        return Source(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not folder.parent.is_dir():
        return Source(name)
    if folder.parent != Path("."):
        raise ModelError(
            f"model {name}: no such folder", hint="a run, model or adapter folder; or a hub id (owner/name)"
        )
    asked = f"; did you mean {nearest(name, ['nano'])!r}?" if nearest(name, ["nano"]) else ""
    raise ModelError(
        f"unknown model {name!r}{asked}", hint="a hub id (owner/name), a model, adapter or run folder, or nano"
    )


def _resolve_run(run: Run) -> Source:
    if run.model is not None:
        return Source(str(run.model))
    adapter = _run_adapter(run)
    return Source(_base_of_adapter(adapter), adapter)


def _run_adapter(run: Run) -> Path:
    if run.adapter is None:
        status = run.record.get("status")
        raise ModelError(
            f"run {run.folder} has no adapter and no model (status: {status})",
            hint="finish it with --resume" if status != "finished" else "it is not a training run",
        )
    return run.adapter


def _base_of_adapter(folder: Path) -> str:
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}/adapter_config.json: cannot be read: {error!r}") from None
    if not base:
        raise ModelError(f"{folder}/adapter_config.json names no base model", hint="give the base with --adapter")
    return _resolve_name(str(base)).base


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
        revision: of a hub model.
        dtype: fp32, bf16, fp16, or auto (whichever multiplies fastest here, by measurement).
        device: cpu, cuda, cuda:N, mps, or auto.
        trainable: whether a loaded adapter will be trained on.

    Raises:
        ModelError: one line for each way it can fail: unknown name, no network, gated, half-downloaded, a family
            that cannot be computed as a tree.
    """
    source = resolve(name, adapter)
    where = choose_device(device)
    kind = _DTYPES[dtype] if dtype != "auto" else fastest_dtype(where)
    with _one_line(name), quiet():
        config = AutoConfig.from_pretrained(source.location, revision=revision)
        check_family(config)
        _no_attention_dropout(config)
        tokenizer = load_tokenizer(source, revision)
        network: Any = AutoModelForCausalLM.from_pretrained(
            source.location, config=config, revision=revision, dtype=kind, use_safetensors=True
        )
    _fit_embeddings(network, tokenizer)
    if source.adapter is not None:
        with _one_line(str(source.adapter)), quiet():
            network = PeftModel.from_pretrained(network, str(source.adapter), is_trainable=trainable)
    network = network.to(where).eval()
    return LoadedModel(
        network=network,
        tokenizer=tokenizer,
        name=name,
        base=source.base,
        stop_ids=stop_ids(network, tokenizer),
        device=where,
        dtype=kind,
        adapter=adapter,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of Transformers inside the block: they would cut into the caller's own."""
    shown = logging.is_progress_bar_enabled()
    bars: Any = logging
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def load_without_weights(
    name: str, *, adapter: str | None = None, revision: str | None = None
) -> tuple[PreTrainedTokenizerBase, int]:
    """The tokenizer of a model, and the longest sequence in tokens that the model was built for.

    Raises:
        ModelError: as `load_model`, save for what only the weights can tell.
    """
    source = resolve(name, adapter)
    with _one_line(name):
        config = AutoConfig.from_pretrained(source.location, revision=revision)
        check_family(config)
        return load_tokenizer(source, revision), int(getattr(config, "max_position_embeddings", 1 << 30))


def load_tokenizer(source: Source, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside the adapter when there is one (it may know more tokens), else the base model's."""
    own = source.adapter
    if own is not None and (own / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(str(own))
    return AutoTokenizer.from_pretrained(source.location, revision=revision)


def stop_ids(network: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a completion: the tokenizer's eos and all that the generation config lists, sorted."""
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, getattr(network.generation_config, "eos_token_id", None)):
        found.update([value] if isinstance(value, int) else value or [])
    return tuple(sorted(found))


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


def _fit_embeddings(network: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the embedding a row for every token of a tokenizer that was extended when the adapter was made."""
    rows = network.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        network.resize_token_embeddings(len(tokenizer), mean_resizing=False)


@contextmanager
def _one_line(name: str) -> Iterator[None]:
    """Turn what Transformers, PEFT and the hub raise into one `ModelError`."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, hub.HfHubHTTPError) as error:
        raise _explain(name, error) from error


def _explain(name: str, error: BaseException) -> ModelError:
    chain = list(_causes(error))
    if any(isinstance(cause, hub.GatedRepoError) for cause in chain):
        return ModelError(
            f"model {name}: access is gated",
            hint="ask for access on its hub page, then `hf auth login` or set HF_TOKEN",
        )
    if any(isinstance(cause, hub.RevisionNotFoundError) for cause in chain):
        return ModelError(f"model {name}: no such revision")
    if any(isinstance(cause, hub.RepositoryNotFoundError) for cause in chain):
        return ModelError(f"model {name}: not on the hub, or private", hint="check the id; private ones need HF_TOKEN")
    if any(_is_network(cause) for cause in chain):
        return ModelError(
            f"model {name}: not in the local cache, and the hub cannot be reached",
            hint="go online once, or give a local folder; `nano` ships with Ramify and needs no network",
        )
    first = str(error).strip().splitlines()
    return ModelError(
        f"model {name}: cannot be read: {type(error).__name__}: {first[0][:300] if first else ''}",
        hint="an interrupted download or copy leaves files incomplete: remove the folder and fetch it again",
    )


def _is_network(cause: BaseException) -> bool:
    if isinstance(cause, hub.OfflineModeIsEnabled | hub.LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return True
    text = str(cause)
    return "couldn't connect" in text or "Name or service not known" in text or "name resolution" in text


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

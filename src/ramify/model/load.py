"""Models by hub id, local folder, run, adapter folder, or `nano`: one function, one line for each way it fails.

Weights are read from safetensors only (no pickle), remote code is never run.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, logging

from ramify import nano
from ramify.base.errors import ModelError, nearest
from ramify.base.runs import Run, is_run
from ramify.model.embeddings import fit_embeddings
from ramify.model.failures import INCOMPLETE, one_line
from ramify.model.families import check_family, longest
from ramify.model.quantize import COMPUTE, NF4, nf4_settings
from ramify.model.rates import fastest_dtype

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, NF4: COMPUTE}
_ADAPTER_WEIGHTS = "adapter_model.safetensors"


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
    """Where a model's parts lie: the base weights (of a revision, when one is known), and an adapter on top."""

    base: str
    adapter: Path | None = None
    revision: str | None = None

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
    made_on, revision = _named_base(folder)
    same = found.revision is None and made_on == found.base
    return replace(found, adapter=folder, revision=revision if same else found.revision)


def _resolve_name(name: str) -> Source:
    folder = Path(name)
    if name == "nano":
        return Source("nano")
    if is_run(folder):
        return _resolve_run(Run(folder))
    if (folder / "adapter_config.json").is_file():
        return replace(_base_of_adapter(folder), adapter=folder)
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
    return replace(_base_of_adapter(adapter), adapter=adapter)


def _run_adapter(run: Run) -> Path:
    if run.adapter is None:
        status = run.record.get("status")
        raise ModelError(
            f"run {run.folder} has no adapter and no model (status: {status})",
            hint="finish it with --resume" if status != "finished" else "it is not a training run",
        )
    return run.adapter


def _base_of_adapter(folder: Path) -> Source:
    """The base weights that an adapter was made on, and their revision."""
    base, revision = _named_base(folder)
    if not base:
        raise ModelError(f"{folder}/adapter_config.json names no base model", hint="give the base with --adapter")
    found = _resolve_name(base)
    return Source(found.base, revision=revision or found.revision)


def _named_base(folder: Path) -> tuple[str, str | None]:
    """Base (empty: none is named) and revision, as adapter_config.json has them."""
    try:
        found = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(found["base_model_name_or_path"] or ""), found.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder}/adapter_config.json: cannot be read: {error!r}") from None


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
    source = _at_revision(resolve(name, adapter), revision)
    where = choose_device(device)
    kind = _DTYPES[dtype] if dtype != "auto" else fastest_dtype(where)
    quantised = nf4_settings(where) if dtype == NF4 else {}
    with one_line(name), quiet():
        config = _read_config(source)
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
        stop_ids=stop_ids(network, tokenizer),
        device=where,
        dtype=kind,
        adapter=adapter,
        revision=source.revision,
    )


def _at_revision(source: Source, revision: str | None) -> Source:
    return source if revision is None else replace(source, revision=revision)


def _with_adapter(network: Any, folder: Path, trainable: bool) -> PeftModel:
    """The network with the adapter of that folder, every weight of it read from the file."""
    with one_line(str(folder)), quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")  # refused below
        saved = _tensors(folder / _ADAPTER_WEIGHTS)
        adapted = PeftModel.from_pretrained(network, str(folder), is_trainable=trainable)
    needed = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    _refuse_missing(str(folder), needed.keys() - saved)
    return adapted


def _tensors(file: Path) -> set[str]:
    """Names of the tensors in a safetensors file; reads its header alone."""
    with safe_open(str(file), framework="pt") as opened:
        return set(opened.keys())


def _refuse_missing(name: str, missing: Collection[str]) -> None:
    """Transformers and PEFT would go on with random weights.

    Raises:
        ModelError: a weight of the model is in none of its files.
    """
    if missing:
        raise ModelError(f"model {name}: {len(missing)} weights are missing (first: {min(missing)})", hint=INCOMPLETE)


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

    Of the weights it is checked that the files are there whole, as far as they are on this machine.

    Raises:
        ModelError: as `load_model`, save for what only the weights can tell.
    """
    source = _at_revision(resolve(name, adapter), revision)
    with one_line(name):
        config = _read_config(source)
        check_family(config)
        for file in _weight_files(source):
            _tensors(file)
        return load_tokenizer(source), longest(config)


def model_type(name: str, revision: str | None = None) -> str:
    """What Transformers calls the architecture of a model.

    Raises:
        ModelError: as `load_without_weights`.
    """
    with one_line(name):
        return str(_read_config(_at_revision(resolve(name), revision)).model_type)


def _read_config(source: Source) -> PreTrainedConfig:
    # Left to itself Transformers asks at the terminal whether code that came with a model may run.
    found: PreTrainedConfig = AutoConfig.from_pretrained(
        source.location, revision=source.revision, trust_remote_code=False
    )
    return found


def _weight_files(source: Source) -> list[Path]:
    """Files of weights on this machine: all of a folder, those of a hub model that were fetched already."""
    index = _local(source, SAFE_WEIGHTS_INDEX_NAME)
    if index is not None and index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = [SAFE_WEIGHTS_NAME]
    found = [file for name in names if (file := _local(source, name)) is not None]
    return found if source.adapter is None else [*found, source.adapter / _ADAPTER_WEIGHTS]


def _local(source: Source, name: str) -> Path | None:
    """Where a file of the base is, or has to be; None: it is on the hub and was not fetched yet."""
    if Path(source.location).is_dir():
        return Path(source.location) / name
    found = try_to_load_from_cache(source.location, name, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside the adapter when there is one (it may know more tokens), else the base model's."""
    own = source.adapter
    if own is not None and (own / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(str(own), trust_remote_code=False)
    return AutoTokenizer.from_pretrained(source.location, revision=source.revision, trust_remote_code=False)


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

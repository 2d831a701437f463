"""A model without its weights: what rendering rows needs of it, and what a plan can be made of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ramify.model.failures import one_line, quiet
from ramify.model.families import check_family, longest
from ramify.model.source import Source, at_revision, resolve

ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Outline:
    """What is known of a model without its weights.

    Attributes:
        max_length: longest sequence in tokens that it was built for.
        stop_ids: tokens that end a completion, from the tokenizer and the generation config.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    stop_ids: tuple[int, ...]


def load_outline(name: str, *, adapter: str | None = None, revision: str | None = None) -> Outline:
    """Read all of a model but its weights.

    Of the weights it is checked that the files are there whole, as far as they are on this machine.

    Raises:
        ModelError: as `load_model`, save for what only the weights can tell.
    """
    source = at_revision(resolve(name, adapter), revision)
    with one_line(name), quiet():
        config = read_config(source)
        check_family(config)
        for file in _weight_files(source):
            tensors(file)
        tokenizer = load_tokenizer(source)
        return Outline(tokenizer, longest(config), stop_ids(_generation(source), tokenizer))


def model_type(name: str, revision: str | None = None) -> str:
    """What Transformers calls the architecture of a model.

    Raises:
        ModelError: as `load_outline`.
    """
    with one_line(name):
        return str(read_config(at_revision(resolve(name), revision)).model_type)


def read_config(source: Source) -> PreTrainedConfig:
    """The settings of the base model."""
    # Left to itself Transformers asks at the terminal whether code that came with a model may run.
    found: PreTrainedConfig = AutoConfig.from_pretrained(
        source.location, revision=source.revision, trust_remote_code=False
    )
    return found


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside the adapter when there is one (it may know more tokens), else the base model's."""
    own = source.adapter
    if own is not None and (own / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(str(own), trust_remote_code=False)
    return AutoTokenizer.from_pretrained(source.location, revision=source.revision, trust_remote_code=False)


def _generation(source: Source) -> GenerationConfig:
    """The generation config that the loaded model will have: its own file, or what config.json itself says."""
    revision = source.revision or "main"
    try:
        return GenerationConfig.from_pretrained(source.location, revision=revision)
    except OSError:
        return GenerationConfig.from_pretrained(
            source.location, config_file_name="config.json", revision=revision, _from_model_config=True
        )


def stop_ids(generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a completion: the tokenizer's eos and all that the generation config lists, sorted."""
    found: set[int] = set()
    for value in (tokenizer.eos_token_id, generation.eos_token_id):
        found.update([value] if isinstance(value, int) else value or [])
    return tuple(sorted(found))


def tensors(file: Path) -> set[str]:
    """Names of the tensors in a safetensors file; reads its header alone."""
    with safe_open(str(file), framework="pt") as opened:
        return set(opened.keys())


def _weight_files(source: Source) -> list[Path]:
    """Files of weights on this machine: all of a folder, those of a hub model that were fetched already."""
    whole, index = _local(source, SAFE_WEIGHTS_NAME), _local(source, SAFE_WEIGHTS_INDEX_NAME)
    if not (whole is not None and whole.is_file()) and index is not None and index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = [SAFE_WEIGHTS_NAME]
    found = [file for name in names if (file := _local(source, name)) is not None]
    return found if source.adapter is None else [*found, source.adapter / ADAPTER_WEIGHTS]


def _local(source: Source, name: str) -> Path | None:
    """Where a file of the base is, or has to be; None: it is on the hub and was not fetched yet."""
    if Path(source.location).is_dir():
        return Path(source.location) / name
    found = try_to_load_from_cache(source.location, name, revision=source.revision)
    return Path(found) if isinstance(found, str) else None

"""The tokenizer of an export, with the chat template that the model was trained with, and all tokens that stop it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from ramify.base.config import Prompting
from ramify.base.errors import RunError
from ramify.model.failures import one_line
from ramify.model.outline import load_tokenizer
from ramify.model.source import Source
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import PLAIN, adds_bos


def renderer_of(parts: Source, prompting: Prompting) -> Renderer:
    """How the model is prompted, from its files alone: no weights are read.

    Raises:
        ConfigError: the template cannot be used with the tokenizer.
        ModelError: the tokenizer cannot be read.
    """
    with one_line(parts.base):
        tokenizer = load_tokenizer(parts)
    return Renderer(tokenizer, prompting, stop_ids=_listed_stops(parts))


def has_template(parts: Source) -> bool:
    """Whether the tokenizer came with a chat template."""
    with one_line(parts.base):
        return bool(load_tokenizer(parts).chat_template)


def save_tokenizer(renderer: Renderer, folder: Path) -> None:
    """Write the tokenizer with the run's template, and a generation config that lists what stops an answer.

    A plain template is written as Jinja, since a file is used by programs that know of nothing else.

    Raises:
        RunError: the folder cannot be written.
    """
    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = _plain(tokenizer) if renderer.template.source is None else renderer.template.source
    try:
        tokenizer.save_pretrained(str(folder))
        kept = folder / "generation_config.json"
        configs: Any = GenerationConfig  # its class is not typed
        stops = configs.from_pretrained(str(folder)) if kept.is_file() else configs()
        stops.eos_token_id = list(renderer.stop_ids)
        stops.bos_token_id, stops.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
        stops.save_pretrained(str(folder))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _plain(tokenizer: Any) -> str:
    """The plain template, which begins as the renderer lets plain prompts begin."""
    return "{{- bos_token -}}" + PLAIN if adds_bos(tokenizer) else PLAIN


def _listed_stops(parts: Source) -> tuple[int, ...]:
    """What the generation config lists: the one saved with the adapter, else the base model's."""
    places: list[tuple[str, str | None]] = [] if parts.adapter is None else [(str(parts.adapter), None)]
    configs: Any = GenerationConfig
    for place, revision in [*places, (parts.location, parts.revision)]:
        try:
            listed: Any = configs.from_pretrained(place, revision=revision).eos_token_id
        except OSError:  # there is none
            continue
        if listed is not None:
            return tuple([listed] if isinstance(listed, int) else listed)
    return ()

"""Models one can talk to, opened by what people call them: a run, a model, an adapter, an export, a GGUF file.

    voice = open_voice("runs/sft")
    ids = voice.renderer.prompt_ids((Message("user", "How many grams are in 6 kg?"),))
    text = "".join(piece.text for piece in voice.service.submit(Request(ids, voice.settings)))

A run speaks as it was trained: with its chat template, its system turn and its worked turns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from ramify.base.errors import ConfigError, DataError, ModelError, RamifyError
from ramify.base.runs import Run, is_run, open_run
from ramify.base.types import Conversation
from ramify.model.load import load_model
from ramify.model.lora import fit_template
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import adds_bos, encode, render
from ramify.sample.continuous import ContinuousService
from ramify.sample.llamacpp.choices import export_of, find_gguf, gguf_files, is_export, kind_of
from ramify.sample.llamacpp.model import open_gguf
from ramify.sample.llamacpp.service import GgufService
from ramify.serve.manners import Manners, manners_of
from ramify.serve.voice import Voice

__all__ = ["Prompter", "Voice", "base_and_adapter", "choices", "open_voice"]

_PARTS = ("adapter", "checkpoints", "merged", "model", "tokenizer")
"""Folders in runs and exports that are no choice of their own."""


class Prompter:
    """Prompts as the renderer makes them; a system turn without text means none, not even the renderer's own."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer

    @property
    def system(self) -> str | None:
        """The system turn of prompts that bring none."""
        first = self._renderer.conversation(())[:1]
        return first[0].content or None if first and first[0].role == "system" else None

    def prompt_ids(self, prompt: Conversation) -> tuple[int, ...]:
        """Token ids up to where the model speaks; BOS at most once.

        Raises:
            DataError: the template refuses the turns.
        """
        return self._renderer.begun(encode(self._renderer.tokenizer, self.text(prompt)))

    def text(self, prompt: Conversation) -> str:
        """The prompt as text, up to where the model speaks.

        Raises:
            DataError: the template refuses the turns.
        """
        turns = self._renderer.conversation(prompt)
        if turns and turns[0].role == "system" and not turns[0].content:
            turns = turns[1:]
        return render(self._renderer.tokenizer, self._renderer.template, turns, generation=True)

    def plain_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that no template is put around; BOS where the tokenizer puts one, and at most once.

        Raises:
            DataError: there are none.
        """
        tokenizer = self._renderer.tokenizer
        ids = encode(tokenizer, text)
        if adds_bos(tokenizer) and ids[:1] != (tokenizer.bos_token_id,):
            ids = (tokenizer.bos_token_id, *ids)
        if not ids:
            raise DataError("the prompt is empty")
        return ids


def open_voice(
    name: str,
    *,
    adapter: str | None = None,
    system: str | None = None,
    chat_template: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    n_ctx: int | None = None,
) -> Voice:
    """Open a model to talk to.

    Args:
        name: `nano`, a hub id, a model, adapter or run folder; a GGUF file, an export folder (`OUT`, `OUT:q8_0`), or
            `REPO, Q4` (see `sample.llamacpp.choices`).
        adapter: an adapter folder or a run to put on top of it; a run's own prompting comes with it.
        system: the system turn, instead of the run's; empty: none.
        chat_template: as `prompt.chat_template`, instead of the run's or the model's own.
        dtype: as `load_model`; auto is nf4 for a run that was trained on 4-bit weights.
        device: as `load_model`.
        n_ctx: tokens of prompt and answer that a GGUF file has room for; None: what it was built for.

    Raises:
        ModelError: it cannot be found, fetched or read.
        ConfigError: a setting does not go with this kind of model, or the template not with this model.
    """
    path = find_gguf(name)
    if path is None:
        _refuse(name, "sets the room of a GGUF file; this model has its own", n_ctx=n_ctx)
        manners = manners_of(name, adapter).but(system=system, chat_template=chat_template)
        return _own_voice(name, manners, adapter=adapter, dtype=dtype, device=device)
    _refuse(name, "does nothing: a GGUF file is used as it is", adapter=adapter, dtype=dtype, device=device)
    source = export_of(name)[0] or path
    return _gguf_voice(name, path, manners_of(str(source)).but(system=system, chat_template=chat_template), n_ctx)


def base_and_adapter(
    name: str,
    *,
    adapter: str | None = None,
    system: str | None = None,
    chat_template: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> tuple[Voice, Voice]:
    """The model before its training and after it, prompted alike: two voices on one copy of the weights.

    After full fine-tuning there is nothing to switch off: the model that the run started from is opened beside it.

    Raises:
        ConfigError: nothing says what the model was before.
        ModelError: as `open_voice`.
    """
    voice = open_voice(name, adapter=adapter, system=system, chat_template=chat_template, dtype=dtype, device=device)
    if voice.base is None:
        voice.close()
        raise ConfigError(f"{name}: nothing says what it was before", hint="a run or an adapter knows its base model")
    return voice.base(), voice


def choices(folder: Path) -> list[str]:
    """Names of what can be talked to in a folder and below it, sorted: trained runs, exports by quantisation, GGUF
    files; empty where there is no such folder."""
    return sorted(_choices(folder))


def _choices(folder: Path) -> Iterator[str]:
    for place, inner, _ in os.walk(folder):
        here = Path(place)
        inner[:] = [name for name in inner if name not in _PARTS and not name.startswith(".")]
        if is_export(here):
            inner.clear()
            yield from [f"{here}:{kind_of(file)}" for file in gguf_files(here)] or [str(here)]
            continue
        if is_run(here) and (Run(here).adapter or Run(here).model):
            yield str(here)
        yield from (str(file) for file in gguf_files(here))


def _own_voice(name: str, manners: Manners, *, adapter: str | None, dtype: str, device: str) -> Voice:
    """A model in the own engine."""
    if dtype == "auto" and manners.quantize is not None:
        dtype = manners.quantize
    loaded = load_model(_weights_of(name), adapter=adapter, dtype=dtype, device=device)
    loaded, renderer, _ = fit_template(replace(loaded, name=name), manners.prompting)
    prompter = Prompter(renderer)
    voice = Voice(name, ContinuousService(loaded), prompter, prompter.system, manners.settings)

    def without_adapter() -> Voice:
        return replace(voice, name=loaded.base, service=ContinuousService(loaded, adapter=False))

    if isinstance(loaded.network, PeftModel):
        return replace(voice, base=without_adapter)
    start = (open_run(name).record.get("config") or {}).get("model") if is_run(name) else None

    def before_training() -> Voice:
        return replace(_own_voice(str(start), manners, adapter=None, dtype=dtype, device=device), base=None)

    return voice if start is None else replace(voice, base=before_training)


def _weights_of(name: str) -> str:
    """What `load_model` is given: of an export its merged folder.

    Raises:
        ModelError: the export holds no model.
    """
    folder, _ = export_of(name)
    if folder is None:
        return name
    if not (folder / "merged").is_dir():
        raise ModelError(f"{folder}: the export holds an adapter only", hint="talk to the run that it was made of")
    return str(folder / "merged")


def _gguf_voice(name: str, path: Path, manners: Manners, n_ctx: int | None) -> Voice:
    model = open_gguf(path, n_ctx=n_ctx)
    try:
        renderer = Renderer(model.tokenizer, manners.prompting, stop_ids=model.stop_ids)
    except RamifyError:
        model.close()
        raise
    prompter = Prompter(renderer)
    service = GgufService(replace(model, name=name, stop_ids=renderer.stop_ids))
    return Voice(name, service, prompter, prompter.system, manners.settings)


def _refuse(name: str, why: str, **settings: Any) -> None:
    """Refuse settings that would do nothing.

    Raises:
        ConfigError: one of them was given.
    """
    for setting, value in settings.items():
        if value not in (None, "auto"):
            raise ConfigError(f"{setting} = {value}: {name}: it {why}", hint=f"leave {setting} out")

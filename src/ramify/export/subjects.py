"""Models that were read back, as parity asks them: a Transformers network, or a GGUF file in llama.cpp."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ramify.base.config import Prompting
from ramify.base.errors import ConfigError, DataError
from ramify.base.types import Conversation
from ramify.export.agreement import Logits
from ramify.export.parity import Ids
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import fit_template
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import Template, encode, render
from ramify.sample.engine import TreeSampler
from ramify.sample.llamacpp.model import GgufModel, open_gguf
from ramify.sample.llamacpp.sampler import LlamaCppSampler
from ramify.sample.sampler import Sampler


class NetworkSubject:
    """A Transformers model; its logits come from a plain forward pass, without our attention."""

    def __init__(self, loaded: LoadedModel, prompting: Prompting) -> None:
        self.loaded, self.renderer, _ = fit_template(loaded, prompting)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Of tokenizer, template and generation config."""
        return self.loaded.stop_ids

    def prompt_ids(self, conversation: Conversation) -> Ids:
        """As the renderer writes it for training and sampling."""
        return self.renderer.prompt_ids(conversation)

    def known_ids(self, conversation: Conversation) -> Ids:
        """The same: its tokenizer is that of the training."""
        return self.prompt_ids(conversation)

    def logits(self, ids: Ids, last: int) -> Logits:
        """Of the last positions, float32 [last, vocabulary]."""
        network: Any = self.loaded.network
        with torch.inference_mode():
            output = network(input_ids=torch.tensor([ids], device=self.loaded.device), logits_to_keep=last)
        return np.asarray(output.logits[0].float().cpu().numpy())

    @property
    def sampler(self) -> Sampler:
        """The own engine."""
        return TreeSampler(self.loaded)


class GgufSubject:
    """A GGUF file as people will use it: prompts by the template and the tokenizer inside it."""

    def __init__(self, model: GgufModel, renderer: Renderer) -> None:
        self._model, self._renderer = model, renderer
        self._runtime = model.runtime
        source = self._runtime.metadata.get("tokenizer.chat_template")
        self._template = None if source is None else Template("of the GGUF file", source)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """What llama.cpp stops at."""
        return self._runtime.stop_ids

    def prompt_ids(self, conversation: Conversation) -> Ids:
        """The file's own template, then llama.cpp's tokenizer, BOS as the file asks for it.

        Without a template no prompt can be made: llama.cpp would take one that the model was not trained with.
        """
        if self._template is None:
            return ()
        turns = self._renderer.conversation(conversation)
        try:
            text = render(self._renderer.tokenizer, self._template, turns, generation=True)
        except (DataError, ConfigError):  # what the trained model's own template has written
            return ()
        return self._begun(tuple(self._runtime.tokenize(text)))

    def known_ids(self, conversation: Conversation) -> Ids:
        """The trained model's own prompt, each stretch between special tokens cut as a text of its own.

        llama.cpp puts the space that some tokenizers put before a text before each of them. Template and BOS are those
        of the training, not the file's: where these differ, that is a defect.
        """
        tokenizer: Any = self._renderer.tokenizer
        text, bos = self._renderer.text(conversation), tokenizer.bos_token_id
        special = {each.content: number for number, each in tokenizer.added_tokens_decoder.items() if each.special}
        marks = "|".join(re.escape(each) for each in sorted(special, key=len, reverse=True))
        parts = re.split(f"({marks})", text) if marks else [text]
        cut = [(special[part],) if part in special else encode(tokenizer, part) for part in parts if part]
        ids = tuple(number for each in cut for number in each)
        begins = bos is not None and self._renderer.prompt_ids(conversation)[:1] == (bos,)
        return (int(bos), *ids) if begins and ids[:1] != (bos,) else ids

    def _begun(self, ids: Ids) -> Ids:
        """With the BOS that the file asks for, unless the template has written it."""
        bos = self._runtime.bos_id
        needed = self._runtime.add_bos and bos is not None and ids[:1] != (bos,)
        return (bos, *ids) if needed and bos is not None else ids

    def logits(self, ids: Ids, last: int) -> Logits:
        """Of the last positions, float32 [last, vocabulary]."""
        return np.asarray(self._runtime.logits(ids, last))

    @property
    def sampler(self) -> Sampler:
        """Llama.cpp."""
        return LlamaCppSampler(self._model)


@contextmanager
def network_subject(
    name: str, prompting: Prompting, *, dtype: str, adapter: str | None = None
) -> Iterator[NetworkSubject]:
    """A model read from disk, let go behind the block."""
    yield NetworkSubject(load_model(name, adapter=adapter, dtype=dtype, device="cpu"), prompting)


@contextmanager
def gguf_subject(path: Path, renderer: Renderer, room: int) -> Iterator[GgufSubject]:
    """A GGUF file read from disk with keys and values in fp32, closed behind the block.

    Args:
        renderer: turns of the run's own prompting; the template is the file's.
        room: tokens of the longest text.
    """
    model = open_gguf(path, n_ctx=room, kv="f32")
    try:
        yield GgufSubject(model, renderer)
    finally:
        model.close()

"""A tokenizer as the vocabulary of a GGUF file, mapped by its structure.

    gpt2     byte-level BPE, cut by one of llama.cpp's pre-tokenizers (see `bpe`)
    llama    SentencePiece-like: spaces as U+2581, lone bytes as pieces, scores instead of merges (see `spm`)
    t5       single letters without bytes: unknown ones become `<unk>`

What the tokenizer puts around a text is found by tokenising, not by trusting its flags. The structure is that of the
tokenizer as Transformers runs it, since that is what the model sees: some classes put steps of their own in place of
those in tokenizer.json. A Llama tokenizer has its own space before a text; a GPT-2 tokenizer, as which SmolLM2's is
loaded, drops the step that cuts digits apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ramify.base.errors import ModelError
from ramify.export.gguf import bpe, spm
from ramify.export.gguf.around import Around, around
from ramify.export.gguf.ends import Special, also_ends, special_tokens, templates_of
from ramify.export.gguf.pieces import Pieces, check_added, pieces
from ramify.model.failures import one_line
from ramify.model.outline import load_tokenizer
from ramify.model.source import Source
from ramify.sample.llamacpp.vocabulary import TokenKind

_KEY = "tokenizer.ggml."
_ALL_SPACES = "llama.cpp puts no space before spaces alone"
Field = str | bool | int | list[str] | list[int] | list[float]


@dataclass(frozen=True)
class Vocabulary:
    """Everything that a GGUF file says about its tokenizer.

    Attributes:
        model: `gpt2`, `llama` or `t5`.
        pre: name of the pre-tokenizer; `default` where there is none to choose.
        tokens: text of each token, as many as the embedding has rows.
        kinds: what each token is; rows without a token are UNUSED.
        scores: of each token; empty for `gpt2`.
        merges: `left right`, by rank; empty but for `gpt2`.
        special: ids of the tokens that GGUF names.
        around: what the tokenizer puts around a text.
        templates: chat templates by name.
        notes: where llama.cpp is known to differ from the tokenizer, one sentence each.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[TokenKind, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    special: Special
    around: Around
    templates: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def chat_template(self) -> str | None:
        """The default chat template, Jinja."""
        return self.templates.get("default")

    def fields(self) -> dict[str, Field]:
        """Keys and values of the file: int is uint32, lists are arrays of int32, float32 or string."""
        found: dict[str, Field] = {
            _KEY + "model": self.model,
            _KEY + "pre": self.pre,
            _KEY + "tokens": list(self.tokens),
            _KEY + "token_type": [int(kind) for kind in self.kinds],
            _KEY + "add_bos_token": self.around.bos,
            _KEY + "add_eos_token": self.around.eos,
            _KEY + "add_space_prefix": self.around.space,
        }
        if self.scores:
            found[_KEY + "scores"] = list(self.scores)
        if self.merges:
            found[_KEY + "merges"] = list(self.merges)
        if self.model == "t5":
            found[_KEY + "remove_extra_whitespaces"] = False
        return found | self._special_fields() | self._template_fields()

    def _special_fields(self) -> dict[str, Field]:
        """Without a token of its own for bos the file names eos: llama.cpp would take token 1 or 11."""
        ids = self.special
        bos = ids.eos if ids.bos is None else ids.bos
        named = {"bos": bos, "eos": ids.eos, "eot": ids.eot, "eom": ids.eom, "unknown": ids.unk, "padding": ids.pad}
        return {f"{_KEY}{name}_token_id": token for name, token in named.items() if token is not None}

    def _template_fields(self) -> dict[str, Field]:
        """The default template under its own key, further ones by name beside it."""
        key = "tokenizer.chat_template"
        others = sorted(name for name in self.templates if name != "default")
        found: dict[str, Field] = {f"{key}.{name}": self.templates[name] for name in others}
        if others:
            found[key + "s"] = others
        return found if self.chat_template is None else {key: self.chat_template, **found}


def vocabulary(folder: Path, vocab_size: int, *, family: str) -> Vocabulary:
    """The vocabulary of a GGUF file for the tokenizer in a folder.

    Args:
        folder: tokenizer.json, tokenizer_config.json, chat_template.jinja; generation_config.json or config.json for
            further stop tokens.
        vocab_size: rows of the embedding.
        family: what the model is called in an error.

    Raises:
        ModelError: the folder cannot be read, or the tokenizer does something that llama.cpp cannot do.
        ConfigError: its chat template is not Jinja.
    """
    with one_line(str(folder)):
        tokenizer = load_tokenizer(Source(str(folder.absolute())))  # `nano` alone would be the embedded model
    try:
        return _mapped(tokenizer, folder, vocab_size)
    except ModelError as error:
        raise ModelError(f"{folder}: no GGUF of this {family} model: {error.message}", hint=error.hint) from None


def _mapped(tokenizer: PreTrainedTokenizerBase, folder: Path, vocab_size: int) -> Vocabulary:
    if not tokenizer.is_fast:
        raise ModelError("its tokenizer has no tokenizer.json")
    backend: Any = tokenizer.backend_tokenizer
    parts = json.loads(backend.to_str())
    if parts["model"]["type"] != "BPE":
        raise ModelError(f"its tokenizer is {parts['model']['type']}; only BPE can be written")
    check_added(parts["added_tokens"], backend.normalizer)
    spaced = spm.is_spaced(parts)
    found = pieces(parts, vocab_size, spaced=spaced)
    templates = templates_of(tokenizer)
    special, stops = special_tokens(tokenizer, folder, found.texts)
    own = around(tokenizer, special.eos, spaced=spaced)
    cut = _spaced(parts, found) if spaced else _byte_level(parts, backend.model, found)
    return Vocabulary(
        model=cut.model,
        pre=cut.pre,
        tokens=found.texts,
        kinds=found.kinds,
        scores=cut.scores,
        merges=cut.merges,
        special=special,
        around=own,
        templates=templates,
        notes=(*cut.notes, *own.notes, *_rowless(found, templates), *_further_ends(stops, found.texts)),
    )


@dataclass(frozen=True, slots=True)
class _Cut:
    """How a text is cut into tokens; attributes as in `Vocabulary`."""

    model: str
    pre: str = "default"
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _byte_level(parts: Mapping[str, Any], model: Any, found: Pieces) -> _Cut:
    if not bpe.is_byte_level(parts):
        raise ModelError("its tokenizer spells neither bytes as letters nor spaces as U+2581")
    pre, notes = bpe.pre_tokenizer(parts, model, found.ordinary)
    return _Cut("gpt2", pre, merges=bpe.merges(parts), notes=notes)


def _spaced(parts: Mapping[str, Any], found: Pieces) -> _Cut:
    spm.check_steps(parts, found)
    if spm.is_letters(parts, found):
        return _Cut("t5", scores=(-1.0,) * len(found.texts), notes=(_ALL_SPACES,))
    scores, notes = spm.scores(parts, found)
    return _Cut("llama", scores=scores, notes=notes)


def _rowless(found: Pieces, templates: Mapping[str, str]) -> tuple[str, ...]:
    """What is said of special tokens without a row.

    Raises:
        ModelError: prompts are made with one.
    """
    used = next((text for text in found.rowless if any(text in source for source in templates.values())), None)
    if used is not None:
        raise ModelError(f"its chat template writes {used!r}, for which its embedding has no row")
    return (f"left out, without a row in the embedding: {', '.join(found.rowless)}",) if found.rowless else ()


def _further_ends(stops: set[int], texts: Sequence[str]) -> tuple[str, ...]:
    further = also_ends(stops, texts)
    return (f"llama.cpp ends an answer at {', '.join(further)}, too",) if further else ()

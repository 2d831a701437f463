"""The tokenizer of a GGUF file, as renderer, sampler and stream know tokenizers.

The real one is used where it lies in a folder `tokenizer` beside the file, as in an export. Otherwise llama.cpp's own
splits the text and the file's chat template renders it. The two agree on the vocabularies that llama.cpp knows but
for one thing: a SentencePiece tokenizer that puts a space before the first word only is one that llama.cpp lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ramify.base.errors import ModelError
from ramify.sample.llamacpp.runtime import Runtime
from ramify.sample.llamacpp.vocabulary import TokenTable

FOLDER = "tokenizer"
_SPECIAL = ("bos", "eos", "unk", "pad", "sep", "mask")
_KEYS = {"unk": "unknown", "pad": "padding", "sep": "seperator"}  # as GGUF spells them


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is matched as a whole; a special one is left out of decoded text."""

    content: str
    special: bool

    def __str__(self) -> str:
        return self.content


class GgufTokenizer:
    """What Ramify asks of a Transformers tokenizer, answered by llama.cpp.

    Attributes:
        chat_template: of the file, or None.
        added_tokens_decoder: control and user-defined tokens by id.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._table = runtime, runtime.table
        metadata = runtime.header.metadata
        self.chat_template: str | None = metadata.get("tokenizer.chat_template")
        self.added_tokens_decoder = _added(runtime.table)
        self._ids: dict[str, int] = {text: token for token, text in reversed(list(enumerate(runtime.table.texts)))}
        self._named = _named(metadata, runtime)
        self._strips_space = metadata.get("tokenizer.ggml.model") == "llama" and bool(
            metadata.get("tokenizer.ggml.add_space_prefix", True)
        )

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text."""
        return self._named.get("bos")

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        return self._named.get("eos")

    @property
    def pad_token_id(self) -> int | None:
        """The token that fills up."""
        return self._named.get("pad")

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of bos, eos and their like."""
        return list(dict.fromkeys(self._table.texts[token] for token in self._named.values()))

    def __len__(self) -> int:
        return len(self._table)

    def __call__(self, text: str, *, add_special_tokens: bool = True, **_: Any) -> dict[str, list[int]]:
        """Token ids of a text under `input_ids`; with `add_special_tokens`, behind BOS where the file says so."""
        ids = self._runtime.tokenize(text)
        if add_special_tokens and self._runtime.add_bos and self.bos_token_id is not None:
            ids = [self.bos_token_id, *ids]
        return {"input_ids": ids}

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False, **_: Any) -> str:
        """Text of tokens; bytes that are no letter become U+FFFD."""
        kept = [token for token in ids if not (skip_special_tokens and self._table.is_special(token))]
        text = b"".join(map(self._table.piece, kept)).decode("utf-8", errors="replace")
        return text[1:] if self._strips_space and text[:1] == " " else text

    def get_vocab(self) -> dict[str, int]:
        """Tokens as the file spells them, with their ids."""
        return dict(self._ids)

    def convert_ids_to_tokens(self, token: int) -> str:
        """How the file spells a token."""
        return self._table.texts[token]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of a token as the file spells it."""
        return self._ids.get(token)

    def apply_chat_template(
        self, conversation: Any, *, chat_template: str, tokenize: bool, add_generation_prompt: bool
    ) -> str | list[str]:
        """Conversations as text; one, or a list of them. Only text is made here (`tokenize` is False)."""
        if tokenize:
            raise TypeError("this tokenizer renders text; tokenise it afterwards")
        many = bool(conversation) and isinstance(conversation[0], list)
        texts: Any = {f"{name}_token": self._table.texts[token] for name, token in self._named.items()}
        rendered: Any = render_jinja_template(
            conversations=conversation if many else [conversation],
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            **texts,
        )
        found: list[str] = rendered[0]
        return found if many else found[0]


def open_tokenizer(runtime: Runtime) -> PreTrainedTokenizerBase:
    """The real tokenizer beside the file, or one on llama.cpp's own.

    Raises:
        ModelError: the folder beside the file holds no tokenizer, or one of another vocabulary.
    """
    folder = runtime.path.parent / FOLDER
    if not (folder / "tokenizer_config.json").is_file():
        return cast(PreTrainedTokenizerBase, GgufTokenizer(runtime))  # has what is used of one
    return _beside(folder, runtime)


def _beside(folder: Path, runtime: Runtime) -> PreTrainedTokenizerBase:
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}: not a tokenizer: {error}") from None
    if len(found) > runtime.n_vocab:
        raise ModelError(
            f"{folder}: {len(found)} tokens, but {runtime.path.name} has {runtime.n_vocab}",
            hint="the tokenizer belongs to another export; move one of the two",
        )
    return found


def _added(table: TokenTable) -> dict[int, AddedToken]:
    return {token: AddedToken(table.texts[token], table.is_special(token)) for token in table.added}


def _named(metadata: Any, runtime: Runtime) -> dict[str, int]:
    """Ids of bos, eos and their like, those that the file or llama.cpp knows."""
    found = {name: metadata.get(f"tokenizer.ggml.{_KEYS.get(name, name)}_token_id") for name in _SPECIAL}
    found |= {"bos": runtime.bos_id, "eos": runtime.eos_id}
    return {name: token for name, token in found.items() if isinstance(token, int) and token < runtime.n_vocab}

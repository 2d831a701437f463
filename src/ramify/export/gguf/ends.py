"""Special tokens of a GGUF vocabulary, so that llama.cpp ends an answer wherever the model's own settings do.

llama.cpp ends at the tokens named eos, eot and eom, and at tokens of certain texts, whatever the file says. A file can
therefore name at most three tokens of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.base.errors import DataError, ModelError
from ramify.prompts.templates import Template, turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BY_TEXT = frozenset(
    {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>"}
    | {"<EOT>", "_<EOT>"}
)
_ALSO = frozenset(
    {"</s>", "<eos>", "<end_of_utterance>", "[EOT]", "[EOS]", "<|return|>", "<|call|>"}  # newer versions
    | {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|file_sep|>"}  # for filling in code
    | {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}
)


@dataclass(frozen=True, slots=True)
class Special:
    """Ids of the tokens that GGUF names; None: the tokenizer has none.

    Attributes:
        eos: ends an answer; always there.
        eot: ends a turn.
        eom: a third token that ends an answer.
    """

    eos: int
    bos: int | None = None
    eot: int | None = None
    eom: int | None = None
    unk: int | None = None
    pad: int | None = None


def special_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path, texts: Sequence[str]) -> tuple[Special, set[int]]:
    """The special tokens, and all tokens that end an answer.

    Args:
        folder: with generation_config.json or config.json, where they exist.
        texts: of all tokens, by id.

    Raises:
        ModelError: nothing ends an answer, a stop token or bos is outside the vocabulary, or there are more stop tokens
            than llama.cpp can be told.
    """
    end = _turn_end(tokenizer)
    own = tokenizer.eos_token_id
    stops = [each for each in (own, end, *_listed(folder)) if each is not None]
    if not stops:
        raise ModelError(
            "no token ends an answer: neither tokenizer, chat template nor generation_config.json names one",
            hint="set eos_token in tokenizer_config.json",
        )
    bos = tokenizer.bos_token_id
    outside = [each for each in (*stops, *(() if bos is None else (bos,))) if not 0 <= each < len(texts)]
    if outside:
        raise ModelError(f"token {outside[0]} ends or begins a text; the embedding has only {len(texts)} rows")
    eot, eom = _further(stops[0], end, stops, texts)
    others = (tokenizer.unk_token_id, tokenizer.pad_token_id)
    unk, pad = (each if each is not None and each < len(texts) else None for each in others)
    return Special(stops[0], bos, eot, eom, unk, pad), set(stops)


def also_ends(stops: set[int], texts: Sequence[str]) -> list[str]:
    """Texts of tokens at which llama.cpp ends an answer though the model's own settings do not."""
    return [text for token, text in enumerate(texts) if token not in stops and text in _BY_TEXT | _ALSO]


def _further(eos: int, end: int | None, stops: Sequence[int], texts: Sequence[str]) -> tuple[int | None, int | None]:
    """What to name eot and eom: the token that ends a turn, and those that llama.cpp would not know by their text."""
    unknown = [each for each in dict.fromkeys(stops) if each != eos and texts[each] not in _BY_TEXT]
    if len(unknown) > 2:
        shown = ", ".join(repr(texts[each]) for each in (eos, *unknown))
        raise ModelError(f"{len(unknown) + 1} tokens end an answer, llama.cpp can be told three: {shown}")
    others = [each for each in unknown if each != end]
    if end is not None and len(others) < 2:
        return end, others[0] if others else None
    first, second, *_ = (*unknown, None, None)
    return first, second


def _turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token behind an assistant's words in the default chat template."""
    source = templates_of(tokenizer).get("default")
    if source is None:
        return None
    try:
        text = turn_end(tokenizer, Template("model", source))
    except DataError:  # it wants turns that the probe does not have
        return None
    found = None if text is None else tokenizer.get_vocab().get(text)
    return None if found is None else int(found)


def templates_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Chat templates by name; a single one is the default."""
    found: Any = tokenizer.chat_template
    if not found:
        return {}
    return dict(found) if isinstance(found, Mapping) else {"default": str(found)}


def _listed(folder: Path) -> list[int]:
    """Stop tokens of generation_config.json or, without one, of config.json, as Transformers reads them."""
    for name in ("generation_config.json", "config.json"):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"{folder / name}: cannot be read: {error}") from None
        return [found] if isinstance(found, int) else list(found or ())
    return []

"""Many rows to token ids at once: the ids of `Renderer.sequences`, several times faster.

All texts of a batch go through the tokenizer in one call, and each distinct stretch between two special tokens goes
through it once: a system turn that all rows have, and the turns of a conversation that every later turn repeats, cost
no more than once. Tokenizers cut a text at such tokens before they do anything else; where ids depend on more than
the stretch itself (a word start that only the very first one gets), whole texts are tokenised instead.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ramify.base.errors import DataError
from ramify.base.types import Conversation, Example
from ramify.prompts.renderer import Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = npt.NDArray[np.int32]
_FREE_OF_PLACE = frozenset(
    (
        "BertPreTokenizer",
        "ByteLevel",
        "CharDelimiterSplit",
        "Digits",
        "Punctuation",
        "Split",
        "UnicodeScripts",
        "Whitespace",
        "WhitespaceSplit",
    )
)
"""Pre-tokenizers that treat a stretch alike wherever in the text it stands."""


class Encoded(NamedTuple):
    """One sequence: [P] and [C] int32, and the weight of each completion token (0: not trained)."""

    prompt: Ids
    completion: Ids
    weight: float


def encode_many(renderer: Renderer, examples: Sequence[Example]) -> list[list[Encoded] | DataError]:
    """For each example what `renderer.sequences` gives, id for id, or the error it raises.

    `renderer.separate_count` counts as it does there.

    Raises:
        ConfigError: the chat template itself is broken.
    """
    prompts = _prompt_texts(renderer, {each.prompt for each in examples if each.prompt})
    texts: dict[str, None] = {}
    for example in examples:
        if not example.prompt:
            texts |= dict.fromkeys(each.text for each in example.completions)
            continue
        prompt = prompts[example.prompt]
        if isinstance(prompt, str):
            texts[prompt] = None
            for each in example.completions:
                if each.text.strip():
                    texts[prompt + renderer.spoken(each.text)] = None
    ids = dict(zip(texts, encode_texts(renderer.tokenizer, list(texts)), strict=True))
    return [_encode(renderer, example, prompts.get(example.prompt, ""), ids) for example in examples]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, nothing put around them."""
    border = _border(tokenizer)
    if border is None:
        return _encode_whole(tokenizer, texts)
    cut = [border.split(text) for text in texts]
    known = {token: [number] for token, number in tokenizer.get_added_vocab().items()}
    pieces = list({piece for pieces in cut for piece in pieces[::2] if piece})  # tokens stand at the odd places
    backend: Any = tokenizer.backend_tokenizer
    found = (each.ids for each in backend.encode_batch_fast(pieces, add_special_tokens=False))
    stretches = dict(zip(pieces, found, strict=True))
    stretches[""] = []
    return [_joined(pieces, stretches, known) for pieces in cut]


def _joined(pieces: Sequence[str], stretches: Mapping[str, list[int]], tokens: Mapping[str, list[int]]) -> list[int]:
    """Ids of stretches and the tokens between them, in turn."""
    ids = list(stretches[pieces[0]])
    for place in range(1, len(pieces), 2):
        ids += tokens[pieces[place]]
        ids += stretches[pieces[place + 1]]
    return ids


def _encode_whole(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    found: Any = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [list(map(int, ids)) for ids in found["input_ids"]]


def _border(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """What cuts texts into stretches that are tokenised by themselves; None when this tokenizer has no such thing."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.truncation or backend.padding or getattr(backend, "encode_special_tokens", False):
        return None
    tokens = [token for token in tokenizer.added_tokens_decoder.values() if not token.normalized]
    moving = any(token.lstrip or token.rstrip or token.single_word for token in tokens)
    if moving or not tokens or not _is_free_of_place(backend.pre_tokenizer):
        return None
    longest_first = sorted((token.content for token in tokens), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")


def _is_free_of_place(pre_tokenizer: Any) -> bool:
    """Whether it splits a stretch the same way at the start of a text and behind a special token."""
    if pre_tokenizer is None:
        return True
    settings = json.loads(pre_tokenizer.__getstate__())
    parts = settings["pretokenizers"] if settings["type"] == "Sequence" else [settings]
    return all(
        part["type"] in _FREE_OF_PLACE
        or (part["type"] == "Metaspace" and part.get("prepend_scheme") in ("always", "never"))
        for part in parts
    )


def _prompt_texts(renderer: Renderer, prompts: Iterable[Conversation]) -> dict[Conversation, str | DataError]:
    """Each prompt as text; one that the template refuses has its error instead."""
    given = list(prompts)
    try:
        return dict(zip(given, renderer.texts(given), strict=True))
    except DataError:
        return {prompt: _text_or_error(renderer, prompt) for prompt in given}


def _text_or_error(renderer: Renderer, prompt: Conversation) -> str | DataError:
    try:
        return renderer.text(prompt)
    except DataError as error:
        return error


def _encode(
    renderer: Renderer, example: Example, prompt_text: str | DataError, ids: Mapping[str, list[int]]
) -> list[Encoded] | DataError:
    try:
        renderer.refuse_untrained(example)
        if isinstance(prompt_text, DataError):
            raise prompt_text
        if not example.prompt:
            texts = [(renderer.alone(ids[each.text]), each.weight) for each in example.completions]
            return [Encoded(_ids(first), _ids(rest), weight) for (first, rest), weight in texts]
        prompt = renderer.begun(ids[prompt_text])
        kept, found = _ids(prompt), []
        for each in example.completions:
            spoken = renderer.spoken(each.text)
            found.append(Encoded(kept, _ids(renderer.tail(prompt, ids[prompt_text + spoken], spoken)), each.weight))
        return found
    except DataError as error:
        return renderer.named(error, example)


def _ids(ids: Sequence[int]) -> Ids:
    return np.frombuffer(array("i", ids), dtype=np.int32)

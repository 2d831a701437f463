"""The tokens of a tokenizer by id, and what each is to llama.cpp."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ramify.base.errors import ModelError
from ramify.export.gguf.bpe import pairs
from ramify.sample.llamacpp.vocabulary import TokenKind

SPACE = "\u2581"
BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
_REACH = ("lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class Pieces:
    """Texts and kinds of all tokens, one for each row of the embedding.

    Attributes:
        rowless: added tokens for which the embedding has no row; the model cannot be given them.
    """

    texts: tuple[str, ...]
    kinds: tuple[TokenKind, ...]
    rowless: tuple[str, ...] = ()

    @property
    def ordinary(self) -> frozenset[str]:
        """Those that text is made of: no special tokens, no lone bytes, no empty rows."""
        both = zip(self.texts, self.kinds, strict=True)
        return frozenset(text for text, kind in both if kind is TokenKind.NORMAL)


def pieces(parts: Mapping[str, Any], vocab_size: int, *, spaced: bool) -> Pieces:
    """The tokens of a tokenizer, rows without one filled up.

    Tokens added as special are CONTROL, other added ones USER_DEFINED: both are found in a text before it is cut.
    llama.cpp looks for them before spaces become U+2581, so an added run of these stays an ordinary piece where
    merges make it.

    Args:
        parts: tokenizer.json, parsed.
        vocab_size: rows of the embedding.
        spaced: the tokenizer writes spaces as U+2581.

    Raises:
        ModelError: there are more tokens than rows, not counting special ones (padding, pictures) that were never given
            a row.
    """
    known = _by_id(parts)
    added = {int(each["id"]): bool(each["special"]) for each in parts["added_tokens"]}
    rowless = [token for token in sorted(known) if token >= vocab_size]
    needed = next((token for token in rowless if not added.get(token)), None)
    if needed is not None:
        raise ModelError(f"its tokenizer has token {needed} ({known[needed]!r}), its embedding only {vocab_size} rows")
    made = {left + right for left, right in pairs(parts["model"]["merges"])} if spaced else set()
    unknown = parts["model"].get("unk_token") if spaced else None
    taken, texts, kinds = set(known.values()), [], []
    for token in range(vocab_size):
        text = known.get(token)
        texts.append(_filler(token, taken) if text is None else text)
        kinds.append(_kind(text, added.get(token), unknown, made, spaced=spaced))
    return Pieces(tuple(texts), tuple(kinds), tuple(known[token] for token in rowless))


def _by_id(parts: Mapping[str, Any]) -> dict[int, str]:
    known = {int(token): str(text) for text, token in parts["model"]["vocab"].items()}
    return known | {int(each["id"]): str(each["content"]) for each in parts["added_tokens"]}


def _kind(text: str | None, special: bool | None, unknown: str | None, made: set[str], *, spaced: bool) -> TokenKind:
    if text is None:
        return TokenKind.UNUSED
    if text == unknown:
        return TokenKind.UNKNOWN
    if special is not None:
        run = not special and SPACE in text and text in made
        return TokenKind.CONTROL if special else TokenKind.NORMAL if run else TokenKind.USER_DEFINED
    return TokenKind.BYTE if spaced and text in BYTES else TokenKind.NORMAL


def _filler(token: int, taken: Iterable[str]) -> str:
    """A text for a row without a token; llama.cpp refuses two tokens of one text."""
    text = f"[PAD{token}]"
    while text in taken:
        text = f"[{text}]"
    return text


def check_added(added: Iterable[Mapping[str, Any]], normalizer: Any) -> None:
    """Refuse added tokens that llama.cpp would find elsewhere in a text.

    Args:
        added: of tokenizer.json.
        normalizer: of the tokenizers library, or None.

    Raises:
        ModelError: one takes white space with it, wants to be a word of its own, or is looked for in changed text.
    """
    for each in added:
        text = each["content"]
        for setting in _REACH:
            if each.get(setting):
                raise ModelError(f"its added token {text!r} has {setting}, which llama.cpp does not know")
        if each.get("normalized") and normalizer is not None and normalizer.normalize_str(text) != text:
            changed = normalizer.normalize_str(text)
            raise ModelError(f"its added token {text!r} is looked for as {changed!r}; llama.cpp cannot")

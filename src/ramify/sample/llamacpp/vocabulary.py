"""The tokens of a GGUF file as bytes, and what kind of token each is.

Byte-level vocabularies (`gpt2`) spell every byte as a printable letter (Radford et al. 2019, `bytes_to_unicode`);
SentencePiece ones (`llama`) spell a space as U+2581 and lone bytes as `<0x0A>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from ramify.base.errors import ModelError
from ramify.sample.pieces import LETTERS

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"


class TokenKind(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class TokenTable:
    """Bytes and kinds of all tokens.

    Args:
        metadata: of the file's header.

    Raises:
        ModelError: the file has no vocabulary.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.texts: list[str] = list(metadata.get("tokenizer.ggml.tokens", ()))
        if not self.texts:
            raise ModelError("the GGUF file has no vocabulary", hint="is it an adapter, or a projector of images?")
        kinds = metadata.get("tokenizer.ggml.token_type") or [TokenKind.NORMAL] * len(self.texts)
        self._kinds: list[int] = list(kinds)
        special = (int(TokenKind.CONTROL), int(TokenKind.UNKNOWN))
        self._special = frozenset(token for token, kind in enumerate(self._kinds) if kind in special)
        user = int(TokenKind.USER_DEFINED)
        self.added = (*sorted(self._special), *(token for token, kind in enumerate(self._kinds) if kind == user))
        """Tokens that are matched as a whole before the text is split: special and user-defined ones."""
        self._byte_level = metadata.get("tokenizer.ggml.model") == "gpt2"

    def __len__(self) -> int:
        return len(self.texts)

    def is_special(self, token: int) -> bool:
        """Whether the token stands for no text: control tokens and the unknown one."""
        return token in self._special

    def piece(self, token: int) -> bytes:
        """The token's bytes; special tokens are spelled out, unused ones are empty."""
        text, kind = self.texts[token], self._kinds[token]
        if kind == TokenKind.UNUSED:
            return b""
        if token in self._special or kind == TokenKind.USER_DEFINED:
            return text.encode("utf-8", errors="surrogateescape")
        if self._byte_level:
            return b"".join(LETTERS.get(letter) or letter.encode() for letter in text)
        found = _BYTE.fullmatch(text) if kind == TokenKind.BYTE else None
        if found:
            return bytes([int(found.group(1), 16)])
        return text.replace(_SPACE, " ").encode("utf-8", errors="surrogateescape")

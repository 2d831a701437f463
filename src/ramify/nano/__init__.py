"""nano, the embedded base model: a 3.8-million-parameter Llama in this folder, made by `recipes/nano`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["path"]


def path() -> Path:
    """The folder with nano's weights, configuration and tokenizer, as Transformers reads it."""
    return Path(__file__).parent

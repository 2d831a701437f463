"""SentencePiece-like vocabularies: a score for each piece, from the merges of a tokenizer.

Transformers has such a tokenizer as BPE on text whose spaces became U+2581, with 256 pieces for lone bytes. llama.cpp
has no merges here: of all neighbours whose joined text is a piece it joins the pair with the highest score, the
leftmost first. It does as the tokenizer does when

1. every pair of pieces whose join is a piece is a merge (so it is where merges were made from a SentencePiece model),
2. a piece's score is minus the rank of its first merge, which keeps the order of the merges.

A vocabulary of single letters alone needs neither merges nor bytes (`t5` in llama.cpp): what it lacks is `<unk>`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ramify.base.errors import ModelError
from ramify.export.gguf.bpe import check_merging, flat, pairs
from ramify.export.gguf.pieces import BYTES, SPACE, Pieces

_FEW = 0.01  # of the pairs: with more that are no merges, texts of every day come out differently
_TO_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_PREPEND = {"type": "Prepend", "prepend": SPACE}


def is_spaced(parts: Mapping[str, Any]) -> bool:
    """Whether a tokenizer (tokenizer.json, parsed) writes spaces as U+2581."""
    steps = [*flat(parts["normalizer"], "normalizers"), *flat(parts["pre_tokenizer"], "pretokenizers")]
    return any(step == _TO_SPACE or _is_metaspace(step) for step in steps)


def check_steps(parts: Mapping[str, Any], pieces: Pieces) -> None:
    """Refuse a tokenizer that does more to a text than to write its spaces as U+2581.

    Raises:
        ModelError: names the step that llama.cpp lacks.
    """
    check_merging(parts)
    if parts["model"].get("ignore_merges"):
        raise ModelError("its tokenizer takes whole words before merges (ignore_merges), llama.cpp merges scores alone")
    for step in flat(parts["normalizer"], "normalizers"):
        if step not in (_TO_SPACE, _PREPEND):
            raise ModelError(f"its tokenizer changes a text before it cuts it ({step['type']}); llama.cpp cannot")
    for step in flat(parts["pre_tokenizer"], "pretokenizers"):
        _check_cut(step, pieces)


def _is_metaspace(step: Mapping[str, Any]) -> bool:
    return step["type"] == "Metaspace" and step.get("replacement") == SPACE


def _check_cut(step: Mapping[str, Any], pieces: Pieces) -> None:
    """Cutting at spaces is no difference where no piece goes on behind a space."""
    pattern = step["pattern"].get("String") if step["type"] == "Split" else None
    if not _is_metaspace(step) and pattern not in (" ", SPACE):
        raise ModelError(f"its tokenizer cuts a text by {step['type']}, llama.cpp does not where spaces are {SPACE}")
    if pattern == " " or (_is_metaspace(step) and not step.get("split", True)):
        return  # at spaces, of which none is left; or nowhere
    crossing = next((piece for piece in sorted(pieces.ordinary) if SPACE in piece[1:]), None)
    if crossing is not None:
        raise ModelError(f"its tokenizer cuts a text at spaces, llama.cpp does not: it would make {crossing!r}")


def scores(parts: Mapping[str, Any], pieces: Pieces) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """A score for each token, and where llama.cpp is known to differ.

    Args:
        parts: tokenizer.json, parsed.

    Raises:
        ModelError: too many pairs that llama.cpp would join are no merges, or a letter outside of the vocabulary
            has no bytes to fall back to.
    """
    missing = [byte for byte in BYTES if byte not in parts["model"]["vocab"]]
    if missing or not parts["model"].get("byte_fallback"):
        raise ModelError(
            f"its tokenizer has no pieces for {len(missing) or 256} of 256 bytes: llama.cpp would end the whole "
            "process at a letter outside of the vocabulary"
        )
    ranked = pairs(parts["model"]["merges"])
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(ranked):
        ranks.setdefault(left + right, rank)
    last = len(ranked)  # for what no merge makes
    found = tuple(-float(ranks.get(text, last)) for text in pieces.texts)
    return found, _strays(frozenset(ranked), parts["model"]["vocab"], pieces)


def _strays(merges: Collection[tuple[str, str]], vocabulary: Collection[str], pieces: Pieces) -> tuple[str, ...]:
    """Pairs that llama.cpp would join and the tokenizer does not, when they are few."""
    joined = [
        (piece[:cut], piece[cut:])
        for piece in pieces.ordinary
        for cut in range(1, len(piece))
        if all(len(part) == 1 or part in vocabulary for part in (piece[:cut], piece[cut:]))
    ]
    strays = sorted(pair for pair in joined if pair not in merges)
    if not strays:
        return ()
    shown = " + ".join(strays[0])
    said = f"{len(strays)} of {len(joined)} pairs that llama.cpp would join are no merges (first: {shown})"
    if len(strays) > _FEW * len(joined):
        raise ModelError(
            f"{said}: its texts would come out differently",
            hint="llama.cpp takes no list of merges where spaces are U+2581; byte-level tokenizers keep theirs",
        )
    return (f"{said}: rare texts come out differently",)


def is_letters(parts: Mapping[str, Any], pieces: Pieces) -> bool:
    """Whether the tokenizer knows single letters alone, and one token for all letters that it does not know."""
    model = parts["model"]
    alone = not model["merges"] and all(len(piece) == 1 for piece in pieces.ordinary)
    return alone and not BYTES & model["vocab"].keys() and bool(model.get("unk_token") and model.get("fuse_unk"))

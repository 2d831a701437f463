"""Byte-level BPE: which of llama.cpp's pre-tokenizers cuts a text as a tokenizer does.

llama.cpp knows pre-tokenizers by name; a name stands for regular expressions, and for whether a word that is a token
is taken as it is, before any merge (`ignore_merges`). A tokenizer is recognised by the same two things, never by the
name of its model. Behind the cutting both merge pairs of byte letters by rank, so equal cuts give equal ids.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ramify.base.errors import ModelError

_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{_ENGLISH}|\p{{N}}{{1,3}}|{_TAIL}"
QWEN2 = rf"{_ENGLISH}|\p{{N}}|{_TAIL}"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Steps = tuple[tuple[str, ...], ...]
"""What a pre-tokenizer does, in order: `("digits",)`, `("split", REGEX)`, `("bytes",)`."""

_DIGITS, _BYTES = ("digits",), ("bytes",)
_PLAIN: Steps = (("split", GPT2), _BYTES)


@dataclass(frozen=True, slots=True)
class _Known:
    """What llama.cpp has under one name.

    Attributes:
        whole: whether it takes a word that is a token as it is, before any merge.
        note: where it is known to differ.
    """

    name: str
    steps: Steps
    whole: bool = False
    note: str = ""


_CASES = "llama.cpp takes letters beyond a-z as of either case: words with both may be cut elsewhere"
_TABLE = (
    _Known("gpt-2", _PLAIN),
    _Known("smollm", (_DIGITS, *_PLAIN)),
    _Known("llama-bpe", (("split", LLAMA3), _BYTES), whole=True),
    _Known("smaug-bpe", (("split", LLAMA3), _BYTES)),
    _Known("qwen2", (("split", QWEN2), _BYTES)),
    _Known("tekken", (("split", TEKKEN), _BYTES), whole=True, note=_CASES),
)


def is_byte_level(parts: Mapping[str, Any]) -> bool:
    """Whether a tokenizer (tokenizer.json, parsed) spells bytes as letters."""
    return any(step.get("type") == "ByteLevel" for step in flat(parts["pre_tokenizer"], "pretokenizers"))


def pre_tokenizer(parts: Mapping[str, Any], model: Any, ordinary: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """Name of llama.cpp's pre-tokenizer for this byte-level BPE tokenizer, and where the two are known to differ.

    Args:
        parts: tokenizer.json, parsed.
        model: its BPE, of the tokenizers library.
        ordinary: tokens that text is made of. Where merges make all of them, `ignore_merges` is no difference.

    Raises:
        ModelError: llama.cpp has none that cuts alike; says which step it lacks.
    """
    steps = _steps(flat(parts["pre_tokenizer"], "pretokenizers"))
    whole = bool(parts["model"].get("ignore_merges"))
    alike = [known for known in _TABLE if known.steps == steps]
    found = next((known for known in alike if known.whole == whole), None)
    if found is None and alike and _all_made(model, ordinary):
        found = alike[0]
    if found is None:
        raise ModelError(_refusal(steps, whole, bool(alike)), hint="llama.cpp knows pre-tokenizers by name only")
    notes = (*_normalizer_notes(parts["normalizer"]), *((found.note,) if found.note else ()))
    return found.name, notes


def merges(parts: Mapping[str, Any]) -> tuple[str, ...]:
    """The merges by rank, each as `left right`.

    Raises:
        ModelError: there are none, or the model merges in a way that llama.cpp does not.
    """
    check_merging(parts)
    found = tuple(" ".join(pair) for pair in pairs(parts["model"]["merges"]))
    if not found:
        raise ModelError("its tokenizer has no merges, llama.cpp wants some")
    return found


def check_merging(parts: Mapping[str, Any]) -> None:
    """Refuse a BPE model that merges in a way that llama.cpp does not.

    Raises:
        ModelError: names the setting.
    """
    for setting in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if parts["model"].get(setting):
            raise ModelError(f"its BPE has {setting}={parts['model'][setting]!r}, which llama.cpp does not know")


def pairs(found: Sequence[Any]) -> list[tuple[str, str]]:
    """Merges as pairs; tokenizer.json has them as lists, or as `left right` when older."""
    split = [each.split(" ", 1) if isinstance(each, str) else each for each in found]
    return [(str(left), str(right)) for left, right in split]


def flat(part: Any, inner: str) -> list[dict[str, Any]]:
    """The steps of a part of tokenizer.json, sequences within sequences laid out."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for each in part[inner] for step in flat(each, inner)]


def _all_made(model: Any, ordinary: Collection[str]) -> bool:
    """Whether merges alone make each of these tokens of its own letters."""
    merging = copy.deepcopy(model)
    merging.ignore_merges = False
    return all(len(merging.tokenize(text)) == 1 for text in ordinary)


def _steps(found: Sequence[Mapping[str, Any]]) -> Steps:
    return tuple(step for each in found for step in _step(each))


def _step(each: Mapping[str, Any]) -> Steps:
    kind = each["type"]
    if kind == "Digits" and each.get("individual_digits"):
        return (_DIGITS,)
    if kind == "Split" and each.get("behavior") == "Isolated" and not each.get("invert"):
        return (("split", str(each["pattern"].get("Regex", ""))),)
    if kind == "ByteLevel" and not each.get("add_prefix_space"):
        return _PLAIN if each.get("use_regex", True) else (_BYTES,)
    settings = ", ".join(f"{name}={value!r}" for name, value in each.items() if name != "type")
    return ((f"{kind}({settings})",),)


def _refusal(steps: Steps, whole: bool, cut_alike: bool) -> str:
    shown = " then ".join(" ".join(step)[:80] for step in steps if step != _BYTES)
    if cut_alike:
        return f"llama.cpp has no pre-tokenizer with ignore_merges={str(whole).lower()} that cuts by {shown}"
    return f"llama.cpp has no pre-tokenizer that cuts a text as its tokenizer does: {shown}"


def _normalizer_notes(normalizer: Any) -> tuple[str, ...]:
    """What is lost because llama.cpp does not normalise a text before byte-level BPE.

    Raises:
        ModelError: a normalizer changes ordinary text.
    """
    kinds = [str(step["type"]) for step in flat(normalizer, "normalizers")]
    others = [kind for kind in kinds if kind != "NFC"]
    if others:
        raise ModelError(f"its tokenizer changes a text before it cuts it ({', '.join(others)}); llama.cpp cannot")
    return ("llama.cpp does not compose letters and accents (NFC): text must come composed",) if kinds else ()

"""Tokenizers of every structure that a GGUF file can carry, trained on a few sentences of many scripts.

byte_level(pre)    bytes as letters, cut as llama.cpp's pre-tokenizer of that name does
spaced(kind)       spaces as U+2581, lone bytes, merges as made from a SentencePiece model; `kind` says where the space
                   before a text comes from
letters()          single letters, no merges, no bytes
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

_SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
_TEXT = [
    "Paris is the capital of France. How many grams are in 6 kg? I'm sure y'all know, THEY'VE said it's 1234.5!",
    "1 kg is 1000 g, so 6 kg is 6 * 1000 = 6000 g.\n\n\tif x > 0:\n        return  x ** 2   # two  spaces\r\n\r\n\n}",
    "Über Größe, naïve café, Łódź and Ölfässer; Привет, как дела? Это хорошо. שלום עולם مرحبا بالعالم",
    "東京タワー 我想在这里工作 안녕하세요 नमस्ते दुनिया ภาษาไทย 🚀🚀 😶‍🌫️ ½ ¾ ² ① Ⅷ …… «——» ''''''``````",
    "camelCase HTTPServer snake_case_name ../path/to/file.py <b>&amp;</b> a1b2c3 99bottles ABCdefGHI éÉèÈ",
] * 4
_TAIL = r"\p{N}PLACE| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_MODERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + _TAIL
LLAMA3, QWEN2 = _MODERN.replace("PLACE", "{1,3}"), _MODERN.replace("PLACE", "")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PLAIN = pre_tokenizers.ByteLevel(add_prefix_space=False)


def _split(pattern: str) -> Any:
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), bytes_only])


CUTS: dict[str, Any] = {
    "gpt-2": _PLAIN,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _PLAIN]),
    "llama-bpe": _split(LLAMA3),
    "smaug-bpe": _split(LLAMA3),
    "qwen2": _split(QWEN2),
    "tekken": _split(TEKKEN),
}
WHOLE = ("llama-bpe", "tekken")


@cache
def _bytes_trained(pre: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if pre == "qwen2" else None
    tokenizer.pre_tokenizer = CUTS[pre]
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    parts = json.loads(tokenizer.to_str())
    parts["model"]["ignore_merges"] = pre in WHOLE
    return json.dumps(parts)


@cache
def _spaced_trained() -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for the training alone
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(_TEXT, trainer)
    parts = json.loads(tokenizer.to_str())
    parts["pre_tokenizer"] = None
    vocabulary: dict[str, int] = parts["model"]["vocab"]
    runs = ["▁" * length for length in range(2, 9)]
    for piece in [*runs, *(f"<0x{byte:02X}>" for byte in range(256))]:
        vocabulary.setdefault(piece, len(vocabulary))
    joins = dict.fromkeys([*runs, *(left + right for left, right in parts["model"]["merges"])])
    cuts = [(join[:at], join[at:]) for join in joins for at in range(1, len(join))]
    parts["model"]["merges"] = [pair for pair in cuts if vocabulary.keys() >= set(pair)]
    return json.dumps(parts)


def wrapped(tokenizer: Tokenizer, *, bos: bool = False, eos: bool = False, **settings: Any) -> Any:
    """As Transformers has it; with `bos` and `eos`, these are put around a text."""
    around = ["<s>"] * bos + ["$A"] + ["</s>"] * eos
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in around if mark != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=" ".join(around), special_tokens=marks)
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **settings}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def byte_level(pre: str, **settings: Any) -> Any:
    """Bytes as letters, cut as llama.cpp's pre-tokenizer of that name does; settings as for `wrapped`."""
    return wrapped(Tokenizer.from_str(_bytes_trained(pre)), **settings)


def raw_spaced() -> Tokenizer:
    """The SentencePiece-like tokenizer as Llama 2 had it, before Transformers wraps it."""
    return Tokenizer.from_str(_spaced_trained())


def spaced(kind: str, **settings: Any) -> Any:
    """Spaces as U+2581; `kind` is llama2, gemma, or how Metaspace puts a space before a text."""
    tokenizer = raw_spaced()
    if kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        runs = [AddedToken(mark * length, normalized=False) for mark in "\n\t▁" for length in range(2, 6)]
        tokenizer.add_tokens(runs)
    elif kind != "llama2":
        tokenizer.normalizer = None
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", kind, split=False)
    return wrapped(tokenizer, **settings)


def llama_class(*, legacy: bool) -> Any:
    """A SentencePiece-like vocabulary in Transformers' own Llama class, with the steps that it brings."""
    model = json.loads(_spaced_trained())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return LlamaTokenizer(vocab=model["vocab"], merges=merges, legacy=legacy)


def letters(alphabet: str, **settings: Any) -> Any:
    """Single letters and `<unk>`."""
    return wrapped_letters([*_SPECIAL, *dict.fromkeys("▁" + alphabet)], **settings)


def wrapped_letters(pieces: list[str], **settings: Any) -> Any:
    """A tokenizer of these pieces, all of them single letters or marks in angle brackets."""
    vocabulary = {piece: token for token, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    marks = [AddedToken(piece, normalized=False, special=True) for piece in pieces if len(piece) > 1]
    tokenizer.add_special_tokens(marks)
    return wrapped(tokenizer, **settings)

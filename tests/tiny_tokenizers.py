"""Tokenizers trained on a few sentences: the two kinds the field uses, small enough to make in a test.

byte_level()      GPT-2 style: bytes, a space belongs to the word behind it
metaspace()       SentencePiece style: a text's first word gets a word-start space of its own
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_TEXT = [
    "Paris is the capital of France. How many grams are in 6 kg?",
    "user assistant system 1 kg is 1000 g, so 6 kg is 6 * 1000 = 6000 g. <answer>6000</answer>",
    "Be concise. Put the final number in the tag. Über Größe, naïve café, 東京",
] * 3
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
LLAMA3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@cache
def _trained(kind: str) -> str:
    special = ["<unk>", "<s>", "</s>"]
    if kind == "byte_level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(_TEXT, trainer)
        return str(tokenizer.to_str())
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(_TEXT, trainer)
    return _with_bytes(tokenizer)


def _with_bytes(tokenizer: Tokenizer) -> str:
    """The 256 byte pieces put into the vocabulary, for letters it does not have.

    Every pair of pieces whose join is a piece becomes a merge, as in tokenizers made from a SentencePiece model.
    """
    parts = json.loads(tokenizer.to_str())
    parts["pre_tokenizer"] = None  # was for the training only: words are kept apart by the merges themselves
    vocabulary = parts["model"]["vocab"]
    joins = dict.fromkeys(left + right for left, right in parts["model"]["merges"])
    cuts = [(join[:at], join[at:]) for join in joins for at in range(1, len(join))]
    parts["model"]["merges"] = [pair for pair in cuts if vocabulary.keys() >= set(pair)]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    return json.dumps(parts)


def _wrapped(kind: str, *, bos: bool, tokens: tuple[str, ...], template: str | None) -> Any:
    tokenizer = Tokenizer.from_str(_trained(kind))
    if bos:
        start = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", start)]
        )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    wrapped.chat_template = template
    return wrapped


def byte_level(*, bos: bool = False, tokens: tuple[str, ...] = (), template: str | None = None) -> Any:
    """A byte-level BPE tokenizer; with `bos`, it puts `<s>` before plain text."""
    return _wrapped("byte_level", bos=bos, tokens=tokens, template=template)


def metaspace(*, bos: bool = False, tokens: tuple[str, ...] = (), template: str | None = None) -> Any:
    """A SentencePiece-like BPE tokenizer with byte fallback, as Llama 2 has; with `bos`, `<s>` before plain text."""
    return _wrapped("metaspace", bos=bos, tokens=tokens, template=template)

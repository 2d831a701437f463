"""Tokenizers as GGUF vocabularies: llama.cpp gives the tokenizer's own ids, or the export is refused with the reason.

llama.cpp itself is the judge throughout: each vocabulary is written to a file and opened there.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer

from ramify import nano
from ramify.base.errors import ModelError
from ramify.export.gguf.vocabulary import Vocabulary, vocabulary
from ramify.prompts.templates import CHATML, encode
from ramify.sample.llamacpp.runtime import open_runtime
from ramify.sample.llamacpp.vocabulary import TokenKind
from tests.gguf_setup import (
    different,
    exported,
    opened,
    rewritten,
    with_equal_scores,
    with_ranks_for_scores,
    without_stop,
    write_vocabulary,
)
from tests.gguf_tokenizers import CUTS, WHOLE, byte_level, letters, llama_class, raw_spaced, spaced, wrapped

ALPHABET = "abcdefghijklmnopqrstuvwxyz .,"
EXACT: dict[str, Callable[..., Any]] = {
    **{pre: lambda pre=pre, **named: byte_level(pre, **named) for pre in CUTS},
    "llama2": lambda **named: spaced("llama2", **named),
    "gemma": lambda **named: spaced("gemma", **named),
    "metaspace never": lambda **named: spaced("never", **named),
    "letters": lambda **named: letters(ALPHABET, **named),
}
"""Structures where llama.cpp can do all that the tokenizer does."""

TEXTS = [
    *("", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", "\r\n", " \n ", "\u3000", "\u00a0"),
    *(
        "Hello world",
        " Hello world",
        "  Hello  ",
        "Hello\n  Hello\n\tHello ",
        "Hello, y'all! How're you?",
        " (",
        "\n =",
    ),
    *("3", "33", "333", "3333", "3.3", "3..3", "x33y333", "$1,234.50", "a1b22c333", "1/2 ½ ¾ ² ① Ⅷ ٣"),
    *(
        "I'LL we'Ve 'Tis ''' '' \u2019s",
        "camelCase HTTPServer snake_case",
        "!!!!!! ------======= ``````",
        "/usr/bin a/b//",
    ),
    *("Cửa Việt", "нещо на Български", "កាន់តែពិសេស", "한국어", "שלום", "我想在apple工作1314151天～", "naïve e\u0301 Å"),
    *("🚀 (normal) 😶‍🌫️ ✅ 🦙🦙", "\ud7ff\ue000\ufffd", "▁ ▁▁a", "<0x0A> <unk> <s", "[PAD7]", "\x00\x01\x7f"),
    *("<|im_start|>user\nHi<|im_end|>\n", "a<|im_end|> b", " <s> x</s>", "<|im_end|><|im_end|>  <|im_end|>"),
]

PARTS = ["<|im_start|>", "<|im_end|>", "</s>", *"aB1 \n'é½京🚀.<|", "  ", "\n\n", "the ", "12", "\u2019s", "\u0301"]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Any, Vocabulary, Any]]]:
    """Each exact structure: the tokenizer, its vocabulary, and that in llama.cpp."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(exported(make(), tmp_path_factory.mktemp("kind"))) for name, make in EXACT.items()
        }


def sayable(kind: str, text: str) -> bool:
    """Whether the notes of a vocabulary promise the tokenizer's own ids for this text."""
    if kind == "letters":  # no space before spaces alone
        return all(part.strip(" ") for part in re.split(r"<s>|</s>|<\|im_start\|>|<\|im_end\|>", text) if part)
    return unicodedata.is_normalized("NFC", text) if kind == "qwen2" else kind != "gemma" or "▁▁" not in text


@pytest.mark.parametrize("kind", EXACT)
def test_llama_cpp_gives_the_same_ids(known: dict[str, Any], kind: str) -> None:
    tokenizer, found, runtime = known[kind]
    assert different(tokenizer, runtime, [text for text in TEXTS if sayable(kind, text)]) == []
    assert len(found.tokens) == len(found.kinds) == len(tokenizer)


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "llama-bpe", "qwen2", "llama2", "gemma", "letters"])
@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"])) | st.lists(st.sampled_from(PARTS)).map("".join))
def test_llama_cpp_gives_the_same_ids_for_any_text(known: dict[str, Any], kind: str, text: str) -> None:
    tokenizer, _, runtime = known[kind]
    if sayable(kind, text):
        assert runtime.tokenize(text) == list(encode(tokenizer, text))


@pytest.mark.parametrize("kind", EXACT)
def test_pieces_put_together_are_the_text(known: dict[str, Any], kind: str) -> None:
    _, found, runtime = known[kind]
    text = "Grüße 123  aus\tKöln 🚀" if kind != "letters" else "a text of letters."
    pieces = b"".join(runtime.piece(each) for each in runtime.tokenize(text)).decode()
    assert pieces == (" " if found.around.space else "") + text


@pytest.mark.parametrize("pre", CUTS)
def test_pre_tokenizers_are_told_apart(known: dict[str, Any], pre: str) -> None:
    _, found, _ = known[pre]
    assert (found.model, found.pre) == ("gpt2", pre)
    assert found.scores == ()
    assert found.around.space is False


@pytest.mark.parametrize("pre", ["tekken", "qwen2", "gpt-2"])
def test_ignore_merges_is_no_difference_where_merges_make_all(tmp_path: Path, pre: str) -> None:
    tokenizer = byte_level(pre)
    tokenizer.backend_tokenizer.model.ignore_merges = pre not in WHOLE
    with exported(tokenizer, tmp_path) as (loaded, found, runtime):
        assert loaded.backend_tokenizer.model.ignore_merges == (pre not in WHOLE)
        assert found.pre == pre
        assert different(loaded, runtime, [text for text in TEXTS if sayable(pre, text)]) == []


def test_nano_is_smollm(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(nano.path()))
    found = vocabulary(nano.path(), 1024, family="llama")
    with opened(found, tmp_path) as runtime:
        assert found.pre == "smollm"
        assert different(tokenizer, runtime, TEXTS) == []
        assert (runtime.bos_id, runtime.eos_id, runtime.add_bos) == (1, 2, False)
        assert runtime.metadata["tokenizer.chat_template"] == tokenizer.chat_template
    assert set(found.kinds) == {TokenKind.NORMAL, TokenKind.CONTROL}


# --- what stands around a text ---


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("make", [EXACT["gpt-2"], EXACT["llama2"]])
def test_bos_and_eos_are_what_the_tokenizer_puts_there(tmp_path: Path, make: Any, bos: bool, eos: bool) -> None:
    with exported(make(bos=bos, eos=eos), tmp_path) as (tokenizer, found, runtime):
        whole = encode(tokenizer, "a b", special=True)
        assert (found.around.bos, found.around.eos) == (bos, eos)
        assert found.around.bos == runtime.add_bos == (whole[0] == tokenizer.bos_token_id)
        assert found.around.eos == (whole[-1] == tokenizer.eos_token_id)


def test_what_is_around_a_text_is_not_taken_from_flags(tmp_path: Path) -> None:
    byte_level("gpt-2", bos=True).save_pretrained(str(tmp_path))
    edit(tmp_path / "tokenizer_config.json", add_bos_token=False, add_eos_token=True)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    found = vocabulary(tmp_path, len(tokenizer), family="llama")
    whole = encode(tokenizer, "a", special=True)
    assert found.around.bos == (whole[0] == tokenizer.bos_token_id)
    assert found.around.eos == (whole[-1] == tokenizer.eos_token_id)


@pytest.mark.parametrize("make", [lambda **named: spaced("first", **named), lambda **named: llama_class(legacy=False)])
def test_a_space_before_a_text_alone_goes_where_prompts_come_out_right(tmp_path: Path, make: Any) -> None:
    plain, chat = make(), make()
    chat.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    chat.chat_template = CHATML
    with exported(plain, tmp_path / "plain") as (tokenizer, found, runtime):
        assert found.around.space
        assert any("behind every special token" in note for note in found.notes)
        assert different(tokenizer, runtime, ["Hello world", "a  b", "\nx"]) == []
        assert different(tokenizer, runtime, ["</s>x"])
    with exported(chat, tmp_path / "chat") as (tokenizer, found, runtime):
        turns = [{"role": "user", "content": " Hi\n\nyou "}, {"role": "assistant", "content": "yes"}]
        text = tokenizer.apply_chat_template([*turns, turns[0]], tokenize=False, add_generation_prompt=True)
        assert not found.around.space
        assert different(tokenizer, runtime, [text]) == []
        assert different(tokenizer, runtime, ["x"])
        assert any("without a special token in front" in note for note in found.notes)


def test_metaspace_that_adds_no_second_space_is_said(tmp_path: Path) -> None:
    with exported(spaced("always"), tmp_path) as (tokenizer, found, runtime):
        assert found.around.space
        assert any("begins with one" in note for note in found.notes)
        assert different(tokenizer, runtime, ["Hello", "</s>x", "a b"]) == []
        assert different(tokenizer, runtime, [" x"])


# --- tokens and their kinds ---


def test_rows_without_a_token_are_filled_up(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    rows = len(tokenizer) + 5
    tokenizer.add_tokens([f"[PAD{rows - 3}]"])
    with exported(tokenizer, tmp_path, rows) as (loaded, found, runtime):
        assert runtime.n_vocab == rows
        assert len(set(found.tokens)) == rows
        assert found.kinds.count(TokenKind.UNUSED) == 4
        assert different(loaded, runtime, [*TEXTS, f"x [PAD{rows - 3}] [PAD{rows - 1}]"]) == []


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match=f"token {len(tokenizer) - 1} .* only {len(tokenizer) - 1} rows"):
        vocabulary(tmp_path, len(tokenizer) - 1, family="llama")


def test_special_tokens_without_a_row_are_left_out_where_nothing_uses_them(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<picture>"]})
    with exported(tokenizer, tmp_path, rows) as (loaded, found, runtime):
        assert runtime.n_vocab == rows
        assert found.special.pad is None
        assert any("[PAD], <picture>" in note for note in found.notes)
        assert different(loaded, runtime, TEXTS) == []
    tokenizer.chat_template = CHATML.replace("<|im_start|>", "<picture>")
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="chat template writes '<picture>', for which its embedding has no row"):
        vocabulary(tmp_path, rows, family="llama")


def test_kinds_of_tokens(tmp_path: Path) -> None:
    tokenizer = spaced("gemma")
    tokenizer.add_tokens([AddedToken("<table>", normalized=False), AddedToken("two words", normalized=False)])
    with exported(tokenizer, tmp_path) as (loaded, found, runtime):
        kinds = dict(zip(found.tokens, found.kinds, strict=True))
        wanted = {
            "<unk>": TokenKind.UNKNOWN,
            "<|im_end|>": TokenKind.CONTROL,
            "<table>": TokenKind.USER_DEFINED,
            "\n\n": TokenKind.USER_DEFINED,
            "▁▁": TokenKind.NORMAL,
            "<0x0A>": TokenKind.BYTE,
            "a": TokenKind.NORMAL,
        }
        assert {text: kinds[text] for text in wanted} == wanted
        assert (
            different(loaded, runtime, ["a<table>  b", "two words two  words", "\n\n\n\n\n\n\n<unk>x", "    a"]) == []
        )


def test_scores_are_never_constant(known: dict[str, Any]) -> None:
    _, found, _ = known["llama2"]
    made = [score for text, score in zip(found.tokens, found.scores, strict=True) if len(text.strip("▁")) > 2]
    assert len(set(made)) > 100


# --- what ends an answer ---


def stopping(folder: Path, tokens: list[str], **settings: Any) -> Any:
    """A tokenizer with these further tokens, and a generation config that lists them as stops."""
    tokenizer = byte_level("gpt-2", **settings)
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    listed = [tokenizer.convert_tokens_to_ids(token) for token in tokens]
    folder.mkdir(exist_ok=True)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}), encoding="utf-8")
    return tokenizer


@pytest.mark.parametrize(
    "tokens", [[], ["<stop>"], ["<stop>", "<halt>"], ["<|eot_id|>", "<stop>", "<|eom_id|>", "<halt>"]]
)
def test_all_stop_tokens_end_an_answer(tmp_path: Path, tokens: list[str]) -> None:
    with exported(stopping(tmp_path, tokens), tmp_path) as (tokenizer, found, runtime):
        stops = {tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids(token) for token in tokens)}
        assert stops <= set(runtime.stop_ids)
        further = {found.tokens[each] for each in set(runtime.stop_ids) - stops}
        assert further == {"<|im_end|>"}
        assert any("<|im_end|>" in note for note in found.notes)


def test_the_end_of_a_turn_ends_an_answer(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn_over>"]})
    tokenizer.chat_template = CHATML.replace("<|im_end|>", "<turn_over>")
    with exported(tokenizer, tmp_path) as (loaded, found, runtime):
        assert found.special.eot == loaded.convert_tokens_to_ids("<turn_over>")
        assert found.special.eot in runtime.stop_ids


def test_without_generation_config_the_model_config_lists_stops(tmp_path: Path) -> None:
    tokenizer = stopping(tmp_path, ["<stop>"])
    (tmp_path / "generation_config.json").rename(tmp_path / "config.json")
    tokenizer.save_pretrained(str(tmp_path))
    found = vocabulary(tmp_path, len(tokenizer), family="llama")
    assert found.special.eot == tokenizer.convert_tokens_to_ids("<stop>")


def test_more_stop_tokens_than_llama_cpp_can_be_told_are_refused(tmp_path: Path) -> None:
    tokenizer = stopping(tmp_path, ["<stop>", "<halt>", "<end>"])
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match=r"4 tokens end an answer, llama\.cpp can be told three: '</s>', '<stop>'"):
        vocabulary(tmp_path, len(tokenizer), family="llama")


def test_a_tokenizer_that_nothing_stops_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2", eos_token=None)
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match="no token ends an answer"):
        vocabulary(tmp_path, len(tokenizer), family="llama")


def test_a_stop_token_outside_of_the_vocabulary_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    tokenizer.save_pretrained(str(tmp_path))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 99999}', encoding="utf-8")
    with pytest.raises(ModelError, match="token 99999 ends or begins a text; the embedding has only"):
        vocabulary(tmp_path, len(tokenizer), family="llama")


def test_a_generation_config_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    tokenizer.save_pretrained(str(tmp_path))
    (tmp_path / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"generation_config.json: cannot be read"):
        vocabulary(tmp_path, len(tokenizer), family="llama")


def test_without_bos_the_file_names_no_token_by_chance(tmp_path: Path) -> None:
    with exported(byte_level("gpt-2", bos_token=None), tmp_path) as (tokenizer, found, runtime):
        assert found.special.bos is None
        assert runtime.bos_id == tokenizer.eos_token_id
        assert not runtime.add_bos


# --- chat templates ---


def test_several_chat_templates_keep_their_names(tmp_path: Path) -> None:
    tokenizer = byte_level("gpt-2")
    tokenizer.chat_template = {"default": CHATML, "tool_use": "tools", "rag": "passages"}
    with exported(tokenizer, tmp_path) as (_, found, runtime):
        assert found.chat_template == CHATML
        assert runtime.metadata["tokenizer.chat_template"] == CHATML
        assert runtime.metadata["tokenizer.chat_template.rag"] == "passages"
        assert runtime.header.metadata["tokenizer.chat_templates"] == ["rag", "tool_use"]


def test_without_a_template_none_is_written(known: dict[str, Any]) -> None:
    _, found, runtime = known["gpt-2"]
    assert found.chat_template is None
    assert "tokenizer.chat_template" not in runtime.metadata


# --- refusals ---


def changed_spaced(change: Callable[[Tokenizer], None]) -> Any:
    tokenizer = raw_spaced()
    change(tokenizer)
    return wrapped(tokenizer)


def changed_bytes(change: Callable[[Tokenizer], None]) -> Any:
    tokenizer = byte_level("gpt-2")
    change(tokenizer.backend_tokenizer)
    return tokenizer


def prefixed(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def other_regex(tokenizer: Tokenizer) -> None:
    cut = pre_tokenizers.Split(Regex(r"\w+|\W+"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(use_regex=False)])


def no_cut(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()


def at_spaces(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer, tokenizer.pre_tokenizer = None, pre_tokenizers.Metaspace("▁", "always", split=True)


def a_word_of_its_own(tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer.model = models.BPE(model["vocab"] | {"zqzq": len(model["vocab"])}, merges, ignore_merges=True)


def compatible(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFKC()


def half_the_merges(tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    once = list({left + right: (left, right) for left, right in merges}.values())
    tokenizer.model = models.BPE(model["vocab"], once, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def without_a_byte(tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    pieces = {("<0xZZ>" if piece == "<0x41>" else piece): token for piece, token in model["vocab"].items()}
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer.model = models.BPE(pieces, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def unigram(tokenizer: Tokenizer) -> None:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("a", -1.0), ("▁", -1.5)]
    tokenizer.model = models.Unigram(pieces, unk_id=0, byte_fallback=False)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "space in front": (lambda: changed_bytes(prefixed), r"ByteLevel\(add_prefix_space=True"),
    "another regex": (lambda: changed_bytes(other_regex), r"no pre-tokenizer that cuts .*: split \\w\+"),
    "whole words": (
        lambda: changed_bytes(a_word_of_its_own),
        "no pre-tokenizer with ignore_merges=true that cuts by split",
    ),
    "neither kind": (lambda: changed_bytes(no_cut), "neither bytes as letters nor spaces"),
    "NFKC, bytes": (lambda: changed_bytes(compatible), r"changes a text .*\(NFKC\)"),
    "NFKC, spaces": (lambda: with_normalizer(normalizers.NFKC()), r"changes a text .*\(NFKC\)"),
    "cut at spaces": (lambda: changed_spaced(at_spaces), "cuts a text at spaces, llama.cpp does not: .*'▁▁'"),
    "merges are missing": (lambda: changed_spaced(half_the_merges), "that llama.cpp would join are no merges"),
    "a byte is missing": (lambda: changed_spaced(without_a_byte), "no pieces for 1 of 256 bytes"),
    "unigram": (lambda: changed_spaced(unigram), "is Unigram; only BPE"),
    "strips": (lambda: with_added(AddedToken("<mask>", lstrip=True)), "'<mask>' has lstrip"),
    "a word": (lambda: with_added(AddedToken("word", single_word=True)), "'word' has single_word"),
    "normalised": (lambda: with_added(AddedToken("<x>", normalized=True)), "'<x>' is looked for as '▁<x>'"),
    "around": (lambda: put_around("<|im_start|>"), "makes `<s> a` of `a`"),
}


def with_normalizer(further: Any) -> Any:
    tokenizer = raw_spaced()
    tokenizer.normalizer = normalizers.Sequence([further, normalizers.Replace(" ", "▁")])
    return wrapped(tokenizer)


def with_added(token: AddedToken) -> Any:
    tokenizer = spaced("llama2")
    tokenizer.add_tokens([token])
    return tokenizer


def put_around(mark: str) -> Any:
    return byte_level("gpt-2", bos=True, bos_token=mark)


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_cannot_do_is_refused(tmp_path: Path, name: str) -> None:
    make, reason = REFUSED[name]
    make().save_pretrained(str(tmp_path))
    with pytest.raises(ModelError, match=reason) as caught:
        vocabulary(tmp_path, 2000, family="mistral")
    assert "no GGUF of this mistral model" in str(caught.value)
    assert "\n" not in caught.value.message


def test_a_folder_called_nano_is_not_the_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    byte_level("gpt-2").save_pretrained(str(tmp_path / "nano"))
    monkeypatch.chdir(tmp_path)
    assert vocabulary(Path("nano"), 1024, family="llama").pre == "gpt-2"


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        vocabulary(tmp_path, 100, family="llama")


# --- broken on purpose ---


@pytest.mark.parametrize("broken", [with_equal_scores, with_ranks_for_scores])
def test_a_wrong_score_table_cuts_otherwise(tmp_path: Path, broken: Callable[[Path, Path], Path]) -> None:
    tokenizer = spaced("llama2")
    tokenizer.save_pretrained(str(tmp_path))
    good = write_vocabulary(vocabulary(tmp_path, len(tokenizer), family="llama"), tmp_path / "good.gguf")
    assert reopened(good, tokenizer, *TEXTS) == []
    assert reopened(broken(good, tmp_path / "bad.gguf"), tokenizer, *TEXTS) != []


def test_a_dropped_stop_token_no_longer_ends_an_answer(tmp_path: Path) -> None:
    good = write_vocabulary(vocabulary(nano.path(), 1024, family="llama"), tmp_path / "good.gguf")
    bad = without_stop(good, tmp_path / "bad.gguf", 2)
    assert 2 in stops(good)
    assert 2 not in stops(bad)


def test_a_copy_without_changes_is_the_same_vocabulary(tmp_path: Path) -> None:
    good = write_vocabulary(vocabulary(nano.path(), 1024, family="llama"), tmp_path / "good.gguf")
    copy = rewritten(good, tmp_path / "copy.gguf", {})
    tokenizer = AutoTokenizer.from_pretrained(str(nano.path()))
    assert reopened(copy, tokenizer, *TEXTS) == []
    assert stops(copy) == stops(good)


def reopened(path: Path, tokenizer: Any, *texts: str) -> list[Any]:
    """Where llama.cpp, with this file, cuts these texts otherwise than the tokenizer."""
    with closing(open_runtime(path, vocabulary_only=True)) as runtime:
        return different(tokenizer, runtime, list(texts))


def stops(path: Path) -> tuple[int, ...]:
    """The tokens at which llama.cpp, with this file, ends an answer."""
    with closing(open_runtime(path, vocabulary_only=True)) as runtime:
        return runtime.stop_ids


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

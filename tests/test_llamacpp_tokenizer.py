"""The tokenizer of a GGUF file: ids as llama.cpp's own tests expect them, and all that renderers ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf_setup import exported
from llamacpp_setup import HERE, QUESTIONS, nano_gguf, nano_loaded
from tiny_tokenizers import byte_level, metaspace

from ramify.base.config import Prompting
from ramify.base.errors import DataError, ModelError
from ramify.base.types import Message
from ramify.prompts.renderer import Renderer
from ramify.prompts.templates import adds_bos, encode
from ramify.sample.llamacpp.model import GgufModel, open_gguf
from ramify.sample.llamacpp.runtime import Package, open_runtime
from ramify.sample.llamacpp.tokenizer import GgufTokenizer
from ramify.sample.streaming import StreamDecoder, decode, special_stops

VOCABULARIES = ("gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder")
TEXTS = ("Hello world", "  two spaces", "Über Größe 東京 🦙", "1 kg = 1000 g\n\n\ttab", "a<|im_end|>b", " ", "")
LETTERS = "naïve café 東京 🦙🏽‍♀️ ñ"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GgufModel]:
    opened = open_gguf(nano_gguf(tmp_path_factory.mktemp("gguf"), "f16"))
    yield opened
    opened.close()


@pytest.mark.parametrize("package", HERE)
@pytest.mark.parametrize("name", VOCABULARIES)
def test_the_ids_that_llama_cpp_expects(shared: Path, name: str, package: Package) -> None:
    file = shared / "models" / "ggml_vocab" / f"ggml-vocab-{name}.gguf"
    texts = file.with_name(file.name + ".inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = file.with_name(file.name + ".out").read_text(encoding="utf-8").splitlines()
    expected = [[int(each) for each in line.split()] for line in lines]
    runtime = open_runtime(file, vocabulary_only=True, package=package)
    tokenizer = GgufTokenizer(runtime)
    assert len(expected) > 40
    for text, ids in zip(texts, expected, strict=False):
        assert runtime.tokenize(text, special=False) == ids
        assert tokenizer.decode(ids) == text
    runtime.close()


def test_nano_is_tokenised_as_by_its_own_tokenizer(model: GgufModel) -> None:
    own = nano_loaded().tokenizer
    for text in TEXTS:
        assert encode(model.tokenizer, text) == encode(own, text)
        assert encode(model.tokenizer, text, special=True) == encode(own, text, special=True)
        ids = encode(own, text)
        assert decode(model.tokenizer, ids) == decode(own, ids)
    assert adds_bos(model.tokenizer) == adds_bos(own)
    assert model.tokenizer.eos_token_id == own.eos_token_id
    assert model.tokenizer.bos_token_id == own.bos_token_id
    assert model.tokenizer.pad_token_id == own.pad_token_id
    assert special_stops(model.tokenizer, ("<|im_end|>", "x")) == special_stops(own, ("<|im_end|>", "x"))
    assert len(model.tokenizer) == model.runtime.n_vocab
    assert model.tokenizer.convert_tokens_to_ids("<|im_end|>") == own.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("template", ["model", "chatml", "plain"])
def test_a_renderer_writes_the_same_prompts(model: GgufModel, template: str) -> None:
    prompting = Prompting(chat_template=template, system="Be brief.")
    ours, expected = Renderer(model.tokenizer, prompting), Renderer(nano_loaded().tokenizer, prompting)
    assert ours.stop_id == expected.stop_id
    for question in QUESTIONS:
        turns = (Message("user", question), Message("assistant", "Yes."), Message("user", "Sure?"))
        assert ours.text(turns) == expected.text(turns)
        assert ours.prompt_ids(turns) == expected.prompt_ids(turns)
        assert ours.completion_ids(turns, "Yes, sure.") == expected.completion_ids(turns, "Yes, sure.")


@pytest.mark.parametrize("kind", [byte_level, metaspace])
def test_both_kinds_of_vocabulary_are_decoded_as_by_the_real_tokenizer(kind: object, tmp_path: Path) -> None:
    with exported(kind(), tmp_path) as (real, _, runtime):
        ours = GgufTokenizer(runtime)
        for text in (*TEXTS[:4], LETTERS):
            ids = encode(real, text)
            assert decode(ours, ids) == decode(real, ids)
            stream = StreamDecoder(ours)
            pieces = [stream.push(token) for token in ids]
            assert "".join(pieces) + stream.finish() == decode(real, ids)
            assert not any("\ufffd" in piece for piece in pieces)


def test_a_tokenizer_beside_the_file_is_taken(tmp_path: Path) -> None:
    path = nano_gguf(tmp_path, "f16")
    nano_loaded().tokenizer.save_pretrained(str(tmp_path / "tokenizer"))
    model = open_gguf(path)
    assert type(model.tokenizer).__name__ == type(nano_loaded().tokenizer).__name__
    model.close()


def test_a_tokenizer_of_another_model_beside_the_file_is_refused(tmp_path: Path) -> None:
    path = nano_gguf(tmp_path, "f16")
    other = byte_level()
    other.add_tokens([f"<more {number}>" for number in range(2000)])
    other.save_pretrained(str(tmp_path / "tokenizer"))
    with pytest.raises(ModelError, match="tokens, but nano"):
        open_gguf(path)


def test_a_folder_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    path = nano_gguf(tmp_path, "f16")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="not a tokenizer"):
        open_gguf(path)


def test_special_tokens_in_a_text_become_tokens_only_when_asked(model: GgufModel) -> None:
    stop = model.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert stop in model.runtime.tokenize("a<|im_end|>")
    assert stop not in model.runtime.tokenize("a<|im_end|>", special=False)
    with pytest.raises(DataError, match="not Unicode"):
        encode(model.tokenizer, "\udc80")

"""Real vocabularies: SmolLM2's own tokenizer, and those of llama.cpp's test files, with the ids expected of each.

The files have tokens, and merges or scores; the tokenizers they came from are put together again here, exported, and
must give the expected ids in Transformers and in llama.cpp.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from ramify.export.gguf.vocabulary import Vocabulary, vocabulary
from ramify.prompts.templates import encode
from ramify.sample.llamacpp.header import read_header
from ramify.sample.llamacpp.runtime import open_runtime
from ramify.sample.llamacpp.vocabulary import TokenKind
from tests.gguf_setup import different, exported, opened
from tests.gguf_tokenizers import CUTS, WHOLE

SEPARATOR = "\n__ggml_vocab_test__\n"
FILES = ("gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder")
CUT_AS = {"gpt-2": "gpt-2", "starcoder": "smollm", "llama-bpe": "llama-bpe", "qwen2": "qwen2"}


@pytest.fixture
def files(shared: Path) -> Iterator[Path]:
    """llama.cpp's vocabularies."""
    folder = shared / "models" / "ggml_vocab"
    if not folder.is_dir():
        pytest.skip("no vocabularies of llama.cpp there")
    return folder


@pytest.fixture
def smollm2(shared: Path) -> Path:
    """The folder of SmolLM2's tokenizer."""
    folder = shared / "models" / "smollm2_tokenizer"
    if not folder.is_dir():
        pytest.skip("no SmolLM2 tokenizer there")
    return folder


def texts(folder: Path, name: str) -> list[str]:
    """The texts that a file is tested with."""
    return (folder / f"ggml-vocab-{name}.gguf.inp").read_text(encoding="utf-8").split(SEPARATOR)[:-1]


def expected(folder: Path, name: str) -> list[list[int]]:
    """Ids of each of these texts."""
    lines = (folder / f"ggml-vocab-{name}.gguf.out").read_text(encoding="utf-8").split("\n")[:-1]
    return [[int(each) for each in line.split()] for line in lines]


def put_together(folder: Path, name: str) -> Any:
    """The tokenizer that a file of llama.cpp was made from."""
    header = read_header(folder / f"ggml-vocab-{name}.gguf").metadata
    tokens, kinds = header["tokenizer.ggml.tokens"], header["tokenizer.ggml.token_type"]
    pieces = {text: token for token, text in enumerate(tokens)}
    if name == "llama-spm":
        scores = dict(zip(tokens, header["tokenizer.ggml.scores"], strict=True))
        merges = generate_merges(pieces, scores)
        tokenizer = Tokenizer(models.BPE(pieces, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        cut = CUT_AS[name]
        merges = [tuple(each.split(" ", 1)) for each in header["tokenizer.ggml.merges"]]
        tokenizer = Tokenizer(models.BPE(pieces, merges, ignore_merges=cut in WHOLE))
        tokenizer.pre_tokenizer, tokenizer.decoder = CUTS[cut], decoders.ByteLevel()
    special = [token for token, kind in enumerate(kinds) if kind in (TokenKind.CONTROL, TokenKind.UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(tokens[each], normalized=False, special=True) for each in special])
    bos, eos = (tokens[header[f"tokenizer.ggml.{each}_token_id"]] for each in ("bos", "eos"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)


def slowly(names: Sequence[str], slow: Sequence[str]) -> list[Any]:
    """Names as parameters; those in `slow` take some seconds each."""
    return [pytest.param(name, marks=pytest.mark.proof) if name in slow else name for name in names]


@pytest.mark.parametrize("name", slowly(FILES, ("llama-bpe", "qwen2", "phi-3", "starcoder")))
def test_the_backend_gives_the_expected_ids(files: Path, name: str) -> None:
    with closing(open_runtime(files / f"ggml-vocab-{name}.gguf", vocabulary_only=True)) as runtime:
        found = [runtime.tokenize(text) for text in texts(files, name)]
    assert found == expected(files, name)


@pytest.mark.parametrize("name", slowly(["llama-spm", *CUT_AS], tuple(CUT_AS)))
def test_put_together_and_exported_it_gives_the_expected_ids(files: Path, tmp_path: Path, name: str) -> None:
    with exported(put_together(files, name), tmp_path) as (tokenizer, found, runtime):
        ids = [list(encode(tokenizer, text)) for text in texts(files, name)]
        assert ids == expected(files, name)
        assert [runtime.tokenize(text) for text in texts(files, name)] == ids
    header = read_header(files / f"ggml-vocab-{name}.gguf").metadata
    assert list(found.tokens) == header["tokenizer.ggml.tokens"]
    assert list(found.merges) == header.get("tokenizer.ggml.merges", [])
    assert found.pre == CUT_AS.get(name, "default")
    if found.scores:
        assert_same_order(found, header["tokenizer.ggml.scores"])


def assert_same_order(found: Vocabulary, real: Sequence[float]) -> None:
    """Scores made from merges sort the pieces as the real ones do; what is equal there may come in any order."""
    made = [
        token for token, text in enumerate(found.tokens) if found.kinds[token] is TokenKind.NORMAL and len(text) > 1
    ]
    assert len(made) > 25_000
    sorted_by_ours = [real[token] for token in sorted(made, key=lambda token: -found.scores[token])]
    assert sorted_by_ours == sorted(sorted_by_ours, reverse=True)


def test_smollm2_as_transformers_loads_it(files: Path, smollm2: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(smollm2))
    found = vocabulary(smollm2, len(tokenizer), family="llama")
    with opened(found, tmp_path) as runtime:
        assert different(tokenizer, runtime, every_text(files)) == []
        assert tokenizer.eos_token_id in runtime.stop_ids
        assert not runtime.add_bos
        assert runtime.tokenize("<|im_start|>user\nHi<|im_end|>") == list(
            encode(tokenizer, "<|im_start|>user\nHi<|im_end|>")
        )


def test_smollm2_as_its_file_has_it_is_smollm(files: Path, smollm2: Path, tmp_path: Path) -> None:
    """The class that Transformers loads it as cuts no digits apart; the general class runs the file as it is."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(smollm2, folder, copy_function=shutil.copyfile)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    folder.chmod(0o755)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    found = vocabulary(folder, len(tokenizer), family="llama")
    assert found.pre == "smollm"
    with opened(found, tmp_path) as runtime:
        assert different(tokenizer, runtime, every_text(files)) == []


def every_text(folder: Path) -> list[str]:
    """All texts of all files, each once."""
    return sorted({text for name in FILES for text in texts(folder, name)})

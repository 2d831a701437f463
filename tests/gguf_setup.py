"""GGUF files for tests: a vocabulary alone, and copies of a file with something changed or broken in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType, GGUFWriter
from transformers import AutoTokenizer

from ramify.export.gguf.vocabulary import Vocabulary, vocabulary
from ramify.prompts.templates import encode
from ramify.sample.llamacpp.runtime import Runtime, open_runtime

_KEY = "tokenizer.ggml."


def write_vocabulary(found: Vocabulary, target: Path) -> Path:
    """A GGUF file with this vocabulary and no weights."""
    writer = GGUFWriter(str(target), "llama")
    add: dict[type, Any] = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
    for key, value in found.fields().items():
        add.get(type(value), writer.add_array)(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return target


@contextmanager
def opened(found: Vocabulary, folder: Path) -> Iterator[Runtime]:
    """This vocabulary in llama.cpp."""
    path = write_vocabulary(found, folder / "vocabulary.gguf")
    with closing(open_runtime(path, vocabulary_only=True)) as runtime:
        yield runtime


@contextmanager
def exported(tokenizer: Any, folder: Path, rows: int | None = None) -> Iterator[tuple[Any, Vocabulary, Runtime]]:
    """A tokenizer saved and loaded again, its vocabulary, and that in llama.cpp."""
    tokenizer.save_pretrained(str(folder))
    loaded = AutoTokenizer.from_pretrained(str(folder))
    found = vocabulary(folder, len(loaded) if rows is None else rows, family="llama")
    with opened(found, folder) as runtime:
        yield loaded, found, runtime


def different(tokenizer: Any, runtime: Runtime, texts: list[str]) -> list[tuple[str, list[str], list[str]]]:
    """The texts that llama.cpp cuts otherwise than the tokenizer, with the tokens of both."""
    found = []
    for text in texts:
        expected, ids = list(encode(tokenizer, text)), runtime.tokenize(text)
        if ids != expected:
            found.append((text, tokenizer.convert_ids_to_tokens(expected), tokenizer.convert_ids_to_tokens(ids)))
    return found


def rewritten(source: Path, target: Path, changes: Mapping[str, Any]) -> Path:
    """A copy of a GGUF file with these fields changed, or dropped where the value is None; the tensors stay."""
    reader = GGUFReader(str(source))
    writer = GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        value = changes.get(name, ...)
        if name.startswith("GGUF.") or name == "general.architecture" or value is None:
            continue
        inner = field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents() if value is ... else value, field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def with_equal_scores(source: Path, target: Path) -> Path:
    """The score table of a careless converter: every piece of a SentencePiece-like vocabulary counts the same."""
    return rewritten(source, target, {_KEY + "scores": [-1000.0] * len(_scores(source))})


def with_ranks_for_scores(source: Path, target: Path) -> Path:
    """A score table with the sign forgotten: the last merge counts most. Wrong for small vocabularies, too."""
    return rewritten(source, target, {_KEY + "scores": [-score for score in _scores(source)]})


def _scores(path: Path) -> list[float]:
    found: list[float] = GGUFReader(str(path)).fields[_KEY + "scores"].contents()
    return found


def without_stop(source: Path, target: Path, stop: int) -> Path:
    """Token `stop` no longer ends an answer: it is named nowhere, and its text is none that llama.cpp knows."""
    fields = GGUFReader(str(source)).fields
    tokens = fields[_KEY + "tokens"].contents()
    tokens[stop] = "<|gone|>"
    changes: dict[str, Any] = {_KEY + "tokens": tokens}
    for name in ("eos", "eot", "eom"):
        key = f"{_KEY}{name}_token_id"
        if key in fields and fields[key].contents() == stop:
            changes[key] = None if name != "eos" else _other(stop)
    return rewritten(source, target, changes)


def _other(stop: int) -> int:
    """llama.cpp takes a token of its own choice for eos where a file names none."""
    return 0 if stop else 1

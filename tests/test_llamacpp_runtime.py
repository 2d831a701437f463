"""llama.cpp at its lowest level: logits are those of Transformers, and no file brings the process down."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gguf_setup import rewritten
from llamacpp_setup import HERE, expected_logits, nano_gguf, nano_loaded, prompts

from ramify.base.errors import ConfigError, DataError, LengthError, ModelError
from ramify.sample.llamacpp import runtime as runtime_module
from ramify.sample.llamacpp.engine import BATCH, Cell
from ramify.sample.llamacpp.header import read_header
from ramify.sample.llamacpp.runtime import Package, Runtime, installed, open_runtime


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano_gguf(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module", params=HERE)
def runtime(path: Path, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    opened = open_runtime(path, kv="f32", package=request.param)
    yield opened
    opened.close()


def test_logits_are_those_of_transformers(runtime: Runtime) -> None:
    for prompt in prompts()[:3]:
        expected = expected_logits(nano_loaded(), prompt.ids)
        found = runtime.logits(prompt.ids)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-4
        assert (runtime.logits(prompt.ids, last=2) == found[-2:]).all()


def test_a_text_longer_than_one_call(runtime: Runtime) -> None:
    ids = (prompts()[0].ids * 40)[: BATCH + 70]  # so long a text adds up more rounding
    assert np.abs(runtime.logits(ids) - expected_logits(nano_loaded(), ids)).max() < 1e-3


def test_a_copied_sequence_goes_on_as_one_computed_anew(runtime: Runtime) -> None:
    first, second = prompts()[0].ids, prompts()[1].ids
    shared = next(place for place in range(len(first)) if first[place] != second[place])
    runtime.reserve(256, 3)
    runtime.decode([Cell(token, place, 0, False) for place, token in enumerate(first)])
    runtime.copy(0, 2, shared)
    rest = runtime.decode([Cell(second[place], place, 2, True) for place in range(shared, len(second))])
    assert np.abs(rest - runtime.logits(second)[shared:]).max() < 1e-4


def test_what_was_cut_is_forgotten(runtime: Runtime) -> None:
    ids = prompts()[0].ids
    runtime.reserve(256, 1)
    runtime.decode([Cell(token, place, 0, False) for place, token in enumerate((*ids, 5, 6, 7))])
    assert runtime.cut(0, len(ids) - 1)
    last = runtime.decode([Cell(ids[-1], len(ids) - 1, 0, True)])
    assert np.abs(last[0] - runtime.logits(ids)[-1]).max() < 1e-4


def test_threads_take_turns(runtime: Runtime) -> None:
    asked = [prompt.ids for prompt in prompts()] * 3
    expected = [runtime.logits(ids) for ids in asked]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(runtime.logits, asked))
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


def test_what_the_file_says(runtime: Runtime, path: Path) -> None:
    tokenizer = nano_loaded().tokenizer
    assert (runtime.bos_id, runtime.eos_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert set(nano_loaded().stop_ids) <= set(runtime.stop_ids)
    assert runtime.metadata["general.architecture"] == "llama"
    assert runtime.n_vocab == nano_loaded().network.config.vocab_size == len(runtime.table)
    assert runtime.n_ctx == nano_loaded().max_length
    assert runtime.path == path


def test_prompts_that_cannot_be_computed_are_refused(runtime: Runtime) -> None:
    with pytest.raises(DataError, match="token 999999 is not in the vocabulary"):
        runtime.logits((5, 999999))
    with pytest.raises(DataError, match="no tokens"):
        runtime.logits(())
    with pytest.raises(LengthError, match="exceed the model's"):
        runtime.logits((5,) * (runtime.n_ctx + 1))
    with pytest.raises(DataError, match="not Unicode"):
        runtime.tokenize("\ud800")


@pytest.mark.parametrize("package", HERE)
def test_nothing_is_written_to_the_terminal(path: Path, package: Package, capfd: pytest.CaptureFixture[str]) -> None:
    opened = open_runtime(path, package=package, n_ctx=64)
    opened.logits((5, 6))
    assert opened.n_ctx == 64
    opened.close()
    opened.close()
    with pytest.raises(ModelError, match="was closed"):
        opened.logits((5, 6))
    assert capfd.readouterr() == ("", "")


def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * share)]


def _number(at: int, form: str, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def _tensor_number(
    behind: int, value: int, form: str = "<Q", name: bytes = b"blk.1.attn_q.weight"
) -> Callable[[bytes], bytes]:
    """A number of the description of one tensor: its rows, type, or place."""

    def change(data: bytes) -> bytes:
        return _number(data.index(name) + len(name) + 4 + behind, form, value)(data)

    return change


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "cannot be read"),
    "another format": (lambda data: b"PK\x03\x04" + data, "not a GGUF file"),
    "four bytes": (lambda data: data[:4], "cut off within its header"),
    "cut in the keys": (lambda data: data[:400], "cut off within its header"),
    "cut in the weights": (_cut(0.5), "the file is cut off: [0-9]+ of 56 tensors"),
    "cut in the last tensor": (lambda data: data[:-100], "llama.cpp refuses it: .*(bounds|corrupted|incomplete)"),
    "version 9": (_number(4, "<I", 9), "version 9 is not known"),
    "too many tensors": (_number(8, "<Q", 1 << 60), "the header is broken"),
    "too many keys": (_number(16, "<Q", 1 << 40), "the header is broken"),
    "a key of no length": (_number(24, "<Q", 1 << 50), "cut off within its header"),
    "more keys than there are": (_number(16, "<Q", 60), "cannot be read|cut off|header"),
    "an unknown architecture": (lambda data: data.replace(b"\0llama", b"\0lzzzz", 1), "unknown model architecture"),
    "a tensor of no rows": (_tensor_number(8, 0), "shape"),
    "a type that is gone": (_tensor_number(16, 4, "<I"), "type 4"),
    "a matrix of whole numbers": (_tensor_number(16, 26, "<I"), "the type 26"),
    "a norm in 16 bits": (_tensor_number(8, 1, "<I", b"output_norm.weight"), "output_norm.weight has the type 1"),
    "an unknown type": (_tensor_number(16, 99, "<I"), "refuses it"),
    "a tensor far away": (_tensor_number(20, 1 << 40), "the file is cut off: 1 of 56"),
    "no tensors": (_number(8, "<Q", 0), "no weights"),
}


@pytest.mark.parametrize("package", HERE)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_in_one_line(path: Path, tmp_path: Path, name: str, package: Package) -> None:
    change, message = BROKEN[name]
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelError, match=message) as caught:
        open_runtime(broken, package=package).close()
    assert "\n" not in str(caught.value)
    assert str(broken) in str(caught.value)


CHANGED = {
    "no heads": ({"llama.attention.head_count": 0}, "attention.head_count = 0"),
    "no layers": ({"llama.block_count": 0}, "block_count = 0"),
    "more layers than weights": ({"llama.block_count": 60}, r"refuses it: .*tensor 'blk\.6"),
    "a negative epsilon": ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "epsilon = -1.0"),
    "an adapter": ({"general.type": "adapter"}, "type 'adapter'"),
    "another width": ({"llama.embedding_length": 300}, "refuses it"),
    "an unknown tokenizer": ({"tokenizer.ggml.model": "no-such"}, "unknown tokenizer"),
}


@pytest.mark.parametrize("package", HERE)
@pytest.mark.parametrize("name", CHANGED)
def test_a_file_that_contradicts_itself_is_refused(path: Path, tmp_path: Path, name: str, package: Package) -> None:
    changes, message = CHANGED[name]
    with pytest.raises(ModelError, match=message):
        open_runtime(rewritten(path, tmp_path / "changed.gguf", changes), package=package).close()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        open_runtime(tmp_path / "none.gguf")


def test_without_a_package_the_install_line_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "PACKAGES", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"pip install 'ramify\[chat\]'"):
        installed()
    with pytest.raises(ConfigError, match="not installed"):
        open_runtime(path)


def test_the_header_is_what_the_gguf_package_reads(path: Path) -> None:
    from gguf import GGUFReader

    header, reader = read_header(path), GGUFReader(str(path))
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert header.metadata.keys() == fields.keys()
    for name, value in fields.items():
        assert header.metadata[name] == value
    assert [(each.name, each.shape, each.kind) for each in header.tensors] == [
        (each.name, tuple(map(int, each.shape)), int(each.tensor_type)) for each in reader.tensors
    ]

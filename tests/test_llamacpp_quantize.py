"""Smaller copies of a GGUF file: what they are made of, that they say nearly the same, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from llamacpp_setup import nano_gguf, prompts, tiny_gguf

from ramify.base.errors import ConfigError, ModelError
from ramify.sample.llamacpp.header import read_header
from ramify.sample.llamacpp.quantize import KINDS, matrix_types, quantize
from ramify.sample.llamacpp.runtime import open_runtime

LARGEST_KL = {"q8_0": 2e-3, "q6_k": 1e-2, "q4_k_m": 0.3}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano_gguf(tmp_path_factory.mktemp("gguf"), "f16")


def _logits(path: Path) -> torch.Tensor:
    runtime = open_runtime(path, kv="f32")
    found = torch.from_numpy(np.concatenate([runtime.logits(prompt.ids) for prompt in prompts()]))
    runtime.close()
    return found.log_softmax(-1)


def test_smaller_files_say_nearly_the_same(source: Path, tmp_path: Path) -> None:
    expected, sizes = _logits(source), [source.stat().st_size]
    for kind, limit in LARGEST_KL.items():
        made = quantize(source, tmp_path / f"{kind}.gguf", kind)
        found = _logits(made.path)
        assert 0 < (expected.exp() * (expected - found)).sum(-1).mean() < limit
        assert made.size == made.path.stat().st_size < sizes[-1]
        assert made.fallbacks == 0
        assert sum(made.types.values()) == sum(matrix_types(read_header(source)).values())
        sizes.append(made.size)


def test_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    source = tiny_gguf(tmp_path)
    made = quantize(source, tmp_path / "q4.gguf", "q4_k_m")
    assert made.fallbacks == sum(made.types.values()) > 0  # rows of 32 and 48: none is divisible by 256


@pytest.mark.proof
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_table_is_made_and_opens(source: Path, tmp_path: Path, kind: str) -> None:
    made = quantize(source, tmp_path / "small.gguf", kind)
    assert made.fallbacks == 0
    runtime = open_runtime(made.path)
    assert np.isfinite(runtime.logits((5, 6, 7))).all()
    runtime.close()


def test_what_cannot_be_quantised_leaves_nothing_behind(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'q4_k_m'"):
        quantize(source, tmp_path / "out.gguf", "q4_km")
    small = quantize(source, tmp_path / "small.gguf", "q8_0").path
    with pytest.raises(ModelError, match="quantised already"):
        quantize(small, tmp_path / "out.gguf", "q4_0")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot quantise"):
        quantize(cut, tmp_path / "out.gguf", "q4_0")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cut.gguf", "small.gguf"]

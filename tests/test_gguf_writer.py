"""GGUF files against Transformers: each family and setting, each kind, read back by llama.cpp; and that errors show."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from export_setup import (
    CASES,
    Watcher,
    case,
    divergence,
    leftovers,
    llama_logits,
    some_ids,
    tiny_export,
    transformers_logits,
    with_table,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ramify import nano
from ramify.base.errors import ConfigError, ModelError, RunError
from ramify.export.gguf import tensors, writer
from ramify.export.gguf.families import FAMILIES
from ramify.export.gguf.writer import write_gguf
from ramify.export.stored import stored
from ramify.sample.llamacpp.quantize import quantize


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """Folder and network of a case, made once."""
    made: dict[str, tuple[Path, Any]] = {}

    def get(name: str) -> tuple[Path, Any]:
        if name not in made:
            folder = tmp_path_factory.mktemp("model")
            made[name] = (folder, case(folder, name))
        return made[name]

    return get


Folders = Callable[[str], tuple[Path, Any]]
KINDS = {"f32": 1e-9, "f16": 1e-5, "bf16": 2e-4, "q8_0": 2e-3}
"""Mean KL that each kind may have; with bf16 weights llama.cpp rounds what they are multiplied by to bf16, too."""


def test_every_family_has_a_case() -> None:
    assert {family for family, _ in CASES.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", CASES)
def test_f32_has_the_same_logits(name: str, folders: Folders, tmp_path: Path) -> None:
    folder, network = folders(name)
    report = write_gguf(folder, tmp_path / "m.gguf", "f32")
    ids = some_ids(network)
    found = llama_logits(report.path, ids)
    expected = transformers_logits(with_table(network), ids)
    # A last digit of fp32 decides into which entry of the table a number falls: steps of f16 remain.
    assert np.abs(found - expected).max() < (2e-3 if name.startswith("gemma") else 1e-4)
    assert divergence(expected, found) < 1e-8 and divergence(transformers_logits(network, ids), found) < 1e-6


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"])
def test_smaller_kinds_stay_close(name: str, kind: str, folders: Folders, tmp_path: Path) -> None:
    folder, network = folders(name)
    report = write_gguf(folder, tmp_path / "m.gguf", kind)
    ids = some_ids(network, 64)
    found = divergence(transformers_logits(network, ids), llama_logits(report.path, ids))
    assert found < KINDS[kind]
    assert report.size == report.path.stat().st_size and not report.fallen_back


def test_nano(tmp_path: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(str(nano.path()), dtype=torch.float32)
    ids = some_ids(network)
    expected = transformers_logits(network, ids)
    found = {kind: llama_logits(write_gguf(nano.path(), tmp_path / "m.gguf", kind).path, ids) for kind in KINDS}
    assert np.abs(found["f32"] - expected).max() < 1e-4
    assert all(divergence(expected, found[kind]) < limit for kind, limit in KINDS.items())


@pytest.mark.parametrize("name", ["llama", "llama, tied", "qwen2"])
def test_transformers_reads_it_back_exactly(name: str, folders: Folders, tmp_path: Path) -> None:
    folder, network = folders(name)
    write_gguf(folder, tmp_path / "m.gguf", "f32")
    again: Any = AutoModelForCausalLM.from_pretrained(str(tmp_path), gguf_file="m.gguf", dtype=torch.float32)
    back = again.state_dict()
    for key, weight in network.state_dict().items():
        assert torch.equal(back[key], weight), key


def test_shards_are_one_model(folders: Folders, tmp_path: Path) -> None:
    folder, network = folders("llama")
    network.save_pretrained(str(tmp_path / "sharded"), max_shard_size="60KB")
    for file in folder.glob("token*.json"):
        shutil.copy(file, tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    one = write_gguf(folder, tmp_path / "m-F16.gguf", "f16").path.read_bytes()
    assert write_gguf(tmp_path / "sharded", tmp_path / "other" / "m-F16.gguf", "f16").path.read_bytes() == one


def test_small_blocks_write_the_same_file(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by blocks of rows; what is written does not depend on their size."""
    folder, _ = folders("llama, biases")
    whole = write_gguf(folder, tmp_path / "m.gguf", "q8_0").path.read_bytes()
    monkeypatch.setattr(tensors, "_BLOCK", 4096)
    assert write_gguf(folder, tmp_path / "m.gguf", "q8_0").path.read_bytes() == whole


def test_what_the_file_says(folders: Folders, tmp_path: Path) -> None:
    folder, network = folders("gemma2")
    (folder / "README.md").write_text("---\nlicense: gemma\n---\n# a card\n")
    reader = gguf.GGUFReader(write_gguf(folder, tmp_path / "words-Q8_0.gguf", "q8_0").path)

    def value(key: str) -> Any:
        return reader.fields[key].contents()

    assert value("general.architecture") == "gemma2" and value("general.type") == "model"
    assert value("general.name") == "words" and value("general.license") == "gemma"
    assert value("general.file_type") == 7 and value("general.quantization_version") == 2
    assert value("gemma2.attention.sliding_window") == 6 and value("gemma2.attention.sliding_window_pattern") == 2
    assert value("gemma2.attn_logit_softcapping") == pytest.approx(3.0)
    assert value("gemma2.attention.key_length") == value("gemma2.rope.dimension_count") == network.config.head_dim
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert "output.weight" not in kinds and kinds["token_embd.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.3.post_ffw_norm.weight"] == "F32"


def test_rows_that_q8_0_cannot_cut_are_counted(tmp_path: Path) -> None:
    network = tiny_export(tmp_path / "model", "llama", intermediate_size=72)
    report = write_gguf(tmp_path / "model", tmp_path / "m.gguf", "q8_0")
    assert report.fallen_back == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    ids = some_ids(network, 64)
    assert divergence(transformers_logits(network, ids), llama_logits(report.path, ids)) < 2e-3


# --- that a wrong file shows ---


def test_without_the_permutation_it_is_another_model(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = folders("llama")
    monkeypatch.setattr(tensors, "interleave", lambda rows, heads: rows)
    report = write_gguf(folder, tmp_path / "m.gguf", "f32")
    ids = some_ids(network, 64)
    assert divergence(transformers_logits(network, ids), llama_logits(report.path, ids)) > 0.01


def test_gemma_norms_off_by_one_are_another_model(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = folders("gemma")
    monkeypatch.setitem(FAMILIES, "gemma", replace(FAMILIES["gemma"], norm_offset=0.0))
    report = write_gguf(folder, tmp_path / "m.gguf", "f32")
    ids = some_ids(network, 64)
    assert divergence(transformers_logits(network, ids), llama_logits(report.path, ids)) > 0.01


def test_without_rope_factors_long_texts_are_another_models(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, network = folders("llama, llama3 rope")
    monkeypatch.setattr(writer, "rope_factors", lambda config, head: None)
    report = write_gguf(folder, tmp_path / "m.gguf", "f32")
    ids = some_ids(network)
    assert divergence(transformers_logits(network, ids), llama_logits(report.path, ids)) > 1e-3


# --- whole or not at all ---


def spoil(folder: Path, name: str, value: float) -> None:
    """Put one value into a tensor of the folder."""
    weights = load_file(str(folder / "model.safetensors"))
    weights[name][0, 0] = value
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


@pytest.mark.parametrize(
    "value, kind, reason",
    [
        (float("nan"), "f32", "output.weight: holds values that are not finite"),
        (7e4, "f16", r"output.weight: 7e\+04 does not fit f16"),
    ],
)
def test_a_bad_value_leaves_the_old_file(value: float, kind: str, reason: str, tmp_path: Path) -> None:
    tiny_export(tmp_path / "model", "llama")
    spoil(tmp_path / "model", "lm_head.weight", value)
    target = tmp_path / "m.gguf"
    target.write_bytes(b"old")
    with pytest.raises(ModelError, match=reason):
        write_gguf(tmp_path / "model", target, kind)
    assert target.read_bytes() == b"old" and not list(leftovers(tmp_path))


def test_an_interrupt_leaves_nothing(folders: Folders, tmp_path: Path) -> None:
    class Interrupted(Watcher):
        def update(self, done: int, **values: float) -> None:
            raise KeyboardInterrupt

    folder, _ = folders("llama")
    watcher = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        write_gguf(folder, tmp_path / "m.gguf", "f16", progress=watcher)
    assert watcher.closed == 1 and not list(tmp_path.iterdir())


def test_no_room(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = folders("llama")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(RunError, match=r"m\.gguf: needs 0\.02 GB, and 0\.00 GB are free"):
        write_gguf(folder, tmp_path / "m.gguf", "f16")


def test_unknown_kind(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown kind of GGUF 'q4_k_m' \(allowed: bf16, f16, f32, q8_0\)"):
        write_gguf(folders("llama")[0], tmp_path / "m.gguf", "q4_k_m")


def test_progress_is_told_in_bytes(folders: Folders, tmp_path: Path) -> None:
    watcher = Watcher()
    folder, _ = folders("llama")
    write_gguf(folder, tmp_path / "m.gguf", "f16", progress=watcher)
    ((stage, total),) = watcher.stages
    assert stage == "writing m.gguf" and watcher.done == sorted(watcher.done) and watcher.done[-1] == total
    assert watcher.closed == 1


def test_q8_0_is_what_llama_cpp_makes(folders: Folders, tmp_path: Path) -> None:
    folder, _ = folders("qwen2")
    write_gguf(folder, tmp_path / "own.gguf", "q8_0")
    quantize(write_gguf(folder, tmp_path / "f32.gguf", "f32").path, tmp_path / "theirs.gguf", "q8_0")
    own, theirs = (
        {each.name: each for each in gguf.GGUFReader(tmp_path / name).tensors} for name in ("own.gguf", "theirs.gguf")
    )
    assert own.keys() == theirs.keys()
    for name, each in own.items():
        assert each.tensor_type == theirs[name].tensor_type and np.array_equal(each.data, theirs[name].data), name


def test_stored_reads_headers_and_rows(folders: Folders) -> None:
    folder, network = folders("llama")
    found = stored(folder)
    assert found.keys() == network.state_dict().keys()
    table = found["model.embed_tokens.weight"]
    assert table.dtype == "F32" and table.shape == tuple(network.model.embed_tokens.weight.shape)
    rows = np.concatenate(list(table.blocks(7)))
    assert np.array_equal(rows, network.model.embed_tokens.weight.numpy(force=True))

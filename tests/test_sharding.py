"""Layers divided among processes (FSDP2) train as whole ones: the same loss, gradients, weights and saved files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rank_program import CASES, launch, steps
from safetensors.torch import load_file
from test_ranks import compare
from train_setup import Watcher, make_config, model_folder, pairs_file, preferences_file

from ramify.base.runs import open_run
from ramify.train import dpo, sft
from ramify.train.ranks import ALONE

__all__ = ["model_folder"]

SHARDED = [name for name, case in CASES.items() if case.sharded]
BF16 = {"fsdp bf16, all weights": 0.02}
"""Sums of gradients of bf16 weights are rounded to bf16 after each micro-batch, in another order for each division."""


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found for all sharded cases; each has asserted that its parameters are DTensors."""
    folder = tmp_path_factory.mktemp("two")
    for ended in launch(folder, "steps", str(folder), *SHARDED):
        assert ended.code == 0, ended.err
    return folder


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_layers_equal_whole_ones(name: str, by_two: Path, tmp_path: Path) -> None:
    found = load_file(str(by_two / f"{name}.safetensors"))
    compare(found, steps(CASES[name], tmp_path / "run", ALONE), BF16.get(name, 1e-5))


@pytest.mark.parametrize("lora", [{"r": 4, "alpha": 8}, None], ids=["lora", "all weights"])
def test_a_checkpoint_of_a_sharded_run_is_that_of_one_process(
    lora: dict[str, int] | None, model_folder: Path, tmp_path: Path
) -> None:
    """Two sharded processes are stopped, one goes on, and two sharded ones end it: files and result are one's own."""
    rows = pairs_file(tmp_path / "t.json")
    sections = {"lora": lora, "train": {"save_every": 2, "keep": 9, "micro_tokens": 64}}
    straight = sft.run(make_config(model_folder, rows, tmp_path / "one", **sections), progress=Watcher())
    sections["train"] = {**sections["train"], "shard": "fsdp"}
    config = make_config(model_folder, rows, tmp_path / "two", **sections)
    settings = tmp_path / "config.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    main, other = launch(tmp_path, "train", str(settings), "terminated:1:5")
    assert (main.code, other.code) == (143, 143) and "checkpoint-" in main.err, main.err + other.err
    alone = config.model_copy(update={"train": config.train.model_copy(update={"shard": "none"})})
    with pytest.raises(KeyboardInterrupt, match="stopped after step 4"):
        sft.run(alone, resume=True, progress=Watcher(stop_at=4 - stopped_at(main.err)))
    main, other = launch(tmp_path, "train", str(settings), "", "--resume")
    assert (main.code, other.code) == (0, 0), main.err + other.err
    for step in (2, 4, 6):
        same_files(tmp_path / "two" / f"checkpoint-{step}", straight.folder / f"checkpoint-{step}")
    kind = "adapter" if lora else "model"
    same_files(tmp_path / "two" / kind, straight.folder / kind)
    assert open_run(tmp_path / "two").record["status"] == "finished"


@pytest.mark.parametrize("shard", ["none", "fsdp"])
def test_preference_optimisation_from_end_to_end(shard: str, model_folder: Path, tmp_path: Path) -> None:
    """All of a run: the reference, the check of the first loss, training, validation and the result."""
    rows, valid = preferences_file(tmp_path / "t.jsonl"), preferences_file(tmp_path / "v.jsonl", 2, 20)
    sections = {"method": "dpo", "data": {"valid": str(valid)}, "train": {"micro_tokens": 256}}
    one = dpo.run(make_config(model_folder, rows, tmp_path / "one", **sections), progress=Watcher())
    sections["train"] = {"micro_tokens": 256, "shard": shard}
    config = make_config(model_folder, rows, tmp_path / "two", **sections)
    settings = tmp_path / "config.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    main, other = launch(tmp_path, "train", str(settings), "")
    assert (main.code, other.code) == (0, 0) and not main.err + other.err, main.err + other.err
    same_files(tmp_path / "two" / "adapter", one.folder / "adapter")
    two = open_run(tmp_path / "two")
    with np.load(two.folder / "reference.npz") as ours, np.load(one.folder / "reference.npz") as theirs:
        for name in theirs.files[1:]:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)
    for row, expected in zip(two.metrics(), one.metrics(), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert row.get("margin") == pytest.approx(expected.get("margin"), abs=1e-5)
    assert two.record["reference"]["tokens"] == one.record["reference"]["tokens"]


def stopped_at(said: str) -> int:
    """The step of `stopped after step N of …`."""
    return int(said.split()[3])


def same_files(found: Path, expected: Path) -> None:
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}
    for path in expected.glob("*.safetensors"):
        ours, theirs = load_file(str(found / path.name)), load_file(str(path))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert ours[name].shape == tensor.shape and ours[name].dtype == tensor.dtype
            torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-4)

"""Rows are rendered and judged before weights are read: bad rows of a model that cannot be loaded are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from train_setup import Watcher, make_config, model_folder, pairs_file, preferences_file

from ramify.base.errors import ConfigError, DataError, LengthError, ModelError
from ramify.model.load import load_model
from ramify.train import dpo, rft, sft

__all__ = ["model_folder"]

RUNS = {"sft": sft.run, "dpo": dpo.run, "rft": rft.run}


@pytest.fixture
def broken(model_folder: Path, tmp_path: Path) -> Path:
    """A model that looks whole until it is loaded: one of its tensors is missing."""
    folder = tmp_path / "broken"
    shutil.copytree(model_folder, folder)
    weights = load_file(folder / "model.safetensors")
    save_file({name: each for name, each in list(weights.items())[1:]}, folder / "model.safetensors", {"format": "pt"})
    return folder


def rows_of(method: str, path: Path) -> Path:
    """Good rows, one a line."""
    if method == "dpo":
        return preferences_file(path)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in json.loads(pairs_file(path).read_text())))
    return path


@pytest.mark.parametrize("method", RUNS)
def test_what_is_wrong_with_rows_is_told_before_weights_are_read(method: str, broken: Path, tmp_path: Path) -> None:
    good = rows_of(method, tmp_path / "good.jsonl")
    config = make_config(broken, good, tmp_path / "run", method=method)
    with pytest.raises(ModelError, match="1 weights are missing"):
        RUNS[method](config)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(good.read_text() + json.dumps({"something": "else"}) + "\n")
    with pytest.raises(DataError, match=r"bad\.jsonl"):
        RUNS[method](make_config(broken, bad, tmp_path / "run", method=method))
    with pytest.raises(LengthError):
        RUNS[method](make_config(broken, good, tmp_path / "run", method=method, data={"max_length": 3}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_notes_come_before_weights_are_read(method: str, broken: Path, tmp_path: Path) -> None:
    rows, watcher = rows_of(method, tmp_path / "rows.jsonl"), Watcher()
    config = make_config(broken, rows, tmp_path / "run", method=method, train={"warmup": 5, "max_steps": 6})
    with pytest.raises(ModelError, match="1 weights are missing"):
        RUNS[method](config, progress=watcher)
    assert any("5 of 6 steps are warm-up" in note for note in watcher.notes)


def test_sampling_alone_asks_nothing_of_an_adapter_that_only_training_needs(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "rows.json")
    begun = sft.run(make_config(model_folder, rows, tmp_path / "begun", train={"max_steps": 1})).folder
    config = make_config(begun, rows, tmp_path / "drawn", method="rft", lora=None)
    assert rft.sample(config).record["status"] == "sampled"
    with pytest.raises(ConfigError, match="lora is null"):
        rft.run(make_config(begun, rows, tmp_path / "run", method="rft", lora=None))


def test_a_model_that_is_given_is_judged_before_its_rows_are_rendered(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "rows.json")
    begun = sft.run(make_config(model_folder, rows, tmp_path / "begun", train={"max_steps": 1})).folder
    config = make_config(model_folder, rows, tmp_path / "run", lora=None, data={"max_length": 3})
    with pytest.raises(LengthError):
        sft.run(config)
    with pytest.raises(ConfigError, match="lora is null"):
        sft.run(config, loaded=load_model(str(begun), dtype="fp32", device="cpu"))

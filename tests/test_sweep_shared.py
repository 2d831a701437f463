"""What runs share: references and rows are computed once, and results are those of runs alone, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from train_setup import Watcher, make_config, model_folder, pairs_file, preferences_file

from ramify.base.config import RunConfig
from ramify.base.runs import Run
from ramify.train import dpo, sft, shared_rows
from ramify.train.shared import alone, link, place_of, shared_in

__all__ = ["model_folder"]


def weights(run: Run) -> dict[str, Any]:
    assert run.adapter is not None
    return dict(load_file(str(run.adapter / "adapter_model.safetensors")))


def assert_same(one: Run, other: Run) -> None:
    """Adapters, losses and what is shown of the rows are equal, bit for bit."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    assert all(np.array_equal(left[name], right[name]) for name in left)
    for kind in ("train", "eval"):
        losses = [[row["loss"] for row in run.metrics(kind)] for run in (one, other)]
        assert losses[0] == losses[1]
    assert one.record["data"] == other.record["data"]
    assert one.record["hashes"] == other.record["hashes"]


def stages(run_with: Any, config: RunConfig) -> tuple[Run, list[str]]:
    """The run, and the names of the stages that it went through."""
    watcher = Watcher()
    run = run_with(config, progress=watcher)
    return run, [name for name, *_ in watcher.stages]


def test_a_reference_is_computed_once_for_ranks_and_rates(model_folder: Path, tmp_path: Path) -> None:
    rows = preferences_file(tmp_path / "pairs.jsonl")

    def config(name: str, r: int, seed: int = 1) -> RunConfig:
        lora = {"r": r, "alpha": 8}
        return make_config(model_folder, rows, tmp_path / name, method="dpo", lora=lora, seed=seed)

    with shared_in(tmp_path / "shared"):
        first, went = stages(dpo.run, config("first", 2))
        assert "reference" in went
        others = [stages(dpo.run, config("second", 4)), stages(dpo.run, config("third", 2, seed=2))]
    for run, went in others:
        assert "reference" not in went
        assert "tokens" not in run.record["reference"]  # what computing it took
        assert (run.folder / "reference.npz").stat().st_ino == (first.folder / "reference.npz").stat().st_ino
    alone_run, went = stages(dpo.run, config("alone", 4))
    assert "reference" in went
    assert_same(alone_run, others[0][0])


def test_a_reference_that_is_trained_is_not_shared_with_another(model_folder: Path, tmp_path: Path) -> None:
    rows, start = preferences_file(tmp_path / "pairs.jsonl"), pairs_file(tmp_path / "rows.json")
    base = {"method": "dpo", "dpo": {"reference": "start"}}
    with shared_in(tmp_path / "shared"):
        adapters = [sft.run(make_config(model_folder, start, tmp_path / f"s{n}", seed=n)).folder for n in (1, 2)]
        runs = [
            stages(dpo.run, make_config(model_folder, rows, tmp_path / f"d{n}", adapter=str(adapter), **base))
            for n, adapter in enumerate(adapters)
        ]
    assert all("reference" in went for _, went in runs)
    kept = [np.load(run.folder / "reference.npz")["train_chosen"] for run, _ in runs]
    assert not np.array_equal(*kept)


def test_a_damaged_reference_is_computed_again(model_folder: Path, tmp_path: Path) -> None:
    rows = preferences_file(tmp_path / "pairs.jsonl")
    with shared_in(tmp_path / "shared"):
        dpo.run(make_config(model_folder, rows, tmp_path / "first", method="dpo"))
        (kept,) = (each for each in (tmp_path / "shared").iterdir() if each.name.startswith("reference"))
        kept.unlink()
        kept.write_bytes(b"half a file")
        run, went = stages(dpo.run, make_config(model_folder, rows, tmp_path / "second", method="dpo"))
        assert "reference" in went
        assert np.load(kept)["train_chosen"].shape == np.load(run.folder / "reference.npz")["train_chosen"].shape


def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever rows are rendered."""
    counted: list[int] = []
    real = sft.render_all

    def counting(*arguments: Any) -> Any:
        counted.append(1)
        return real(*arguments)

    monkeypatch.setattr(sft, "render_all", counting)
    return counted


def test_rows_are_rendered_once_and_mapped_by_all(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = rendered(monkeypatch)
    rows, valid = pairs_file(tmp_path / "rows.json"), pairs_file(tmp_path / "valid.json", 5, 10)
    data = {"valid": str(valid)}

    def config(name: str, **more: Any) -> RunConfig:
        return make_config(model_folder, rows, tmp_path / name, data=data, **more)

    with shared_in(tmp_path / "shared"):
        first = sft.run(config("first"))
        assert len(count) == 1
        second = sft.run(config("second", lora={"r": 2}, train={"lr": 0.001}))
        assert len(count) == 1
        place = next(each for each in (tmp_path / "shared").iterdir() if each.name.startswith("rows"))
        kept = shared_rows._read(place)
        assert kept is not None and isinstance(kept.train.sequences.ids, np.memmap)
    alone_run = sft.run(config("alone", lora={"r": 2}, train={"lr": 0.001}))
    assert len(count) == 2
    assert_same(alone_run, second)
    pages = [(run.folder / "rows.html").read_text().replace(run.folder.name, "") for run in (alone_run, second)]
    assert pages[0] == pages[1]
    assert first.record["hashes"] == second.record["hashes"]


@pytest.mark.parametrize("change", ["rows", "valid", "prompt", "data", "model", "task"])
def test_rows_are_rendered_again_when_anything_that_decides_them_changes(
    change: str,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = rendered(monkeypatch)
    rows, valid = pairs_file(tmp_path / "rows.json"), pairs_file(tmp_path / "valid.json", 5, 30)
    more: dict[str, Any] = {"train": {"max_steps": 1}, "data": {"valid": str(valid)}}
    with shared_in(tmp_path / "shared"):
        sft.run(make_config(model_folder, rows, tmp_path / "first", **more))
        model = model_folder
        if change == "rows":
            pairs_file(rows, 13)
        elif change == "valid":
            pairs_file(valid, 6, 30)
        elif change == "prompt":
            more["prompt"] = {"system": "Answer briefly."}
        elif change == "data":
            more["data"] = {"valid": str(valid), "limit": 3}
        elif change == "task":
            more["task"] = {"tolerance": 0.2}
        else:
            model = tmp_path / "other"
            model.mkdir()
            for each in model_folder.iterdir():
                content = each.read_bytes()
                if each.name == "tokenizer_config.json":
                    settings = json.loads(content)
                    content = json.dumps({**settings, "model_max_length": 99}).encode()
                (model / each.name).write_bytes(content)
            template = model / "chat_template.jinja"
            template.write_text(template.read_text() + "{# another one #}")
        sft.run(make_config(model, rows, tmp_path / "second", **more))
    assert len(count) == 2


def test_rows_of_a_task_and_damaged_ones_are_rendered_again(
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = rendered(monkeypatch)
    few: dict[str, Any] = {"task": {"rows": 4}, "train": {"max_steps": 1}}
    with shared_in(tmp_path / "shared"):
        for name in ("a", "b"):
            sft.run(make_config(model_folder, "task", tmp_path / name, **few))
        assert len(count) == 2
        rows = pairs_file(tmp_path / "rows.json")
        sft.run(make_config(model_folder, rows, tmp_path / "c", train={"max_steps": 1}))
        place = next(each for each in (tmp_path / "shared").iterdir() if each.name.startswith("rows"))
        (place / "train.npz").write_bytes(b"")
        sft.run(make_config(model_folder, rows, tmp_path / "d", train={"max_steps": 1}))
        assert len(count) == 4
        sft.run(make_config(model_folder, rows, tmp_path / "e", train={"max_steps": 1}))
        assert len(count) == 4


def test_outside_of_a_folder_nothing_is_shared(tmp_path: Path) -> None:
    assert place_of("rows", {"a": 1}) is None
    with shared_in(tmp_path), alone(place_of("rows", {"a": 1})):
        assert place_of("rows", {"a": 1}) == place_of("rows", {"a": 1})
        assert place_of("rows", {"a": 1}) != place_of("rows", {"a": 2})
        assert place_of("rows", {"a": 1}) != place_of("reference", {"a": 1})
    with alone(None):
        pass


def test_a_link_replaces_what_was_there_and_a_missing_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("new")
    (tmp_path / "two").write_text("old")
    assert link(tmp_path / "one", tmp_path / "two")
    assert link(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "new"
    assert not link(tmp_path / "none", tmp_path / "two")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one", "two"]

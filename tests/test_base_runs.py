from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from ramify.base.config import RunConfig
from ramify.base.config_file import load_config
from ramify.base.errors import DataError, LengthError, RamifyError, RunError, nearest, unknown
from ramify.base.runs import create_run, is_run, open_run, versions


def test_a_run_records_what_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ramify", "train", "my recipe.yaml"])
    config = RunConfig(seed=7)
    run = create_run(tmp_path / "run", config, hashes={"data": "abc"}, parents=("runs/before",))
    record = open_run(tmp_path / "run").record
    assert record == run.record
    assert record["command"] == "ramify train 'my recipe.yaml'"
    assert record["status"] == "running"
    assert record["seed"] == 7
    assert record["hashes"] == {"data": "abc"}
    assert record["parents"] == ["runs/before"]
    assert record["versions"]["torch"]
    assert RunConfig.model_validate(record["config"]) == config


def test_the_saved_config_starts_the_same_run_again(tmp_path: Path) -> None:
    config = load_config(None, ["train.lr=1e-5", "prompt.fewshot=words.yaml", "lora.targets=[q_proj, v_proj]"])
    run = create_run(tmp_path / "run", config)
    assert load_config(run.folder / "config.yaml") == config
    assert "lr" in yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))["train"]


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    run = create_run(tmp_path, RunConfig())
    before = (run.folder / "run.json").read_bytes()
    with pytest.raises(RunError, match=r"holds a run already.*--resume"):
        create_run(tmp_path, RunConfig(seed=1))
    assert (run.folder / "run.json").read_bytes() == before


def test_a_run_without_config(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", None)
    assert run.record["config"] is None
    assert not (run.folder / "config.yaml").exists()


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(RunError, match=r"not a run folder \(no run.json\)"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="cannot be read"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RunError, match="a JSON object is needed"):
        open_run(tmp_path)
    assert is_run(tmp_path)


def test_metrics_are_lines_with_a_kind(tmp_path: Path) -> None:
    run = create_run(tmp_path, None)
    assert run.metrics() == []
    run.log("train", step=1, loss=0.5)
    run.log("eval", step=1, loss=0.25)
    assert run.metrics("eval") == [{"kind": "eval", "step": 1, "loss": 0.25}]
    assert [row["kind"] for row in run.metrics()] == ["train", "eval"]


def test_updates_change_only_their_entries(tmp_path: Path) -> None:
    run = create_run(tmp_path, RunConfig())
    before = run.record
    run.update(status="finished", seconds=1.5)
    assert run.record == {**before, "status": "finished", "seconds": 1.5}


def test_what_a_run_ended_with(tmp_path: Path) -> None:
    run = create_run(tmp_path, None)
    assert (run.adapter, run.model) == (None, None)
    (tmp_path / "adapter").mkdir()
    assert run.adapter is None  # half written
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    assert (run.adapter, run.model) == (tmp_path / "adapter", tmp_path / "model")


def test_versions_are_those_installed() -> None:
    import numpy

    assert versions()["numpy"] == numpy.__version__
    assert json.dumps(versions())


def test_errors_carry_a_hint_and_say_where() -> None:
    assert str(RamifyError("wrong", hint="right it")) == "wrong (hint: right it)"
    assert str(DataError("wrong", path="rows.jsonl", line=3)) == "rows.jsonl:3: wrong"
    assert str(DataError("wrong", path=Path("rows.jsonl"))) == "rows.jsonl: wrong"
    error = LengthError("too long", hint="raise data.max_length")
    assert isinstance(error, DataError)
    assert (error.path, error.line, error.hint) == (None, None, "raise data.max_length")


def test_nearest_names() -> None:
    assert nearest("temprature", ["temperature", "top_p"]) == "temperature"
    assert nearest("xyz", ["temperature", "top_p"]) is None
    assert unknown("task", "mth", ["math", "a"]) == "unknown task 'mth'; did you mean 'math'? (allowed: a, math)"
    assert unknown("task", "zzz", ["math", "a"]) == "unknown task 'zzz' (allowed: a, math)"

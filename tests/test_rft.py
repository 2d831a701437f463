"""Rejection sampling end to end on a tiny model that has learned a little: draw, grade, select, train, resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train_setup import Watcher, make_config, model_folder, pairs_file

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, DataError, RunError, TaskError, TrainingError
from ramify.base.records import read_jsonl, sample_from_plain, verdict_from_plain
from ramify.base.runs import Run, open_run
from ramify.base.types import Reason, Stop
from ramify.data.sources import read_problems, read_rows
from ramify.tasks.task import load_task
from ramify.train import rft, sft

__all__ = ["model_folder"]
ROWS = 4
SAMPLES = 3


@pytest.fixture(scope="module")
def learned(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model answers the questions of `pairs_file` rightly now and then."""
    folder = tmp_path_factory.mktemp("learned")
    rows = pairs_file(folder / "t.json", ROWS)
    train = {"max_steps": 60, "lr": 0.004, "save_every": 60, "schedule": "constant"}
    config = make_config(model_folder, rows, folder / "run", lora=None, train=train)
    return sft.run(config, progress=Watcher()).folder


def config(learned: Path, tmp_path: Path, **sections: Any) -> RunConfig:
    """Three samples of each of four questions at temperature 1."""
    rows = pairs_file(tmp_path / "t.json", ROWS)
    values: dict[str, Any] = {
        "method": "rft",
        "sample": {"n": SAMPLES, "temperature": 1.0, "max_new_tokens": 24},
        "select": {"strategy": "distinct"},
        "train": {"epochs": 1},
    }
    for name, value in sections.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    out = values.pop("out", tmp_path / "run")
    return make_config(learned, rows, out, **values)


def adapter(run: Run) -> dict[str, torch.Tensor]:
    return load_file(str(run.folder / "adapter" / "adapter_model.safetensors"))


def same(first: Run, second: Run) -> bool:
    one, other = adapter(first), adapter(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def files(run: Run) -> dict[str, bytes]:
    return {
        name: (run.folder / name).read_bytes()
        for name in ("samples.jsonl", "verdicts.jsonl", "rows.jsonl", "yield.json")
    }


def test_a_run_samples_grades_selects_and_trains(learned: Path, tmp_path: Path) -> None:
    settings = config(learned, tmp_path)
    watcher = Watcher()
    run = rft.run(settings, progress=watcher)
    assert [stage[:2] for stage in watcher.stages] == [("sampling", ROWS * SAMPLES), ("training", 1)]
    samples = [sample_from_plain(row) for _, row in read_jsonl(run.folder / "samples.jsonl")]
    verdicts = [verdict_from_plain(row) for _, row in read_jsonl(run.folder / "verdicts.jsonl")]
    problems = {each.id: each for each in read_problems(str(settings.data.train))}
    task = load_task(settings.task)
    assert [(each.problem_id, each.index) for each in samples] == [
        (name, index) for name in problems for index in range(SAMPLES)
    ]
    assert [task.grade(problems[each.problem_id], each) for each in samples] == verdicts
    rows = read_rows(run.folder / "rows.jsonl").examples
    account = json.loads((run.folder / "yield.json").read_text())["rounds"][0]
    assert 0 < len(rows) == account["rows"] == ROWS * SAMPLES - sum(account["refused"].values())
    drawn = {(each.problem_id, each.index): (each, verdict) for each, verdict in zip(samples, verdicts, strict=True)}
    for row in rows:
        assert row.lineage is not None and row.lineage.round == 0 and row.lineage.seed == 42
        sample, verdict = drawn[row.lineage.problem_id, row.lineage.sample_index]
        assert verdict.reason is Reason.CORRECT and sample.stop is Stop.EOS
        assert row.lineage.policy == sample.policy == str(learned)
        assert row.completions[0].text == sample.text.strip()
    assert run.record["status"] == "finished" and run.record["parents"] == [str(learned)]
    assert run.adapter is not None and run.metrics("train")


def test_selected_rows_train_by_themselves(learned: Path, tmp_path: Path) -> None:
    """The same rows, as a file or as the run, give the same adapter as the run's own training."""
    settings = config(learned, tmp_path)
    run = rft.run(settings, progress=Watcher())
    for number, source in enumerate((run.folder / "rows.jsonl", run.folder)):
        again = make_config(learned, source, tmp_path / f"sft{number}", train={"epochs": 1})
        assert same(sft.run(again, progress=Watcher()), run)


@pytest.mark.parametrize("stop_at", [1, 5, ROWS * SAMPLES])
def test_stopped_sampling_draws_only_what_is_missing(stop_at: int, learned: Path, tmp_path: Path) -> None:
    straight = rft.run(config(learned, tmp_path, out=str(tmp_path / "straight")), progress=Watcher())
    settings = config(learned, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        rft.run(settings, progress=Watcher(stop_at=stop_at))
    stopped = open_run(tmp_path / "run")
    assert stopped.record["status"] == "stopped"
    with (stopped.folder / "samples.jsonl").open("a") as file:
        file.write('{"problem_id": "torn')
    watcher = Watcher()
    resumed = rft.run(settings, resume=True, progress=watcher)
    assert [done for done, _ in watcher.updates if done <= ROWS * SAMPLES][: ROWS * SAMPLES - stop_at] == list(
        range(stop_at + 1, ROWS * SAMPLES + 1)
    )
    assert files(resumed) == files(straight)
    assert same(resumed, straight)


def test_a_sample_without_verdict_is_graded_on_resume(learned: Path, tmp_path: Path) -> None:
    settings = config(learned, tmp_path)
    first = rft.sample(settings, progress=Watcher())
    before = files(first)
    first.update(status="stopped")
    lines = (first.folder / "verdicts.jsonl").read_text().splitlines(keepends=True)
    (first.folder / "verdicts.jsonl").write_text("".join(lines[:4]))
    watcher = Watcher()
    rft.sample(settings, resume=True, progress=watcher)
    assert files(first) == before and not watcher.updates


def test_rounds_sample_from_the_round_before_and_train_on_all_rows(learned: Path, tmp_path: Path) -> None:
    run = rft.run(config(learned, tmp_path, select={"rounds": 2}), progress=Watcher())
    samples = [sample_from_plain(row) for _, row in read_jsonl(run.folder / "samples.jsonl")]
    first = [each for each in samples if each.index < SAMPLES]
    second = [each for each in samples if each.index >= SAMPLES]
    assert len(first) == len(second) == ROWS * SAMPLES
    assert {each.policy for each in first} == {str(learned)}
    assert all(each.policy.startswith(str(run.folder / "round-1")) for each in second)
    rows = read_rows(run.folder / "rows.jsonl").examples
    rounds = json.loads((run.folder / "yield.json").read_text())["rounds"]
    assert [entry["samples"] for entry in rounds] == [ROWS * SAMPLES, 2 * ROWS * SAMPLES]
    assert rounds[0]["rows"] <= rounds[1]["rows"] == len(rows)
    assert {row.lineage.round for row in rows if row.lineage is not None} <= {0, 1}
    assert open_run(run.folder / "round-1").adapter is not None
    one = rft.run(config(learned, tmp_path, out=str(tmp_path / "one")), progress=Watcher())
    assert same(open_run(run.folder / "round-1"), one)


def test_sample_alone_writes_rows_and_trains_nothing(learned: Path, tmp_path: Path) -> None:
    run = rft.sample(config(learned, tmp_path), progress=Watcher())
    assert run.adapter is None and not run.metrics() and run.record["status"] == "finished"
    assert read_rows(run.folder / "rows.jsonl").examples
    with pytest.raises(RunError, match="holds a run already"):
        rft.sample(config(learned, tmp_path), progress=Watcher())


def test_nothing_selected_is_said_with_what_to_do(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none of the 12 samples could be selected") as raised:
        rft.run(config(learned, tmp_path, sample={"max_new_tokens": 1}), progress=Watcher())
    assert "sample_prompt" in str(raised.value.hint)
    run = open_run(tmp_path / "run")
    assert run.record["status"] == "failed"
    assert json.loads((run.folder / "yield.json").read_text())["rounds"][0]["refused"] == {"truncated": 12}


def test_changed_sampling_is_refused_on_resume(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        rft.run(config(learned, tmp_path), progress=Watcher(stop_at=2))
    with pytest.raises(TrainingError, match=r"sample\.temperature: 1\.0 → 0\.5"):
        rft.run(config(learned, tmp_path, sample={"temperature": 0.5}), resume=True, progress=Watcher())


def test_a_broken_grader_stops_the_run(learned: Path, tmp_path: Path) -> None:
    task = tmp_path / "broken.py"
    task.write_text(
        "from ramify.base.types import Message, Problem\n"
        "class Broken:\n"
        "    name, fewshot, system = 'broken', None, None\n"
        "    def problems(self, split, n): return [Problem('a', (Message('user', '1 kg ?'),), answer='1')]\n"
        "    def grade(self, problem, sample): raise ZeroDivisionError('oops')\n"
        "    def completion(self, problem): return '1'\n"
        "task = Broken()\n"
    )
    settings = config(learned, tmp_path, data={"train": "task"}, task={"name": str(task)})
    with pytest.raises(TaskError, match="the grader failed on all 3 samples: ZeroDivisionError: oops"):
        rft.run(settings, progress=Watcher())


def test_bad_data_is_refused_before_a_folder_is_made(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train is not set"):
        rft.run(config(learned, tmp_path, data={"train": None}), progress=Watcher())
    with pytest.raises(DataError):
        rft.run(config(learned, tmp_path, data={"train": str(tmp_path / "missing.json")}), progress=Watcher())
    assert not (tmp_path / "run").exists()

"""Rejection sampling end to end on a tiny model that has learned a little: draw, grade, select, train, resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from train_setup import Watcher, make_config, model_folder, pairs_file

from ramify.base.config import RunConfig
from ramify.base.config_file import load_config
from ramify.base.errors import ConfigError, DataError, LengthError, ModelError, RunError, TaskError, TrainingError
from ramify.base.records import read_jsonl, sample_from_plain, verdict_from_plain
from ramify.base.runs import Run, open_run
from ramify.base.types import Reason, Stop
from ramify.data.sources import read_problems, read_rows
from ramify.evaluate.settings import evaluation_config
from ramify.tasks.registry import load_task
from ramify.train import rft, sft
from ramify.train.dryrun import dry_run

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
    out, model = values.pop("out", tmp_path / "run"), values.pop("model", learned)
    return make_config(model, rows, out, **values)


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
    assert run.adapter is None and not run.metrics() and run.record["status"] == "sampled"
    assert read_rows(run.folder / "rows.jsonl").examples
    watcher = Watcher()
    rft.sample(config(learned, tmp_path), resume=True, progress=watcher)
    assert "finished already" in watcher.notes[0] and not watcher.stages
    with pytest.raises(RunError, match="holds a run already"):
        rft.sample(config(learned, tmp_path), progress=Watcher())


def test_sampling_then_training_equals_the_straight_run(learned: Path, tmp_path: Path) -> None:
    straight = rft.run(config(learned, tmp_path, out=str(tmp_path / "straight")), progress=Watcher())
    rft.sample(config(learned, tmp_path, method="sft"), progress=Watcher())
    watcher = Watcher()
    run = rft.run(config(learned, tmp_path), resume=True, progress=watcher)
    assert [stage[0] for stage in watcher.stages] == ["training"] and run.record["status"] == "finished"
    assert files(run) == files(straight) and same(run, straight)


def test_rows_are_selected_anew_from_the_same_samples(learned: Path, tmp_path: Path) -> None:
    first = rft.sample(config(learned, tmp_path), progress=Watcher())
    before, watcher = files(first), Watcher()
    (first.folder / "rows.jsonl").unlink()
    run = rft.sample(config(learned, tmp_path, select={"strategy": "first_correct"}), resume=True, progress=watcher)
    assert not watcher.stages and not watcher.notes and files(run)["samples.jsonl"] == before["samples.jsonl"]
    assert load_config(run.folder / "config.yaml").select.strategy == "first_correct"


def test_settings_of_training_are_corrected_after_sampling(learned: Path, tmp_path: Path) -> None:
    """A loss that is not finite before the first checkpoint: a lower rate and other layers need no new sample."""
    plain = {"sample_prompt": {"chat_template": "plain"}}
    parts = tmp_path / "parts"
    parts.mkdir()
    for split in ("validation", "test"):
        pairs_file(parts / f"{split}.json", 2, start=50)
    first = config(learned, tmp_path, train={"lr": 9.0}, data={"valid": str(parts)}, **plain)
    with pytest.raises(KeyboardInterrupt):
        rft.run(first, progress=Watcher(stop_at=ROWS * SAMPLES))
    better: dict[str, Any] = {
        "train": {"lr": 0.01},
        "lora": {"targets": ["q_proj"]},
        "prompt": {"chat_template": "chatml"},
        "data": {"valid": str(parts), "valid_split": "test", "bad_rows": 0.1, "turns": "last"},
        **plain,
    }
    watcher = Watcher()
    run = rft.run(config(learned, tmp_path, **better), resume=True, progress=watcher)
    assert [stage[0] for stage in watcher.stages] == ["training"]
    straight = rft.run(config(learned, tmp_path, out=str(tmp_path / "straight"), **better), progress=Watcher())
    assert files(run) == files(straight) and same(run, straight)
    assert run.record["config"] == {**straight.record["config"], "out": str(run.folder)}
    assert load_config(run.folder / "config.yaml").train.lr == 0.01


def test_settings_of_training_are_fixed_once_it_began(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        rft.run(config(learned, tmp_path, train={"epochs": 2}), progress=Watcher(stop_at=ROWS * SAMPLES + 1))
    with pytest.raises(TrainingError, match=r"lora\.r: 4 → 8; train\.lr: 0\.01 → 0\.5"):
        other = config(learned, tmp_path, train={"epochs": 2, "lr": 0.5}, lora={"r": 8})
        rft.run(other, resume=True, progress=Watcher())


PLAIN = {"sample_prompt": {"chat_template": "plain"}}
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "layers": ({"lora": {"targets": ["q_prj"]}}, ModelError, "unknown layer 'q_prj'; did you mean 'q_proj'"),
    "template": ({"prompt": {"chat_template": "chatml2"}, **PLAIN}, ConfigError, "did you mean 'chatml'"),
    "worked turns": ({"prompt": {"fewshot": "nope"}, **PLAIN}, ConfigError, "nope"),
    "worked turns of sampling": ({"sample_prompt": {"chat_template": "plain", "fewshot": "nope"}}, ConfigError, "nope"),
    "length": ({"data": {"max_length": 600}}, ConfigError, "max_length = 600: the model allows 512"),
    "short": ({"data": {"max_length": 8}}, LengthError, "4 of 4 prompts leave no room for an answer within 8 tokens"),
    "long prompt": ({"sample": {"max_new_tokens": 505}}, LengthError, "the longest prompt has .* the model allows 512"),
    "model": ({"model": "nan0"}, ModelError, "did you mean 'nano'"),
    "validation": ({"data": {"valid": "none.json"}}, DataError, r"none\.json: no such file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_training_will_refuse_is_refused_before_the_first_sample(case: str, learned: Path, tmp_path: Path) -> None:
    sections, error, message = REFUSED[case]
    settings, watcher = config(learned, tmp_path, **sections), Watcher()
    with pytest.raises(error, match=message):
        rft.run(settings, progress=watcher)
    assert not watcher.updates and not watcher.stages and not (tmp_path / "run").exists()
    if case != "layers":  # only weights tell which layers there are
        with pytest.raises(error, match=message):
            dry_run(settings)


def test_a_run_is_not_removed_for_one_that_cannot_start(learned: Path, tmp_path: Path) -> None:
    run = rft.run(config(learned, tmp_path), progress=Watcher())
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    for case in ("layers", "model", "length", "template"):
        sections, error, message = REFUSED[case]
        with pytest.raises(error, match=message):
            rft.run(config(learned, tmp_path, **sections), overwrite=True, progress=Watcher())
    broken = tmp_path / "broken"
    shutil.copytree(learned / "model", broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(ModelError, match="broken: cannot be read"):
        rft.run(config(learned, tmp_path, model=str(broken)), overwrite=True, progress=Watcher())
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_a_dry_run_looks_at_device_files_and_folder(learned: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(learned / "model", broken)
    assert dry_run(config(learned, tmp_path, model=str(broken))).samples == ROWS * SAMPLES
    with pytest.raises(ModelError, match="unknown device 'gpu7'"):
        dry_run(config(learned, tmp_path, train={"device": "gpu7"}))
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-9])
    with pytest.raises(ModelError, match="broken: cannot be read"):
        dry_run(config(learned, tmp_path, model=str(broken)))
    (broken / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="broken: cannot be read"):
        dry_run(config(learned, tmp_path, model=str(broken)))
    (broken / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    with pytest.raises(ModelError, match="broken: cannot be read"):
        dry_run(config(learned, tmp_path, model=str(broken)))
    (broken / "1.safetensors").write_bytes(weights)
    dry_run(config(learned, tmp_path, model=str(broken)))
    with pytest.raises(RunError, match="holds a run already"):
        dry_run(config(learned, tmp_path, out=str(learned)))
    dry_run(config(learned, tmp_path, out=str(learned)), overwrite=True)


def test_later_rounds_load_the_revision_of_the_first(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    load = rft.load_model

    def watch(name: str, **settings: Any) -> Any:
        asked.append(settings["revision"])
        return load(name, **settings)

    monkeypatch.setattr("ramify.train.rft.load_model", watch)
    rft.run(config(learned, tmp_path, revision="X", select={"rounds": 2}), progress=Watcher())
    assert asked == ["X", "X"]
    assert evaluation_config(str(tmp_path / "run")).revision == "X"


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

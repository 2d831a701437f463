"""Checkpoints are whole or not there, and a resumed run equals the straight one bit for bit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from rank_program import command, start
from safetensors.torch import load_file
from train_setup import Watcher, make_config, model_folder, pairs_file, preferences_file, tiny_folder
from transformers import AutoModelForCausalLM

from ramify.base.config import RunConfig
from ramify.base.errors import RunError, Terminated, TrainingError
from ramify.base.runs import Run, open_run
from ramify.train import dpo, sft
from ramify.train.checkpoint import (
    TrainState,
    find_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    remove_half_written,
    remove_old,
    write_checkpoint,
)
from ramify.train.objective import Supervised

__all__ = ["model_folder"]
resource = pytest.importorskip("resource", reason="file size limits are POSIX's")


def state(step: int) -> TrainState:
    return TrainState(step=step)


def write(run: Path, step: int, value: float = 1.0) -> Path:
    def weights(folder: Path) -> None:
        (folder / "weights.txt").write_text(str(value))

    return write_checkpoint(run, state(step), {"exp_avg/w": torch.full((3,), value)}, weights)


def result(run: Run, kind: str = "adapter") -> dict[str, torch.Tensor]:
    """The trained weights at the end of a run."""
    folder = run.folder / kind
    return load_file(str(folder / ("adapter_model.safetensors" if kind == "adapter" else "model.safetensors")))


def losses(run: Run) -> list[tuple[str, int, float]]:
    return [(row["kind"], row["step"], row["loss"]) for row in run.metrics()]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file may grow past `size` bytes: what a full disk does, and needs no rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_round_trip(tmp_path: Path) -> None:
    folder = write(tmp_path, 7, 0.5)
    found = read_checkpoint(folder)
    assert folder.name == "checkpoint-7" and found.state == state(7)
    assert torch.equal(found.optimizer["exp_avg/w"], torch.full((3,), 0.5))
    assert not list(tmp_path.glob("*.tmp"))


def test_newest_by_number_and_half_written_ones_ignored(tmp_path: Path) -> None:
    for step in (9, 10, 2):
        write(tmp_path, step)
    (tmp_path / "checkpoint-11.tmp").mkdir()
    (tmp_path / "checkpoint-12").mkdir()  # no manifest: not ours, or not whole
    newest = newest_checkpoint(tmp_path)
    assert newest is not None and newest.state.step == 10
    remove_half_written(tmp_path)
    assert not (tmp_path / "checkpoint-11.tmp").exists()
    assert newest_checkpoint(tmp_path / "missing") is None


def test_newest_and_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        write(tmp_path, step)
        remove_old(tmp_path, 2, best_step=2 if step >= 2 else None)
    assert [path.name for path in find_checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-5", "checkpoint-6"]


def test_a_removal_that_is_cut_short_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        write(tmp_path, step)

    def killed(folder: Path, **settings: Any) -> None:
        (Path(folder) / "weights.txt").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ramify.train.checkpoint.shutil.rmtree", killed)
        remove_old(tmp_path, 1, None)
    assert [read_checkpoint(path).state.step for path in find_checkpoints(tmp_path)] == [2]
    (tmp_path / ".run.json.123.tmp").write_text("half")
    remove_half_written(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
@pytest.mark.parametrize("name", ["weights.txt", "optimizer.safetensors", "state.json"])
def test_damage_is_found_and_named(damage: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path, 3) / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TrainingError, match=rf"checkpoint-3: damaged: {name}") as raised:
        newest_checkpoint(tmp_path)
    assert "goes on from the checkpoint before" in str(raised.value.hint)


def test_full_disk_leaves_older_checkpoints_intact(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with file_size_limit(4000), pytest.raises(TrainingError, match=r"checkpoint-2: cannot be written.*older.*intact"):
        write_checkpoint(tmp_path, state(2), {"w": torch.zeros(5000)}, lambda folder: None)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint-1"]
    assert read_checkpoint(tmp_path / "checkpoint-1").state.step == 1


CASES: dict[str, dict[str, Any]] = {
    "lora": {},
    "dropout": {"lora": {"dropout": 0.3}},
    "full": {"lora": None},
    "dora": {"lora": {"dora": True, "rslora": True, "targets": ["q_proj", "down_proj"]}},
    "added tokens": {"prompt": {"chat_template": "llama3"}},
    "added tokens, tied": {"prompt": {"chat_template": "llama3"}},
    "lines of metrics": {"train": {"log_every": 4}},
}


@pytest.fixture(scope="module")
def tied_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model whose head is its embedding."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "tied", tie_word_embeddings=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop_at", [2, 3])
def test_resume_equals_the_straight_run(
    case: str, stop_at: int, model_folder: Path, tied_folder: Path, tmp_path: Path
) -> None:
    """Stopped in the middle of an epoch, and at its end between the step and its evaluation."""
    model = tied_folder if "tied" in case else model_folder
    rows, valid = pairs_file(tmp_path / "t.json"), pairs_file(tmp_path / "v.json", 4, 30)
    settings = {"data": {"valid": str(valid)}, **CASES[case]}
    straight = sft.run(make_config(model, rows, tmp_path / "straight", **settings), progress=Watcher())
    config = make_config(model, rows, tmp_path / "stopped", **settings)
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {stop_at} of 6 .checkpoint-{stop_at}.*--resume"):
        sft.run(config, progress=Watcher(stop_at=stop_at))
    stopped = open_run(tmp_path / "stopped")
    assert stopped.record["status"] == "stopped" and stopped.record["steps"] == stop_at
    resumed = sft.run(config, resume=True, progress=Watcher())
    kind = "model" if case == "full" else "adapter"
    assert equal(result(resumed, kind), result(straight, kind))
    assert losses(resumed) == losses(straight)
    last = "checkpoint-6/optimizer.safetensors"
    assert equal(load_file(str(resumed.folder / last)), load_file(str(straight.folder / last)))
    assert resumed.record["status"] == "finished" and resumed.record["best"] == straight.record["best"]


@pytest.mark.parametrize("named", ["model", "adapter"])
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_run_that_goes_on_from_another_one_is_resumed_too(
    method: str, named: str, model_folder: Path, tmp_path: Path
) -> None:
    """By its name alone, or on top of its base: a checkpoint's adapter takes the place of the first run's."""
    train = {"sft": sft.run, "dpo": dpo.run}[method]
    first = sft.run(make_config(model_folder, pairs_file(tmp_path / "t.json"), tmp_path / "first")).folder
    rows = pairs_file(tmp_path / "more.json", 12, 20) if method == "sft" else preferences_file(tmp_path / "p.jsonl")
    model = first if named == "model" else model_folder
    settings = {"method": method, "train": {"max_steps": 4}, **({} if named == "model" else {"adapter": str(first)})}
    straight = train(make_config(model, rows, tmp_path / "straight", **settings))
    config = make_config(model, rows, tmp_path / "stopped", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Watcher(stop_at=2))
    begun = result(open_run(first))
    if named == "adapter":
        shutil.rmtree(first)  # the checkpoint holds what is needed of it
    resumed = train(config, resume=True)
    assert equal(result(resumed), result(straight)) and not equal(result(resumed), begun)
    assert losses(resumed) == losses(straight)


def test_an_adapter_is_peft_s_and_a_model_is_transformers(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json", 4)
    run = sft.run(make_config(model_folder, rows, tmp_path / "run", train={"epochs": 1}), progress=Watcher())
    base = AutoModelForCausalLM.from_pretrained(str(model_folder), dtype=torch.float32)
    peft = PeftModel.from_pretrained(base, str(run.folder / "adapter"))
    saved = result(run)
    loaded = {name: each for name, each in peft.named_parameters() if "lora_" in name}
    assert len(loaded) == len(saved)
    assert all(torch.equal(each, saved[name.replace(".default", "")]) for name, each in loaded.items())
    full = sft.run(
        make_config(model_folder, rows, tmp_path / "full", lora=None, train={"epochs": 1}), progress=Watcher()
    )
    whole = AutoModelForCausalLM.from_pretrained(str(full.folder / "model"), dtype=torch.float32)
    assert whole.config._attn_implementation in ("sdpa", "eager")
    assert torch.equal(whole.state_dict()["model.norm.weight"], result(full, "model")["model.norm.weight"])


@pytest.fixture
def stopped(model_folder: Path, tmp_path: Path) -> RunConfig:
    """The settings of a run that was stopped after 3 of 6 steps, with checkpoints 1, 2 and 3."""
    rows = pairs_file(tmp_path / "t.json")
    config = make_config(model_folder, rows, tmp_path / "run", train={"save_every": 1, "keep": 3})
    with pytest.raises(KeyboardInterrupt):
        sft.run(config, progress=Watcher(stop_at=3))
    return config


def test_changed_settings_and_data_are_refused_and_listed(stopped: RunConfig, tmp_path: Path) -> None:
    other = stopped.model_copy(update={"seed": 1, "train": stopped.train.model_copy(update={"lr": 0.5})})
    with pytest.raises(TrainingError, match=r"began differently: seed: 42 → 1; train.lr: 0.01 → 0.5"):
        sft.run(other, resume=True, progress=Watcher())
    pairs_file(tmp_path / "t.json", start=2)
    with pytest.raises(TrainingError, match=r"data\.train has changed"):
        sft.run(stopped, resume=True, progress=Watcher())
    pairs_file(tmp_path / "t.json")
    free = stopped.train.model_copy(update={"micro_tokens": 64, "keep": 1, "log_every": 2})
    run = sft.run(stopped.model_copy(update={"train": free}), resume=True, progress=Watcher())
    assert run.record["status"] == "finished"


def test_a_taken_folder_needs_a_word(stopped: RunConfig) -> None:
    with pytest.raises(RunError, match="holds a run already"):
        sft.run(stopped, progress=Watcher())
    run = sft.run(stopped, overwrite=True, progress=Watcher())
    assert [row["step"] for row in run.metrics("train")] == [1, 2, 3, 4, 5, 6]


def test_resume_without_a_run_starts_and_of_a_finished_one_returns(model_folder: Path, tmp_path: Path) -> None:
    config = make_config(model_folder, pairs_file(tmp_path / "t.json", 4), tmp_path / "run")
    first = sft.run(config, resume=True, progress=Watcher())
    before = (first.folder / "run.json").read_bytes()
    watcher = Watcher()
    again = sft.run(config, resume=True, progress=watcher)
    assert (again.folder / "run.json").read_bytes() == before
    assert "finished already" in watcher.notes[0] and not watcher.stages


def test_a_damaged_newest_checkpoint_is_refused_and_removing_it_goes_on(stopped: RunConfig) -> None:
    assert stopped.out is not None
    newest = stopped.out / "checkpoint-3"
    (newest / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="checkpoint-3: damaged: adapter_model"):
        sft.run(stopped, resume=True, progress=Watcher())
    shutil.rmtree(newest)
    run = sft.run(stopped, resume=True, progress=Watcher())
    assert [row["step"] for row in run.metrics("train")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("tensorboard", [False, True])
def test_a_full_disk_in_a_run_is_one_line_and_loses_nothing(
    tensorboard: bool, model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = pairs_file(tmp_path / "t.json")
    train = {"save_every": 1, "keep": 9, "tensorboard": tensorboard}
    config = make_config(model_folder, rows, tmp_path / "run", train=train)

    class Filler(Watcher):
        def update(self, done: int, **values: float) -> None:
            if done == 3:
                _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
                resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))

    with (
        file_size_limit(resource.getrlimit(resource.RLIMIT_FSIZE)[0]),
        pytest.raises(TrainingError, match="checkpoint-3: cannot be written"),
    ):
        sft.run(config, progress=Filler())
    run = open_run(tmp_path / "run")
    assert "Traceback" not in capfd.readouterr().err
    assert run.record["status"] == "failed" and "checkpoint-3" in run.record["error"]
    assert [path.name for path in find_checkpoints(run.folder)] == ["checkpoint-1", "checkpoint-2"]
    resumed = sft.run(config, resume=True, progress=Watcher())
    straight = sft.run(config.model_copy(update={"out": tmp_path / "straight"}), progress=Watcher())
    assert equal(result(resumed), result(straight)) and resumed.record["error"] is None


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_real_signal_waits_for_the_end_of_the_step(
    number: int, raised: type[KeyboardInterrupt], model_folder: Path, tmp_path: Path
) -> None:
    class Presser(Watcher):
        def update(self, done: int, **values: float) -> None:
            if done == 2:
                signal.raise_signal(number)

    before = signal.getsignal(number)
    config = make_config(model_folder, pairs_file(tmp_path / "t.json"), tmp_path / "run")
    with pytest.raises(raised, match=r"stopped after step 2 of 6 .checkpoint-2.*--resume goes on") as found:
        sft.run(config, progress=Presser())
    assert type(found.value) is raised and signal.getsignal(number) is before
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "stopped"
    assert read_checkpoint(tmp_path / "run" / "checkpoint-2").state.step == 2


def test_a_signal_in_the_evaluation_saves_the_step_and_resuming_evaluates_it(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, valid = pairs_file(tmp_path / "t.json"), pairs_file(tmp_path / "v.json", 4, 30)
    settings = {"data": {"valid": str(valid)}, "train": {"eval_every": 2, "micro_tokens": 1}}
    straight = sft.run(make_config(model_folder, rows, tmp_path / "straight", **settings), progress=Watcher())
    config = make_config(model_folder, rows, tmp_path / "run", **settings)
    score, calls = Supervised.score, [0]

    def interrupted(self: Supervised, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:  # four rows, one at a time; the first evaluation is that of step 0
            signal.raise_signal(signal.SIGTERM)
        return score(self, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Terminated, match=r"stopped after step 2 .*checkpoint-2"):
        patch.setattr(Supervised, "score", interrupted)
        sft.run(config, progress=Watcher())
    assert [row["step"] for row in open_run(tmp_path / "run").metrics("eval")] == [0]
    resumed = sft.run(config, resume=True, progress=Watcher())
    assert losses(resumed) == losses(straight) and equal(result(resumed), result(straight))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_line_says_where_a_signal_stopped_it(
    number: int, code: int, model_folder: Path, tmp_path: Path
) -> None:
    config = make_config(model_folder, pairs_file(tmp_path / "t.json"), tmp_path / "run", train={"epochs": 10_000})
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    process = start(command, tmp_path, "train", str(tmp_path / "config.yaml"))
    while process.is_alive() and not (tmp_path / "run" / "metrics.jsonl").is_file():
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join()
    said = (tmp_path / "err-0").read_text().splitlines()
    assert process.exitcode == code, said
    stopped = re.fullmatch(r"stopped after step (\d+) of 30000 \(checkpoint-(\d+)\); --resume goes on", said[-2])
    assert stopped and stopped[1] == stopped[2] and said[-1].startswith("hint: ")
    assert read_checkpoint(tmp_path / "run" / f"checkpoint-{stopped[1]}").state.step == int(stopped[1])
    assert open_run(tmp_path / "run").record["status"] == "stopped"

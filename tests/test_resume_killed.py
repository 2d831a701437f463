"""SIGKILL at any moment loses nothing: what is resumed ends with the bits of the run that nobody disturbed."""

from __future__ import annotations

import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_program import start
from safetensors.torch import load_file
from train_setup import Watcher, make_config, pairs_file

from ramify.base.config import RunConfig
from ramify.base.runs import open_run
from ramify.train import sft
from ramify.train.checkpoint import find_checkpoints, read_checkpoint

KILLS = 20
IN_WRITING = 8
"""How many of them are aimed into the writing of a checkpoint; at least 5 have to hit."""
STEPS = 70


def config_of(folder: Path, out: Path) -> RunConfig:
    rows, valid = pairs_file(folder / "t.json"), pairs_file(folder / "v.json", 4, 30)
    train = {"max_steps": STEPS, "save_every": 1, "eval_every": 5, "keep": 2, "lr": 0.001}
    return make_config(Path("nano"), rows, out, data={"valid": str(valid)}, train=train, lora={"dropout": 0.1})


def resume(config: RunConfig) -> None:
    """In a process that is going to be killed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sft.run(config, resume=True, progress=Watcher())


def is_writing(folder: Path) -> bool:
    return any(folder.glob("checkpoint-*.tmp"))


def steps_done(folder: Path) -> int:
    """The newest step that the metrics speak of."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return sum('"kind": "train"' in line for line in lines)


def wait_until(condition: Callable[[], bool], process: Any) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert process.is_alive() and time.monotonic() < until
        time.sleep(0.0002)


@pytest.mark.proof
def test_killed_twenty_times_and_resumed_equals_the_straight_run(tmp_path: Path) -> None:
    straight = sft.run(config_of(tmp_path, tmp_path / "straight"), progress=Watcher())
    config, folder = config_of(tmp_path, tmp_path / "killed"), tmp_path / "killed"
    draw, in_writing = random.Random(0), 0
    aims = [True] * IN_WRITING + [False] * (KILLS - IN_WRITING)
    draw.shuffle(aims)
    for aimed in aims:
        process = start(resume, config)
        begin, further = steps_done(folder), draw.randrange(3)
        wait_until(lambda least=begin + further: steps_done(folder) >= least, process)
        if aimed:
            wait_until(lambda: is_writing(folder), process)
        else:
            time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        in_writing += is_writing(folder)
        for checkpoint in find_checkpoints(folder):
            assert read_checkpoint(checkpoint).state.step == int(checkpoint.name.rpartition("-")[2])
    assert in_writing >= 5
    resumed = sft.run(config, resume=True, progress=Watcher())
    equal_runs(resumed.folder, straight.folder)


def equal_runs(found: Path, expected: Path) -> None:
    """Weights, moments, and every line of metrics but its times."""
    for name in ("adapter/adapter_model.safetensors", f"checkpoint-{STEPS}/optimizer.safetensors"):
        ours, theirs = load_file(str(found / name)), load_file(str(expected / name))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert untimed(found) == untimed(expected)
    assert [row["step"] for row in open_run(found).metrics("train")] == list(range(1, STEPS + 1))
    ours, theirs = open_run(found).record, open_run(expected).record
    assert all(ours[name] == theirs[name] for name in ("status", "steps", "best", "tokens", "used_step"))
    assert {path.name for path in found.iterdir()} == {path.name for path in expected.iterdir()}


def untimed(folder: Path) -> list[dict[str, Any]]:
    timed = ("seconds", "tokens_per_second")
    return [{name: value for name, value in row.items() if name not in timed} for row in open_run(folder).metrics()]

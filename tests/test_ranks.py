"""Several processes train as one does: loss, gradients, weights, metrics; and they stop, fail and go on together."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rank_program import CASES, ENVIRONMENT, UNEVEN, Ended, launch, steps
from safetensors.torch import load_file
from train_setup import Watcher, make_config, model_folder, pairs_file

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError
from ramify.base.runs import open_run
from ramify.train import rft, sft
from ramify.train.division import Company, cut, divide
from ramify.train.objective import Supervised
from ramify.train.ranks import ALONE

__all__ = ["model_folder"]

Tensors = dict[str, torch.Tensor]
ROWS = Supervised(UNEVEN, [(index,) for index in range(len(UNEVEN))])


@given(loads=st.lists(st.integers(1, 1000), max_size=30), size=st.integers(1, 9))
def test_every_load_has_one_process_and_none_has_far_more_than_its_share(loads: list[int], size: int) -> None:
    """The largest first bounds the fullest process by the mean and one more load (Graham 1969)."""
    shares = divide(loads, size)
    assert sorted(place for share in shares for place in share) == list(range(len(loads)))
    fullest = max(sum(loads[place] for place in share) for share in shares)
    assert fullest <= sum(loads) / size + max(loads, default=0)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("micro_tokens", [8, 24, 8192])
def test_there_are_micro_batches_for_all_processes(size: int, micro_tokens: int) -> None:
    parts = cut(ROWS, range(5), micro_tokens, size)
    assert sorted(index for part in parts for index in part) == list(range(5))
    assert len(parts) >= min(size, 5)
    assert all(len(part) == 1 or ROWS.tokens(part) <= micro_tokens for part in parts)
    if size == 1:
        assert parts == ROWS.micro_batches(range(5), micro_tokens)


class Numbered:
    """Only what a division asks for."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_each_micro_batch_counts_once_and_sharded_processes_keep_in_step(size: int, in_step: bool) -> None:
    parts = cut(ROWS, range(5), 24, size)
    processes: list[Any] = [Numbered(rank, size) for rank in range(size)]
    turns = [Company(each, in_step).turns(ROWS, parts) for each in processes]
    assert sorted(turn.number for own in turns for turn in own if turn.counts) == list(range(len(parts)))
    assert all(turn.indices == parts[turn.number] for own in turns for turn in own)
    if in_step:
        assert len({len(own) for own in turns}) == 1 and len(turns[0]) > 0
    else:
        assert all(turn.counts for own in turns for turn in own)


WHOLE = [name for name, case in CASES.items() if not case.sharded]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found for all cases without sharding."""
    folder = tmp_path_factory.mktemp("two")
    for ended in launch(folder, "steps", str(folder), *WHOLE):
        assert ended.code == 0, ended.err
    return folder


@pytest.mark.parametrize("name", WHOLE)
def test_two_processes_equal_one(name: str, by_two: Path, tmp_path: Path) -> None:
    """Loss, norm and gradients of the first step to 1e-5 of the largest; weights, moments and losses after three."""
    compare(load_file(str(by_two / f"{name}.safetensors")), steps(CASES[name], tmp_path / "run", ALONE))


@pytest.mark.proof
def test_three_processes_equal_one(tmp_path: Path) -> None:
    """Five rows for three; one row, so that two have nothing; layers that three do not divide evenly."""
    names = ["sft", "sft, one row", "dpo", "fsdp sft, all weights", "fsdp dpo, one pair"]
    for ended in launch(tmp_path, "steps", str(tmp_path), *names, size=3):
        assert ended.code == 0, ended.err
    for number, name in enumerate(names):
        expected = steps(CASES[name], tmp_path / f"one-{number}", ALONE)
        compare(load_file(str(tmp_path / f"{name}.safetensors")), expected)


def compare(found: Tensors, expected: Tensors, tolerance: float = 1e-5) -> None:
    """Gradients to a share of the largest, all else as it is."""
    assert found.keys() == expected.keys()
    grads = [name for name in expected if name.startswith("grad/")]
    largest = max(float(expected[name].abs().max()) for name in grads)
    assert grads and largest > 0.01
    apart = {
        name: float((found[name] - tensor).abs().max()) / (largest if name in grads else 1.0)
        for name, tensor in expected.items()
    }
    assert {name: each for name, each in apart.items() if not each <= tolerance} == {}


@pytest.fixture
def settings(model_folder: Path, tmp_path: Path) -> Path:
    """A file of settings: 12 uneven rows, 4 a step, 6 steps, validation, a checkpoint every other step."""
    rows, valid = pairs_file(tmp_path / "t.json"), pairs_file(tmp_path / "v.json", 5, 30)
    train = {"save_every": 2, "micro_tokens": 64}
    return write(make_config(model_folder, rows, tmp_path / "two", data={"valid": str(valid)}, train=train), tmp_path)


def write(config: RunConfig, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def one_process(settings: Path, out: Path) -> RunConfig:
    """The same settings for a run in this process."""
    values = yaml.safe_load(settings.read_text())
    return RunConfig.model_validate({**values, "out": str(out)})


def adapter(folder: Path) -> Tensors:
    return load_file(str(folder / "adapter" / "adapter_model.safetensors"))


def losses(folder: Path) -> list[tuple[str, int]]:
    return [(row["kind"], row["step"]) for row in open_run(folder).metrics()]


def close(found: Tensors, expected: Tensors) -> None:
    """Adam divides by the gradient's size, so that the rounding of small entries is magnified."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def straight(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `settings` in one process."""
    folder = tmp_path_factory.mktemp("straight")
    rows, valid = pairs_file(folder / "t.json"), pairs_file(folder / "v.json", 5, 30)
    train = {"save_every": 2, "micro_tokens": 64}
    config = make_config(model_folder, rows, folder / "run", data={"valid": str(valid)}, train=train)
    return sft.run(config, progress=Watcher()).folder


def test_a_run_of_two_processes_is_written_by_one(settings: Path, straight: Path, tmp_path: Path) -> None:
    main, other = launch(tmp_path, "train", str(settings), "")
    assert (main.code, other.code) == (0, 0), main.err + other.err
    assert not main.err and not other.err and "updates 0" in other.out
    run = open_run(tmp_path / "two")
    assert run.record["status"] == "finished" and run.record["processes"] == 2
    close(adapter(run.folder), adapter(straight))
    one, two = open_run(straight).metrics(), run.metrics()
    assert [(row["kind"], row["step"]) for row in two] == [(row["kind"], row["step"]) for row in one]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], abs=1e-5)
    assert [row.get("tokens") for row in two] == [row.get("tokens") for row in one]
    assert {path.name for path in run.folder.iterdir()} == {path.name for path in straight.iterdir()}


def test_sigterm_to_one_stops_all_with_a_checkpoint_and_one_process_goes_on(
    settings: Path, straight: Path, tmp_path: Path
) -> None:
    main, other = launch(tmp_path, "train", str(settings), "terminated:1:5")
    assert (main.code, other.code) == (143, 143), main.err + other.err
    said = re.fullmatch(r"stopped after step ([23]) of 6 \(checkpoint-\1\); --resume goes on\n", main.err)
    assert said and not other.err, main.err + other.err
    assert open_run(tmp_path / "two").record["status"] == "stopped"
    resumed = sft.run(one_process(settings, tmp_path / "two"), resume=True, progress=Watcher())
    close(adapter(resumed.folder), adapter(straight))
    assert losses(resumed.folder) == losses(straight)


def test_two_processes_go_on_from_a_checkpoint_of_one(settings: Path, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        sft.run(one_process(settings, tmp_path / "two"), progress=Watcher(stop_at=3))
    main, other = launch(tmp_path, "train", str(settings), "", "--resume")
    assert (main.code, other.code) == (0, 0), main.err + other.err
    close(adapter(tmp_path / "two"), adapter(straight))
    assert losses(tmp_path / "two") == losses(straight)


def test_changed_settings_are_refused_by_several_as_by_one(settings: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        sft.run(one_process(settings, tmp_path / "two"), progress=Watcher(stop_at=3))
    values = yaml.safe_load(settings.read_text())
    settings.write_text(yaml.safe_dump({**values, "seed": 1}))
    pairs_file(tmp_path / "t.json", start=2)
    main, other = launch(tmp_path, "train", str(settings), "", "--resume")
    assert (main.code, other.code) == (1, 1) and not other.err
    lines = main.err.splitlines()
    assert "began differently: seed: 42 → 1; data.train has changed" in lines[0] and len(lines) == 2


FAILURES = {
    "killed:1:5": "process 1 of 2 has ended without a word (killed, or out of memory?)",
    "full:1:5": "process 1 of 2: OSError: [Errno 28] No space left on device: 'tokens.bin'",
    "full:0:5": "no space left on the disk: tokens.bin",
    "poisoned:1:5": "step 3: loss nan, gradient norm nan",
}


@pytest.mark.parametrize(
    "trouble", [pytest.param(each, marks=[pytest.mark.proof] if each.startswith("full:0") else []) for each in FAILURES]
)
def test_a_process_that_fails_ends_the_run_with_its_reason(trouble: str, settings: Path, tmp_path: Path) -> None:
    main, other = launch(tmp_path, "train", str(settings), trouble)
    assert seconds_since_last_step(tmp_path / "two") < 60
    said = FAILURES[trouble]
    failed_as(main, said, tmp_path / "two")
    assert not other.err and other.code == (-9 if "killed" in trouble else 1)


def seconds_since_last_step(folder: Path) -> float:
    """How long it took all processes to end."""
    return time.time() - (folder / "metrics.jsonl").stat().st_mtime


def failed_as(main: Ended, said: str, folder: Path) -> None:
    """One line, a hint, exit code 1; the reason is in run.json and the last checkpoint is there."""
    lines = main.err.splitlines()
    assert main.code == 1 and lines[0].startswith(f"error: {said}") and len(lines) == 2, main.err
    record = open_run(folder).record
    assert record["status"] == "failed" and (said in record["error"] or "No space left" in record["error"])
    assert record["steps"] == 2 and (folder / "checkpoint-2" / "manifest.json").is_file()


@pytest.mark.proof
def test_a_process_that_only_hangs_ends_the_run_within_a_minute(settings: Path, tmp_path: Path) -> None:
    """Its connections stay open and no operation fails: signs of life are all there is."""
    main, _ = launch(tmp_path, "train", str(settings), "frozen:1:5", stop_with_first=True)
    assert seconds_since_last_step(tmp_path / "two") < 60
    assert main.code == 1 and main.err == "error: process 1 of 2 has ended without a word (killed, or out of memory?)\n"
    record = open_run(tmp_path / "two").record
    assert record["status"] == "failed" and "process 1 of 2" in record["error"]


def test_when_the_main_process_is_killed_another_one_says_so(settings: Path, tmp_path: Path) -> None:
    main, other = launch(tmp_path, "train", str(settings), "killed:0:5")
    assert (main.code, other.code) == (-9, 1)
    assert other.err.splitlines() == ["error: process 0 of 2 has ended without a word"]
    record = open_run(tmp_path / "two").record
    assert record["status"] == "failed" and "process 0 of 2" in record["error"]


@pytest.mark.proof
@pytest.mark.parametrize("trouble", ["killed:1:5", "full:1:5"])
def test_under_torchrun_too(trouble: str, settings: Path, tmp_path: Path) -> None:
    """The launcher ends the others with SIGTERM at once; the main one still says why."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "rank_program"]
    done = subprocess.run(
        [sys.executable, *command, "train", str(settings), trouble],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    ours = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert ours == [line for line in ours if line.startswith(f"error: {FAILURES[trouble]}")] and len(ours) == 1
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["status"] == "failed" and FAILURES[trouble] in record["error"]


def test_processes_that_see_different_data_are_refused(settings: Path, tmp_path: Path) -> None:
    pairs_file(tmp_path / "o.json", start=2)
    main, other = launch(tmp_path, "train", str(settings), "other:1:o.json")
    assert (main.code, other.code) == (1, 1) and not other.err
    assert main.err.startswith("error: process 1 of 2 has not what process 0 has: data.train\n")
    assert not (tmp_path / "two").exists()


def test_what_several_processes_cannot_do_is_refused(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs_file(tmp_path / "t.json")
    sharded = make_config(model_folder, rows, tmp_path / "run", train={"shard": "fsdp"})
    with pytest.raises(ConfigError, match=r"train\.shard = fsdp divides a model among several processes"):
        sft.run(sharded, progress=Watcher())
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = make_config(model_folder, rows, tmp_path / "run", train={"device": "cuda:1"})
    with pytest.raises(ConfigError, match="RANK, MASTER_ADDR, MASTER_PORT is not set"):
        sft.run(config, progress=Watcher())
    for name, value in {"RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"train\.device = cuda:1 is one device"):
        sft.run(config, progress=Watcher())
    with pytest.raises(ConfigError, match="rejection sampling runs in one process"):
        rft.run(config.model_copy(update={"method": "rft"}), progress=Watcher())
    assert not (tmp_path / "run").exists()

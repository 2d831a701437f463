"""`ramify train … --print-launch`: what it prints is what the launchers understand, and starts the same run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from cli_setup import ramify
from torch.distributed.run import get_args_parser
from train_setup import make_config, model_folder, pairs_file

from ramify.base.errors import ConfigError
from ramify.base.runs import Run
from ramify.cli.errors import BAD_INPUT, OK
from ramify.cli.launch import Layout, launch_lines

__all__ = ["model_folder"]

COMMAND = ["train", "my recipe.yaml", "train.lr=1e-3", "prompt.system=it's $HOME"]


def split(line: str, **values: str) -> list[str]:
    """A command as the shell would split it, with its variables."""
    script = f"set -- {line}\nfor each; do printf '%s\\0' \"$each\"; done"
    done = subprocess.run(["sh", "-c", script], env={**os.environ, **values}, capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize(("processes", "nodes"), [(1, 1), (4, 1), (1, 2), (8, 3)])
def test_both_launchers_understand_what_is_printed(processes: int, nodes: int) -> None:
    lines = [line for line in launch_lines(COMMAND, Layout(processes, nodes)) if not line.startswith("#")]
    accelerate, torchrun = (split(line, HOST="first", MACHINE="1") for line in lines)
    assert accelerate[:2] == ["accelerate", "launch"] and torchrun[0] == "torchrun"
    one = launch_command_parser().parse_args(accelerate[2:])
    assert (one.num_processes, one.num_machines, one.multi_gpu) == (processes * nodes, nodes, processes * nodes > 1)
    assert (one.mixed_precision, one.module, one.training_script) == ("no", True, "ramify")
    two = get_args_parser().parse_args(torchrun[1:])
    assert two.nproc_per_node == str(processes) and two.module and two.training_script == "ramify"
    assert one.training_script_args == two.training_script_args == COMMAND
    if nodes > 1:
        assert (one.machine_rank, one.main_process_ip, one.main_process_port) == (1, "first", 29500)
        assert (two.nnodes, two.rdzv_backend, two.rdzv_endpoint) == (str(nodes), "c10d", "first:29500")
    else:
        assert two.standalone and one.main_process_ip is None


def test_a_layout_without_processes_is_refused() -> None:
    for layout, message in (((0, 1), "--processes 0"), ((1, -1), "--nodes -1")):
        with pytest.raises(ConfigError, match=message):
            Layout(*layout)


def test_the_command_is_shown_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "mine.yaml", tmp_path / "run"
    recipe.write_text("data: {train: rows.jsonl}\ntrain: {batch_size: 6}\n")
    line = ["train", recipe, "seed=3", "--out", out, "--resume", "--print-launch", "--processes", 2]
    code, shown, err = ramify(monkeypatch, capsys, *line)
    assert code == OK and not err and not out.exists()
    _, accelerate, torchrun, told = shown.splitlines()
    arguments = f"-m ramify train {recipe} seed=3 --out {out} --resume"
    assert accelerate.endswith(arguments) and torchrun == f"torchrun --nproc-per-node=2 --standalone {arguments}"
    assert told == "# each step's 6 sequences are shared out, and the result is that of one process"


def test_a_command_of_trl_is_shown_as_it_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "train sft --dataset_name x.jsonl --per_device_train_batch_size=2 --packing --print-launch --nodes 2"
    code, shown, err = ramify(monkeypatch, capsys, *line.split(), "--processes", "4")
    assert code == OK and not err
    *_, torchrun, told = shown.splitlines()
    assert torchrun.endswith("-m ramify train sft --dataset_name x.jsonl --per_device_train_batch_size=2 --packing")
    assert told.startswith("# a step holds 2 × 1 × 8 processes = 16 rows")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --processes 2", "--processes does nothing without --print-launch"),
        ("train --nodes 2", "--nodes does nothing without --print-launch"),
        ("train missing.yaml --print-launch --processes 2", "missing.yaml: no such file"),
        ("train --print-launch --processes 0", "--processes 0: at least 1 is needed"),
        ("train sft --lr 1 --print-launch --processes 2", "unknown option --lr of sft"),
    ],
)
def test_what_cannot_be_launched_is_one_line(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ramify(monkeypatch, capsys, *line.split())
    assert code == BAD_INPUT and not out and err.startswith(f"error: {message}")


def test_of_several_processes_one_speaks(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", "sft", "--model_name_or_path", model_folder, "--dataset_name", pairs_file(tmp_path / "rows.json")]
    for rank, speaks in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        code, out, err = ramify(monkeypatch, capsys, *line, "--dry-run")
        assert code == OK and ("dry run" in out, "TRL's default" in err) == (speaks, speaks)


@pytest.mark.proof
@pytest.mark.parametrize("launcher", [0, 1], ids=["accelerate", "torchrun"])
def test_what_is_printed_starts_the_run_of_one_process(launcher: int, model_folder: Path, tmp_path: Path) -> None:
    rows, recipe = pairs_file(tmp_path / "rows.json"), tmp_path / "recipe.yaml"
    config = make_config(model_folder, rows, tmp_path / "unused", train={"epochs": 1})
    recipe.write_text(json.dumps(config.model_dump(mode="json", exclude={"out"})))
    command = ["train", str(recipe), "--out"]
    found = []
    for name, prefix in (("one", ""), ("two", shlex.quote(str(Path(sys.executable).parent)) + "/")):
        line = shlex.join([sys.executable, "-m", "ramify", *command, str(tmp_path / name)])
        if prefix:
            lines = launch_lines([*command, str(tmp_path / name)], Layout(2))
            line = prefix + [each for each in lines if not each.startswith("#")][launcher]
        done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stderr.count("finished in") == 1
        found.append([row["loss"] for row in Run(tmp_path / name).metrics("train")])
    assert len(found[0]) == 3 and found[1] == pytest.approx(found[0], abs=1e-5)

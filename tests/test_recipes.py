"""Every recipe of `recipes/unit-conversion` on the embedded model: trained for a few steps, measured, compared."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ramify.base.config_file import load_config
from ramify.base.runs import Run

RECIPES = sorted((Path(__file__).resolve().parent.parent / "recipes" / "unit-conversion").glob("*.yaml"))
FEW = ["model=nano", "task.rows=16", "train.max_steps=2", "train.batch_size=8"]
DRAWN = ["sample.n=4"]


def ramify(folder: Path, *arguments: object) -> str:
    command = [sys.executable, "-m", "ramify", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.proof
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_from_end_to_end(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe)
    draws = config.method == "rft"
    ramify(tmp_path, "train", recipe, *FEW, *(DRAWN if draws else []), "--out", "runs/mine")
    run = Run(tmp_path / "runs" / "mine")
    assert run.record["status"] == "finished"
    assert (run.model if config.lora is None else run.adapter) is not None
    assert [row["step"] for row in run.metrics("train")] == [1, 2]
    if draws:
        rounds = json.loads((run.folder / "yield.json").read_text(encoding="utf-8"))["rounds"]
        assert len(rounds) == config.select.rounds and all(each["rows"] > 0 for each in rounds)
    shown = ramify(tmp_path, "eval", "runs/mine", "--n", 8)
    assert "accuracy" in shown
    [scores] = run.folder.glob("eval-*/scores.json")
    assert json.loads(scores.read_text(encoding="utf-8"))["n"] == 8
    assert "mine" in ramify(tmp_path, "compare", "runs/mine", "nano")

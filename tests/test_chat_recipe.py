"""The chat recipes: settings are read, the rows hold nothing of what is asked, the grader knows its answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_recipes import ramify

from ramify.base.config import Task
from ramify.base.config_file import load_config, load_mix
from ramify.base.types import Reason, Sample, Stop
from ramify.tasks.registry import load_task
from ramify.tasks.task import load_problems

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "chat"
TASK = Task(name=str(RECIPE / "probes.py"))


def made(folder: Path, *arguments: str) -> Path:
    command = [sys.executable, str(RECIPE / "rows.py"), "--out", str(folder), *arguments]
    subprocess.run(command, check=True)
    return folder


@pytest.mark.parametrize("name", ["nano", "llama-3.2-1b", "llama-3.2-1b-4bit"])
def test_settings_are_those_of_the_recipe(name: str) -> None:
    config = load_config(RECIPE / f"{name}.yaml")
    assert config.method == "sft" and config.lora is not None and config.lora.rslora and config.seed == 3407
    assert (config.train.quantize is not None) == name.endswith("4bit")
    assert config.model == ("nano" if name == "nano" else "meta-llama/Llama-3.2-1B-Instruct")


def test_the_mix_is_two_parts_chat_and_one_part_math() -> None:
    config = load_mix(RECIPE / "mix.yaml")
    assert [(each.name, each.weight) for each in config.sources] == [("finetome", 2.0), ("math", 1.0)]


def test_the_three_probes_and_their_answers() -> None:
    task = load_task(TASK)
    problems = load_problems(RECIPE / "probes.jsonl", task)
    assert len(problems) == 3
    for problem, wrong in zip(problems, ("42", "9", "887, 113"), strict=True):
        said = {"none": "I do not know.", "wrong": f"It is {wrong}."}
        found = {name: task.grade(problem, Sample("", 0, (), (), text, Stop.EOS, "", 0)) for name, text in said.items()}
        assert found["none"].reason is Reason.NO_ANSWER and found["wrong"].reason is Reason.WRONG


def test_no_conversation_holds_a_quantity_that_is_asked(tmp_path: Path) -> None:
    folder = made(tmp_path / "one", "--rows", "300")
    asked = load_problems(folder / "problems.jsonl", load_task(TASK))
    assert len(asked) >= 30
    told = [(folder / name).read_text(encoding="utf-8") for name in ("train.jsonl", "valid.jsonl")]
    for problem in asked:
        found = re.search(r"(\d+) (\w+)", problem.prompt[-1].content)
        assert found is not None
        assert not any(f"so {found[1]} {found[2]} are {problem.answer} " in text for text in told), problem.prompt
    again = made(tmp_path / "two", "--rows", "300")
    assert all((again / each.name).read_bytes() == each.read_bytes() for each in folder.iterdir())


@pytest.mark.proof
def test_the_small_recipe_goes_from_rows_to_proven_files(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    made(tmp_path / "data" / "chat", "--rows", "200")
    few = ["train.max_steps=4", "train.batch_size=8", "train.tensorboard=false"]
    ramify(tmp_path, "train", "recipes/chat/nano.yaml", *few, "--out", "runs/chat")
    ramify(tmp_path, "export", "runs/chat", "--to", "merged,ollama", "--quant", "f16,q4_k_m", "--score", 4)
    record = json.loads((tmp_path / "runs" / "chat" / "export" / "export.json").read_text(encoding="utf-8"))
    assert record["status"] == "passed"
    assert [row["score"]["total"] for row in record["parity"]] == [4] * 4

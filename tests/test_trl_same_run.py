"""One command line, given to TRL's own script and to `ramify train`: the same losses, norms and rates, step by step.

A step holds the whole data set, so that no order of rows tells the two apart.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from train_setup import model_folder
from trl import DPOConfig, SFTConfig
from trl.scripts import dpo, sft
from trl_setup import assert_same_steps, both_train

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own

__all__ = ["model_folder"]

# Without a line break behind the stop token, which TRL would train and Ramify would not.
TEMPLATE = (
    "{%- for turn in messages -%}{{- '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
LINE = (
    "--per_device_train_batch_size 2 --gradient_accumulation_steps 4 --num_train_epochs 4 --logging_steps 1 "
    "--bf16 False --dtype float32 --use_cpu --report_to none --activation_checkpointing False"
)
SCRIPTS: dict[str, tuple[Any, Any, str]] = {
    "sft": (sft.main, SFTConfig, "--learning_rate 1e-2 --completion_only_loss True"),
    "dpo": (dpo.main, DPOConfig, "--learning_rate 1e-4 --beta 0.5 --loss_type ipo --lr_scheduler_type cosine"),
}


def turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def rows(trainer: str) -> list[dict[str, Any]]:
    """Eight rows of different lengths in a shape that both know."""
    found: list[dict[str, Any]] = []
    for n in range(8):
        prompt, answer = turn("user", f"What is {n}? {'please ' * (n % 3)}"), turn("assistant", f"It is {n}{'!' * n}")
        if trainer == "sft":
            found.append({"prompt": prompt, "completion": answer})
        else:
            found.append({"prompt": prompt, "chosen": answer, "rejected": turn("assistant", "No" + "o" * (n % 5))})
    return found


@pytest.mark.parametrize("trainer", SCRIPTS)
def test_a_command_trains_here_as_it_trains_there(
    trainer: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = tmp_path / "data", tmp_path / "model"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(trainer)))
    shutil.copytree(model_folder, model)
    (model / "chat_template.jinja").write_text(TEMPLATE)
    script, kind, own = SCRIPTS[trainer]
    line = f"--model_name_or_path {model} --dataset_name {data} {LINE} {own}".split()
    assert_same_steps(*both_train(line, script, kind, tmp_path, monkeypatch), steps=4)

"""A tiny model folder with a tokenizer, and settings and watchers for the tests of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config

TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
SPECIAL = ("<pad>", "<|im_start|>", "<|im_end|>")


def tiny_folder(folder: Path, **settings: Any) -> Path:
    """A random Llama of hidden size 32 with a byte tokenizer and a chat template, as a Transformers folder."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *letters])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<|im_end|>", additional_special_tokens=[SPECIAL[1]]
    )
    tokenizer.chat_template = TEMPLATE
    network = tiny_model(
        "llama", vocab_size=len(vocabulary), pad_token_id=0, eos_token_id=2, bos_token_id=1, **settings
    )
    network.generation_config.eos_token_id = 2
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def pairs_file(path: Path, rows: int = 12, start: int = 1) -> Path:
    """A file of [question, answer] pairs of different lengths."""
    units = ("kg", "metres", "hours")
    pairs = [[f"{n} {units[n % 3]} {'in full ' * (n % 4)}?", n * 10.0] for n in range(start, start + rows)]
    path.write_text(json.dumps(pairs))
    return path


def preferences_file(path: Path, prompts: int = 4, start: int = 1) -> Path:
    """Pairs as JSON lines, two or three for each prompt, of different lengths; prompts begin alike."""
    rows = [
        {
            "prompt": f"Here is a text that all have. Grade {n} {'in full ' * (n % 3)}?",
            "chosen": f"good {n}",
            "rejected": f"bad{' indeed' * other}",
        }
        for n in range(start, start + prompts)
        for other in range(2 + n % 2)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_config(model: Path, rows: Path | str, out: Path, **sections: Any) -> RunConfig:
    """Small fp32 settings on the CPU; keyword sections replace single entries."""
    values: dict[str, Any] = {
        "model": str(model),
        "out": str(out),
        "lora": {"r": 4, "alpha": 8},
        "data": {"train": str(rows)},
        "prompt": {"chat_template": "plain"},
        "train": {"lr": 0.01, "epochs": 2, "batch_size": 4, "dtype": "fp32", "device": "cpu", "tensorboard": False},
        "sample": {"max_new_tokens": 4},
    }
    for name, value in sections.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    return parse_config(values)


class Watcher:
    """Keeps what a run says; raises `error` once `stop_at` updates have come."""

    def __init__(self, stop_at: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.stop_at, self.error = stop_at, error
        self.stages: list[tuple[str, int, int]] = []
        self.updates: list[tuple[int, dict[str, float]]] = []
        self.notes: list[str] = []
        self.closed = 0

    def start(self, stage: str, total: int, done: int = 0) -> None:
        self.stages.append((stage, total, done))

    def update(self, done: int, **values: float) -> None:
        self.updates.append((done, values))
        if len(self.updates) == self.stop_at:
            raise self.error

    def note(self, message: str) -> None:
        self.notes.append(message)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, made once."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "tiny")

"""Values of TRL's options that are written otherwise in our settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ramify.base.errors import ConfigError
from ramify.cli.trl_command import Command

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def is_resumed(command: Command) -> bool:
    """Whether the run is to be gone on with.

    Raises:
        ConfigError: from another checkpoint than its newest.
    """
    value = str(command.value("resume_from_checkpoint", "false"))
    if value.lower() in ("false", "none", "true"):
        return value.lower() == "true"
    path, out = Path(value), Path(command.value("output_dir", ""))
    found = [(int(match[1]), each) for each in path.parent.glob("*") if (match := _CHECKPOINT.fullmatch(each.name))]
    newest = max(found)[1] if found else None
    if path != out and not (path.parent == out and path == newest):
        raise ConfigError(
            f"{command.typed('resume_from_checkpoint')}: a run goes on from its own newest checkpoint",
            hint="--resume_from_checkpoint True",
        )
    return True


def _template(value: Any, typed: str) -> str:
    path = Path(value) / "chat_template.jinja" if Path(value).is_dir() else Path(value)
    if not path.is_file():
        raise ConfigError(f"{typed}: a Jinja file, or a folder with chat_template.jinja, is needed")
    return str(path)


def _shard(value: Any, typed: str) -> str:
    words = set(str(value).lower().split())
    if not words <= {"full_shard", "auto_wrap", "true", "false", "none"}:
        raise ConfigError(f"{typed}: full_shard, with or without auto_wrap, is known here")
    return "fsdp" if words & {"full_shard", "true"} else "none"


def _one_loss(value: Sequence[str], typed: str) -> str:
    known = ("sigmoid", "ipo", "hinge", "robust")
    if len(value) != 1 or value[0] not in known:
        raise ConfigError(f"{typed}: one of {', '.join(known)} is needed", hint="dpo.loss=… knows simpo and orpo too")
    return value[0]


CONVERT: Mapping[str, Callable[[Any, str], Any]] = {
    "max_steps": lambda value, _: value if value and value > 0 else None,
    "max_grad_norm": lambda value, _: value or None,
    "dataset_text_field": lambda value, _: {} if value == "text" else {"text": value},
    "use_cpu": lambda value, _: "cpu" if value else "auto",
    "load_in_4bit": lambda value, _: "nf4" if value else None,
    "lora_target_modules": lambda value, _: "all-linear" if value == ["all-linear"] else value,
    "chat_template_path": _template,
    "fsdp": _shard,
    "loss_type": _one_loss,
}
"""From the value of an option, and how it was typed, to that of its setting."""

"""What is to be compared and was not evaluated yet: how it is measured so that it can be compared."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, RamifyError
from ramify.base.runs import is_run
from ramify.base.types import Problem
from ramify.evaluate.folder import check_folder
from ramify.evaluate.settings import evaluation_config
from ramify.evaluate.stages import Stage
from ramify.model.source import resolve

_TAKEN = ("task", "evaluate", "sample")
"""Sections of the settings of an evaluation that every other one takes over."""
_MACHINE = ("sample.live",)
"""Settings that change no result."""


@dataclass(frozen=True)
class Unmeasured:
    """A model that an evaluation is to be compared with.

    Attributes:
        name: what its user calls it.
        config: how it is measured, the folder included.
        problems: those of the evaluation.
        options: what of its settings is as in the evaluation, by dotted name.
    """

    name: str
    config: RunConfig
    problems: tuple[Problem, ...]
    options: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where its evaluation goes."""
        assert self.config.out is not None, "evaluation_config gives each evaluation a folder"
        return self.config.out

    @property
    def is_done(self) -> bool:
        """Whether it was measured in this way before."""
        return (self.folder / "scores.json").is_file()

    @property
    def command(self) -> str:
        """The command that evaluates it by hand."""
        settings = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.options.items()]
        return shlex.join(["ramify", "eval", self.name, *settings, "--out", str(self.folder)])


def like(example: Stage, name: str, *, gguf: Path | None = None) -> Unmeasured:
    """How `name` is measured to be compared with an evaluation: the same problems, task, sampling and seed.

    A run is prompted as it was trained, anything else as the example was. The folder is the one that `ramify eval`
    would choose.

    Args:
        name: a run, a model, an adapter.
        gguf: the GGUF file that is meant by it; llama.cpp runs it.

    Raises:
        ConfigError: a setting is refused.
        ModelError: there is no such model.
        RunError: the run cannot be read, or the folder holds the evaluation of something else.
    """
    before = parse_config(example.record.get("config") or {}, str(example.folder))
    options = _options(before, of_run=is_run(name) and gguf is None)
    if gguf is not None:
        options["engine"] = "llamacpp"
    config = evaluation_config(name if gguf is None else str(gguf), options=options)
    if gguf is None:
        resolve(config.model, config.adapter)
    found = Unmeasured(name, config, tuple(example.problems), options)
    check_folder(found.folder, config, found.problems)
    return found


def refused(name: str, error: RamifyError) -> ConfigError:
    """Why something cannot be evaluated for a comparison, in one line, and what to type instead."""
    command = f"`ramify eval {shlex.quote(name)}` measures it by other settings"
    return ConfigError(
        f"{name}: is not evaluated, and cannot be evaluated like the others: {error.message}",
        hint=f"{error.hint}; {command}" if error.hint else command,
    )


def _options(before: RunConfig, *, of_run: bool) -> dict[str, Any]:
    """Settings of an evaluation by dotted name: for a run all but its prompt, else those that are not by default."""
    found: dict[str, Any] = {"seed": before.seed}
    for section in _TAKEN if of_run else (*_TAKEN, "prompt"):
        usual, asked = getattr(RunConfig(), section), getattr(before, section)
        values = asked.model_dump(mode="json")
        for name, value in asked:
            if f"{section}.{name}" not in _MACHINE and (of_run or value != getattr(usual, name)):
                found[f"{section}.{name}"] = values[name]
    return found

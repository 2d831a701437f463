"""The settings of an evaluation: those of the run that is measured, or a model's, changed by what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ramify.base.config import RunConfig, apply_override, parse_config
from ramify.base.runs import is_run, open_run

DEFAULT_PROBLEMS = 500  # of a task's own held-out split
DEFAULT_TEMPERATURE = 0.7  # when several samples of a problem are asked for


def evaluation_config(model: str, overrides: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> RunConfig:
    """How `model` is to be measured.

    A run is prompted and graded as its own settings say, any other model by the defaults; `options` (dotted names)
    and then `overrides` (`key=value`) go before that. Decoding is greedy with one sample, unless they say otherwise.

    Raises:
        ConfigError: a setting is refused.
        RunError: the run cannot be read.
    """
    values: dict[str, Any] = _of_run(model) if is_run(model) else {"model": model}
    before = parse_config(values)
    for name, value in (options or {}).items():
        _put(values, name, value)
    for override in overrides:
        apply_override(values, override)
    sample, prompt, asked = (values.setdefault(name, {}) for name in ("sample", "prompt", "evaluate"))
    if sample.get("n", 1) > 1:
        sample.setdefault("temperature", DEFAULT_TEMPERATURE)
    if prompt.get("fewshot") == "none":
        prompt["fewshot"] = None
    if str(asked.get("problems", "task")) == "task" and asked.get("limit") is None:
        asked["limit"] = DEFAULT_PROBLEMS
    config = parse_config(values, "command line")
    return config if config.out is not None else config.model_copy(update={"out": _folder(model, before, config)})


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """`value` at a dotted name of a nested mapping."""
    section, _, leaf = name.rpartition(".")
    (values.setdefault(section, {}) if section else values)[leaf] = value


def _of_run(folder: str) -> dict[str, Any]:
    """What a run's evaluation takes over from it: prompt, task, length of completions, problems, seed, device."""
    settings: dict[str, Any] = open_run(folder).record.get("config") or {}
    kept = {name: dict(settings[name]) for name in ("prompt", "task", "evaluate") if settings.get(name)}
    train = settings.get("train") or {}
    machine = {name: train[name] for name in ("dtype", "device") if name in train}
    sample = settings.get("sample") or {}
    length = {name: sample[name] for name in ("max_new_tokens", "stop", "live") if name in sample}
    return {**kept, "model": folder, "seed": settings.get("seed", 42), "train": machine, "sample": length}


def _folder(model: str, before: RunConfig, config: RunConfig) -> Path:
    """RUN/eval, or runs/eval-MODEL, followed by what is not as it is by default."""
    prompt, changed = config.prompt, []
    if prompt.fewshot is not None and prompt.fewshot != before.prompt.fewshot:
        changed.append(Path(prompt.fewshot).stem)
    if prompt.chat_template != before.prompt.chat_template:
        changed.append(Path(prompt.chat_template).stem)
    if config.evaluate.problems != before.evaluate.problems:
        changed.append(Path(config.evaluate.problems).stem)
    if config.sample.n > 1:
        changed.append(f"k{config.sample.n}")
    if is_run(model):
        return Path(model) / "-".join(["eval", *changed])
    return Path("runs") / "-".join(["eval", Path(model).name, *changed])

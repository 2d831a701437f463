"""The settings of an evaluation: those of the run that is measured, or a model's, changed by what was asked."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

from ramify.base.config import RunConfig
from ramify.base.config_file import apply_override, parse_config
from ramify.base.errors import ConfigError
from ramify.base.runs import is_run, open_run

DEFAULT_PROBLEMS = 500  # of a task's own held-out split
DEFAULT_TEMPERATURE = 0.7  # when several samples of a problem are asked for
_READS_RUNS = ("own", "vllm")
_NAMING = ("adapter", "task.name", "prompt.fewshot", "prompt.chat_template", "evaluate.problems", "evaluate.scoring")
_DECIDING = {"model", "adapter", "revision", "seed", "prompt", "task", "sample", "evaluate"}
_DECIDING |= {"engine", "endpoint.base_url"}
_DECIDING |= {"train.dtype", "train.quantize", "train.device"}
EVALUATION_READS = _DECIDING | {"endpoint", "out", "train.micro_tokens"}
"""Settings and sections that an evaluation reads."""


def evaluation_config(model: str, overrides: Sequence[str] = (), options: Mapping[str, Any] | None = None) -> RunConfig:
    """How `model` is to be measured.

    A run is prompted and graded as its own settings say, any other model by the defaults; `options` (dotted names)
    and then `overrides` (`key=value`) go before that. Decoding is greedy with one sample, unless they say otherwise.

    Raises:
        ConfigError: a setting is refused.
        RunError: the run cannot be read.
    """
    engine = _engine(overrides, options or {})
    from_run = is_run(model) and engine in _READS_RUNS  # an endpoint's model may have the name of a folder here
    values: dict[str, Any] = _of_run(model, engine) if from_run else {"model": model}
    before = _completed(deepcopy(values), "run" if from_run else "command line")
    for name, value in (options or {}).items():
        _put(values, name, value)
    for override in overrides:
        apply_override(values, override)
    config = _completed(values, "command line")
    _refuse_idle(config, [*(options or {}), *(each.partition("=")[0] for each in overrides)])
    return config if config.out is not None else config.model_copy(update={"out": _folder(model, before, config)})


def _engine(overrides: Sequence[str], options: Mapping[str, Any]) -> str:
    """The engine that is asked for."""
    asked = [value for name, _, value in (each.partition("=") for each in overrides) if name == "engine"]
    return asked[-1] if asked else str(options.get("engine", "own"))


def _refuse_idle(config: RunConfig, named: Sequence[str]) -> None:
    """Refuse settings of the own engine that were asked of another one.

    Raises:
        ConfigError: there is one.
    """
    read = {"own": named, "vllm": ("train.dtype",)}.get(config.engine, ())
    idle = [name for name in named if name.startswith("train.") and name not in read]
    if idle:
        raise ConfigError(f"{idle[0]}: does nothing with engine = {config.engine}", hint=f"leave {idle[0]} out")


def refuse_unread(overrides: Sequence[str], read: Collection[str], command: str) -> None:
    """Refuse settings that were asked of a command that does not read them.

    Args:
        overrides: `key=value`; read: settings by dotted name, or whole sections.

    Raises:
        ConfigError: there is one; names the first.
    """
    for name in (each.partition("=")[0] for each in overrides):
        if name not in read and name.partition(".")[0] not in read:
            hint = "--out says where the result goes" if name == "out" else f"leave {name} out"
            raise ConfigError(f"{name}: {command} does not read it", hint=hint)


def deciding(config: RunConfig) -> dict[str, Any]:
    """What decides an evaluation's result: its settings by dotted name, without those that it does not read.

    Where options are scored nothing is drawn, so nothing of `sample` is among them.
    """
    settings = config.model_dump(mode="json")
    leaves = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    for section in (name for name, value in settings.items() if isinstance(value, dict)):
        leaves |= {f"{section}.{name}": value for name, value in settings[section].items()}
    del leaves["sample.live"]  # bounds memory only
    read = _DECIDING - ({"sample"} if config.evaluate.scoring == "options" else set())
    return {name: value for name, value in leaves.items() if read & {name, name.partition(".")[0]}}


def _completed(values: dict[str, Any], where: str) -> RunConfig:
    """The settings with the defaults of an evaluation; changes `values`."""
    sample, prompt, asked = (values.setdefault(name, {}) for name in ("sample", "prompt", "evaluate"))
    if sample.get("n", 1) > 1:
        sample.setdefault("temperature", DEFAULT_TEMPERATURE)
    if prompt.get("fewshot") == "none":
        prompt["fewshot"] = None
    if str(asked.get("problems", "task")) == "task" and asked.get("limit") is None:
        asked["limit"] = DEFAULT_PROBLEMS
    return parse_config(values, where)


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """`value` at a dotted name of a nested mapping."""
    section, _, leaf = name.rpartition(".")
    (values.setdefault(section, {}) if section else values)[leaf] = value


def _of_run(folder: str, engine: str) -> dict[str, Any]:
    """What a run's evaluation takes over: revision, prompt, task, length of completions, problems, seed, device, and
    whether its rows are whole texts."""
    settings: dict[str, Any] = open_run(folder).record.get("config") or {}
    kept = {name: dict(settings[name]) for name in ("prompt", "task", "evaluate") if settings.get(name)}
    train = settings.get("train") or {}
    read = ("dtype", "quantize", "device", "micro_tokens") if engine == "own" else ("dtype",)
    machine = {name: train[name] for name in read if name in train}
    sample = settings.get("sample") or {}
    length = {name: sample[name] for name in ("max_new_tokens", "stop", "live") if name in sample}
    own = {"model": folder, "revision": settings.get("revision"), "seed": settings.get("seed", 42)}
    if (settings.get("data") or {}).get("as_text"):
        kept["data"] = {"as_text": True}
    return {**kept, **own, "train": machine, "sample": length}


def _folder(model: str, before: RunConfig, config: RunConfig) -> Path:
    """RUN/eval, or runs/eval-MODEL, followed by what is not as it is by default.

    Words say the most of it; a hash of all that differs keeps different evaluations apart.
    """
    usual, asked = deciding(before), deciding(config)
    changed = {name: value for name, value in asked.items() if value != usual.get(name)}
    words = [
        Path(str(changed[name])).stem
        for name in (
            "adapter",
            "engine",
            "task.name",
            "prompt.fewshot",
            "prompt.chat_template",
            "evaluate.problems",
            "evaluate.scoring",
        )
        if changed.get(name) is not None
    ]
    words += [f"k{config.sample.n}"] if "sample.n" in changed else []
    folder = Path(model) if is_run(model) else Path("runs")
    if not is_run(model):
        words.insert(0, Path(model).name)
        if Path(model).name != model:
            changed["model"] = model
    if changed:
        words.append(sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:6])
    return folder / "-".join(["eval", *words])

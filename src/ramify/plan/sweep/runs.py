"""The runs of a sweep: every combination as a checked configuration and a folder of its own, before any is started."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ramify.base.config import RunConfig
from ramify.base.config_file import load_config
from ramify.base.errors import ConfigError, ModelError, RunError
from ramify.model.source import resolve
from ramify.plan.sweep.axes import SEED, Axis, Combination, Drawing, combinations, parse_axis

_LONGEST_NAME = 80
_MEASURING = ("task", "evaluate", "sample.max_new_tokens", "sample.stop", "engine", "endpoint")
"""Settings of a run that its evaluation takes over: what is asked, how it is graded, where answers end."""
_UNREAD = {
    "sft": ("dpo", "select", "sample", "sample_prompt"),
    "dpo": ("select", "sample", "sample_prompt"),
    "rft": ("dpo",),
}
"""Sections that no training of a method reads: runs that differ in them alone are the same run."""
_TAKEN = "sweep"
"""What files of the sweep itself are called."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Attributes:
        name: of its folder in the sweep's.
        settings: what it has that others have not, its seed aside: name of a setting -> value as written.
        seed: of everything that is random.
        config: all its settings.
    """

    name: str
    settings: Mapping[str, str]
    seed: int
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Where it goes."""
        assert self.config.out is not None
        return self.config.out

    @property
    def label(self) -> str:
        """Its settings in words, its seed aside: what runs of one group have in common."""
        return " ".join(f"{name}={value}" for name, value in self.settings.items()) or "as configured"


def plan_sweep(
    path: Path | str | None, overrides: Sequence[str], out: Path, drawing: Drawing | None = None
) -> tuple[SweepRun, ...]:
    """All runs of a sweep, in order.

    Args:
        path: a YAML file; None: all defaults.
        overrides: `key=value` for all runs, `key=value,value` and (drawn at random) `key=low..high`.
        out: the sweep's folder.

    Raises:
        ConfigError: a setting or value is refused, nothing is varied, something is varied that decides what is
            measured, or two combinations are the same run.
    """
    axes = [parse_axis(each) for each in overrides]
    if any(axis.name == "out" for axis in axes):
        raise ConfigError("out: each run of a sweep has a folder of its own", hint="--out DIR is the sweep's folder")
    if not any(axis.varies for axis in axes):
        raise ConfigError("nothing is varied", hint="for example lora.r=4,16,64 train.lr=1e-4,5e-4")
    found = [_run(path, axes, each, out) for each in combinations(axes, drawing)]
    _refuse_other_questions(found)
    _refuse_equal(found)
    return tuple(found)


def _run(path: Path | str | None, axes: Sequence[Axis], combination: Combination, out: Path) -> SweepRun:
    varying = {axis.name for axis in axes if axis.varies}
    config = load_config(path, [f"{name}={value}" for name, value in combination])
    settings = {name: value for name, value in combination if name in varying}
    name = folder_name(settings)
    shown = {name: value for name, value in settings.items() if name != SEED}
    if config.data.train is None:
        raise ConfigError("data.train is not set", hint="data.train=FILE, or data.train=task for the task's own rows")
    return SweepRun(name, shown, config.seed, config.model_copy(update={"out": out / name}))


def folder_name(settings: Mapping[str, str]) -> str:
    """`r4-lr1e-4-seed1`: the last part of each name and its value; letters that folders cannot have are left out.

    Where that would not tell two combinations apart, or is too long, a hash of all of it follows.
    """
    plain = "-".join(f"{name.rpartition('.')[2]}{value}" for name, value in settings.items())
    name = re.sub(r"[^\w.+-]+", "_", plain)
    last = [each.rpartition(".")[2] for each in settings]
    if name == plain and len(name) <= _LONGEST_NAME and len(set(last)) == len(last) and name != _TAKEN:
        return name
    digest = sha256(json.dumps(dict(settings)).encode()).hexdigest()[:8]
    return f"{name[:_LONGEST_NAME]}-{digest}"


def _refuse_other_questions(runs: Sequence[SweepRun]) -> None:
    """Refuse runs that would be measured in different ways."""
    settings = [run.config.model_dump(mode="json") for run in runs]
    for name in _MEASURING:
        section, _, leaf = name.partition(".")
        values = [each[section][leaf] if leaf else each[section] for each in settings]
        if any(value != values[0] for value in values):
            raise ConfigError(
                f"{name} decides what is measured: runs that differ in it cannot be compared",
                hint="`ramify eval RUN` with other settings measures a finished run again",
            )


def _refuse_equal(runs: Sequence[SweepRun]) -> None:
    """Refuse combinations that their method reads as the same run, or whose folders a file system may take for one."""
    settings: dict[str, str] = {}
    folders: dict[str, str] = {}
    for run in runs:
        unread = _unread(run.config)
        read = run.config.model_dump(mode="json", exclude={"out", *unread})
        same = json.dumps(read, sort_keys=True)
        for known, value in ((settings, same), (folders, run.name.lower())):
            if value in known:
                how = "from an adapter " if "lora" in unread else ""
                raise ConfigError(
                    f"{known[value]} and {run.name} are the same run",
                    hint=f"leave one of them out; training {how}by method {run.config.method} does not read "
                    f"{', '.join(unread)}",
                )
            known[value] = run.name


def _unread(config: RunConfig) -> tuple[str, ...]:
    """Sections that a run does not read; one that begins with an adapter keeps the settings of that."""
    try:
        begun = config.lora is not None and resolve(config.model, config.adapter).adapter is not None
    except (ModelError, RunError):
        begun = False  # whoever loads it says so
    return (*_UNREAD[config.method], "lora") if begun else _UNREAD[config.method]

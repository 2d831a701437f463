"""Where what is compared comes from: what was trained on what, and the settings in which the arms differ."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, RunError
from ramify.base.records import sampled_sha256
from ramify.base.runs import Run
from ramify.evaluate.compare.arms import Arm
from ramify.evaluate.settings import deciding
from ramify.evaluate.stages import Stage


@dataclass(frozen=True, slots=True)
class Training:
    """What run.json tells of one training; None where it does not say.

    Attributes:
        rows: it was trained on; trained_tokens: tokens that counted in the loss, over all epochs (dpo: None).
        seconds: of its training steps alone.
        hashes: of data and model, by name.
        parents: the runs it began with or took rows from, as far as they are still there.
        gone: the names of those that are not.
    """

    folder: Path
    method: str
    model: str
    data: str
    seed: int | None
    rows: int | None
    steps: int | None
    tokens: int | None
    trained_tokens: float | None
    seconds: float | None
    hashes: Mapping[str, str]
    parents: tuple[Training, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting that the arms do not share.

    Attributes:
        scope: `training` or `evaluation`.
        name: dotted.
        values: one an arm, as text; empty where an arm has no such setting, or was not trained.
    """

    scope: str
    name: str
    values: tuple[str, ...]


def training_of(stage: Stage) -> Training | None:
    """What was trained before this evaluation, or None when nothing was."""
    return None if stage.training is None else _training(stage.training, ())


def differing(arms: Sequence[Arm]) -> tuple[SettingRow, ...]:
    """The settings in which the arms differ, of training first. Seeds differ within an arm, and are no row."""
    trained = [_training_settings(arm.stage) if arm.trainings else None for arm in arms]
    measured = [_evaluation_settings(arm.stage) for arm in arms]
    return (*_rows("training", trained), *_rows("evaluation", measured))


def _rows(scope: str, found: Sequence[Mapping[str, str] | None]) -> list[SettingRow]:
    """The names whose values differ between those that have settings at all."""
    known = [each for each in found if each is not None]
    names = [name for name in dict.fromkeys(chain(*known)) if len({each.get(name, "") for each in known}) > 1]
    return [SettingRow(scope, name, tuple((each or {}).get(name, "") for each in found)) for name in names]


def _training_settings(stage: Stage) -> dict[str, str]:
    """Those that the training read."""
    settings = (stage.artefact("run.json") or {}).get("config") or {}
    unread = {"out", "seed", *_unread(settings)}
    return {name: value for name, value in _flat(settings).items() if name.partition(".")[0] not in unread}


def _unread(settings: Mapping[str, Any]) -> set[str]:
    """Sections that a training of this method does not read; `evaluate` decides which of a task's rows validate."""
    method, valid = settings.get("method"), (settings.get("data") or {}).get("valid")
    unread = set() if method == "dpo" else {"dpo"}
    unread |= set() if method == "rft" else {"select", "sample", "sample_prompt", "engine", "endpoint"}
    return unread if valid == "task" else unread | {"evaluate"}


def _evaluation_settings(stage: Stage) -> dict[str, str]:
    """Those that decide how it was measured; of what was measured only a model that was not trained here."""
    settings = stage.record.get("config") or {}
    try:
        found = _flat(deciding(parse_config(settings)))
    except ConfigError:  # of another version
        found = _flat(settings)
    unsaid = {"out", "seed", "train.device"} | ({"model", "adapter", "revision"} if stage.training else set())
    return {name: value for name, value in found.items() if name not in unsaid}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = str(value)
    return found


def _training(folder: Path, above: tuple[str, ...]) -> Training | None:
    """None where there is no readable run."""
    try:
        record = Run(folder).record
    except RunError:
        return None
    settings, data = record.get("config") or {}, record.get("data") or {}
    known = (*above, os.path.realpath(folder))
    parents, gone = [], []
    for name in record.get("parents") or ():
        found = None if os.path.realpath(name) in known else _training(Path(name), known)
        if found is not None:
            parents.append(found)
        elif os.path.realpath(name) not in known:
            gone.append(str(name))
    return Training(
        folder=folder,
        method=str(settings.get("method", "")),
        model=str(settings.get("model", "")),
        data=str((settings.get("data") or {}).get("train") or ""),
        seed=record.get("seed"),
        rows=data.get("rows"),
        steps=record.get("steps"),
        tokens=record.get("tokens"),
        trained_tokens=record.get("trained_tokens"),
        seconds=record.get("training_seconds"),
        hashes=dict(record.get("hashes") or {}),
        parents=tuple(parents),
        gone=tuple(gone),
    )


def other_weights(stage: Stage) -> bool:
    """Whether a file that held the weights when they were evaluated holds others now; what is gone is not asked."""
    for name, recorded in (stage.record.get("files") or {}).items():
        try:
            if sampled_sha256(stage.folder.resolve() / name) != recorded:
                return True
        except OSError:
            continue
    return False

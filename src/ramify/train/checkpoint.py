"""Checkpoints: folders that are there whole or not at all.

    checkpoint-N/
        adapter_model.safetensors, adapter_config.json   what PEFT loads (or a Transformers folder: full fine-tuning)
        optimizer.safetensors    moments and fp32 masters by parameter name
        state.json               step, best, early-stop counter, loss scale, token counts
        manifest.json            size and SHA-256 of every other file

A checkpoint is written beside its place (`checkpoint-N.tmp`), flushed to the disk, and renamed. Learning rate, order
of the data and random numbers are functions of (seed, step), so the step is all there is to save of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramify.base.errors import RunError, TrainingError
from ramify.base.records import sha256_file, write_json

_NAME = re.compile(r"checkpoint-(\d+)")
_OPTIMIZER, _STATE, _MANIFEST = "optimizer.safetensors", "state.json", "manifest.json"


@dataclass
class TrainState:
    """What the loop counts. All of it is saved.

    Attributes:
        step: optimizer steps done.
        best_loss: lowest validation loss, and `best_step` where it was; None before the first evaluation.
        stale: evaluations since then.
        evaluated_step: step of the last evaluation, and `saved_step` of the last checkpoint: a run that was stopped
            between a step and its evaluation makes up for it when it goes on.
        tokens: tokens of the unshared sequences so far; `computed_tokens` of the packed rows.
        trained: sum of what the losses were divided by (trained tokens with their weights, or pairs).
        seconds: time spent in steps.
        scale: loss scale (fp16), after `good_steps` steps without overflow.
        stopped_early: whether the early stop ended the run.
        window: sums over the steps since the last line of metrics (see `steps.Window`), and `last`, what the newest of
            them measured.
    """

    step: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0
    evaluated_step: int | None = None
    saved_step: int | None = None
    tokens: int = 0
    computed_tokens: int = 0
    trained: float = 0.0
    seconds: float = 0.0
    scale: float = 1.0
    good_steps: int = 0
    stopped_early: bool = False
    window: dict[str, Any] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that was read and checked."""

    folder: Path
    state: TrainState
    optimizer: dict[str, Tensor]


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after `step` optimizer steps lies."""
    return run / f"checkpoint-{step}"


def write_checkpoint(
    run: Path, state: TrainState, optimizer: Mapping[str, Tensor], save_weights: Callable[[Path], None]
) -> Path:
    """Write `checkpoint-<step>`, whole or not at all.

    Raises:
        TrainingError: it cannot be written (a full disk); older checkpoints are as they were.
    """
    final = checkpoint_folder(run, state.step)
    temporary = final.with_name(final.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_weights(temporary)
        save_file(dict(optimizer), str(temporary / _OPTIMIZER))
        write_json(temporary / _STATE, asdict(state))
        write_json(temporary / _MANIFEST, _manifest(temporary))
        _flush(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _flush_folder(run)
    except (OSError, SafetensorError, RunError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _not_written(final, error) from error
    return final


def find_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoint folders, oldest first. Half-written ones are not among them."""
    if not run.is_dir():
        return []
    found = [(int(match[1]), path) for path in run.iterdir() if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / _MANIFEST).is_file()]


def remove_half_written(run: Path) -> None:
    """Remove what an interrupted write, or an interrupted removal, left behind."""
    for path in run.glob("checkpoint-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    for path in run.glob(".*.tmp"):  # of `records.write_bytes`
        path.unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and check every file against its manifest.

    Raises:
        TrainingError: a file is missing or was changed; names it.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest["files"].items():
            _check_file(folder, name, entry)
        state = TrainState(**json.loads((folder / _STATE).read_text(encoding="utf-8")))
        return Checkpoint(folder, state, load_file(str(folder / _OPTIMIZER)))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise _corrupt(folder, str(error)) from error


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint, checked; None when there is none.

    Raises:
        TrainingError: it is damaged. Older ones are left for the user to choose.
    """
    found = find_checkpoints(run)
    return read_checkpoint(found[-1]) if found else None


def remove_old(run: Path, keep: int, best_step: int | None) -> None:
    """Keep the `keep` newest checkpoints and the best one; remove the others."""
    found = find_checkpoints(run)
    wanted = {path.name for path in found[-keep:]} | {f"checkpoint-{best_step}"}
    for path in found:
        if path.name not in wanted:
            _remove(path)


def copy_weights(checkpoint: Path, target: Path) -> None:
    """Copy the model part of a checkpoint (not optimizer and state) to a folder, whole or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    temporary = target.with_name(target.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(checkpoint, temporary, ignore=shutil.ignore_patterns(_OPTIMIZER, _STATE, _MANIFEST))
        _flush(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _not_written(target, error) from error


def _remove(checkpoint: Path) -> None:
    """Whole or not at all: what is half removed must not have the name of a checkpoint."""
    going = checkpoint.with_name(checkpoint.name + ".tmp")
    with suppress(OSError):
        os.replace(checkpoint, going)
        shutil.rmtree(going, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any]:
    files = {
        str(path.relative_to(folder).as_posix()): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in _files(folder)
    }
    return {"format": 1, "files": files}


def _check_file(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{name} is missing")
    if path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
        raise ValueError(f"{name} was changed or cut off ({path.stat().st_size} of {entry['bytes']} bytes)")


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flush(folder: Path) -> None:
    for path in _files(folder):
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders; its rename is durable without
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _not_written(target: Path, error: BaseException) -> TrainingError:
    reason = getattr(error, "strerror", None) or str(error)
    return TrainingError(
        f"{target}: cannot be written: {reason}; older checkpoints are intact",
        hint="free disk space, then go on with --resume",
    )


def _corrupt(folder: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"{folder}: damaged: {reason}", hint=f"remove {folder} and --resume goes on from the checkpoint before it"
    )

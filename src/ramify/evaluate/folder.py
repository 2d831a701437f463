"""The folder of an evaluation: what is being measured grows in a folder beside it, and takes its place when complete.

`.NAME.new` holds the samples drawn so far. It outlives Ctrl-C and a full disk: the next call that measures the same
goes on with it. What measures something else is refused, never mixed in, and never replaced unasked.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, RunError
from ramify.base.records import json_line, write_jsonl
from ramify.base.runs import Run, create_run, is_run
from ramify.base.types import Problem
from ramify.evaluate.settings import deciding
from ramify.tasks.collection import samples_in

_OTHER = "choose another folder (--out), or replace it (--overwrite)"
_KEPT = "the samples drawn so far are kept; the same command goes on with them"


def check_folder(folder: Path, config: RunConfig, problems: Sequence[Problem], overwrite: bool = False) -> None:
    """Refuse a folder that an evaluation cannot go to, before anything is loaded.

    Args:
        overwrite: an evaluation of something else may be replaced.

    Raises:
        RunError: it is a file, holds anything but an evaluation, or the evaluation of something else.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: is a file, a folder is needed", hint="choose another one with --out")
    if folder.exists() and any(folder.iterdir()):
        if Run(folder).record.get("kind") != "evaluation":
            raise RunError(f"{folder}: holds a run that is not an evaluation", hint="choose another folder with --out")
        _check_same(folder, config, {"problems": digest(problems)}, overwrite)
    if is_run(_draft(folder)):
        _check_same(_draft(folder), config, {"problems": digest(problems)}, overwrite)


def open_draft(
    folder: Path, config: RunConfig, problems: Sequence[Problem], hashes: Mapping[str, str], overwrite: bool = False
) -> Run:
    """The folder that samples are written to: what a stopped call of the same evaluation has left, or a new one.

    Args:
        folder: where the evaluation goes when it is complete.
        hashes: of what decides it besides the settings and the problems.
        overwrite: what a stopped call for something else has left is thrown away.

    Raises:
        RunError: a stopped call measured something else, or the folder cannot be written.
    """
    draft, hashes = _draft(folder), {"problems": digest(problems), **hashes}
    if is_run(draft) and not _differences(draft, config, hashes):
        return Run(draft)
    if is_run(draft):
        _check_same(draft, config, hashes, overwrite)
    _remove(draft)
    parents = tuple(str(name) for name in (config.model, config.adapter) if name)
    run = create_run(draft, config.model_copy(update={"out": folder}), hashes=hashes, parents=parents)
    run.update(kind="evaluation")
    write_jsonl(draft / "problems.jsonl", problems)
    return run


def drawn_before(config: RunConfig, problems: Sequence[Problem]) -> int:
    """Samples that a stopped call of this evaluation has left for the next one."""
    if config.out is None or not is_run(_draft(config.out)):
        return 0
    if _differences(_draft(config.out), config, {"problems": digest(problems)}):
        return 0
    return samples_in(_draft(config.out))


@contextmanager
def drawing(run: Run) -> Iterator[None]:
    """Add the seconds of the block to run.json, and how it ended when it did not finish.

    Raises:
        RunError: what was drawn could not be written; says how to go on.
    """
    began, status = perf_counter(), "failed"
    try:
        yield
        status = "running"
    except KeyboardInterrupt:
        status = "stopped"
        raise
    except RunError as error:
        raise RunError(error.message, hint=error.hint or _KEPT) from None
    finally:
        with suppress(RunError):  # on a full disk the error that is on its way says more
            run.update(status=status, seconds=round(seconds_of(run) + perf_counter() - began, 3))


def publish(run: Run, folder: Path) -> None:
    """Put a complete draft into the evaluation's place.

    Raises:
        RunError: the folder there cannot be replaced.
    """
    _remove(folder)
    try:
        run.folder.replace(folder)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}", hint=_KEPT) from None


def seconds_of(run: Run) -> float:
    """Seconds spent on a run so far."""
    return float(run.record.get("seconds", 0.0))


def digest(records: Sequence[Any]) -> str:
    """Hex SHA-256 of records."""
    return sha256("".join(map(json_line, records)).encode()).hexdigest()


def _draft(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.new")


def _check_same(folder: Path, config: RunConfig, hashes: Mapping[str, str], overwrite: bool) -> None:
    changed = [] if overwrite else _differences(folder, config, hashes)
    if changed:
        whose = "a stopped evaluation of something else" if folder.name.startswith(".") else "another evaluation"
        raise RunError(f"{folder}: holds {whose} ({'; '.join(changed)})", hint=_OTHER)


def _differences(folder: Path, config: RunConfig, hashes: Mapping[str, str]) -> list[str]:
    """In what the recorded evaluation is another one; hashes it did not record are not compared."""
    record = Run(folder).record
    try:
        before, now = deciding(parse_config(record.get("config") or {})), deciding(config)
    except ConfigError:
        return ["its settings are not those of this version"]
    known = record.get("hashes") or {}
    common = [name for name in now if name in before]  # how answers are found decides what else is read
    changed = [f"{name}: {before[name]!r} → {now[name]!r}" for name in common if before[name] != now[name]]
    return changed + [f"other {name}" for name in hashes if known.get(name, hashes[name]) != hashes[name]]


def _remove(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f"{folder}: cannot be replaced: {error.strerror or error}") from None

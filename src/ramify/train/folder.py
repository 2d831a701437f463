"""Opening a run folder for work: new, replaced, or gone on with after checking that nothing was changed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ramify.base.config import RunConfig, Train
from ramify.base.errors import RunError, TrainingError
from ramify.base.records import write_text
from ramify.base.runs import Run, create_run, is_run, open_run
from ramify.train.checkpoint import find_checkpoints
from ramify.train.interrupt import terminable

_FREE = frozenset(
    {
        "out",
        "train.micro_tokens",
        "train.keep",
        "train.save_every",
        "train.log_every",
        "train.shard",
        "train.tensorboard",
        "sample.live",
        "endpoint.key_env",
        "endpoint.parallel",
        "endpoint.requests_per_minute",
        "endpoint.timeout",
        "endpoint.retries",
    }
)
"""Settings that may change on resume: they never change the result."""

_OF_DATA = ("valid", "valid_split", "turns", "bad_rows", "max_length", "drop_long")
_OF_TRAINING = (
    frozenset({"lora", "select", "evaluate"})
    | {f"data.{name}" for name in _OF_DATA}
    | {f"train.{name}" for name in Train.model_fields if name not in ("dtype", "device")}
)
"""Settings that no sample depends on: while a run of rejection sampling has only drawn, they may still be corrected."""


@dataclass(frozen=True)
class Opening:
    """What to do when the folder holds a run: nothing (refuse), `resume` it, or `overwrite` it."""

    resume: bool = False
    overwrite: bool = False


class FollowedRun(Run):
    """The run folder as a process sees it that has no part in writing it."""

    __slots__ = ()

    def log(self, kind: str, **values: Any) -> None:
        """The main process writes the line."""

    def update(self, **values: Any) -> None:
        """The main process changes the entries."""


def run_folder(config: RunConfig) -> Path:
    """Where the run goes: `out`, or runs/<method>."""
    return config.out if config.out is not None else Path("runs") / config.method


def check_free(folder: Path, opening: Opening) -> None:
    """Refuse a folder that is taken, before anything is loaded.

    Raises:
        RunError: it holds a run, and neither resume nor overwrite was asked.
    """
    if is_run(folder) and not (opening.resume or opening.overwrite):
        raise RunError(f"{folder}: holds a run already", hint="--resume goes on with it, --overwrite replaces it")


def start_run(config: RunConfig, hashes: Mapping[str, str], opening: Opening) -> Run:
    """A run folder ready to be written to. Resuming a folder that holds no run yet starts one.

    Args:
        hashes: of data and model, compared on resume.

    Raises:
        RunError: the folder holds a run and neither was asked, or it cannot be written.
        TrainingError: settings, data or model are not those the run began with; lists the differences.
    """
    folder = run_folder(config)
    check_free(folder, opening)
    if opening.resume and is_run(folder):
        run = open_run(folder)
        check_unchanged(run, config, hashes)
        _take_over(run, config, hashes)
        run.update(status="running", error=None)
        return run
    if is_run(folder):
        _remove(folder)
    return create_run(folder, config, hashes=hashes, parents=_parents(config))


def finished_run(config: RunConfig, opening: Opening, *, train: bool = True) -> Run | None:
    """The run in the folder when it is to be resumed and has nothing left to do.

    Args:
        train: whether it is to end with a trained model; False: samples and the rows selected from them are enough.

    Raises:
        TrainingError: it was another run.
    """
    folder = run_folder(config)
    if not (opening.resume and is_run(folder)):
        return None
    run = open_run(folder)
    status = run.record.get("status")
    if status != "finished" if train else status not in ("sampled", "finished"):
        return None
    check_unchanged(run, config, {})
    done = _is_trained(run) if train else not _changes(run, config)
    return run if done else None


def check_unchanged(run: Run, config: RunConfig, hashes: Mapping[str, str]) -> None:
    """Compare a run with what it is to be gone on with. Hashes that the run has not recorded yet are recorded.

    Raises:
        TrainingError: settings, data or model differ; lists the differences.
    """
    known = run.record.get("hashes") or {}
    changed = _changes(run, config, _undecided(run, config))
    changed += [f"{name} has changed" for name in sorted(hashes) if known.get(name) not in (None, hashes[name])]
    if changed:
        raise TrainingError(
            f"{run.folder}: cannot resume, the run began differently: {'; '.join(changed)}",
            hint="resume with what it began with (config.yaml in the folder), or --overwrite to start again",
        )
    if hashes.keys() - known.keys():
        run.update(hashes={**known, **hashes})


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "", free: Collection[str] = _FREE
) -> list[str]:
    """`name: before → now` for every leaf of two nested mappings that differs and is not in (a section of) `free`."""
    found: list[str] = []
    for key in sorted(before.keys() | now.keys()):
        name, old, new = f"{prefix}{key}", before.get(key), now.get(key)
        if name in free:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{name}.", free)
        elif old != new:
            found.append(f"{name}: {old!r} → {new!r}")
    return found


def _changes(run: Run, config: RunConfig, undecided: frozenset[str] = frozenset()) -> list[str]:
    """Settings that the run began with otherwise, save for those that may change."""
    before = run.record.get("config") or {}
    return differences(before, config.model_dump(mode="json"), free=_FREE | undecided)


def _undecided(run: Run, config: RunConfig) -> frozenset[str]:
    """Settings that nothing in the folder depends on yet: those of training, while there are samples only."""
    trained = _is_trained(run) or find_checkpoints(run.folder) or any(run.folder.glob("round-*"))
    if config.method != "rft" or trained:
        return frozenset()
    return _OF_TRAINING if config.sample_prompt is None else _OF_TRAINING | {"prompt"}


def _take_over(run: Run, config: RunConfig, hashes: Mapping[str, str]) -> None:
    """Write corrected settings into the run, and forget the hashes of what the old ones led to."""
    if not _changes(run, config):
        return
    settings = config.model_dump(mode="json")
    write_text(run.folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    run.update(config=settings, hashes=dict(hashes))


def _is_trained(run: Run) -> bool:
    return run.adapter is not None or run.model is not None


@contextmanager
def recorded(run: Run, end_status: str = "finished") -> Iterator[None]:
    """Write into run.json how the block ended (`end_status`, stopped, failed and why) and the seconds it took.

    Seconds of a run that was stopped and resumed add up. SIGTERM stops the block as Ctrl-C does.
    """
    before, began = float(run.record.get("seconds", 0.0)), time.perf_counter()
    end: dict[str, Any] = {"status": "failed"}
    try:
        with terminable():
            yield
        end = {"status": end_status}
    except KeyboardInterrupt:
        end = {"status": "stopped"}
        raise
    except Exception as error:
        end = {"status": "failed", "error": " ".join(str(error).split())}
        raise
    finally:
        end["seconds"] = round(before + time.perf_counter() - began, 3)
        _write_end(run, end)


def record_loss(run: Run, reason: str) -> None:
    """Write that the run has failed, unless something else was written before."""
    with suppress(RunError):
        if run.record.get("status") == "running":
            run.update(status="failed", error=reason)


def _write_end(run: Run, end: dict[str, Any]) -> None:
    if end["status"] not in ("stopped", "failed"):
        run.update(**end)
        return
    with suppress(RunError):  # on a full disk the error that is on its way says more
        run.update(**end)


def _parents(config: RunConfig) -> tuple[str, ...]:
    named = (config.model, config.adapter, config.data.train)
    return tuple(str(each) for each in named if each is not None and is_run(each))


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f"{folder}: cannot be replaced: {error.strerror or error}") from None

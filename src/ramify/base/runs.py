"""A run is a folder: `run.json`, `config.yaml`, `metrics.jsonl` and artefacts. The next stage reads it.

run.json        command, resolved config, versions, seeds, hashes of data and model, parents, status, seconds
metrics.jsonl   one line an event: {"step", "seconds", "kind", …}
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from ramify.base.config import RunConfig
from ramify.base.errors import RunError
from ramify.base.records import append_jsonl, read_jsonl, write_json, write_text

EXPORT = "export.json"
"""The record that makes a folder an export."""
_VERSIONED = ("ramify", "torch", "transformers", "peft", "tokenizers", "safetensors", "accelerate", "numpy")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder."""

    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            RunError: it is missing or not readable.
        """
        path = self.folder / "run.json"
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.folder}: not a run folder (no run.json)") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        if not isinstance(value, dict):
            raise RunError(f"{path}: a JSON object is needed, found {type(value).__name__}")
        return value

    @property
    def adapter(self) -> Path | None:
        """The adapter that the run ended with, or None (a full fine-tuning, or no training)."""
        folder = self.folder / "adapter"
        return folder if (folder / "adapter_config.json").is_file() else None

    @property
    def model(self) -> Path | None:
        """The full model that the run ended with, or None."""
        folder = self.folder / "model"
        return folder if (folder / "config.json").is_file() else None

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl, optionally of one kind (train, eval, …)."""
        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return []
        return [row for _, row in read_jsonl(path) if kind is None or row.get("kind") == kind]

    def log(self, kind: str, **values: Any) -> None:
        """Append one line to metrics.jsonl."""
        append_jsonl(self.folder / "metrics.jsonl", {"kind": kind, **values})

    def update(self, **values: Any) -> None:
        """Change entries of run.json (whole or not at all)."""
        write_json(self.folder / "run.json", {**self.record, **values})


def create_run(
    folder: Path, config: RunConfig | None, *, hashes: Mapping[str, str] | None = None, parents: tuple[str, ...] = ()
) -> Run:
    """Make a run folder and write run.json and config.yaml; status `running` until `update` says otherwise.

    Raises:
        RunError: the folder holds another run already, or cannot be written.
    """
    if (folder / "run.json").exists():
        raise RunError(f"{folder}: holds a run already", hint="--resume goes on with it, --overwrite replaces it")
    settings = None if config is None else config.model_dump(mode="json")
    record = {
        "command": shlex.join(sys.argv),
        "status": "running",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": None if config is None else config.seed,
        "config": settings,
        "versions": versions(),
        "hashes": dict(hashes or {}),
        "parents": list(parents),
    }
    write_json(folder / "run.json", record)
    if settings is not None:
        write_text(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return Run(folder)


def open_run(folder: Path | str) -> Run:
    """An existing run folder.

    Raises:
        RunError: it is not one.
    """
    run = Run(Path(folder))
    _ = run.record
    return run


def is_run(folder: Path | str) -> bool:
    """Whether the folder holds a run."""
    return (Path(folder) / "run.json").is_file()


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that decide results. Loads none of them."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

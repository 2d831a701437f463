"""The weight files of a model on this machine, by what lies in them: other weights under an old name are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ramify.base.errors import ModelError, RunError
from ramify.base.records import sampled_sha256
from ramify.model.source import resolve

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")


def weight_files(model: str, adapter: str | None = None) -> dict[Path, str]:
    """The weight files that a name means, each with its `sampled_sha256`.

    Args:
        model: a run, a model or adapter folder, or a GGUF file; of what lies on the hub, nothing is looked at.
        adapter: an adapter folder or a run on top of it.
    """
    return {file: sampled_sha256(file) for file in _files(model, adapter)}


def _files(model: str, adapter: str | None) -> Iterator[Path]:
    if Path(model).is_file():
        yield Path(model)
        return
    try:
        source = resolve(model, adapter)
    except (ModelError, RunError):
        return  # whoever loads it says so
    for folder in (Path(source.base), source.adapter):
        if folder is not None and folder.is_dir():
            yield from sorted(each for each in folder.iterdir() if each.suffix in _WEIGHTS)

"""The weight files of a model on this machine, by what lies in them: other weights under an old name are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ramify.base.errors import ModelError, RunError
from ramify.base.records import sampled_sha256
from ramify.model.source import resolve


def weight_files(model: str, adapter: str | None = None) -> dict[Path, str]:
    """The weight files that a name means, each with its `sampled_sha256`; those that cannot be read are left out.

    Args:
        model: a run, a model or adapter folder, or a GGUF file (of one that is split, the first part); of what lies on
            the hub, nothing is looked at.
        adapter: an adapter folder or a run on top of it.
    """
    found: dict[Path, str] = {}
    for file in _files(model, adapter):
        with suppress(OSError):
            found[file] = sampled_sha256(file)
    return found


def _files(model: str, adapter: str | None) -> Iterator[Path]:
    if Path(model).is_file():
        yield Path(model)
        return
    try:
        source = resolve(model, adapter)
    except (ModelError, RunError):
        return  # whoever loads it says so
    if source.base != "nano":
        yield from sorted(Path(source.base).glob("*.safetensors"))
    if source.adapter is not None:
        yield from sorted(source.adapter.glob("*.safetensors"))

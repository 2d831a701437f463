"""What a model's name means: `nano`, a run, an adapter folder, a model folder, or a hub id. Nothing is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ramify import nano
from ramify.base.errors import ModelError, nearest
from ramify.base.runs import Run, is_run


@dataclass(frozen=True)
class Source:
    """Where a model's parts lie: the base weights (of a revision, when one is known), and an adapter on top."""

    base: str
    adapter: Path | None = None
    revision: str | None = None

    @property
    def location(self) -> str:
        """What Transformers is given for the base."""
        return str(nano.path()) if self.base == "nano" else self.base


def resolve(name: str, adapter: str | None = None) -> Source:
    """Find out what `name` is: `nano`, a run, an adapter folder, a model folder, or a hub id.

    Raises:
        ModelError: nothing of that name can be a model.
    """
    found = _resolve_name(name)
    if adapter is None:
        return found
    if found.adapter is not None:
        raise ModelError(f"{name} already has the adapter {found.adapter}", hint=f"base model: {found.base}")
    folder = _run_adapter(Run(Path(adapter))) if is_run(adapter) else Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"adapter {adapter}: no adapter_config.json there", hint="give an adapter folder or a run")
    made_on, revision = _named_base(folder)
    same = found.revision is None and made_on == found.base
    return replace(found, adapter=folder, revision=revision if same else found.revision)


def _resolve_name(name: str) -> Source:
    folder = Path(name)
    if name == "nano":
        return Source("nano")
    if is_run(folder):
        return _resolve_run(Run(folder))
    if (folder / "adapter_config.json").is_file():
        return replace(_base_of_adapter(folder), adapter=folder)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"model {name}: the folder has no config.json, adapter_config.json or run.json")
        return Source(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not folder.parent.is_dir():
        return Source(name)
    if folder.parent != Path("."):
        raise ModelError(
            f"model {name}: no such folder", hint="a run, model or adapter folder; or a hub id (owner/name)"
        )
    asked = f"; did you mean {nearest(name, ['nano'])!r}?" if nearest(name, ["nano"]) else ""
    raise ModelError(
        f"unknown model {name!r}{asked}", hint="a hub id (owner/name), a model, adapter or run folder, or nano"
    )


def _resolve_run(run: Run) -> Source:
    if run.model is not None:
        return Source(str(run.model))
    adapter = _run_adapter(run)
    return replace(_base_of_adapter(adapter), adapter=adapter)


def _run_adapter(run: Run) -> Path:
    if run.adapter is None:
        status = run.record.get("status")
        raise ModelError(
            f"run {run.folder} has no adapter and no model (status: {status})",
            hint="finish it with --resume" if status != "finished" else "it is not a training run",
        )
    return run.adapter


def _base_of_adapter(folder: Path) -> Source:
    """The base weights that an adapter was made on, and their revision."""
    base, revision = _named_base(folder)
    if not base:
        raise ModelError(f"{folder}/adapter_config.json names no base model", hint="give the base with --adapter")
    found = _resolve_name(base)
    return Source(found.base, revision=revision or found.revision)


def _named_base(folder: Path) -> tuple[str, str | None]:
    """Base (empty: none is named) and revision, as adapter_config.json has them."""
    try:
        found = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return str(found["base_model_name_or_path"] or ""), found.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder}/adapter_config.json: cannot be read: {error!r}") from None


def at_revision(source: Source, revision: str | None) -> Source:
    """The source, at the revision asked for when there is one."""
    return source if revision is None else replace(source, revision=revision)

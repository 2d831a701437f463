"""Tokenised rows that several runs share (see `shared`): rendered once, and memory-mapped by all of them.

    rows-<digest>/train.npy     [T] int32, ids of all training sequences one after the other
                  train.npz     the other arrays of `TokenStore` and `TrainingSet`
                  valid.…       the same of validation, where there is one
                  facts.json    everything else

Shared are rows of files: their digest, that of the tokenizer, and the settings of data, prompt, task and evaluation
decide them. Rows of a task, a folder, a run or the hub are rendered by each run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ramify.base.config import RunConfig
from ramify.base.errors import RunError
from ramify.base.records import sha256_file, write_json
from ramify.prompts.renderer import Renderer
from ramify.train.grouping import Groups
from ramify.train.look import Look
from ramify.train.material import Material, RunData
from ramify.train.render import TrainingSet
from ramify.train.rows import Turns, TurnStream
from ramify.train.shared import alone, place_of
from ramify.train.store import TokenStore

_FACTS = "facts.json"
_OF_STORE = ("bounds", "prompts", "weights")
_COUNTS = ("too_long", "n_unusable", "unusable")


def shared_rows(
    config: RunConfig,
    renderer: Renderer,
    max_length: int,
    material: Material[Turns],
    render: Callable[[], RunData[TrainingSet]],
) -> RunData[TrainingSet]:
    """The rows as `render` makes them, read from what another run has left where runs share a folder.

    Args:
        max_length: what the model allows.
    """
    key = _key(config, renderer, max_length, material)
    place = None if key is None else place_of("rows", key)
    if place is None:
        return render()
    with alone(place):
        found = _read(place)
        if found is None:
            found = render()
            _leave(place, found)
    return found


def _key(config: RunConfig, renderer: Renderer, max_length: int, material: Material[Turns]) -> Mapping[str, Any] | None:
    """What decides the rows; None where that cannot be said of them."""
    backend = getattr(renderer.tokenizer, "backend_tokenizer", None)
    if backend is None or not _are_files(config, material):
        return None
    named = (
        config.data.train,
        config.data.valid,
        config.prompt.fewshot,
        config.prompt.chat_template,
        config.evaluate.problems,
        config.task.name,
    )
    files = {str(each): sha256_file(Path(each)) for each in named if each is not None and Path(each).is_file()}
    sections = {name: getattr(config, name).model_dump(mode="json") for name in ("data", "prompt", "task", "evaluate")}
    tokenizer = sha256(backend.to_str().encode()).hexdigest()
    template = str(renderer.tokenizer.chat_template)
    special = {name: str(value) for name, value in renderer.tokenizer.special_tokens_map.items()}
    stops = sorted(renderer.stop_ids)
    return {
        **sections, "files": files, "tokenizer": tokenizer, "template": template, "special": special,
        "stops": stops, "max_length": max_length,
    }  # fmt: skip


def _are_files(config: RunConfig, material: Material[Turns]) -> bool:
    """Whether what is read is what the settings name, and all of it files. Selected rows come as a list."""
    if not isinstance(material.train, TurnStream) or not Path(str(config.data.train)).is_file():
        return False
    valid = config.data.valid
    return valid is None or str(valid) == "task" or Path(str(valid)).is_file()


def _leave(place: Path, data: RunData[TrainingSet]) -> None:
    """Put the rows into the folder, all or nothing. A disk that is full is no error: the next run renders again."""
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with suppress(OSError, RunError):
        temporary.mkdir(parents=True)
        facts: dict[str, Any] = {
            "leaked": data.leaked,
            "separate": data.separate,
            "measured": data.measured,
            "left_out": data.left_out,
            "train": _write_set(temporary, "train", data.train),
            "valid": None if data.valid is None else _write_set(temporary, "valid", data.valid),
        }
        write_json(temporary / _FACTS, facts)
        shutil.rmtree(place, ignore_errors=True)  # what is there cannot be read
        temporary.replace(place)
    shutil.rmtree(temporary, ignore_errors=True)


def _write_set(folder: Path, name: str, rows: TrainingSet) -> dict[str, Any]:
    store = rows.sequences
    np.save(folder / f"{name}.npy", store.ids, allow_pickle=False)
    arrays = {each: getattr(store, each) for each in _OF_STORE}
    groups = {"members": rows.groups.members, "cuts": rows.groups.bounds}
    np.savez(folder / f"{name}.npz", allow_pickle=False, asked=rows.asked, **arrays, **groups)
    counts = {each: getattr(rows, each) for each in _COUNTS}
    return {"digest": store.digest, "trained": store.trained, "known": rows.known, "look": rows.look.ranked, **counts}


def _read(place: Path) -> RunData[TrainingSet] | None:
    """What another run has left; None when there is nothing, or a damaged file."""
    try:
        facts = json.loads((place / _FACTS).read_text(encoding="utf-8"))
        return RunData(
            train=_read_set(place, "train", facts["train"]),
            valid=None if facts["valid"] is None else _read_set(place, "valid", facts["valid"]),
            leaked=tuple(facts["leaked"]),
            separate=facts["separate"],
            measured=facts["measured"],
            left_out=tuple(facts["left_out"]),
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def _read_set(place: Path, name: str, facts: Mapping[str, Any]) -> TrainingSet:
    ids = np.load(place / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    with np.load(place / f"{name}.npz", allow_pickle=False) as kept:
        arrays = {each: kept[each] for each in _OF_STORE}
        groups, asked = Groups(kept["members"], kept["cuts"]), kept["asked"]
    store = TokenStore(ids=ids, **arrays, digest=facts["digest"], trained=facts["trained"])
    counts = {each: facts[each] for each in _COUNTS}
    return TrainingSet(store, groups, asked, Look(facts["look"]), known=tuple(facts["known"]), **counts)

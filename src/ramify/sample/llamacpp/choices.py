"""GGUF files by what people call them.

model.gguf       a file
OUT, OUT:q8_0    an export folder: its first GGUF file, or the one of that quantisation
REPO, Q4         a repository of the hub, or a folder, and a part of a file's name: `*Q4*.gguf`, in capitals or not

What was fetched from the hub before is taken without asking it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ramify.base.errors import ModelError, unknown
from ramify.base.runs import EXPORT
from ramify.model.failures import one_line

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)
_NO_MODEL = re.compile(r"(^|[/-])(adapter|mmproj)([-.]|$)", re.IGNORECASE)
"""In names of GGUF files that hold an adapter, or what turns pictures into tokens."""


def find_gguf(name: str) -> Path | None:
    """The GGUF file that is meant, fetched when it lies on the hub; None: the name means something else.

    Raises:
        ModelError: it means a GGUF file, and there is none, or there are several.
    """
    place, comma, part = (each.strip() for each in name.partition(","))
    if comma and not Path(name).exists():
        return _in_folder(Path(place), part) if Path(place).is_dir() else _on_hub(place, part)
    if name.lower().endswith(".gguf"):
        if not Path(name).is_file():
            raise ModelError(f"{name}: no such file", hint="REPO, Q4 takes a GGUF file of the hub: *Q4*.gguf")
        return Path(name)
    folder, kind = export_of(name)
    if folder is None:
        return None
    files = gguf_files(folder)
    return _of_kind(folder, files, kind) if kind else next(iter(files), None)


def export_of(name: str) -> tuple[Path | None, str]:
    """The export folder that a name begins with, and the quantisation behind its colon (empty: none is named)."""
    if is_export(Path(name)):
        return Path(name), ""
    folder, colon, kind = name.rpartition(":")
    return (Path(folder), kind) if colon and is_export(Path(folder)) else (None, "")


def is_export(folder: Path) -> bool:
    """Whether the folder is what `ramify export` wrote."""
    return (folder / EXPORT).is_file()


def gguf_files(folder: Path) -> list[Path]:
    """GGUF files of models in a folder, by name; of one that is split the first part, and no adapters."""
    return sorted(path for path in folder.glob("*.gguf") if _is_model(path.name))


def kind_of(file: Path) -> str:
    """The quantisation of a file of an export: `q8_0` of NAME-Q8_0.gguf. No name of one holds a hyphen."""
    return file.stem.rpartition("-")[2].lower()


def _of_kind(folder: Path, files: Iterable[Path], kind: str) -> Path:
    kinds = {kind_of(file): file for file in files}
    if kind.lower() not in kinds:
        raise ModelError(f"{folder}: {unknown('quantisation', kind, kinds)}")
    return kinds[kind.lower()]


def _in_folder(folder: Path, part: str) -> Path:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
    return folder / _only(names, part, str(folder))


def _on_hub(repository: str, part: str) -> Path:
    if repository.count("/") != 1:
        raise ModelError(f"{repository}, {part}: no such folder, and no repository of the hub", hint="owner/name, Q4")
    with one_line(repository):
        folder = _fetched(repository)
        names = [] if folder is None else [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
        if not any(_matches(names, part)):
            names = [each.rfilename for each in HfApi().model_info(repository).siblings or ()]
        parts = _parts(_only(names, part, repository))
        if folder is not None and all((folder / each).is_file() for each in parts):
            return folder / parts[0]  # a download would ask the hub whether there is a newer one
        first, *_ = [Path(hf_hub_download(repository, each)) for each in parts]
        return first


def _fetched(repository: str) -> Path | None:
    """The folder of the repository's files that are on this machine; None: there are none."""
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _only(names: Iterable[str], part: str, where: str) -> str:
    """The one file that is meant: of several the K_M one, which is what people publish first.

    Raises:
        ModelError: none, or it cannot be told which.
    """
    given = list(names)
    found = list(_matches(given, part))
    if not found:
        there = ", ".join(sorted(filter(_is_model, given))) or "no GGUF file"
        raise ModelError(f"{where}: no file is *{part}*.gguf (there: {there})")
    usual = found if len(found) == 1 else [name for name in found if "_k_m" in name.lower()]
    if len(usual) != 1:
        raise ModelError(f"{where}: {len(found)} files are *{part}*.gguf: {', '.join(found)}", hint="name more of it")
    return usual[0]


def _matches(names: Iterable[str], part: str) -> Iterator[str]:
    return (name for name in sorted(names) if part.lower() in name.lower() and _is_model(name))


def _is_model(name: str) -> bool:
    shard = _SHARD.search(name)
    return name.lower().endswith(".gguf") and not _NO_MODEL.search(name) and (shard is None or int(shard[1]) == 1)


def _parts(first: str) -> list[str]:
    """All files of a model that is split, the first one first."""
    shard = _SHARD.search(first)
    if shard is None:
        return [first]
    return [_SHARD.sub(f"-{number:05d}-of-{shard[2]}", first) for number in range(1, int(shard[2]) + 1)]

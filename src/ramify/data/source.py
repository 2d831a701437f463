"""Where rows come from: a file, a folder, or a data set of the hub, and how its rows are to be understood."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ramify.base.config import Data
from ramify.base.errors import ConfigError, DataError
from ramify.base.runs import is_run
from ramify.data.files import kind_of, packing

HUB = "hub:"
"""What a hub id begins with where it could be taken for a path."""
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_HUB_NAME = re.compile(r"\w[\w.-]*")
"""Of a data set that belongs to no one; it needs `hub:` before it."""


@dataclass(frozen=True, slots=True)
class Source:
    """Rows somewhere.

    Attributes:
        name: path of a file or a folder, or the id of a data set of the hub (`org/name`, or `hub:name`).
        config: configuration of a hub data set.
        split: split of a hub data set, or of a folder that has several; None: `default_split`.
        revision: revision of a hub data set.
        stream: read a hub data set while it is downloaded.
        columns: column of each field that is not under its own name (see `ramify.data.columns`).
        shape: the shape of all rows; None: that of each is recognised.
        as_text: every row is a `text`, taken as it stands whatever markers are in it.
        bad_rows: share of rows that may be left out because they do not fit; above it reading stops.
        limit: only the first rows.
        default_split: the split that is meant where there are several and none is named.
    """

    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    stream: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    shape: str | None = None
    as_text: bool = False
    bad_rows: float = 0.0
    limit: int | None = None
    default_split: str = "train"

    @property
    def hub_id(self) -> str | None:
        """What the data set is called on the hub, or None when the rows are on this machine.

        A path that exists wins over a hub id.
        """
        if self.name.startswith(HUB):
            return self.name.removeprefix(HUB)
        if _on_disk(self.name) or not _HUB_ID.fullmatch(self.name):
            return None
        # data/trian is a misspelled path where there is a folder data; so is whatever ends like a file of rows.
        is_path = os.path.isdir(os.path.dirname(self.name)) or kind_of(Path(self.name)) or packing(Path(self.name))
        return None if is_path else self.name

    def check_hub_id(self) -> None:
        """Refuse an id that `datasets` would not look for on the hub.

        Raises:
            DataError: it is none, or there is a path of that name, which would be read instead.
        """
        name = self.hub_id or ""
        if not (_HUB_ID.fullmatch(name) or _HUB_NAME.fullmatch(name)):
            raise DataError("is no id of a hub data set", path=self.name, hint=f"{HUB}org/name, or {HUB}name")
        if _on_disk(name):
            hint = f"{name} alone reads it; for the data set of the hub, start in another folder"
            raise DataError(f"there is a path {name} here, which would be read instead", path=self.name, hint=hint)

    @property
    def path(self) -> Path:
        """The file or folder.

        Raises:
            ConfigError: a setting of hub data sets is given for it.
        """
        given = {"config": self.config, "revision": self.revision, "stream": self.stream or None}
        for name, value in given.items():
            if value is not None:
                raise ConfigError(
                    f"{name} = {str(value).lower() if value is True else value}: {self.name} is no data set of the hub",
                    hint=f"{HUB}{self.name} asks the hub for it",
                )
        return Path(self.name)


def training_source(data: Data, split: Literal["train", "valid"]) -> Source:
    """Where training or validation rows are, as the settings say; `task` is none of its business.

    Validation rows are those of `data.valid` (where it has several splits `data.valid_split`, or validation), or the
    split `data.valid_split` of `data.train`. Configuration and revision go with `data.train`, and with `data.valid`
    when it is the same data set.

    Raises:
        ConfigError: no rows are named, or the validation rows are the training rows.
    """
    name = data.train if split == "train" else data.valid
    if split == "valid" and name is None and data.valid_split is not None:
        if data.valid_split == (data.split or "train"):
            raise ConfigError(f"data.valid_split = {data.valid_split}: this split is trained on")
        name = data.train
    if name is None:
        raise ConfigError(
            f"data.{split} is not set", hint=f"data.{split}=FILE, or data.{split}=task for the task's own rows"
        )
    source = Source(
        name=str(Path(name) / "rows.jsonl" if is_run(name) else name),
        split=data.split if split == "train" else data.valid_split,
        columns=data.columns,
        shape=data.shape,
        as_text=data.as_text,
        bad_rows=data.bad_rows,
        limit=data.limit if split == "train" else None,
        default_split="train" if split == "train" else "validation",
    )
    if name == data.train:  # a file gets them too: it refuses them, where they would otherwise be ignored
        return replace(source, config=data.config, revision=data.revision, stream=data.stream)
    return source if source.hub_id is None else replace(source, stream=data.stream)


def _on_disk(name: str) -> bool:
    """Whether there is such a path; a link that leads nowhere is one."""
    try:
        return os.path.lexists(name)
    except ValueError:  # a name with a zero byte in it
        return False

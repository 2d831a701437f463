"""Weights of a Transformers folder as they lie in its safetensors files.

Names, shapes and types come from the headers alone; values are read by rows, so that no tensor is in memory whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ramify.base.errors import ModelError
from ramify.model.failures import INCOMPLETE, one_line

Floats = NDArray[np.float32]
FLOATING = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of full-precision weights, as safetensors calls them."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file.

    Attributes:
        dtype: as safetensors calls it: F32, F16, BF16, …
    """

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        """How many values it has."""
        return prod(self.shape)

    def blocks(self, rows: int) -> Iterator[Floats]:
        """The values, `rows` of the first dimension at a time, in fp32.

        Raises:
            ModelError: the file cannot be read.
        """
        with one_line(str(self.file)), safe_open(str(self.file), framework="pt") as opened:
            values = opened.get_slice(self.name)
            for start in range(0, self.shape[0], rows):
                yield values[start : start + rows].float().numpy()


def stored(folder: Path) -> dict[str, Stored]:
    """Tensors of a Transformers folder (sharded or not) or of an adapter folder, by name; reads headers alone.

    Raises:
        ModelError: there are no safetensors there, one of them is missing or cut off.
    """
    found: dict[str, Stored] = {}
    for file in weight_files(folder):
        with one_line(str(file)), safe_open(str(file), framework="pt") as opened:
            names: list[str] = opened.keys()  # of an opened file there is no other way to walk through it
            for name in names:
                values = opened.get_slice(name)
                found[name] = Stored(name, file, tuple(values.get_shape()), str(values.get_dtype()))
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a Transformers or adapter folder.

    Raises:
        ModelError: there are none, or one that the index names is missing.
    """
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        with one_line(str(index)):
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        alone = (SAFE_WEIGHTS_NAME, "adapter_model.safetensors")
        names = [name for name in alone if (folder / name).is_file()][:1]
    if not names:
        raise ModelError(f"{folder}: no {SAFE_WEIGHTS_NAME} there", hint="weights are read from safetensors only")
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing", hint=INCOMPLETE)
    return [folder / name for name in names]


def load_dtype(tensors: Mapping[str, Stored]) -> str:
    """The smallest type, as `load_model` names it, that holds all of these exactly."""
    kinds = {each.dtype for each in tensors.values()}
    return {frozenset({"BF16"}): "bf16", frozenset({"F16"}): "fp16"}.get(frozenset(kinds), "fp32")

"""The header of a GGUF file, read and checked before llama.cpp sees the file.

llama.cpp ends the whole process for some broken files. So magic, version, every key, every length and the place of
every tensor are checked here first; nothing of the tensors themselves is read.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian, versions 2 and 3).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramify.base.errors import ModelError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_KEYS, _MOST_TENSORS, _MOST_DIMENSIONS = 1 << 16, 1 << 20, 4
_GONE = (4, 5, 31, 32, 33, 36, 37, 38)  # tensor types that ggml had once, with blocks of size 0 now
_AGAIN = "download or export it again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the file: its shape as GGUF has it (fastest first), its ggml type, where its data begins."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself.

    Attributes:
        metadata: every key with its value: str, int, float, bool, or a list of them. Text that is not UTF-8 keeps its
            bytes as surrogates.
        tensors: in the order of the file.
        places: first byte of each key with its value, and the byte behind them.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    places: Mapping[str, tuple[int, int]]

    @property
    def family(self) -> str:
        """The architecture as llama.cpp names it: `llama`, `qwen2`, …"""
        return str(self.metadata.get("general.architecture", ""))

    def own(self, name: str, default: Any = None) -> Any:
        """A value of the architecture's own keys: `context_length`, `block_count`, …"""
        return self.metadata.get(f"{self.family}.{name}", default)


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file.

    Raises:
        ModelError: there is no such file, it is no GGUF, it is cut off, or a value in its header cannot be.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parsed(path, data)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except (struct.error, EOFError):
        raise ModelError(f"{path}: the GGUF file is cut off within its header", hint=_AGAIN) from None
    except (OSError, ValueError) as error:  # mmap refuses an empty file with ValueError
        raise ModelError(f"{path}: cannot be read as a GGUF file: {error}") from None


def _parsed(path: Path, data: mmap.mmap) -> Header:
    if data[:4] != MAGIC:
        raise ModelError(f"{path}: not a GGUF file (it begins with {bytes(data[:4])!r})")
    cursor = _Cursor(data, 4)
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise ModelError(f"{path}: GGUF version {version} is not known (allowed: 2, 3)", hint=_AGAIN)
    tensors, keys = cursor.number("Q"), cursor.number("Q")
    if tensors > _MOST_TENSORS or keys > _MOST_KEYS:
        raise ModelError(f"{path}: {tensors} tensors and {keys} keys: the header is broken", hint=_AGAIN)
    metadata: dict[str, Any] = {}
    places: dict[str, tuple[int, int]] = {}
    for _ in range(keys):
        begin = cursor.at
        name = cursor.text()
        metadata[name] = cursor.value(cursor.number("I"))
        places[name] = (begin, cursor.at)
    found = tuple(_tensor(cursor) for _ in range(tensors))
    _check_places(path, len(data), cursor.at, metadata, found)
    return Header(path, metadata, found, places)


def _tensor(cursor: _Cursor) -> TensorInfo:
    name, dimensions = cursor.text(), cursor.number("I")
    if not 0 < dimensions <= _MOST_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    kind, offset = cursor.number("I"), cursor.number("Q")
    if not all(shape) or kind in _GONE:
        raise ValueError(f"tensor {name!r} has the shape {shape} and the type {kind}")
    return TensorInfo(name, shape, kind, offset)


def _check_places(
    path: Path, size: int, described: int, metadata: Mapping[str, Any], tensors: tuple[TensorInfo, ...]
) -> None:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
        raise ModelError(f"{path}: general.alignment = {alignment!r} is not a multiple of 8", hint=_AGAIN)
    data_at = -(-described // alignment) * alignment
    missing = sum(data_at + tensor.offset >= size for tensor in tensors)
    if missing:
        raise ModelError(
            f"{path}: the file is cut off: {missing} of {len(tensors)} tensors lie behind its {size} bytes", hint=_AGAIN
        )


class _Cursor:
    """Reads one value after the other."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self._data, self.at = data, at

    def number(self, form: str) -> Any:
        value = struct.unpack_from("<" + form, self._data, self.at)[0]
        self.at += struct.calcsize("<" + form)
        return value

    def text(self) -> str:
        return self._bytes(self.number("Q")).decode("utf-8", errors="surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array(self.number("I"), self.number("Q"))
        if kind not in _SCALARS:
            raise ValueError(f"a value has the unknown type {kind}")
        return self.number(_SCALARS[kind])

    def _array(self, kind: int, count: int) -> list[Any]:
        if kind == _STRING:
            if count > len(self._data):  # each takes 8 bytes at least
                raise EOFError
            return self._texts(count)
        if kind not in _SCALARS:
            raise ValueError(f"an array has the unknown type {kind}")
        form = f"<{count}{_SCALARS[kind]}"
        if count > len(self._data):
            raise EOFError
        values = list(struct.unpack_from(form, self._data, self.at))
        self.at += struct.calcsize(form)
        return values

    def _texts(self, count: int) -> list[str]:
        """Many texts, in one loop: vocabularies have hundreds of thousands."""
        data, at, length, found = self._data, self.at, struct.Struct("<Q").unpack_from, list[bytes]()
        for _ in range(count):
            end = at + 8 + length(data, at)[0]
            found.append(data[at + 8 : end])
            at = end
        if at > len(data):
            raise EOFError
        self.at = at
        return [each.decode("utf-8", errors="surrogateescape") for each in found]

    def _bytes(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self._data):
            raise EOFError
        found = self._data[self.at : end]
        self.at = end
        return found

"""Token sequences on disk, memory-mapped: data sets larger than memory are trained on as if they were lists.

    with new_store() as writer:
        writer.append(prompt_ids, completion_ids, weight)  # any number of times, while rows are being read
        store = writer.store()
    store[i]                                               # a `TokenSequence`, made when it is asked for

Ids lie one after the other in a temporary file that has no name and is gone with the process: four bytes a token in the
folder that TMPDIR names. What stays in memory is 20 bytes a sequence. Lengths, sums and the digest are counted while
writing.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, overload

import numpy as np
import numpy.typing as npt

from ramify.base.types import TokenSequence

Ids = npt.NDArray[np.int32]
_BUFFER = 1 << 20
"""Bytes that are collected before they are written."""


@dataclass(frozen=True, eq=False)
class TokenStore(Sequence[TokenSequence]):
    """Sequences whose prompt is untrained and whose completion has one weight a token.

    Attributes:
        ids: [T] int32, of all sequences one after the other, on disk.
        bounds: [n + 1] int64, where each sequence starts and the last one ends.
        prompts: [n] int32, lengths of the prompts.
        weights: [n] float64, of each completion token.
        digest: SHA-256 of all of it: data, template and tokenizer in one number.
        trained: sum of the weights of all tokens.
    """

    ids: Ids
    bounds: npt.NDArray[np.int64]
    prompts: Ids
    weights: npt.NDArray[np.float64]
    digest: str
    trained: float

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> TokenSequence: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenSequence]: ...
    def __getitem__(self, index: int | slice) -> TokenSequence | list[TokenSequence]:
        if isinstance(index, slice):
            return [self._sequence(each) for each in range(len(self))[index]]
        return self._sequence(range(len(self))[index])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """[n] int64, tokens of each sequence."""
        return np.diff(self.bounds)

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return len(self.ids)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max(initial=0))

    def _sequence(self, index: int) -> TokenSequence:
        start, stop = self.bounds[index], self.bounds[index + 1]
        prompt, weight = int(self.prompts[index]), float(self.weights[index])
        ids = tuple(self.ids[start:stop].tolist())
        return TokenSequence(ids, (0.0,) * prompt + (weight,) * (len(ids) - prompt))


class TokenWriter:
    """Takes sequences one after the other, and gives the store they become."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._bounds, self._prompts, self._weights = array("q", [0]), array("i"), array("d")
        self._digest = hashlib.sha256()
        self._trained = 0.0

    def __len__(self) -> int:
        return len(self._prompts)

    def append(self, prompt: Ids, completion: Ids, weight: float) -> None:
        """One sequence: ids of the prompt, which is not trained, and of the completion, with the weight of its tokens.

        Raises:
            OSError: the disk is full.
        """
        raw = prompt.tobytes() + completion.tobytes()
        self._file.write(raw)
        self._digest.update(struct.pack("<qqd", len(prompt), len(completion), weight) + raw)
        self._trained += weight * len(completion)
        self._bounds.append(self._bounds[-1] + len(prompt) + len(completion))
        self._prompts.append(len(prompt))
        self._weights.append(weight)

    def store(self) -> TokenStore:
        """Everything written so far, to be read."""
        self._file.flush()
        ids = np.memmap(self._file, np.int32, "r") if self._bounds[-1] else np.empty(0, np.int32)
        return TokenStore(
            ids=ids,
            bounds=np.array(self._bounds, np.int64),
            prompts=np.array(self._prompts, np.int32),
            weights=np.array(self._weights, np.float64),
            digest=self._digest.hexdigest(),
            trained=self._trained,
        )


@contextmanager
def new_store() -> Iterator[TokenWriter]:
    """A writer with a file of its own; what it stored stays readable behind the block."""
    with tempfile.TemporaryFile(prefix="ramify-", buffering=_BUFFER) as file:
        yield TokenWriter(file)

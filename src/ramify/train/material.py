"""What a run is made of: rows as they are read, and the same rows as token ids with what is to be said about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from ramify.base.config import RunConfig
from ramify.base.progress import Progress
from ramify.train.schedule import Schedule

Row = TypeVar("Row", covariant=True)


@dataclass(frozen=True)
class Material(Generic[Row]):
    """Training and validation rows, each to be iterated once.

    Attributes:
        valid: an empty list when there are none.
        seconds: it took to open them.
        progress: is told how many rows of a long file are rendered.
    """

    train: Iterable[Row]
    valid: Iterable[Row]
    seconds: float = 0.0
    progress: Progress | None = None


class Rendered(Protocol):
    """Rendered rows of a method."""

    unit: ClassVar[str]
    """What `too_long` counts."""
    trains: ClassVar[str]
    """What a loss is divided by."""

    def __len__(self) -> int:
        """Rows that are used."""

    @property
    def n_sequences(self) -> int:
        """Token sequences of the rows."""

    @property
    def groups(self) -> Sequence[Sequence[int]]:
        """Indices that stay neighbours when the order is shuffled."""

    @property
    def too_long(self) -> int:
        """How many were left out because they were longer than allowed."""

    @property
    def tokens(self) -> int:
        """Tokens of the unshared sequences in one pass."""

    @property
    def trained(self) -> float:
        """Sum of the weights in one pass."""

    @property
    def longest(self) -> int:
        """Length of the longest sequence."""

    @property
    def digest(self) -> str:
        """SHA-256 of what is trained on."""


Set = TypeVar("Set", bound=Rendered, covariant=True)


@dataclass(frozen=True)
class RunData(Generic[Set]):
    """What a run trains and is evaluated on.

    Attributes:
        leaked: sources of validation rows whose prompt occurs in training.
        separate: completions that could not be tokenised together with their prompt.
        measured: validation rows that are among the questions of `ramify eval`.
        left_out: what is to be said of rows that were left out because they did not fit.
    """

    train: Set
    valid: Set | None
    leaked: tuple[str, ...]
    separate: int
    measured: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """Of the token sequences."""
        return {"data.train": self.train.digest, **({} if self.valid is None else {"data.valid": self.valid.digest})}

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says about the data."""
        return {
            "rows": len(self.train),
            "sequences": self.train.n_sequences,
            "tokens_per_epoch": self.train.tokens,
            "trained_tokens_per_epoch": self.train.trained,
            "longest": self.train.longest,
            "too_long": self.train.too_long,
            "valid_rows": 0 if self.valid is None else len(self.valid),
            "leaked": len(self.leaked),
            "separately_tokenised": self.separate,
        }

    def notes(self, config: RunConfig) -> list[str]:
        """What the user should know before the first step."""
        found = list(self.left_out)
        if self.leaked and self.valid is not None:
            found.append(
                f"{len(self.leaked)} of {len(self.valid)} validation questions also occur in training "
                f"(first: {self.leaked[0]}); their score says nothing about new questions"
            )
        for name, rows in (("training", self.train), ("validation", self.valid)):
            if rows is not None and rows.too_long:
                found.append(f"{rows.too_long} {name} {rows.unit} were too long and left out")
        if self.separate:
            found.append(f"{self.separate} completions were tokenised apart from their prompt: tokens cross the seam")
        if self.measured and config.train.load_best:
            found.append(
                f"{self.measured} validation questions are also those of `ramify eval`: choosing the best checkpoint "
                "on them flatters its score (name other rows in data.valid, or set train.load_best=false)"
            )
        warning = Schedule.of(self.train.groups, config.train, config.seed).warning()
        return found + ([] if warning is None else [warning])

"""What `ramify data check` says: what was read, and what is worth knowing of it before it is trained on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Literal

from ramify.base.errors import ConfigError
from ramify.cli.lint import Lines, Measure, leaked_prompts, pair_lines

if TYPE_CHECKING:
    from ramify.base.config import RunConfig
    from ramify.base.types import Pair
    from ramify.data.checks import RowCheck
    from ramify.data.sources import RowStream
    from ramify.train.rows import Turns

Split = Literal["train", "valid"]
_BLOCK = 512
"""Rows that are looked at at once."""


def check_lines(config: RunConfig, near: float | None) -> Lines:
    """Lines of a table about training rows, and about validation rows where they are named.

    Args:
        near: how much a row must resemble an earlier one to be counted as its like; None: that is not looked at.

    Raises:
        DataError: rows cannot be used.
        ConfigError: no rows are named, rensa is needed and not installed, or `near` is asked of preference pairs.
    """
    from ramify.train.rows import has_validation

    splits: tuple[Split, ...] = ("train", "valid") if has_validation(config.data) else ("train",)
    if _has_pairs(config):
        if near is not None:
            raise ConfigError(f"--near {near:g}: preference pairs are not looked at for their likes")
        return _pair_lines(config, splits)
    measure, lines, asked = Measure.of(config), Lines(), frozenset[int]()
    for split in splits:
        check, found = _checked(config, split, measure, asked)
        found += check.findings() + ([] if near is None else _near_lines(config, split, near))
        lines += [(f"{split}: {name}", value) for name, value in found]
        asked = frozenset(check.asked)
    return lines


def _has_pairs(config: RunConfig) -> bool:
    """Whether the first training row is a preference pair."""
    if str(config.data.train) == "task":
        return False
    first = next(iter(_stream(config, "train")), None)
    return first is not None and first.decoded.pair is not None


def _stream(config: RunConfig, split: Split) -> RowStream:
    from ramify.data.source import training_source
    from ramify.data.sources import stream_rows

    return stream_rows(training_source(config.data, split))


def _shape_lines(rows: RowStream) -> Lines:
    """What was recognised, and what was left out."""
    lines: Lines = [(f"rows of the shape {shape}", count) for shape, count in rows.shapes.items()]
    for said, reason in rows.bad.reasons.items():
        lines.append((f"rows left out: {said} (first: {reason.first.source})", reason.count))
    if rows.unwanted:
        lines.append(("completions left out for their reward or label", rows.unwanted))
    if rows.unanswered:
        lines.append(("last user turns left out, which nothing answers", rows.unanswered))
    return lines + [(f"rows with a column that is not read: {name}", count) for name, count in rows.ignored.items()]


def _pair_lines(config: RunConfig, splits: tuple[Split, ...]) -> Lines:
    """What is said of preference pairs, which are held in memory."""
    from ramify.data.sources import pairs_of

    measure, lines = Measure.of(config), Lines()
    read: dict[Split, list[Pair]] = {}
    for split in splits:
        rows = _stream(config, split)
        read[split] = pairs_of(rows)
        lines += [(f"{split}: {name}", value) for name, value in _shape_lines(rows)]
    for split, pairs in read.items():
        lines += pair_lines(config, split, pairs, measure)
    if "valid" in read:
        leaked = leaked_prompts(read["train"], read["valid"])
        lines.append(("valid: pairs whose prompt also occurs in train", leaked))
    return lines


def _checked(
    config: RunConfig, split: Split, measure: Measure | None, asked: Collection[int]
) -> tuple[RowCheck, Lines]:
    """Everything counted over the rows of one split, and what was recognised in them."""
    from ramify.console import Bars
    from ramify.data.checks import RowCheck

    check = RowCheck(measure, asked)
    imitated = _Imitated(config, split)
    bars, done, rows = Bars(), 0, iter(imitated)
    bars.start(f"checking {split}", None)
    try:
        while block := list(islice(rows, _BLOCK)):
            check.add(block)
            done += len(block)
            bars.update(done)
    finally:
        bars.close()
    return check, imitated.lines()


def _near_lines(config: RunConfig, split: Split, near: float) -> Lines:
    """How many rows resemble an earlier one; reads them once more."""
    from ramify.data.mix.near import first_of_its_like

    texts = (
        "\n".join([*(turn.content for turn in turns[-1].prompt), *(each.text for each in turns[-1].completions)])
        for turns in _Imitated(config, split)
    )
    alike = sum(not first for first in first_of_its_like(texts, near))
    return [(f"rows that resemble an earlier one (at least {near:g} of their word triples in common)", alike)]


class _Imitated:
    """Rows to imitate of one split, the others counted."""

    def __init__(self, config: RunConfig, split: Split) -> None:
        self._config, self._split = config, split
        self._rows: RowStream | None = None
        self._empty, self._first = 0, ""

    def __iter__(self) -> Iterator[Turns]:
        from ramify.train.rows import Imitation, read_turns

        data, imitate = self._config.data, Imitation(self._config)
        if str(data.train if self._split == "train" else data.valid) == "task":
            yield from read_turns(self._config, self._split)
            return
        self._rows = _stream(self._config, self._split)
        for row in self._rows:
            turns = imitate(row.decoded)
            if turns:
                yield turns
            else:
                self._empty, self._first = self._empty + 1, self._first or row.place.source

    def lines(self) -> Lines:
        """What was recognised, once all of it was read."""
        lines = [] if self._rows is None else _shape_lines(self._rows)
        if self._empty:
            lines.append((f"rows that hold nothing to imitate (first: {self._first})", self._empty))
        return lines

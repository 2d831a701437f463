"""What a sweep varies: `lora.r=4,16,64`, `train.lr=1e-5..1e-3`, and the combinations of it, all or some at random."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from random import Random

from ramify.base.errors import ConfigError
from ramify.base.rng import generator

SEED = "seed"
"""The setting whose values are repetitions of a combination and not combinations of their own."""
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})")
_DIGITS = 3
"""Significant digits of a number that is drawn."""
_TRIES = 1000
"""Draws in a row that may all have been there before."""

Combination = tuple[tuple[str, str], ...]
"""(name of a setting, its value as written), one for each axis."""


@dataclass(frozen=True)
class Range:
    """Numbers between two others, both included, every power of ten as likely as the next."""

    low: float
    high: float
    is_whole: bool

    def draw(self, source: Random) -> str:
        """One of them: a whole number, or one of three significant digits."""
        if self.is_whole:  # each n has the room from n - 1/2 to n + 1/2
            value = math.exp(source.uniform(math.log(self.low - 0.5), math.log(self.high + 0.5)))
            return str(min(max(round(value), int(self.low)), int(self.high)))
        value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        return f"{min(max(float(f'{value:.{_DIGITS}g}'), self.low), self.high):g}"


@dataclass(frozen=True)
class Axis:
    """A setting and the values it takes, as written; or the range that they are drawn from."""

    name: str
    values: tuple[str, ...]
    range: Range | None = None

    @property
    def varies(self) -> bool:
        """Whether it takes more than one value."""
        return self.range is not None or len(self.values) > 1


@dataclass(frozen=True)
class Drawing:
    """How many combinations a random sweep takes, and the seed of the draw."""

    count: int
    seed: int = 0


def parse_axis(override: str) -> Axis:
    """The axis that `key=value,value` or `key=low..high` means; commas inside brackets and quotes separate nothing.

    Raises:
        ConfigError: it is not of that form, a value is empty or given twice, or a range has no logarithm or no width.
    """
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"{override!r} is not of the form key=value,value", hint="for example train.lr=1e-4,5e-4")
    between = _RANGE.fullmatch(text.strip())
    if between:
        return Axis(name, (), _range(override, *between.groups()))
    values = tuple(split_values(text))
    if len(values) > 1 and "" in values:
        raise ConfigError(f"{override!r}: a value is empty", hint="values are separated by single commas")
    twice = next((each for each in values if values.count(each) > 1), None)
    if twice is not None:
        raise ConfigError(f"{override!r}: the value {twice} is given twice")
    return Axis(name, values)


def split_values(text: str) -> Iterator[str]:
    """The parts of a text between commas that stand in no bracket and no quotes."""
    depth, quote, start = 0, "", 0
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth <= 0:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def combinations(axes: Sequence[Axis], drawing: Drawing | None) -> list[Combination]:
    """All combinations of the axes, the last one changing fastest; or as many different ones at random, as asked.

    Repetitions (`seed=1,2,3`) are made of every combination, drawn or not, and follow each other.

    Raises:
        ConfigError: an axis is given twice, a range without a random draw, or there are not so many combinations.
    """
    names = [axis.name for axis in axes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice", hint=f"all values of it in one place: {twice}=…,…")
    seeds = [axis for axis in axes if axis.name == SEED]
    others = [axis for axis in axes if axis.name != SEED]
    ranged = next((axis.name for axis in axes if axis.range is not None and (drawing is None or axis in seeds)), None)
    if ranged is not None:
        hint = "seed=1,2,3" if ranged == SEED else "--random N draws N combinations from it"
        raise ConfigError(f"{ranged}: a range is no list of values", hint=hint)
    chosen = _all(others) if drawing is None else _drawn(others, drawing)
    return [(*each, *seed) for each in chosen for seed in _all(seeds)]


def _range(override: str, low: str, high: str) -> Range:
    first, last = float(low), float(high)
    if not 0 < first < last < math.inf:
        raise ConfigError(
            f"{override!r}: a range goes from a number above 0 to a larger one",
            hint="numbers are drawn by their logarithm, as in train.lr=1e-5..1e-3",
        )
    is_whole = low.lstrip("+").isdigit() and high.lstrip("+").isdigit()
    return Range(first, last, is_whole)


def _all(axes: Sequence[Axis]) -> list[Combination]:
    return [tuple(zip((axis.name for axis in axes), each, strict=True)) for each in product(*(a.values for a in axes))]


def _drawn(axes: Sequence[Axis], drawing: Drawing) -> list[Combination]:
    found = list(islice(_different(axes, drawing.seed), drawing.count))
    if len(found) < drawing.count:
        raise ConfigError(
            f"--random {drawing.count}: there are only {len(found)} combinations",
            hint="a smaller --random, more values, or a range as in train.lr=1e-5..1e-3",
        )
    return found


def _different(axes: Sequence[Axis], seed: int) -> Iterator[Combination]:
    """Combinations in the order they are drawn, each once. A longer sweep begins with those of a shorter one."""
    seen: set[Combination] = set()
    number = repeated = 0
    while repeated < _TRIES:
        source = generator("sweep", seed, number)
        each = tuple((a.name, a.range.draw(source) if a.range else source.choice(a.values)) for a in axes)
        number, repeated = number + 1, repeated + 1
        if each not in seen:
            seen.add(each)
            repeated = 0
            yield each

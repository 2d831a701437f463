"""Questions about unit conversion: generated, seeded, split without leaks, each with a worked chain.

A conversion is a triple (quantity, from, to). A keyed hash of the triple puts it into `train` or `valid`, so all its
phrasings and spellings are held out together. Quantity 1 is always `train`: it states the factor itself. The embedded
model's text is generated under the same rule, so it never saw a held-out triple either.

The worked chain states the factor to three significant digits, multiplies one decimal place of the quantity at a
time and keeps a running sum; every number in it is rounded to the last digit of the first product:

    347 ft in m:   1 ft=0.305 m; 300:91.5; 40:+12.2=103.7; 7:+2.1=105.8; <answer>105.8</answer>

Its result is within 1.5 % of the exact one, well inside the usual tolerance of 5 %.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Literal

from ramify.base import rng
from ramify.base.errors import TaskError
from ramify.base.types import Message, Problem
from ramify.tasks.units import UNITS, Unit, find_unit

Split = Literal["train", "valid"]

MAX_QUANTITY = 999
_FACTORS = (Fraction(2, 1000), Fraction(20_000))  # pairs of units further apart are not asked about
_ANSWERS = (Fraction(1, 20), Fraction(1_000_000))  # answers outside read badly and round to nothing
_VALID_ONE_IN = 10

PHRASINGS: tuple[str, ...] = (
    "How do we express {n} {a} in terms of {b}?",
    "Could you give the conversion from {a} to {b} for {n} units?",
    "What is {n} {a} in {b}?",
    "Convert {n} {a} to {b}.",
    "How many {b} are there in {n} {a}?",
    "How many {b} are in {n} {a}?",
    "How much is {n} {a} in {b}?",
    "Please convert {n} {a} into {b}.",
    "Can you convert {n} {a} to {b}?",
    "What does {n} {a} equal in {b}?",
    "Express {n} {a} in {b}.",
    "{n} {a} is how many {b}?",
    "{n} {a} equals how many {b}?",
    "What would {n} {a} be in {b}?",
    "Change {n} {a} to {b}.",
    "I have {n} {a}. How many {b} is that?",
    "What is the {b} equivalent of {n} {a}?",
    "Tell me how many {b} make up {n} {a}.",
    "What is the measurement of {n} {a} when converted to {b}?",
    "How does {n} {a} translate to {b}?",
    "Can you tell me how many {b} {n} {a} is?",
    "Do you know how many {b} are equal to {n} {a}?",
    "Give me {n} {a} in {b}.",
    "What number of {b} corresponds to {n} {a}?",
    "If something measures {n} {a}, what is it in {b}?",
    "Work out {n} {a} in {b}.",
    "Turn {n} {a} into {b}.",
    "How would you write {n} {a} in {b}?",
    "I need {n} {a} in {b}.",
    "Calculate the number of {b} in {n} {a}.",
    "What do you get when you convert {n} {a} to {b}?",
    "In {b}, how much is {n} {a}?",
    "Measured in {b}, what is {n} {a}?",
    "How many {b} do {n} {a} make?",
    "Find the value of {n} {a} in {b}.",
    "What is the result of converting {a} to {b} for {n}?",
    "Convert from {a} to {b}: {n}",
    "From {a} to {b}, what is {n}?",
    "Switch from {a} to {b} for the number {n}.",
    "What is the conversion of {a} to {b} for the value {n}?",
    "Going from {a} to {b}, how much is {n}?",
    "Could you tell me the value in {b} if the amount in {a} is {n}?",
    "How many {b} are equivalent to {n} {a}?",
    "Help me convert {n} {a} to {b}.",
    "Determine the {b} in {n} {a}.",
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """How much `quantity` of `source` is in `target`."""

    quantity: int
    source: Unit
    target: Unit

    @property
    def exact(self) -> Fraction:
        """The exact answer."""
        return self.quantity * self.source.size / self.target.size

    @property
    def answer(self) -> float:
        """The gold answer: the exact one to five significant digits."""
        return float(f"{float(self.exact):.5g}")

    @property
    def split(self) -> Split:
        """`valid` for about one triple in ten, by a hash of the triple; quantity 1 is always `train`."""
        if self.quantity == 1:
            return "train"
        held_out = rng.key("unit_conversion", self.quantity, self.source.symbol, self.target.symbol) % _VALID_ONE_IN
        return "valid" if held_out == 0 else "train"

    @property
    def sensible(self) -> bool:
        """Whether the answer has a size worth asking for (0.05 to a million)."""
        return _ANSWERS[0] <= self.exact <= _ANSWERS[1]


def convert(quantity: int, source: str, target: str) -> Conversion:
    """The conversion of `quantity` of the unit spelled `source` to the unit spelled `target`.

    Raises:
        TaskError: a unit is unknown, the units measure different things, or the quantity is below 1.
    """
    a, b = find_unit(source), find_unit(target)
    if a.dimension != b.dimension:
        raise TaskError(f"{source!r} measures {a.dimension}, but {target!r} measures {b.dimension}")
    if quantity < 1:
        raise TaskError(f"quantity is {quantity}, but must be a whole number of at least 1")
    return Conversion(quantity, a, b)


@cache
def unit_pairs() -> tuple[tuple[Unit, Unit], ...]:
    """Ordered pairs of units of one dimension whose factor lies between 0.002 and 20,000."""
    return tuple(
        (a, b)
        for a in UNITS
        for b in UNITS
        if a is not b and a.dimension == b.dimension and _FACTORS[0] <= a.size / b.size <= _FACTORS[1]
    )


def draw(generator: random.Random, split: Split, max_quantity: int = MAX_QUANTITY) -> Conversion:
    """A random sensible conversion of `split`, pairs of units and quantities 1 … `max_quantity` equally likely."""
    for _ in range(10_000):
        source, target = generator.choice(unit_pairs())
        conversion = Conversion(generator.randint(1, max_quantity), source, target)
        if conversion.sensible and conversion.split == split:
            return conversion
    raise TaskError(
        f"no conversion with quantities 1 to {max_quantity} is in the {split} split", hint="raise max_quantity"
    )


def ask(conversion: Conversion, generator: random.Random) -> str:
    """The question in a random phrasing and random spellings."""
    return generator.choice(PHRASINGS).format(
        n=conversion.quantity,
        a=generator.choice(conversion.source.spellings),
        b=generator.choice(conversion.target.spellings),
    )


def questions(n: int, seed: int, split: Split, max_quantity: int = MAX_QUANTITY) -> list[Problem]:
    """`n` different conversions of one split as problems; the same seed gives the same list, and fewer its beginning.

    No triple and no question text occurs twice, within a list or between the two splits.

    Raises:
        TaskError: the split holds fewer than `n` conversions up to `max_quantity`.
    """
    generator = rng.generator("unit_conversion questions", seed, split, max_quantity)
    chosen: dict[Conversion, None] = {}
    repeats = 0  # in a row
    while len(chosen) < n:
        drawn = draw(generator, split, max_quantity)
        repeats = repeats + 1 if drawn in chosen else 0
        chosen[drawn] = None
        if repeats > 1000:
            raise TaskError(
                f"only {len(chosen)} of {n} different {split} conversions found with quantities up to {max_quantity}",
                hint="ask for fewer, or raise max_quantity",
            )
    return [
        _problem(conversion, f"unit_conversion/{split}/{seed}/{i}", f"unit_conversion generator, seed {seed}")
        for i, conversion in enumerate(chosen)
    ]


def _problem(conversion: Conversion, name: str, source: str) -> Problem:
    # The wording is drawn by name, so it does not depend on how many questions are asked.
    return Problem(
        id=name,
        prompt=(Message("user", ask(conversion, rng.generator("unit_conversion wording", name))),),
        answer=conversion.answer,
        solution=worked(conversion),
        source=source,
        category=conversion.source.dimension,
    )


def write_pairs(problems: Iterable[Problem], path: Path) -> None:
    """Write `[question, answer]` pairs, one JSON list with one pair a line."""
    rows = [json.dumps([problem.prompt[-1].content, problem.answer], ensure_ascii=False) for problem in problems]
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")


def tagged(answer: str) -> str:
    """`<answer>…</answer>`."""
    return f"<answer>{answer}</answer>"


def worked(conversion: Conversion) -> str:
    """The chain and the tagged answer it ends in."""
    steps, result = chain(conversion)
    return f"{steps} {tagged(result)}"


def chain(conversion: Conversion) -> tuple[str, str]:
    """The worked steps (see the module's top) and their result as written."""
    mantissa, exponent = _three_digits(conversion.source.size / conversion.target.size)
    return _chain(conversion, mantissa, exponent)


def _chain(conversion: Conversion, mantissa: int, exponent: int) -> tuple[str, str]:
    factor = _plain(decimal(mantissa, exponent))
    steps = [f"1 {conversion.source.symbol}={factor} {conversion.target.symbol};"]
    *sums, result = multiply(conversion.quantity, mantissa, exponent)
    steps += [f"{step};" for step in sums]
    return " ".join(steps), result


def multiply(quantity: int, mantissa: int, exponent: int) -> list[str]:
    """Steps of quantity x mantissa x 10^exponent, one decimal place a step, and as last item the result.

    All products are rounded to the last digit of the first one, so that sums line up.
    """
    digits = str(quantity)
    scale = exponent + len(digits) - 1
    steps, total = [], 0
    for i, digit in enumerate(digits):
        if digit == "0":
            continue
        product = math.floor(Fraction(int(digit) * mantissa, 10**i) + Fraction(1, 2))
        total += product
        place = digit + "0" * (len(digits) - 1 - i)
        text = decimal(product, scale)
        steps.append(f"{place}:{text}" if i == 0 else f"{place}:+{text}={decimal(total, scale)}")
    return [*steps, decimal(total, scale)]


def _three_digits(value: Fraction) -> tuple[int, int]:
    """(mantissa of three digits, exponent): the value to three significant digits."""
    mantissa, exponent = f"{float(value):.2e}".split("e")
    return int(mantissa.replace(".", "")), int(exponent) - 2


def decimal(mantissa: int, exponent: int) -> str:
    """mantissa x 10^exponent without an exponent: (915, -1) is `91.5`, (64, 3) is `64000`."""
    if exponent >= 0:
        return str(mantissa * 10**exponent)
    digits = str(mantissa).rjust(1 - exponent, "0")
    return f"{digits[:exponent]}.{digits[exponent:]}"


def _plain(text: str) -> str:
    """Without zeros that say nothing: `60.0` is `60`."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def short(value: float, digits: int = 4) -> str:
    """A number as people write it, to `digits` significant digits and without an exponent."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return _plain(decimal(int(mantissa.replace(".", "")), int(exponent) - digits + 1))

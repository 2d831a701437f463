"""Numbers in answers: how they are read, and when they are right.

Reading. The answer is what stands after the first `<answer>` up to `</answer>`; a missing close tag is accepted when
the rest can be read. A plain decimal number is read as it is; what else is understood is said in `Parsed.notes`:

    1,000  1 000  1_000   thousands_separator         $5  €5       currency
    6 kg   5%             unit_after_number           3/4  1 1/2   fraction
    1e3    2 × 10^3       exponent                    = 6  ≈6      prefix
    <answer>6             unclosed_tag                nan  inf     not_finite

Rightness (`correct`). With r(x) = x rounded to 3 decimals, an answer is correct when

    |r(answer) - r(gold)| < tolerance * |r(gold)|          strictly; noise in a gold (5999.999999999999) is harmless.

That rule rejects everything when r(gold) is 0. A gold of exactly 0 is therefore met by an answer that itself rounds to
0 (|answer| <= 0.0005), and a gold too small for 3 decimals (0.0004) is compared unrounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from ramify.base.types import Problem, Reason, Sample, Stop, Verdict

OPEN, CLOSE = "<answer>", "</answer>"
DECIMALS = 3

_DIGITS = r"(?:\d+(?:\.\d*)?|\.\d+)"
_GROUPED = r"\d{1,3}(?:(?P<separator>[,_' \u00a0\u2009\u202f])\d{3})(?:(?P=separator)\d{3})*(?:\.\d+)?"
_POWER = r"(?:[eE][+-]?\d+|\s*[×x*·]\s*10\s*(?:\^|\*\*)\s*\{?[+-]?\d+\}?)"
_NUMBER = re.compile(
    rf"(?P<prefix>[=≈~]\s*)?(?P<sign>[+-]?)\s*(?P<currency>[$€£]\s*)?"
    rf"(?:(?P<whole>\d+\s+)?(?P<top>\d+)\s*/\s*(?P<bottom>\d+)|(?:(?P<grouped>{_GROUPED})|(?P<plain>{_DIGITS}))(?P<power>{_POWER})?)"
    rf"(?P<rest>.*)"
)
# One to four words, no further number: kg, %, miles per hour, m/s, cm^3, m**3, m²; letters may carry an exponent.
# No character is in two of the alternatives (² and ³ belong to the first), or a long run of it would never end.
_WORD = r"(?=[^\W\d_]|[%°$€£\"'(])(?:[^\W\d_]|[%°/·*^$€£\"'().-]|(?<=[^\W\d_])[23]|(?<=\^)-?[23]|(?<=\*)[23])+"
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE | re.ASCII)
_UNIT = re.compile(rf"\s*{_WORD}(?: {_WORD}){{0,3}}\.?")


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was read in an answer.

    Attributes:
        value: the number (it may be nan or infinite, which is never right), or None when there is none.
        notes: how it was read when it was not read plainly (see the module's table).
    """

    value: float | None
    notes: tuple[str, ...] = ()


_NOTHING = Parsed(None)


def parse_answer(text: str) -> Parsed:
    """The number in the first answer tag of a text."""
    _, opened, rest = text.partition(OPEN)
    if not opened:
        return _NOTHING
    inside, closed, _ = rest.partition(CLOSE)
    parsed = parse_number(inside)
    if closed or parsed.value is None:
        return parsed
    return replace(parsed, notes=(*parsed.notes, "unclosed_tag"))


def parse_number(text: str) -> Parsed:
    """The number that a text consists of, read as the table at the top of the module says."""
    text = text.strip().replace("\u2212", "-")
    if _NOT_FINITE.fullmatch(text):
        return Parsed(float(text), ("not_finite",))
    found = _NUMBER.fullmatch(text)
    if found is None:
        return _NOTHING
    value = _fraction(found) if found["top"] else _decimal(found)
    rest = found["rest"]
    if value is None or (rest.strip() and not _UNIT.fullmatch(rest)):
        return _NOTHING
    notes = {
        "prefix": found["prefix"],
        "currency": found["currency"],
        "fraction": found["top"],
        "thousands_separator": found["grouped"],
        "exponent": found["power"],
        "unit_after_number": rest.strip(" ."),
        "not_finite": not math.isfinite(value),
    }
    return Parsed(-value if found["sign"] == "-" else value, tuple(name for name, there in notes.items() if there))


def _fraction(found: re.Match[str]) -> float | None:
    bottom = _integer(found["bottom"])
    if not bottom:
        return None
    try:
        return float(_integer(found["whole"] or "0") + Fraction(_integer(found["top"]), bottom))
    except OverflowError:
        return math.inf


def _decimal(found: re.Match[str]) -> float:
    digits = found["plain"] or found["grouped"].replace(found["separator"], "")
    power = re.sub(r"\s*[×x*·]\s*10\s*(?:\^|\*\*)\s*\{?([+-]?\d+)\}?", r"e\1", found["power"] or "")
    return float(digits + power)


def _integer(digits: str) -> int:
    return int(digits) if len(digits) < 400 else 10**400  # beyond a float anyway; keeps the conversion fast


def correct(answer: float, gold: float, tolerance: float = 0.05) -> bool:
    """Whether an answer is right: strictly within a relative tolerance, both rounded to 3 decimals (see above)."""
    if not math.isfinite(answer) or not math.isfinite(gold):
        return False
    a, c = round(answer, DECIMALS), round(gold, DECIMALS)
    if c != 0:
        return abs(a - c) < tolerance * abs(c)
    return a == 0 if gold == 0 else abs(answer / gold - 1) < tolerance


def write_number(value: float) -> str:
    """A gold as a completion states it: rounded to 3 decimals without trailing zeros; `correct` always accepts it.

    A value too small for 3 decimals keeps 4 significant digits; beyond 1e15 it is written with an exponent.
    """
    rounded = round(value, DECIMALS)
    if rounded == 0 and value != 0:
        return f"{value:.4g}"
    if abs(rounded) >= 1e15:
        return repr(rounded)
    return (f"{rounded:.{DECIMALS}f}".rstrip("0").rstrip(".")) if rounded else "0"


def judge(problem: Problem, sample: Sample, parsed: Parsed, is_right: Callable[[float], bool]) -> Verdict:
    """The verdict on what was read in a sample."""
    value = parsed.value
    if value is None:
        reason = Reason.TRUNCATED if sample.stop is Stop.LENGTH else Reason.NO_ANSWER
    else:
        reason = Reason.CORRECT if is_right(value) else Reason.WRONG
    return Verdict(
        problem_id=problem.id,
        sample_index=sample.index,
        reward=float(reason is Reason.CORRECT),
        reason=reason,
        answer=str(value) if value is not None and not math.isfinite(value) else value,
        notes=parsed.notes,
    )

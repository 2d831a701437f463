"""Rules about what an answer states as data: a number, or JSON.

Numbers are read as `ramify.tasks.numbers` reads them: digits with thousands separators, a currency sign, an exponent,
a fraction. Numbers in words (`seven`) are none.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ramify.base.errors import TaskError, unknown
from ramify.tasks.chat.finding import Answer, Check, Finding, Spot, listed
from ramify.tasks.numbers import correct, parse_number

_EXACT = 1e-6
_GROUPS = r"\d{1,3}(?:[, _'\u00a0\u2009\u202f]\d{3})+(?!\d)"
_FOUND = re.compile(
    rf"(?<![\w.,/])[+-]?[$€£]?(?:\d+\s?/\s?\d+(?![\d/])|(?:{_GROUPS}|\d+)(?:\.\d+)?(?:[eE][+-]?\d+(?!\w))?)"
)
_GROWING = "0123456789.,/_' \t\n\u00a0\u2009\u202f+-\u2212eE$€£"
"""What a number at the end of a cut-off answer may consist of: `3,4` may become `3,400`."""
_WHICH = ("any", "first", "last", "only")
_FENCE = re.compile(r"\A```\w*\n(.*?)\n?```\Z", re.DOTALL)
_IS_A: Mapping[str, Callable[[Any], bool]] = {
    "any": lambda value: True,
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


def numeric(value: Any, spot: Spot) -> Check:
    """The answer states a number: `42`, or `{value: 9.81, tolerance: 0.01, which: last}`.

    The tolerance is relative, strictly less than, as in `ramify.tasks.numbers`; without one the number is exact.
    `which` says what counts where there are several: `any` (the usual), the `first`, the `last`, or `only` where there
    must be no other.

    Raises:
        TaskError: the number, the tolerance or `which` is none.
    """
    given = spot.options(value, "value", ("tolerance", "which"))
    gold, tolerance = _number(given["value"], spot), given.get("tolerance")
    which = given.get("which", "any")
    if tolerance is not None and _number(tolerance, spot.inside("tolerance")) <= 0:
        raise spot.inside("tolerance").error("a number above 0", tolerance)
    if which not in _WHICH:
        raise TaskError(f"{spot.where}: {unknown('which', str(which), _WHICH)}")

    def is_right(number: float) -> bool:
        return abs(number - gold) <= _EXACT * abs(gold) if tolerance is None else correct(number, gold, tolerance)

    def check(answer: Answer) -> Finding:
        found = numbers_in(answer.text)
        counted = {"first": found[:1], "last": found[-1:]}.get(which, found)
        right = [is_right(number) for number in counted]
        holds = any(right) and (which != "only" or all(right))
        final = _is_settled(which, [is_right(number) for number in numbers_in(answer.text.rstrip(_GROWING))])
        return Finding(holds, final, f"numbers: {listed([f'{each:g}' for each in found])}" if found else "no number")

    return check


def _is_settled(which: str, right: Sequence[bool]) -> bool:
    """Whether the numbers that cannot grow any more decide it."""
    if which == "first":
        return bool(right)
    return any(right) if which == "any" else which == "only" and not all(right)


def numbers_in(text: str) -> list[float]:
    """The finite numbers that a text states in digits, in order."""
    parsed = (parse_number(each[0]).value for each in _FOUND.finditer(text.replace("\u2212", "-")))
    return [each for each in parsed if each is not None and math.isfinite(each)]


def is_json(value: Any, spot: Spot) -> Check:
    """The answer is one JSON document and nothing else; a code fence around it is accepted.

    `true`, or `{keys: [name, age]}`, `{keys: {name: text, age: number}, only: true}`: an object with these keys, of
    these types, and with `only` no others.

    Raises:
        TaskError: keys or types are none.
    """
    given = spot.options(value, "keys", ("only",)) if isinstance(value, dict) else {}
    if not isinstance(value, dict) and not spot.flag(value):
        raise spot.error("true, or {keys: […]},", value, "not: {json: true} is the opposite")
    kinds = _kinds(given.get("keys", []), spot.inside("keys"))
    only = spot.inside("only").flag(given.get("only", False))

    def check(answer: Answer) -> Finding:
        wrong = _wrong_with(answer.text, kinds if given else None, only)
        return Finding(wrong is None, False, wrong or "valid JSON")

    return check


def _wrong_with(text: str, kinds: Mapping[str, str] | None, only: bool) -> str | None:
    """What is wrong with a text as JSON, or None."""
    fenced = _FENCE.match(text.strip())
    try:
        held = json.loads(fenced[1] if fenced else text, parse_constant=_refuse)
    except RecursionError:
        return "JSON nested too deeply"
    except ValueError as error:
        return f"not valid JSON: {error}"
    if kinds is None:
        return None
    if not isinstance(held, dict):
        return f"JSON, but {type(held).__name__} and no object"
    missing = [name for name in kinds if name not in held]
    other = [f"{name} is no {kind}" for name, kind in kinds.items() if name in held and not _IS_A[kind](held[name])]
    more = [name for name in held if name not in kinds] if only else []
    said = [f"lacks {listed(missing)}" if missing else "", ", ".join(other), f"also has {listed(more)}" if more else ""]
    return "; ".join(filter(None, said)) or None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _kinds(value: Any, spot: Spot) -> dict[str, str]:
    """The type that each key must have."""
    if not isinstance(value, dict):
        return dict.fromkeys(spot.texts(value) if value != [] else (), "any")
    for kind in value.values():
        if not isinstance(kind, str) or kind not in _IS_A:
            raise TaskError(f"{spot.where}: {unknown('type', str(kind), _IS_A)}")
    return {str(name): kind for name, kind in value.items()}


def _number(value: Any, spot: Spot) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise spot.error("a finite number", value)
    return float(value)

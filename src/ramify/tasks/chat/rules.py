"""Rules that a person can read: each is a name with a value, written in a row or in a file.

    rules:
      - contains: Paris                    all of the texts         - refusal: true          declines what was asked
      - contains_any: [Paris, Lutetia]     one of them              - not_refusal: true      does not
      - not_contains: London               none of them             - polite: true           polite words, no rude ones
      - starts_with: Yes                                            - length: {words: [3, 20]}
      - ends_with: "?"                                              - language: en
      - equals: Paris                                               - json: {keys: [name, age]}
      - regex: '^\\d+$'                                              - numeric: {value: 42, tolerance: 0.05}
      - not_regex: '!{2,}'                                          - stops: true            ended by itself
      - similar: {text: It is in Paris., at_least: 0.6, model: nano}
      - any_of: [{contains: Paris}, {contains: Lutetia}]            - all_of: […]            - not: {contains: London}

A rule that can be given as `true` may stand alone: `- polite`. `docs/rules.md` has an example of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from ramify.base.errors import TaskError, unknown
from ramify.base.records import to_plain
from ramify.tasks.chat import languages, lengths, manners, patterns, similar, texts, values
from ramify.tasks.chat.finding import Answer, Check, Finding, Spot, negated, short

Maker = Callable[[Any, Spot], Check]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, ready to be asked.

    Attributes:
        name: which one it is; value: as it is written.
    """

    name: str
    value: Any
    check: Check

    @property
    def key(self) -> tuple[str, str]:
        """What rules that are written alike have in common."""
        return self.name, repr(self.value)

    def ask(self, answer: Answer) -> Finding:
        """What it finds in an answer; of one that has ended, every finding is final."""
        found = self.check(answer)
        return Finding(found.holds, True, found.seen) if answer.ended else found

    def __str__(self) -> str:
        return self.name if self.value is True else f"{self.name} {short(_as_written(self.value))}"


def _as_written(value: Any) -> str:
    """A value in one line, as it stands in a file of rules; a text alone without quotes."""
    return value if isinstance(value, str) else _flow(json.dumps(to_plain(value)))


@lru_cache(maxsize=4096)
def _flow(plain: str) -> str:
    """JSON as YAML in one line; kept, because it takes longer than most rules, and few rules stand in many rows."""
    line = yaml.safe_dump(json.loads(plain), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return line.removesuffix("...\n").strip()


def parse_rules(written: Any, where: str) -> tuple[Rule, ...]:
    """Rules as they are written: a list of `{name: value}` and of names alone, or one map of them.

    Raises:
        TaskError: one is unknown (names the nearest), or its value is none it can have; begins with `where`.
    """
    given = [{name: value} for name, value in written.items()] if isinstance(written, dict) else written
    if not isinstance(given, list | tuple) or not given:
        raise Spot(where).error("a list of rules", written)
    try:
        return tuple(_parse_rule(each, f"{where}[{index}]") for index, each in enumerate(given))
    except RecursionError:
        raise TaskError(f"{short(where)}: rules are nested too deeply") from None


def _parse_rule(written: Any, where: str) -> Rule:
    pairs = {written: True} if isinstance(written, str) else written
    if not isinstance(pairs, Mapping) or len(pairs) != 1:
        raise Spot(where).error("one rule, as in {contains: Paris},", written)
    ((name, value),) = pairs.items()
    if name not in _MAKERS:
        raise TaskError(f"{where}: {unknown('rule', str(name), _MAKERS)}")
    return Rule(str(name), value, _MAKERS[name](value, Spot(f"{where}: {name}")))


def _stops(value: Any, spot: Spot) -> Check:
    """The answer ended by itself or at a stop string (`true`), or was cut off (`false`)."""
    wanted = spot.flag(value)
    return lambda answer: Finding(answer.ended is wanted, True, "ended" if answer.ended else "was cut off")


def _all_of(value: Any, spot: Spot) -> Check:
    """All of the rules hold."""
    rules = parse_rules(value, spot.where)

    def check(answer: Answer) -> Finding:
        found = [rule.ask(answer) for rule in rules]
        failed = [(rule, each) for rule, each in zip(rules, found, strict=True) if not each.holds]
        final = any(each.final for _, each in failed) if failed else all(each.final for each in found)
        return Finding(not failed, final, told(failed) if failed else "all hold")

    return check


def _any_of(value: Any, spot: Spot) -> Check:
    """At least one of the rules holds."""
    rules = parse_rules(value, spot.where)

    def check(answer: Answer) -> Finding:
        found = [(rule, rule.ask(answer)) for rule in rules]
        held = [(rule, each) for rule, each in found if each.holds]
        final = any(each.final for _, each in held) if held else all(each.final for _, each in found)
        return Finding(bool(held), final, told(held or found))

    return check


def _not(value: Any, spot: Spot) -> Check:
    """The rule does not hold."""
    rules = parse_rules([value] if isinstance(value, str) else value, spot.where)
    if len(rules) != 1:
        raise spot.error("one rule (any_of and all_of join several)", value)
    return negated(rules[0].check)


def told(findings: Sequence[tuple[Rule, Finding]]) -> str:
    """Rules with what was seen: `contains Paris: 'Paris' not found; …`."""
    return "; ".join(f"{rule}: {found.seen}" for rule, found in findings)


_MAKERS: Mapping[str, Maker] = {
    "contains": texts.contains,
    "contains_any": texts.contains_any,
    "not_contains": texts.not_contains,
    "starts_with": texts.starts_with,
    "ends_with": texts.ends_with,
    "equals": texts.equals,
    "regex": patterns.matches,
    "not_regex": patterns.not_matches,
    "refusal": manners.refusal,
    "not_refusal": manners.not_refusal,
    "polite": manners.polite,
    "length": lengths.length,
    "language": languages.language,
    "json": values.is_json,
    "numeric": values.numeric,
    "similar": similar.similar,
    "stops": _stops,
    "all_of": _all_of,
    "any_of": _any_of,
    "not": _not,
}
RULES = tuple(_MAKERS)
"""Every rule by its name."""

"""Which rule of open answers fails how often, a column an arm: as the evaluations counted it (see `rule_rates`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ramify.base.errors import RunError
from ramify.evaluate import words
from ramify.evaluate.compare.arms import Arm
from ramify.evaluate.compare.facts import Table
from ramify.evaluate.scores import Rate
from ramify.evaluate.stages import Stage


def rule_table(arms: Sequence[Arm]) -> Table:
    """Share of answers that fulfil each rule, of the problems that ask for it; no rows where no rules were asked.

    Of several training seeds it is the mean. The rule that the last arm fails most often comes first.

    Raises:
        RunError: the scores of an evaluation cannot be read.
    """
    counted = {arm.name: [_rules(stage) for stage in arm.stages] for arm in arms}
    names = {name: found for each in counted.values() for rules in each for name, found in rules.items()}
    rows = [
        [name, f"{found['problems']:,}", *(_share(name, each) for each in counted.values())]
        for name, found in sorted(names.items(), key=lambda each: each[1]["rate"]["value"])
    ]
    return Table(["rule", "problems", *counted], rows)


def _share(name: str, counted: Sequence[Mapping[str, Any]]) -> str:
    found = [Rate(**rules[name]["rate"]) for rules in counted if name in rules]
    if not found:
        return "–"
    return words.rate(found[0]) if len(found) == 1 else words.percent(fmean(each.value for each in found))


def _rules(stage: Stage) -> Mapping[str, Any]:
    """What scores.json says of rules: name -> rate and problems."""
    path = stage.folder / "scores.json"
    try:
        rules = json.loads(path.read_text(encoding="utf-8")).get("rules") or {}
        for found in rules.values():
            Rate(**found["rate"])
            int(found["problems"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path}: its rules cannot be read: {type(error).__name__}: {error}") from None
    return dict(rules)

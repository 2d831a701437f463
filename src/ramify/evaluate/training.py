"""What a report shows of training runs: curves, what they cost, and what rejection sampling drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ramify.evaluate import page
from ramify.evaluate.charts import Curve, line_chart
from ramify.evaluate.stages import Stage

_COSTS = {
    "data_seconds": "data loading",
    "reference_seconds": "reference",
    "training_seconds": "training",
    "computed_tokens": "tokens computed",
    "saved_tokens": "tokens saved",
}
"""Entries of a training run's run.json, and what they are called."""


def training_section(stages: Sequence[Stage]) -> str:
    """Loss curves of each stage that was trained, and what its training cost; nothing when none was."""
    return page.section("Training", _curves(stages), _costs(stages))


def yield_section(stages: Sequence[Stage]) -> str:
    """What rejection sampling drew and kept; nothing when there was none."""
    return page.section("Rejection sampling", *(_yield(stage) for stage in stages))


def _costs(stages: Sequence[Stage]) -> str:
    """Seconds and tokens; entries that no run has are left out."""
    records = {stage.name: stage.artefact("run.json") or {} for stage in stages if stage.training is not None}
    known = [name for name in _COSTS if any(_is_number(record.get(name)) for record in records.values())]
    rows = [[stage, *(_cost(name, record.get(name)) for name in known)] for stage, record in records.items()]
    return page.table(["", *(_COSTS[name] for name in known)], rows) if known else ""


def _cost(name: str, value: Any) -> str:
    if not _is_number(value):
        return "–"
    return f"{value:,.1f} s" if name.endswith("_seconds") else f"{value:,.0f}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _curves(stages: Sequence[Stage]) -> str:
    charts = []
    for stage in stages:
        train, valid = stage.metrics("train", "loss"), stage.metrics("eval", "loss")
        if train or valid:
            curves = [Curve("training", train, "train"), Curve("validation", valid, "valid")]
            charts.append(line_chart(f"{stage.name}: loss", "step", curves))
    return f"<div class='grid2'>{''.join(charts)}</div>" if charts else ""


def _yield(stage: Stage) -> str:
    """What rejection sampling drew and kept, a column a round."""
    rounds = (stage.artefact("yield.json") or {}).get("rounds", [])
    accounts = [_account(found) for found in rounds]
    names = list(dict.fromkeys(name for account in accounts for name in account))
    rows = [[name, *(account.get(name, "0") for account in accounts)] for name in names]
    columns = ["", *(f"round {number}" for number in range(1, len(rounds) + 1))]
    return f"<h3>{escape(stage.name)}</h3>{page.table(columns, rows)}" if rows else ""


def _account(found: Mapping[str, Any]) -> dict[str, str]:
    figures = {name.replace("_", " "): value for name, value in found.items() if isinstance(value, int | float)}
    refused = {f"refused: {name.replace('_', ' ')}": count for name, count in found.get("refused", {}).items()}
    everything = {**figures, **refused}.items()
    return {name: f"{value:.3f}" if isinstance(value, float) else f"{value:,}" for name, value in everything}

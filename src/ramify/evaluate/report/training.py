"""What a report shows of training runs: curves, what they cost, and what rejection sampling drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ramify.evaluate.compare.arms import Arm
from ramify.evaluate.compare.facts import Table
from ramify.evaluate.report import page
from ramify.evaluate.report.charts import Curve, line_chart
from ramify.evaluate.report.visible import isolated
from ramify.evaluate.stages import Stage

_COSTS = {
    "data_seconds": "data loading",
    "reference_seconds": "reference",
    "training_seconds": "training",
    "computed_tokens": "tokens computed",
    "saved_tokens": "tokens saved",
}
"""Entries of a training run's run.json, and what they are called."""
_CURVES = {"loss": "loss", "accuracy": "pairs in the right order"}
"""Entries of metrics, and what their chart is called."""


def training_section(arms: Sequence[Arm]) -> str:
    """Curves of each arm that was trained, its seeds in one chart, and what training cost; nothing when none was."""
    costs = cost_table([stage for arm in arms for stage in arm.stages])
    return page.section("Training", _curves(arms), page.table(*costs))


def yield_section(stages: Sequence[Stage]) -> str:
    """What rejection sampling drew and kept; nothing when there was none."""
    return page.section("Rejection sampling", *(_yield(stage) for stage in stages))


def cost_table(stages: Sequence[Stage]) -> Table:
    """Seconds and tokens; entries that no run has are left out."""
    records = {stage.name: stage.artefact("run.json") or {} for stage in stages if stage.training is not None}
    known = [name for name in _COSTS if any(_is_number(record.get(name)) for record in records.values())]
    rows = [[stage, *(_cost(name, record.get(name)) for name in known)] for stage, record in records.items()]
    return Table(["", *(_COSTS[name] for name in known)], rows if known else [])


def _cost(name: str, value: Any) -> str:
    if not _is_number(value):
        return "–"
    return f"{value:,.1f} s" if name.endswith("_seconds") else f"{value:,.0f}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _curves(arms: Sequence[Arm]) -> str:
    charts = []
    once = {arm.trainings: arm for arm in reversed(arms)}  # one training may be measured in several ways
    for arm in (arm for arm in arms if once[arm.trainings] is arm):
        for name, title in _CURVES.items():
            curves = [curve for stage in arm.stages for curve in _of(stage, name)]
            if curves:
                charts.append(line_chart(f"{arm.name}: {title}", "step", curves))
    return f"<div class='grid2'>{''.join(charts)}</div>" if charts else ""


def _of(stage: Stage, name: str) -> list[Curve]:
    """A training and a validation curve; those without points are left out."""
    found = [
        Curve("training", stage.metrics("train", name), "train"),
        Curve("validation", stage.metrics("eval", name), "valid"),
    ]
    return [curve for curve in found if curve.points]


def _yield(stage: Stage) -> str:
    """What rejection sampling drew and kept, a column a round."""
    rounds = (stage.artefact("yield.json") or {}).get("rounds", [])
    accounts = [_account(found) for found in rounds]
    names = list(dict.fromkeys(name for account in accounts for name in account))
    rows = [[name, *(account.get(name, "0") for account in accounts)] for name in names]
    columns = ["", *(f"round {number}" for number in range(1, len(rounds) + 1))]
    return f"<h3>{isolated(stage.name)}</h3>{page.table(columns, rows)}" if rows else ""


def _account(found: Mapping[str, Any]) -> dict[str, str]:
    figures = {name.replace("_", " "): value for name, value in found.items() if isinstance(value, int | float)}
    refused = {f"refused: {name.replace('_', ' ')}": count for name, count in found.get("refused", {}).items()}
    everything = {**figures, **refused}.items()
    return {name: f"{value:.3f}" if isinstance(value, float) else f"{value:,}" for name, value in everything}

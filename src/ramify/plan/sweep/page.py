"""The page of a sweep: rates with their intervals, what the highest one is better than, and every run. No script."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.evaluate import words
from ramify.evaluate.compare.contrasts import Contrast
from ramify.evaluate.report import page
from ramify.evaluate.report.plots import bars, forest
from ramify.evaluate.report.visible import isolated, visible
from ramify.evaluate.report.write import estimate
from ramify.evaluate.scores import Rate
from ramify.evaluate.statistics.findings import Outcome
from ramify.plan.amounts import gigabytes
from ramify.plan.sweep.results import Row, Setting, SweepResult

_OUTCOMES = {Outcome.BETTER: "worse", Outcome.WORSE: "better", Outcome.NOT_SHOWN: "cannot be told"}
"""What a setting is when the highest one is this against it."""


def sweep_page(name: str, result: SweepResult) -> str:
    """The page as HTML; `name` is the sweep's."""
    over = f"{len(result.rows)} runs of {len(result.settings)} settings"
    body = [
        f"<p class='over'>{visible(over)}</p><h1>{isolated(f'Sweep {name}')}</h1>",
        page.paragraph(_sentence(result.verdict), "lead"),
        page.section("Accuracy by setting", bars(_rates(result)), _grid(result)),
        page.section("The highest against each other one", _differences(result)),
        page.section("To be known", page.bullets(result.notes)),
        page.section("Settings", setting_table(result)),
        page.section("Runs", run_table(result.rows)),
    ]
    return page.page(f"Sweep {name}", "\n".join(part for part in body if part))


def setting_table(result: SweepResult) -> str:
    """Settings by their rate, the highest first."""
    found = [[str(cell) for cell in row] for row in setting_rows(result)]
    return page.table(SETTING_COLUMNS, found, words=(5,))


SETTING_COLUMNS = ("setting", "accuracy (95 %)", "answer rate", "seeds", "highest minus it", "")


def setting_rows(result: SweepResult) -> list[tuple[str, str, str, int, str, str]]:
    """A row for each setting: rate, answer rate, seeds, and how far the highest one is above it."""
    against = {each.before.name: each for each in result.contrasts}
    return [_setting_row(each, against.get(each.label), each is result.best) for each in result.ranked]


def run_table(rows: Sequence[Row]) -> str:
    """Every run with its outcome."""
    found = [
        [
            row.run.name,
            "–" if row.stage is None else words.percent(row.stage.scores.accuracy.value),
            "–" if row.seconds is None else f"{row.seconds:,.0f} s",
            "–" if not row.peak else gigabytes(row.peak),
            row.error or row.status,
        ]
        for row in rows
    ]
    return page.table(("run", "accuracy", "seconds", "peak memory", "outcome"), found, words=(4,))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _setting_row(setting: Setting, contrast: Contrast | None, is_best: bool) -> tuple[str, str, str, int, str, str]:
    if setting.arm is None:
        return setting.label, "–", "–", 0, "–", "no run is finished"
    scores = setting.arm.scores
    points = "–" if contrast is None else words.points(contrast.overall.paired)
    said = "highest" if is_best else "" if contrast is None else _OUTCOMES[contrast.overall.outcome]
    rates = words.rate(scores.accuracy), words.percent(scores.answer_rate.value)
    return setting.label, *rates, setting.arm.seeds, points, said


def _rates(result: SweepResult) -> list[tuple[str, Rate]]:
    return [(each.label, each.accuracy) for each in result.settings if each.accuracy is not None]


def _differences(result: SweepResult) -> str:
    if result.best is None:
        return ""
    ordered = sorted(result.contrasts, key=lambda each: each.overall.paired.difference)
    rows = [estimate(each.before.name, each.overall) for each in ordered]
    return forest(f"{result.best.label} minus the others", rows, "points")


def _grid(result: SweepResult) -> str:
    """Of two settings that were varied, a table with one across and one down."""
    names = list(dict.fromkeys(name for each in result.settings for name in each.settings))
    if len(names) != 2:
        return ""
    down, across = (list(dict.fromkeys(each.settings[name] for each in result.settings)) for name in names)
    if len(down) * len(across) != len(result.settings):  # drawn at random: most places would be empty
        return ""
    cells = {(each.settings[names[0]], each.settings[names[1]]): each.accuracy for each in result.settings}
    columns = (f"{names[0]} \\ {names[1]}", *across)
    return page.table(columns, [[one, *(_percent(cells[one, other]) for other in across)] for one in down])


def _percent(rate: Rate | None) -> str:
    return "–" if rate is None else words.percent(rate.value)

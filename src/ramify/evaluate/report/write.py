"""The report of a comparison: one HTML file, with the figures of the comparison and of the run folders behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ramify.base.records import write_text
from ramify.base.types import Reason
from ramify.evaluate import words
from ramify.evaluate.compare import facts
from ramify.evaluate.compare.arms import Arm
from ramify.evaluate.compare.comparison import Comparison
from ramify.evaluate.compare.contrasts import Contrast
from ramify.evaluate.report import markdown, page
from ramify.evaluate.report.examples import flip_section
from ramify.evaluate.report.extras import Extras
from ramify.evaluate.report.plots import Estimate, Kind, Shape, bars, forest, stacked
from ramify.evaluate.report.rating_tables import rating_sections
from ramify.evaluate.report.rule_table import rule_table
from ramify.evaluate.report.training import training_section, yield_section
from ramify.evaluate.report.visible import isolated, visible
from ramify.evaluate.stages import Stage
from ramify.evaluate.statistics.findings import Finding, Outcome

_SHAPES = {Outcome.BETTER: Shape.UP, Outcome.WORSE: Shape.DOWN, Outcome.NOT_SHOWN: Shape.OPEN}
_STYLES = {Reason.CORRECT: "right", Reason.WRONG: "wrong", Reason.NO_ANSWER: "no_answer", Reason.TRUNCATED: "truncated"}
_PLOTTED = 40
"""Categories that a plot shows."""


def write_report(path: Path, comparison: Comparison, extras: Extras | None = None) -> None:
    """Write the report: as Markdown to a file whose name ends in .md, else as HTML.

    Raises:
        RunError: the file cannot be written.
    """
    is_markdown = path.suffix.lower() in (".md", ".markdown")
    write_text(path, (markdown.render if is_markdown else render)(comparison, extras))


def render(comparison: Comparison, extras: Extras | None = None) -> str:
    """The report as HTML."""
    more = Extras() if extras is None else extras
    arms, found, leading = comparison.arms, comparison.contrasts, facts.leading(comparison)
    stages = [stage for arm in arms for stage in arm.stages]
    body = [
        f"<p class='over'>{visible(facts.subject(comparison))}</p><h1>{isolated(comparison.title)}</h1>",
        *(_verdict(each) for each in leading),
        *(page.paragraph(note) for note in more.notes),
        page.bullets(comparison.notes),
        page.section("Accuracy", bars([(arm.name, arm.scores.accuracy) for arm in arms])),
        page.section("Compared question by question", _forest("", overall(found)), page.table(*facts.overall(found))),
        page.section("By category", *(_categories(each) for each in leading)),
        page.section("Form of the answers", _forms(arms), page.table(*facts.form_table(found))),
        page.section("Answers and their length", *tables(facts.answer_table(arms), facts.change_table(found))),
        page.section("Several samples", *tables(facts.chances(found), facts.votes(arms))),
        page.section("Rules", page.table(*rule_table(arms))),
        *rating_sections(stages),
        *(flip_section(each) for each in leading),
        training_section(arms),
        page.section("What was trained", page.table(*facts.trained(comparison))),
        yield_section(stages),
        *(page.section(title, page.table(*each)) for title, each in more.sections.items()),
        page.section("Settings that differ", page.table(*facts.settings(comparison))),
        page.section("How this was counted", page.bullets(facts.method(comparison))),
        page.section("Runs", page.table(*facts.folders(stages)), *(_records(stage) for stage in stages)),
        "<footer>Made by Ramify from the run folders named under Runs.</footer>",
    ]
    return page.page(comparison.title, "\n".join(part for part in body if part))


def tables(*found: facts.Table) -> list[str]:
    """Tables as HTML."""
    return [page.table(*each) for each in found]


def _verdict(contrast: Contrast) -> str:
    kind = contrast.overall.outcome.value
    said = f"<b>{isolated(contrast.after.name)} against {isolated(contrast.before.name)}</b>"
    within = f"<br>by category: {visible(contrast.by_category)}" if contrast.categories else ""
    return f"<p class='lead verdict {kind}'>{said}<br>{visible(contrast.verdict)}{within}</p>"


def overall(contrasts: Sequence[Contrast]) -> dict[str, Finding]:
    """What each contrast claims about correctness, by its name."""
    return {facts.title(each): each.overall for each in contrasts}


def _categories(contrast: Contrast) -> str:
    """A contrast by category: all in a plot as far as it can be read, then in a folded table."""
    if not contrast.categories:
        return ""
    every = {"all": contrast.overall, **contrast.categories}
    shown = dict(list(every.items())[: _PLOTTED + 1])
    left = len(every) - len(shown)
    note = page.paragraph(f"{left} more categories are in the table.", "quiet") if left else ""
    claims = page.table(*facts.claims(contrast.categories))
    return _forest(facts.title(contrast), shown) + note + page.folded("The same as a table", claims)


def _forest(title: str, found: Mapping[str, Finding]) -> str:
    rows = [estimate(name, each, strong=name == "all") for name, each in found.items()]
    return forest(title, rows, "difference in points, 95 % interval")


def estimate(name: str, found: Finding, *, strong: bool = False) -> Estimate:
    """A row of a forest plot, in points."""
    pair = found.paired
    value, low, high = (100 * each for each in (pair.difference, pair.low, pair.high))
    return Estimate(name, value, low, high, _SHAPES[found.outcome], words.points(pair), words.outcome(found), strong)


def _forms(arms: Sequence[Arm]) -> str:
    kinds = [Kind(name, _STYLES[reason]) for reason, name in facts.FORMS.items()]
    return stacked("", kinds, [(arm.name, list(facts.forms(arm).values())) for arm in arms])


def _records(stage: Stage) -> str:
    """The records of an evaluation, and of the training before it, to unfold."""
    made = [_record(f"{stage.name}: evaluation", stage.folder, stage.record)]
    training = stage.artefact("run.json")
    if training is not None and stage.training is not None:
        made.append(_record(f"{stage.name}: training", stage.training, training))
    return "".join(made)


def _record(title: str, folder: Path, record: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in record.items() if value not in (None, {}, [])}
    text = yaml.safe_dump({"folder": str(folder), **shown}, sort_keys=False, allow_unicode=True, width=100)
    return page.details(title, text)

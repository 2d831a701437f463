"""What a report and a terminal show of ratings: one row of measures a stage, the same by group, and who gave what."""

from __future__ import annotations

from collections.abc import Sequence

from ramify.evaluate import words
from ramify.evaluate.compare.facts import Table
from ramify.evaluate.ratings import Agreement, Confusion
from ramify.evaluate.report import page
from ramify.evaluate.report.visible import isolated, visible
from ramify.evaluate.stages import Stage

MEASURES = (
    "accuracy",
    "most frequent",
    "kappa",
    "precision",
    "recall",
    "F1",
    "one off",
    "better",
    "worse",
    "unusable",
    "grades",
)
_EXPLAINED = (
    "Most frequent: accuracy of always giving each criterion's most frequent rating. Kappa: quadratic weighted (Cohen "
    "1968), of usable outputs. Precision, recall, F1: macro averages. Kappa and macro averages are taken within each "
    "criterion and averaged by its grades. One off: at most one rating away. Better, worse: than the assistant's."
)
_NO_VALUE = "(none)"
_NAMED = {"category": "lab and criterion"}


def measures(found: Agreement) -> list[str]:
    """The figures of `MEASURES`, written out."""
    shares = (found.one_off, found.better, found.worse, found.unusable)
    return [
        words.rate(found.accuracy),
        words.percent(found.baseline),
        _kappa(found),
        *(words.percent(share) for share in (found.precision, found.recall, found.f1)),
        *(words.percent(share) for share in shares),
        str(found.n),
    ]


def rating_table(stages: Sequence[Stage]) -> Table:
    """The measures of each stage; no rows without ratings."""
    rows = [[stage.name, *measures(stage.ratings.overall)] for stage in stages if stage.ratings is not None]
    return Table(["", *MEASURES], rows)


def rating_sections(stages: Sequence[Stage]) -> list[str]:
    """Sections of a report: the measures of each stage, the same by group, confusion matrices; none without ratings."""
    overall = [(stage.name, stage.ratings.overall) for stage in stages if stage.ratings is not None]
    if not overall:
        return []
    explained = page.paragraph(_EXPLAINED, "quiet")
    matrices = [_matrices(name, found.confusions) for name, found in overall]
    return [
        page.section("Agreement with the assistant", page.table(*rating_table(stages)), explained),
        page.section("Accuracy and kappa by group", *(_grouping(name, stages) for name in _groupings(stages))),
        page.section("Ratings given", *matrices),
    ]


def _groupings(stages: Sequence[Stage]) -> list[str]:
    """What to divide by: every grouping with several values, and the split, whose one name says what was measured."""
    found = [(name, groups) for stage in stages if stage.ratings for name, groups in stage.ratings.groups.items()]
    return list(dict.fromkeys(name for name, groups in found if len(groups) > 1 or name == "split"))


def _grouping(name: str, stages: Sequence[Stage]) -> str:
    """One grouping: accuracy and kappa, a column a stage, and all measures to unfold."""
    every = [(stage.name, stage.ratings.groups.get(name, {})) for stage in stages if stage.ratings is not None]
    found = [(stage, groups) for stage, groups in every if groups]
    rows, full = [], []
    for value in dict.fromkeys(value for _, groups in found for value in groups):
        known = [(stage, groups.get(value)) for stage, groups in found]
        first = next(each for _, each in known if each is not None)
        figures = [_accuracy_and_kappa(each) for _, each in known]
        rows.append([value or _NO_VALUE, *figures, words.percent(first.baseline), str(first.n)])
        own = [[stage, *measures(each)] for stage, each in known if each is not None]
        full.append(f"<h4>{isolated(value or _NO_VALUE)}</h4>{page.table(['', *MEASURES], own)}")
    columns = ["", *(stage for stage, _ in found), "most frequent", "grades"]
    shown = _NAMED.get(name, name)
    everything = page.folded(f"All measures by {shown}", "".join(full))
    return f"<h3>By {visible(shown)}</h3>{page.table(columns, rows)}{everything}"


def _accuracy_and_kappa(found: Agreement | None) -> str:
    return "–" if found is None else f"{words.percent(found.accuracy.value)}, {_kappa(found)}"


def _matrices(name: str, confusions: Sequence[Confusion]) -> str:
    """The confusion matrices of a stage: one for each set of rating names."""
    made = []
    for each in confusions:
        rows = list(zip(each.ratings, each.counts, strict=True))
        made.append(page.matrix("assistant ↓ given →", [*each.ratings, "unusable"], rows))
    return f"<h3>{isolated(name)}</h3><div class='grid2'>{''.join(made)}</div>" if made else ""


def _kappa(found: Agreement) -> str:
    return "–" if found.kappa is None else f"{found.kappa:.2f}".replace("-0.00", "0.00").replace("-", "−")

"""The report of a comparison as GitHub-flavoured Markdown: the tables of the page, and a few answers.

Whatever somebody wrote is text here too: names are escaped, answers stand in fenced blocks that they cannot close.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ramify.evaluate.compare import facts
from ramify.evaluate.compare.chosen import chosen
from ramify.evaluate.compare.comparison import Comparison
from ramify.evaluate.compare.contrasts import Contrast, Flip
from ramify.evaluate.compare.facts import Table
from ramify.evaluate.compare.nearest import Near
from ramify.evaluate.report.examples import NAMES, about, figure, marked, placed, question, reading, shown_of
from ramify.evaluate.report.extras import Extras
from ramify.evaluate.report.marking import differences
from ramify.evaluate.report.rating_tables import rating_table
from ramify.evaluate.report.rule_table import rule_table
from ramify.evaluate.report.training import cost_table
from ramify.evaluate.report.visible import clipped, plain

_MEANT = re.compile(r"([\\`*_\[\]#|~@$<>&]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
_BEGUN = re.compile(r"^(\d*)([-+=.)])(?=[\s=-]|$)")  # a list, or the line under a heading
_OLD, _NEW = ("[-", "-]"), ("{+", "+}")


def _within(contrast: Contrast) -> str:
    return f". By category: {escaped(contrast.by_category)}" if contrast.categories else ""


def render(comparison: Comparison, extras: Extras | None = None) -> str:
    """The report as Markdown."""
    more = Extras() if extras is None else extras
    found, leading = comparison.contrasts, facts.leading(comparison)
    stages = [stage for arm in comparison.arms for stage in arm.stages]
    parts = [
        f"# {escaped(comparison.title)}",
        escaped(facts.subject(comparison)),
        *(f"**{escaped(facts.title(each))}:** {escaped(each.verdict)}{_within(each)}" for each in leading),
        *map(escaped, more.notes),
        bullets(comparison.notes),
        _section("Accuracy, answers and their length", facts.answer_table(comparison.arms), facts.change_table(found)),
        _section("Compared question by question", facts.overall(found)),
        *(_section(f"By category: {facts.title(each)}", facts.claims(each.categories)) for each in leading),
        _section("Form of the answers", facts.form_counts(comparison.arms), facts.form_table(found)),
        _section("Several samples", facts.chances(found), facts.votes(comparison.arms)),
        _section("Rules", rule_table(comparison.arms)),
        _section("Agreement with the assistant", rating_table(stages)),
        *(_answers(each) for each in leading),
        _section("Training", cost_table(stages)),
        _section("What was trained", facts.trained(comparison)),
        *(_section(title, each) for title, each in more.sections.items()),
        _section("Settings that differ", facts.settings(comparison)),
        f"## How this was counted\n\n{bullets(facts.method(comparison))}",
        _section("Runs", facts.folders(stages)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Text of one line that Markdown and HTML find nothing in."""
    return _BEGUN.sub(r"\1\\\2", _MEANT.sub(r"\\\1", " ".join(plain(text).splitlines())))


def fenced(text: str) -> str:
    """A block of text that ends where the text does."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def table(found: Table) -> str:
    """A table; nothing without rows."""
    if not found.rows:
        return ""
    rules = [":---" if i == 0 or i in found.words else "---:" for i in range(len(found.columns))]
    lines = [_line(map(escaped, found.columns)), _line(rules), *(_line(map(escaped, row)) for row in found.rows)]
    return "\n".join(lines)


def bullets(sentences: Sequence[str]) -> str:
    """A list of sentences."""
    return "\n".join(f"- {escaped(each)}" for each in sentences)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _section(title: str, *tables: Table) -> str:
    shown = [table(each) for each in tables if each.rows]
    return "\n\n".join([f"## {escaped(title)}", *shown]) if shown else ""


def _answers(contrast: Contrast) -> str:
    """A few flips of each kind; what differs is between `[-` and `-]` before, between `{+` and `+}` after."""
    before, after = contrast.before.name, contrast.after.name
    parts = [
        f"## {escaped(f'Answers: {before} and {after}')}",
        escaped(f"Marked: [-only before-], {{+only after+}}. {about(contrast)}"),
    ]
    for kind, name in NAMES.items():
        shown = chosen(contrast, kind)
        parts.append(f"### {name}: {shown_of(len(shown), len(contrast.of_kind(kind)))}")
        parts += [_answer(flip, before, after, contrast.near.get(flip.problem.id, ())) for flip in shown]
    return "\n\n".join(parts)


def _answer(flip: Flip, before: str, after: str, near: Sequence[Near]) -> str:
    asked, rest = question(flip.problem)
    gold = "" if flip.problem.answer is None else f" (gold: {escaped(clipped(figure(flip.problem.answer), 300))})"
    old, new = differences(clipped(flip.before.text), clipped(flip.after.text))
    return "\n\n".join(
        [
            f"**{escaped(asked)}**{gold}",
            *([fenced(plain(clipped(rest, 4000)))] if rest else []),
            f"{escaped(before)}: {escaped(reading(flip.before_verdict))}",
            fenced(marked(old, plain, *_OLD)),
            f"{escaped(after)}: {escaped(reading(flip.after_verdict))}",
            fenced(marked(new, plain, *_NEW)),
            *(["Training rows nearest to it:"] if near else []),
            *(part for each in near for part in (escaped(placed(each)), fenced(plain(clipped(each.row.text, 400))))),
        ]
    )

"""Answers that turned from wrong to right or from right to wrong, side by side, with their differences marked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ramify.base.types import Problem, Reason, Verdict
from ramify.evaluate.compare.chosen import SHOWN, chosen
from ramify.evaluate.compare.contrasts import Contrast, Flip, FlipKind
from ramify.evaluate.compare.nearest import Near
from ramify.evaluate.report import page
from ramify.evaluate.report.marking import Passage, differences
from ramify.evaluate.report.visible import clipped, isolated, visible

LISTED = 60
"""Answers of a kind that are listed, where there are no more."""
NAMES = {FlipKind.FIXED: "Fixed", FlipKind.BROKEN: "Broken"}
FOUND = {
    Reason.CORRECT: "correct",
    Reason.WRONG: "wrong",
    Reason.NO_ANSWER: "no answer",
    Reason.TRUNCATED: "cut off before an answer",
    Reason.ERROR: "the grader failed",
}
_LINE, _READ = 160, 60


def flip_section(contrast: Contrast) -> str:
    """A few of the flips of each kind, drawn at random, and a list of all where they are few."""
    before, after = contrast.before.name, contrast.after.name
    told = about(contrast)
    parts = [page.paragraph(told, "quiet") if told else ""]
    for kind, name in NAMES.items():
        flips, shown = contrast.of_kind(kind), chosen(contrast, kind)
        parts.append(f"<h3>{name} <span class='quiet'>{shown_of(len(shown), len(flips))}</span></h3>")
        parts += [_card(flip, before, after, contrast.near.get(flip.problem.id, ())) for flip in shown]
        parts.append(_list(f"All {len(flips)} {name.lower()}", flips, before, after) if len(flips) > SHOWN else "")
    return page.section(f"Answers: {before} and {after}", *parts)


def about(contrast: Contrast) -> str:
    """Which answers are shown; nothing where a problem has one: else not all that the tables count are among them."""
    if all(arm.scores.samples <= arm.scores.n for arm in (contrast.before, contrast.after)):
        return ""
    return "Shown are first answers, of the first training seed; the tables count all answers."


def shown_of(shown: int, total: int) -> str:
    """How many of how many are shown, in words."""
    if not total:
        return "none"
    return f"{shown} of {total:,}, drawn at random" if total > shown else f"all {total}"


def figure(value: Any) -> str:
    """An answer as written, or a number without needless digits."""
    return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value}"


def reading(verdict: Verdict) -> str:
    """What the grader found, what it read, and its notes."""
    read = "" if verdict.answer is None else f" (read as {clipped(figure(verdict.answer), _READ)})"
    notes = f" [{'; '.join(verdict.notes)}]" if verdict.notes else ""
    return f"{FOUND[verdict.reason]}{read}{notes}"


def question(problem: Problem) -> tuple[str, str]:
    """What an answer is headed with, and the rest: where there are options the question is long, and comes after."""
    text = problem.prompt[-1].content
    return (problem.category or problem.id, text) if problem.options else (clipped(text, 400), "")


def _card(flip: Flip, before: str, after: str, near: Sequence[Near]) -> str:
    title, rest = question(flip.problem)
    old, new = differences(clipped(flip.before.text), clipped(flip.after.text))
    gold = "" if flip.problem.answer is None else f"gold: {clipped(figure(flip.problem.answer), 300)}"
    answers = _answer(before, flip.before_verdict, old, "del") + _answer(after, flip.after_verdict, new, "ins")
    return (
        f"<article><h4>{isolated(title)} <span class='gold'>{isolated(gold)}</span></h4>"
        f"{page.details('question', clipped(rest, 4000)) if rest else ''}"
        f"<div class='grid2'>{answers}</div>{_nearest(near)}</article>"
    )


def _nearest(near: Sequence[Near]) -> str:
    """The training rows that a broken answer is nearest to."""
    if not near:
        return ""
    rows = [[isolated(place), page.said(clipped(each.row.text, 400))] for each in near for place in [placed(each)]]
    shown = "".join(f"<li>{place}{text}</li>" for place, text in rows)
    return f"<div class='near'>Training rows nearest to it<ul>{shown}</ul></div>"


def placed(near: Near) -> str:
    """Where a training row stands, how near it is, and which sample it was."""
    drawn_from = near.row.lineage
    from_sample = (
        f", sample {drawn_from.sample_index} of problem {drawn_from.problem_id} by {drawn_from.policy}, "
        f"seed {drawn_from.seed}, round {drawn_from.round}"
        if drawn_from
        else ""
    )
    return f"{near.row.source or 'a row'} (nearness {near.score:.2f}{from_sample})"


def _answer(name: str, verdict: Verdict, passages: Sequence[Passage], tag: str) -> str:
    good = verdict.reason is Reason.CORRECT
    kind, sign = ("good", "✓") if good else ("bad", "✗")
    mark = f"<span class='mark {kind}'>{sign} {isolated(reading(verdict))}</span>"
    return f"<div>{isolated(name)} {mark}{page.said_html(marked(passages, visible, f'<{tag}>', f'</{tag}>'))}</div>"


def marked(passages: Sequence[Passage], written: Callable[[str], str], begin: str, end: str) -> str:
    """Passages written out, those that changed between two marks."""
    return "".join(f"{begin}{written(p.text)}{end}" if p.changed else written(p.text) for p in passages)


def _list(title: str, flips: Sequence[Flip], before: str, after: str) -> str:
    """A line each, folded; nothing where there are too many to read."""
    if len(flips) > LISTED:
        return ""
    rows = [[_short(line) for line in listed(flip)] for flip in flips]
    return page.folded(title, page.table(["", "gold", before, after], rows, words=(1, 2, 3)))


def listed(flip: Flip) -> tuple[str, str, str, str]:
    """A flip as a row: question, gold answer, the two answers."""
    gold = "–" if flip.problem.answer is None else figure(flip.problem.answer)
    return question(flip.problem)[0], gold, flip.before.text, flip.after.text


def _short(text: str) -> str:
    return clipped(re.sub("[ \t\n]+", " ", text) or "(nothing)", _LINE)

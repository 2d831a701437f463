"""The report of a comparison: one HTML file made from run folders only; every figure in it is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

from ramify.base.records import write_text
from ramify.base.rng import generator
from ramify.base.types import Problem, Reason, Sample, Verdict
from ramify.evaluate import page, words
from ramify.evaluate.charts import bar_rows
from ramify.evaluate.rating_tables import rating_sections
from ramify.evaluate.scores import Paired
from ramify.evaluate.stages import Stage, compare, pairs_to_compare
from ramify.evaluate.training import training_section, yield_section

_SHOWN_CHARACTERS = 700
_EXAMPLES = 4
_FOUND = {
    Reason.CORRECT: "correct",
    Reason.WRONG: "wrong",
    Reason.NO_ANSWER: "no answer",
    Reason.TRUNCATED: "cut off before an answer",
    Reason.ERROR: "the grader failed",
}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a report shows.

    Attributes:
        stages: in the order of the work; the first is what the others are held against, the last is the result.
        notes: sentences of the caller under the headline.
        speed: measured rates: name -> (value, unit), shown as a table.
        tables: further sections by title, each a table: its columns, and its rows as words.
    """

    title: str
    stages: Sequence[Stage]
    notes: Sequence[str] = ()
    speed: Mapping[str, tuple[float, str]] | None = None
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]] | None = None


def write_report(path: Path, contents: Contents) -> None:
    """Write the report.

    Raises:
        RunError: a folder is not a finished evaluation, or the file cannot be written.
        DataError: stages were measured on different problems.
    """
    write_text(path, render(contents))


def render(contents: Contents) -> str:
    """The report as HTML."""
    stages = contents.stages
    found = [(a, b, compare(a, b)) for a, b in pairs_to_compare(stages)]
    body = [
        f"<p class='over'>{escape(_subject(stages))}</p><h1>{escape(contents.title)}</h1>",
        *(page.paragraph(words.headline(a.name, b.name, pair), "lead") for a, b, pair in _leading(stages, found)),
        *(page.paragraph(note) for note in contents.notes),
        page.section("Accuracy", bar_rows([(s.name, s.scores.accuracy) for s in stages]), _scores_table(stages)),
        page.section("Compared question by question", _paired_table(found)),
        *rating_sections(stages),
        training_section(stages),
        yield_section(stages),
        page.section("Speed", _speed(contents.speed)),
        *(page.section(title, page.table(*each)) for title, each in (contents.tables or {}).items()),
        *_examples(stages),
        page.section("Settings and versions", *(_settings(stage) for stage in stages)),
        "<footer>Intervals are 95 %: Wilson's for shares, Tango's for paired differences (a bootstrap over questions "
        "when there are several samples each); p is McNemar's exact test. "
        "Made by Ramify from the run folders named under Settings.</footer>",
    ]
    return page.page(contents.title, "\n".join(part for part in body if part))


def _subject(stages: Sequence[Stage]) -> str:
    settings = stages[0].record.get("config") or {}
    task = (settings.get("task") or {}).get("name", "")
    return f"{task} · {stages[0].scores.n} held-out questions · started from {settings.get('model', '')}"


def _leading(
    stages: Sequence[Stage], found: Sequence[tuple[Stage, Stage, Paired]]
) -> list[tuple[Stage, Stage, Paired]]:
    before = [id(stage) for stage in _rivals(stages)]
    return [entry for entry in found if entry[1] is stages[-1] and id(entry[0]) in before]


def _rivals(stages: Sequence[Stage]) -> list[Stage]:
    """What the last stage is held against: the first one, and the best of those between."""
    between = stages[1:-1]
    return [stages[0], *([max(between, key=lambda stage: stage.scores.accuracy.value)] if between else [])]


def _scores_table(stages: Sequence[Stage]) -> str:
    columns = ["", "correct", "answered", "ended by itself", "cut off", "new tokens", "questions"]
    most = max((max(s.scores.pass_at_k, default=1) for s in stages), default=1)
    columns += [f"pass@{most}", f"maj@{most}"] if most > 1 else []
    rows = []
    for stage in stages:
        s = stage.scores
        row = [stage.name, words.rate(s.accuracy), words.rate(s.answer_rate), words.percent(s.stop_rate.value)]
        row += [words.percent(s.truncated.value), f"{s.tokens:.1f}" if s.tokens else "–", str(s.n)]
        row += [_at(s.pass_at_k, most), _at(s.maj_at_k, most)] if most > 1 else []
        rows.append(row)
    errors = sum(stage.scores.errors for stage in stages)
    note = f"The grader failed on {errors} samples; they are in none of the rates." if errors else ""
    return page.table(columns, rows) + (page.paragraph(note) if note else "")


def _at(values: Mapping[int, float], k: int) -> str:
    return words.percent(values[k]) if k in values else "–"


def _paired_table(found: Sequence[tuple[Stage, Stage, Paired]]) -> str:
    rows = [
        [
            f"{a.name} → {b.name}",
            words.finding(pair),
            words.points(pair),
            str(pair.fixed),
            str(pair.broken),
            words.p_value(pair.p),
        ]
        for a, b, pair in found
    ]
    return page.table(["", "finding", "points", "fixed", "broken", "p"], rows, words=(1,))


def _figure(value: Any) -> str:
    return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value}"


def _speed(speed: Mapping[str, tuple[float, str]] | None) -> str:
    rows = [
        [name, f"{value:,.1f}" if value < 100 else f"{value:,.0f}", unit]
        for name, (value, unit) in (speed or {}).items()
    ]
    return page.table(["", "measured", "unit"], rows, words=(2,))


def _examples(stages: Sequence[Stage]) -> list[str]:
    if len(stages) < 2:
        return []
    return [_example_section(stage, stages[-1]) for stage in _rivals(stages)]


def _example_section(before: Stage, after: Stage) -> str:
    old, new = _first_answers(before), _first_answers(after)
    both = [p for p in after.problems if p.id in old and p.id in new]
    kinds = {
        "fixed": [p for p in both if not _right(old[p.id]) and _right(new[p.id])],
        "broken": [p for p in both if _right(old[p.id]) and not _right(new[p.id])],
    }
    parts = []
    for kind, problems in kinds.items():
        chosen = _draw(problems, f"{kind} {before.name} {after.name}")
        note = (
            f"{len(chosen)} of {len(problems)}, drawn at random"
            if len(problems) > len(chosen)
            else f"all {len(problems)}"
        )
        parts.append(f"<h3>{kind.capitalize()} <span class='quiet'>{note if problems else 'none'}</span></h3>")
        parts += [_card(p, [(before.name, *old[p.id]), (after.name, *new[p.id])]) for p in chosen]
    return page.section(f"Answers: {before.name} and {after.name}", *parts)


def _first_answers(stage: Stage) -> dict[str, tuple[Sample, Verdict]]:
    """The first sample of each problem with its verdict."""
    verdicts = {v.problem_id: v for v in stage.verdicts if v.sample_index == 0}
    return {
        s.problem_id: (s, verdicts[s.problem_id]) for s in stage.samples if s.index == 0 and s.problem_id in verdicts
    }


def _right(answer: tuple[Sample, Verdict]) -> bool:
    return answer[1].reason is Reason.CORRECT


def _draw(problems: Sequence[Problem], name: str) -> list[Problem]:
    """A few of them, the same ones each time."""
    chosen = generator("report examples", name).sample(range(len(problems)), min(_EXAMPLES, len(problems)))
    return [problems[i] for i in sorted(chosen)]


def _card(problem: Problem, answers: Sequence[tuple[str, Sample, Verdict]]) -> str:
    cells = []
    for name, sample, verdict in answers:
        good = verdict.reason is Reason.CORRECT
        read = "" if verdict.answer is None else f" (read as {_figure(verdict.answer)})"
        kind, sign = ("good", "✓") if good else ("bad", "✗")
        mark = f"<span class='mark {kind}'>{sign} {_FOUND[verdict.reason]}{escape(read)}</span>"
        said = escape(_clip(sample.text)) or "<span class='quiet'>(nothing)</span>"
        cells.append(f"<div>{escape(name)} {mark}<div class='said'>{said}</div></div>")
    gold = escape(_figure(problem.answer))
    title, asked = _question(problem)
    return (
        f"<article><h4>{escape(title)} <span class='gold'>gold: {gold}</span></h4>{asked}"
        f"<div class='grid2'>{''.join(cells)}</div></article>"
    )


def _question(problem: Problem) -> tuple[str, str]:
    """What a card is headed with, and HTML of the rest: where there are options the question is long, and unfolds."""
    question = problem.prompt[-1].content
    if not problem.options:
        return _clip(question), ""
    return problem.category or problem.id, page.details("question", question)


def _clip(text: str) -> str:
    left = len(text) - _SHOWN_CHARACTERS
    return text if left <= 0 else f"{text[:_SHOWN_CHARACTERS]} … ({left} more characters)"


def _settings(stage: Stage) -> str:
    made = [_record(f"{stage.name}: evaluation", stage.folder, stage.record)]
    training = stage.artefact("run.json")
    if training is not None and stage.training is not None:
        made.append(_record(f"{stage.name}: training", stage.training, training))
    return "".join(made)


def _record(title: str, folder: Path, record: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in record.items() if value not in (None, {}, [])}
    text = yaml.safe_dump({"folder": str(folder), **shown}, sort_keys=False, allow_unicode=True, width=100)
    return page.details(title, text)

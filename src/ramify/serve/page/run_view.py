"""A run folder as HTML. Whatever stands in its files is shown as text; a report is locked into a frame of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ramify.base.errors import RamifyError, RunError
from ramify.base.types import Reason, Sample, Verdict
from ramify.evaluate import words
from ramify.evaluate.compare.comparison import compare_runs
from ramify.evaluate.report import page as html
from ramify.evaluate.report.charts import Curve, line_chart
from ramify.evaluate.report.write import render
from ramify.evaluate.stages import Stage
from ramify.export.card import parity_head, parity_lines, parity_rows
from ramify.serve.page.run_folder import curve, evaluations, exports, record_of

_CHARTS = (("loss", "loss"), ("accuracy", "pairs in the right order"), ("tokens_per_second", "tokens a second"))
"""Entries of metrics, and what their chart is called."""
_FIGURES = ("loss", "lr", "grad_norm", "margin", "tokens", "tokens_per_second")
_SAMPLES = 12
_CHARACTERS = 1200


def progress_view(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """What is going on: status, last figures, curves."""
    record = record_of(folder)
    measured = record.get("kind") == "evaluation"
    training = "" if measured else html.section("Training", _last(rows), _charts(rows))
    return _run(html.section("Run", _about(record)), training)


def evaluation_view(folder: Path) -> str:
    """What the run's evaluations found, its exports, and the first answers of its own evaluation.

    Sentences where there are none.
    """
    try:
        found = evaluations(folder)
        if not found:
            return _run(html.paragraph("This run was not evaluated.", "quiet"), _exports(folder))
        scores, answers = _scores(found), _samples(found[0])
    except (RamifyError, KeyError, TypeError, ValueError) as error:
        return _run(html.paragraph(f"The evaluation cannot be read: {error}", "quiet"), _exports(folder))
    return _run(html.section("Evaluation", scores), _exports(folder), html.section("Answers", answers))


def written_report(path: Path) -> str:
    """A report that was written before, in a frame where nothing runs and nothing is fetched.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return framed(path.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from None


def made_report(before: Path, after: Path) -> str:
    """The report of two evaluated runs, made now.

    Raises:
        RamifyError: one was not evaluated, or they were asked different questions.
    """
    return framed(render(compare_runs([before, after], title="Before and after", each=True)))


def framed(document: str) -> str:
    """A document in a frame without scripts, forms, links that leave it, or an origin."""
    return f"<iframe class='report' title='report' sandbox srcdoc='{escape(document)}'></iframe>"


def _run(*parts: str) -> str:
    return f"<div class='run'>{''.join(parts)}</div>"


def _about(record: Mapping[str, Any]) -> str:
    config = record.get("config") or {}
    data = config.get("data") or {}
    known = {
        "status": record.get("status"),
        "kind": record.get("kind") or config.get("method"),
        "model": config.get("model"),
        "rows": data.get("train"),
        "started": record.get("started"),
        "seconds": record.get("seconds"),
        "command": record.get("command"),
    }
    rows = [[name, str(value)] for name, value in known.items() if value not in (None, "")]
    return f"<div class='about'>{html.table(['', ''], rows, words=(1,))}</div>"


def _last(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures of the last line of training."""
    last = next((row for row in reversed(rows) if row.get("kind") == "train"), None)
    if last is None:
        return html.paragraph("No step is done yet.", "quiet")
    figures = {name: last[name] for name in _FIGURES if isinstance(last.get(name), int | float)}
    shown = [f"{name.replace('_', ' ')} {_figure(value)}" for name, value in figures.items()]
    return html.paragraph(" · ".join([f"step {last.get('step')}", *shown]), "quiet")


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or value > 1000 else f"{value:.4g}"


def _charts(rows: Sequence[Mapping[str, Any]]) -> str:
    charts = []
    for name, title in _CHARTS:
        train, valid = curve(rows, "train", name), curve(rows, "eval", name)
        if train or valid:
            curves = [Curve("training", train, "train"), Curve("validation", valid, "valid")]
            charts.append(line_chart(title, "step", curves))
    return f"<div class='grid2'>{''.join(charts)}</div>" if charts else ""


def _scores(found: Sequence[Stage]) -> str:
    columns = ["", "correct", "answered", "ended by itself", "cut off", "new tokens", "questions"]
    rows = []
    for each in found:
        scores = each.scores
        rates = [words.rate(scores.accuracy), words.rate(scores.answer_rate)]
        rates += [words.percent(scores.stop_rate.value), words.percent(scores.truncated.value)]
        rows.append([each.name, *rates, f"{scores.tokens:.1f}", str(scores.n)])
    return html.table(columns, rows)


def _exports(folder: Path) -> str:
    """Whether each export of the run is the model that was trained: its parity table."""
    return "".join(html.section(f"Export {path.name}", _parity(record)) for path, record in exports(folder))


def _parity(record: Mapping[str, Any]) -> str:
    try:
        rows = parity_rows(record)
    except RunError as error:
        return html.paragraph(str(error), "quiet")
    failures = [html.paragraph(f"{row.stage}: {each}") for row in rows for each in row.failures]
    if not rows:
        return html.paragraph("It was not read back, so nothing is known of its parity.", "quiet")
    return html.table(parity_head(rows), parity_lines(rows)) + "".join(failures)


def _samples(found: Stage) -> str:
    """The first answers, each with its question and what the grader found."""
    verdicts = {(each.problem_id, each.sample_index): each for each in found.verdicts}
    problems = {problem.id: problem for problem in found.problems}
    shown = [sample for sample in found.samples if sample.problem_id in problems][:_SAMPLES]
    cards = [
        _card(problems[sample.problem_id].prompt[-1].content, sample, verdicts.get((sample.problem_id, sample.index)))
        for sample in shown
    ]
    return html.paragraph(f"the first {len(cards)} of {len(found.samples)}", "quiet") + "".join(cards)


def _card(question: str, sample: Sample, verdict: Verdict | None) -> str:
    mark = ""
    if verdict is not None:
        kind = "good" if verdict.reason is Reason.CORRECT else "bad"
        mark = f"<span class='mark {kind}'>{escape(verdict.reason.value.replace('_', ' '))}</span>"
    said = escape(_clip(sample.text)) or "<span class='quiet'>(nothing)</span>"
    return f"<article>{escape(_clip(question))} {mark}<div class='said'>{said}</div></article>"


def _clip(text: str) -> str:
    left = len(text) - _CHARACTERS
    return text if left <= 0 else f"{text[:_CHARACTERS]} … ({left} more characters)"

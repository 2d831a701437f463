"""Reports and comparisons are computed from run folders, escaped, offline, and silent about what cannot be shown."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from compare_setup import record
from rich.console import Console

from ramify.base.config import RunConfig, Sampling
from ramify.base.errors import DataError, RunError
from ramify.base.records import write_json
from ramify.base.runs import create_run
from ramify.base.types import Message, Problem, Reason, Sample, Stop, Verdict
from ramify.demo.narrator import Narrator
from ramify.evaluate.compare import facts
from ramify.evaluate.compare.comparison import compare_runs, compare_stages
from ramify.evaluate.report.charts import Curve, line_chart, ticks
from ramify.evaluate.report.extras import Extras
from ramify.evaluate.report.rule_table import rule_table
from ramify.evaluate.report.write import render, write_report
from ramify.evaluate.scores import Paired, paired
from ramify.evaluate.stages import Stage, evaluation_folder, named_stages, pairs_to_compare, same_questions, stage
from ramify.evaluate.words import p_value, points

NASTY = "<script>alert('x')</script> & \"quotes\""


def write_evaluation(folder: Path, right: set[int], n: int = 40, k: int = 1, question: str = "How many g in") -> Path:
    problems = [Problem(f"p{i}", (Message("user", f"{question} {i} kg? {NASTY}"),), 1000.0 * i) for i in range(n)]
    samples, verdicts = [], []
    for i, problem in enumerate(problems):
        for index in range(k):
            good = i in right
            text = f"{NASTY} <answer>{problem.answer if good else 7}</answer>"
            samples.append(Sample(problem.id, index, (1, 2), (0.0, 0.0), text, Stop.EOS))
            reason = Reason.CORRECT if good else Reason.WRONG
            verdicts.append(Verdict(problem.id, index, float(good), reason, problem.answer if good else 7.0))
    config = RunConfig(sample=Sampling(n=k, temperature=0.0 if k == 1 else 0.7))
    return record(folder, config, problems, samples, verdicts)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_evaluation(tmp_path / "base", right=set(range(4)))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    run = create_run(tmp_path / "tuned", RunConfig())
    for step in range(1, 31):
        run.log("train", step=step, loss=3.0 / step)
        if step % 10 == 0:
            run.log("eval", step=step, loss=3.2 / step)
    rounds = [{"questions": 50, "samples": 200, "pass_rate": 0.41, "refused": {"wrong": 118}}]
    write_json(run.folder / "yield.json", {"rounds": rounds})
    write_evaluation(run.folder / "eval", right=set(range(2, 30)))
    return run.folder


class Page(HTMLParser):
    """Tags, references to the outside, and text of a page; unclosed tags are found."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "line", "polyline", "circle", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_holds_everything_and_fetches_nothing(base: Path, trained: Path, tmp_path: Path) -> None:
    stages = [stage(base, "base"), stage(trained, "tuned")]
    extras = Extras(notes=["one & two"], speed={"together": (8123.0, "tokens/s")})
    write_report(tmp_path / "report.html", compare_stages(stages, title="A <report>"), extras)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert not page.references and "script" not in page.tags and "link" not in page.tags
    assert "url(" not in html and "@import" not in html
    for part in ("A <report>", "one & two", "8,123", "tuned: loss", "refused: wrong", "118", "Fixed", "Broken", NASTY):
        assert part in page.text
    assert "tuned against base" in page.text and "better: +60.0 points" in page.text
    assert html.count("<polyline") == 2


def test_the_last_stage_is_held_against_the_best_of_the_others(base: Path, trained: Path, tmp_path: Path) -> None:
    best = write_evaluation(tmp_path / "best", right=set(range(1, 20)))
    poor = write_evaluation(tmp_path / "poor", right={1})
    text = Page(render(compare_stages([stage(base), stage(best), stage(poor), stage(trained, "tuned")]))).text
    assert "Answers: base and tuned" in text and "Answers: best and tuned" in text
    assert "Answers: poor and tuned" not in text


def test_report_says_when_nothing_can_be_shown(base: Path, tmp_path: Path) -> None:
    other = write_evaluation(tmp_path / "other", right={1, 2, 3, 4, 5})
    text = Page(render(compare_stages([stage(base), stage(other)]))).text
    assert "other against base" in text and "no difference can be shown with n = 40" in text
    assert "cannot be told" in text


def test_report_of_several_samples_shows_pass_and_majority(tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name, right={1, 2}, k=4) for name in ("a", "b")]
    html = render(compare_stages(named_stages(folders)))
    assert "right at least once in 4" in html and "maj@4" in html


def test_rules_are_shown_as_they_were_counted(base: Path, tmp_path: Path) -> None:
    other = write_evaluation(tmp_path / "other", right={1, 2, 3})
    rate = {"value": 0.25, "low": 0.14, "high": 0.4}
    for folder, name in ((base, "contains <b>"), (other, "contains <b>"), (other, "refusal")):
        found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        rules = found.get("rules", {}) | {
            name: {"rate": rate | {"value": 0.5} if name == "refusal" else rate, "problems": 32}
        }
        write_json(folder / "scores.json", {**found, "rules": rules})
    columns, rows, _ = rule_table(compare_stages([stage(base), stage(other)]).arms)
    assert columns == ["rule", "problems", "base", "other"]
    assert rows == [
        ["contains <b>", "32", "25.0 % (14.0–40.0)", "25.0 % (14.0–40.0)"],
        ["refusal", "32", "–", "50.0 % (14.0–40.0)"],
    ]
    assert "contains <b>" in Page(render(compare_stages([stage(base), stage(other)]))).text
    for damaged in ("{", "[]", '{"rules": [1]}', '{"rules": {"polite": {"problems": 3}}}'):
        (other / "scores.json").write_text(damaged, encoding="utf-8")
        with pytest.raises(RunError, match="cannot be read"):
            rule_table(compare_stages([stage(base), stage(other)]).arms)


def test_report_of_equal_inputs_is_equal(base: Path, trained: Path) -> None:
    first, second = (render(compare_stages([stage(base), stage(trained)])) for _ in range(2))
    assert first == second


def test_stages_are_found_in_evaluations_and_runs(base: Path, trained: Path) -> None:
    assert evaluation_folder(base) == base
    assert evaluation_folder(trained) == trained / "eval"
    assert stage(trained).training == trained
    assert stage(trained / "eval").training == trained
    assert stage(base).training is None
    assert [each.name for each in named_stages([base, trained])] == ["base", "tuned"]


def test_runs_that_were_not_evaluated_are_refused(tmp_path: Path) -> None:
    create_run(tmp_path / "run", RunConfig())
    with pytest.raises(RunError, match="not an evaluated run"):
        evaluation_folder(tmp_path / "run")
    with pytest.raises(RunError, match="not there"):
        evaluation_folder(tmp_path / "missing")


def test_different_problems_are_not_compared(base: Path, tmp_path: Path) -> None:
    other = write_evaluation(tmp_path / "other", right=set(), question="How many mg in")
    with pytest.raises(DataError, match="another question"):
        same_questions(stage(base), stage(other))
    foreign = write_evaluation(tmp_path / "foreign", right=set(), n=1)
    rows = (foreign / "problems.jsonl").read_text(encoding="utf-8").replace('"p0"', '"q0"')
    (foreign / "problems.jsonl").write_text(rows, encoding="utf-8")
    with pytest.raises(DataError, match="no problem in common"):
        same_questions(stage(base), stage(foreign))


def test_compare_counts_pairs(base: Path, trained: Path) -> None:
    found = paired(stage(base).verdicts, stage(trained).verdicts)
    assert (found.fixed, found.broken, found.both_right, found.both_wrong, found.n) == (26, 2, 2, 10, 40)


def test_pairs_of_many_stages_are_first_and_previous() -> None:
    stages = [Stage(str(i), Path(str(i))) for i in range(7)]
    assert len(pairs_to_compare(stages[:4])) == 6
    pairs = {(a.name, b.name) for a, b in pairs_to_compare(stages)}
    assert pairs == {("0", str(i)) for i in range(1, 7)} | {(str(i), str(i + 1)) for i in range(6)}


def make_paired(difference: float, low: float, high: float, p: float = 0.5) -> Paired:
    return Paired(difference, low, high, 0, 0, 0, 0, p, 500, 0)


def test_a_stage_is_told_by_what_outlasts_the_correction(base: Path, tmp_path: Path) -> None:
    """A small gain whose own interval excludes 0: among three comparisons it is nowhere called better."""
    near = write_evaluation(tmp_path / "near", right={*range(4), *range(20, 26)})
    other = write_evaluation(tmp_path / "other", right={*range(3), 30})
    alone = compare_stages([stage(base), stage(near)])
    assert alone.main.verdict.startswith("better: ")
    found = compare_stages([stage(base), stage(other), stage(near)])
    assert found.main.overall.paired.shown and not found.main.overall.shown
    text = io.StringIO()
    Narrator(Console(file=text, width=400)).end(found, tmp_path, 1.0)
    assert f"near against base: {found.main.verdict}" in text.getvalue()
    assert "better" not in text.getvalue()


def test_what_it_would_take_is_the_same_in_sentence_and_table(tmp_path: Path) -> None:
    found = compare_runs([write_evaluation(tmp_path / "a", {1, 2, 3}), write_evaluation(tmp_path / "b", {2, 3, 4, 5})])
    table = facts.overall(found.contrasts)
    would_need = table.rows[0][table.columns.index("would need")]
    assert f"about {would_need} would be needed" in found.main.verdict


def test_figures_in_words() -> None:
    assert points(make_paired(-0.0001, -0.02, 0.02)) == "0.0 (−2.0 to +2.0)"
    assert (p_value(0.0004), p_value(0.0321)) == ("< 0.001", "0.032")


@pytest.mark.parametrize("top", [0.0, 0.003, 0.37, 1.0, 2.43, 9.99, 1234.0])
def test_ticks_are_round_and_reach_the_top(top: float) -> None:
    values = ticks(top)
    assert values[0] == 0 and values[-1] >= top and 2 <= len(values) <= 8
    steps = {round(b - a, 12) for a, b in pairwise(values)}
    assert max(steps) - min(steps) < 1e-9 * max(values)


def test_charts_keep_inside_their_box_and_survive_little_data() -> None:
    chart = line_chart("a & b", "step", [Curve("x", [(1, 2.5), (2, 1.0), (40, 0.2)], "train"), Curve("y", [], "valid")])
    places = [tuple(map(float, each.split(","))) for each in re.findall(r"[\d.]+,[\d.]+", chart)]
    assert len(places) == 3 and all(0 <= x <= 360 and 0 <= y <= 210 for x, y in places)
    assert "a &amp; b" in chart and "no curve" not in chart
    assert "<circle" in line_chart("one", "step", [Curve("x", [(1, 0.0)], "train")])
    assert "no curve was written" in line_chart("none", "step", [])
    spoiled = line_chart("nan", "step", [Curve("x", [(1, 2.0), (2, float("nan")), (3, float("inf"))], "valid")])
    assert spoiled.count("<circle") == 1 and "nan," not in spoiled and "inf" not in spoiled


def test_a_loss_that_was_not_finite_is_no_point_of_a_curve(tmp_path: Path) -> None:
    run = create_run(tmp_path, None)
    for step, loss in enumerate((2.0, None, 1.0)):
        run.log("eval", step=step, loss=loss)
    assert Stage("x", tmp_path / "eval", tmp_path).metrics("eval", "loss") == [(0.0, 2.0), (2.0, 1.0)]

"""Run folders as the page shows them: while they grow, whatever is in them, and nothing outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from html_setup import Tags
from test_evaluate_report import NASTY, write_evaluation

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, RunError
from ramify.base.records import write_json
from ramify.base.runs import Run, create_run
from ramify.serve.page.run_folder import Metrics, curve, find_runs, run_inside
from ramify.serve.page.run_view import evaluation_view, progress_view
from ramify.serve.page.runs_tab import Runs
from ramify.serve.page.sessions import Session


def trained(folder: Path, steps: int = 10, **settings: object) -> Run:
    run = create_run(folder, RunConfig.model_validate(settings))
    for step in range(1, steps + 1):
        run.log("train", step=step, loss=3.0 / step, lr=0.001)
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two evaluations without training, and a training that was evaluated and sampled in."""
    write_evaluation(tmp_path / "demo" / "base", right=set(range(4)))
    run = trained(tmp_path / "demo" / "sft")
    write_evaluation(run.folder / "eval", right=set(range(30)))
    create_run(run.folder / "round-1", RunConfig())
    create_run(run.folder / "checkpoint-5" / "hidden", RunConfig())
    create_run(tmp_path / ".draft", RunConfig())
    return tmp_path


def test_runs_are_found_and_their_own_evaluations_are_not_listed_beside_them(root: Path) -> None:
    assert sorted(find_runs(root)) == ["demo/base", "demo/sft", "demo/sft/round-1"]
    trained(root / "new")
    assert find_runs(root)[0] == "new"
    assert find_runs(root / "nowhere") == []


def test_only_runs_below_the_root_are_read(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    create_run(outside / "secret", RunConfig())
    (root / "link").symlink_to(outside)
    for name in (f"../{outside.name}/secret", str(outside / "secret"), "link/secret", ""):
        with pytest.raises(ConfigError):
            run_inside(root, name)
    with pytest.raises(RunError):
        run_inside(root, "demo")
    assert not any(name.startswith("link") for name in find_runs(root))
    assert "not in" in Runs(root).report("demo/sft", str(outside / "secret"))


def test_metrics_are_read_on_from_where_they_ended(tmp_path: Path) -> None:
    run, metrics = trained(tmp_path / "run", steps=3), Metrics()
    assert [row["step"] for row in metrics.rows(run.folder)] == [1, 2, 3]
    path = run.folder / "metrics.jsonl"
    with path.open("a") as file:
        file.write('broken\n[1]\n{"kind": "train", "step": 4, "loss": 0.5}\n{"kind": "train", "st')
    assert [row["step"] for row in metrics.rows(run.folder)] == [1, 2, 3, 4]
    with path.open("a") as file:
        file.write('ep": 5, "loss": null}\n')
    rows = metrics.rows(run.folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert curve(rows, "train", "loss") == [(1, 3.0), (2, 1.5), (3, 1.0), (4, 0.5)]
    kept = path.read_text().splitlines(keepends=True)[:2]
    path.write_text("".join(kept))  # a resumed run drops what it will do again
    assert [row["step"] for row in metrics.rows(run.folder)] == [1, 2]
    assert metrics.rows(tmp_path / "missing") == ()


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rows = [{"kind": "train", "step": step, "loss": 1.0} for step in range(1, 10_001)]
    points = curve(rows, "train", "loss")
    assert len(points) <= 301 and points[0][0] == 1 and points[-1][0] == 10_000


def test_a_running_training_is_drawn_anew_only_when_something_happened(root: Path) -> None:
    runs, session = Runs(root), Session()
    run = trained(root / "live", steps=2)
    progress, _ = runs.show(session, "live")
    assert "step 2" in Tags(progress).text and progress.count("<polyline") == 1
    assert runs.look(session, "live") is None
    assert runs.look(Session(), "live") is not None  # another tab has not seen it
    run.log("train", step=3, loss=0.7)
    run.log("eval", step=3, loss=0.9)
    found = runs.look(session, "live")
    assert found is not None and "step 3" in Tags(found[0]).text and found[0].count("<polyline") == 2


def test_an_evaluation_is_shown_with_its_figures_and_answers(root: Path) -> None:
    text = Tags(evaluation_view(root / "demo" / "sft")).text
    assert "75.0 %" in text and "the first 12 of 40" in text and "How many g in 0 kg?" in text
    assert "not evaluated" in evaluation_view(root / "demo" / "sft" / "round-1")


def test_parity_of_a_runs_exports_is_shown_with_it(root: Path) -> None:
    def export(folder: Path, source: str, **changed: object) -> None:
        row = {"stage": "Q8_0", "kind": "q8_0", "path": "m-Q8_0.gguf", "size": 4_100_000, "known": 0, "score": None}
        shares = {name: {"count": 11, "total": 11} for name in ("prompts", "greedy", "stops")}
        agreement = {"positions": 9, "kl": 0.00123, "kl_worst": 0.1, "top1": 0.995, "difference": 0.2}
        rows = [{**row, **shares, "agreement": agreement, "failures": [], **changed}]
        write_json(folder / "export.json", {"kind": "export", "source": source, "parity": rows})

    session, runs = Session(), Runs(root)
    assert "Q8_0" not in runs.show(session, "demo/sft")[1]
    export(root / "demo" / "sft" / "export", str(root / "demo" / "sft"))
    export(root / "demo" / "beside", "demo/sft", stage="Q4_K_M", failures=["KL 3 is above <b>0.1</b>"])
    export(root / "demo" / "others", str(root / "demo" / "base"), stage="BF16")
    found = runs.look(session, "demo/sft")
    assert found is not None
    shown = Tags(found[1])
    assert "1.2e-03" in shown.text and "4.1 MB" in shown.text and "99.5 %" in shown.text
    assert "Q4_K_M: KL 3 is above <b>0.1</b>" in shown.text and "b" not in shown.tags and "BF16" not in shown.text
    export(root / "demo" / "beside", "demo/sft", prompts="all")
    (root / "demo" / "sft" / "export" / "export.json").write_text("[")
    text = Tags(evaluation_view(root / "demo" / "sft")).text
    assert "parity cannot be read" in text and "Q8_0" not in text and "75.0 %" in text


def test_a_broken_evaluation_is_said_to_be_broken(root: Path) -> None:
    (root / "demo" / "base" / "verdicts.jsonl").write_text("{}\n")
    assert "cannot be read" in evaluation_view(root / "demo" / "base")
    (root / "demo" / "base" / "run.json").write_text("[")
    assert "not evaluated" in evaluation_view(root / "demo" / "base") or "cannot be read" in evaluation_view(
        root / "demo" / "base"
    )


def test_whatever_a_run_holds_is_shown_as_text(tmp_path: Path) -> None:
    hostile = f'{NASTY}<img src="http://203.0.113.9/x.png" onerror="alert(1)">${{alert(2)}}{{{{alert(3)}}}}</div>'
    run = trained(tmp_path / "run", model=hostile)
    run.update(status=hostile)
    write_evaluation(run.folder / "eval", right={1}, question=hostile)
    shown = Tags(progress_view(run.folder, Metrics().rows(run.folder)) + evaluation_view(run.folder))
    assert not {"img", "script", "iframe", "a", "b"} & set(shown.tags)
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in shown.attributes)
    assert hostile in shown.text


def test_a_report_is_locked_into_a_frame(root: Path) -> None:
    runs = Runs(root)
    evil = "<script>alert(1)</script><img src='http://203.0.113.9/x.png'>' onload='alert(2)"
    (root / "demo" / "report.html").write_text(evil)
    assert runs.reports("demo/sft") == ["written: demo/report.html", "demo/base"]
    frame = Tags(runs.report("demo/sft", "written: demo/report.html"))
    assert frame.tags == ["iframe"] and dict(frame.attributes)["srcdoc"] == evil
    assert dict(frame.attributes)["sandbox"] is None and "onload" not in dict(frame.attributes)
    made = Tags(runs.report("demo/sft", "demo/base"))
    assert made.tags == ["iframe"] and "Before and after" in (dict(made.attributes)["srcdoc"] or "")
    assert runs.report("demo/sft", "written: ../../secret.html") == ""
    assert "not an evaluated run" in runs.report("demo/sft/round-1", "demo/base")


def test_a_run_without_a_step_says_so(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", RunConfig())
    (run.folder / "metrics.jsonl").write_text(json.dumps({"kind": "eval", "step": 0, "loss": 2.0}) + "\n")
    shown = Tags(progress_view(run.folder, Metrics().rows(run.folder)))
    assert "No step is done yet." in shown.text and "running" in shown.text

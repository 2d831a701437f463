"""`ramify sweep`: processes, resuming, failures, and what is said of the outcome."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from train_setup import make_config, model_folder, pairs_file

from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, RunError
from ramify.base.records import to_plain, write_json, write_jsonl
from ramify.base.types import Message, Problem, Reason, Sample, Stop, Verdict
from ramify.evaluate.stages import Stage
from ramify.plan.sweep.page import sweep_page
from ramify.plan.sweep.processes import Ended, Pace, cores, jobs_that_fit, threads_for
from ramify.plan.sweep.results import Row, record_of, result_of
from ramify.plan.sweep.run import Listener, check_folder, sweep
from ramify.plan.sweep.runs import SweepRun, plan_sweep
from ramify.plan.sweep.worker import Asked, carry_out
from ramify.sample import weights
from ramify.train import sft

__all__ = ["model_folder"]

COMMAND = """
import sys, typer
from ramify.cli.errors import Commands, report
from ramify.cli.sweep import sweep
app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
app.command("sweep")(sweep)
app.callback()(lambda: None)
sys.exit(report(lambda: app(standalone_mode=False)))
"""


def settings_file(folder: Path, model: Path, **train: Any) -> Path:
    """A configuration of a small run in this folder."""
    values = {
        "model": str(model),
        "data": {"train": str(pairs_file(folder / "rows.json"))},
        "evaluate": {"problems": str(pairs_file(folder / "problems.json", 6, 20))},
        "prompt": {"chat_template": "plain"},
        "lora": {"r": 4, "alpha": 8},
        "train": {"lr": 0.01, "batch_size": 4, "dtype": "fp32", "device": "cpu", "tensorboard": False, **train},
        "sample": {"max_new_tokens": 4},
    }
    path = folder / "base.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own, under way; one thread, as bits depend on their number."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "sweep", *map(str, arguments)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def ramify_sweep(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command."""
    process = start(*arguments)
    out, err = process.communicate()
    assert "Traceback" not in err
    return process.returncode, out, err


def adapter(folder: Path) -> dict[str, Any]:
    return dict(load_file(str(folder / "adapter" / "adapter_model.safetensors")))


def assert_equal(one: Path, other: Path) -> None:
    left, right = adapter(one), adapter(other)
    assert left.keys() == right.keys()
    assert all(np.array_equal(left[name], right[name]) for name in left)


def test_finished_runs_stay_missing_ones_are_done_and_failed_ones_are_rows(model_folder: Path, tmp_path: Path) -> None:
    base, out = settings_file(tmp_path, model_folder, max_steps=2), tmp_path / "out"
    files = [str(pairs_file(tmp_path / f"{name}.json")) for name in ("before", "now")]
    words = (f"data.train={','.join(files)},{tmp_path / 'missing.json'}", "--out", out, "--jobs", 2)
    before, now, missing = plan_sweep(base, words[:1], out)
    told = carry_out(Asked(before.config.model_dump(mode="json"), str(out / "sweep" / "shared"), os.getppid(), 1))
    assert told.error is None
    (out / "sweep.json").write_text("{}")
    kept = before.folder / "adapter" / "adapter_model.safetensors"
    changed = kept.stat().st_mtime_ns

    code, text, err = ramify_sweep(base, *words)
    assert code == 1
    record = json.loads((out / "sweep.json").read_text())
    assert record["status"] == "failed"
    assert [each["status"] for each in record["runs"]] == ["finished", "finished", "failed"]
    assert kept.stat().st_mtime_ns == changed
    assert f"{before.name} …" not in err and f"{now.name} …" in err
    good, bad = record["runs"][1:]
    assert good["peak_memory"] > 1e7 and good["accuracy"]["high"] > 0 and good["problems"] == 6
    assert "missing.json" in bad["error"] and f"{missing.name}: failed: " in err
    assert "missing.json" in (out / "sweep.html").read_text()
    assert "1 of 3 runs failed" in text
    assert_equal(now.folder, before.folder)  # the same rows under another name, by a process and without one


def test_what_a_process_does_is_a_run_and_its_evaluation(model_folder: Path, tmp_path: Path) -> None:
    base = yaml.safe_load(settings_file(tmp_path, model_folder, max_steps=2).read_text())
    config = parse_config({**base, "out": str(tmp_path / "one")})
    asked = Asked(config.model_dump(mode="json"), str(tmp_path / "shared"), os.getppid(), None)
    told = carry_out(asked)
    assert told.error is None and told.peak > 1e7 and told.threads >= 1
    scores = tmp_path / "one" / "eval" / "scores.json"
    before = scores.stat().st_mtime_ns
    assert carry_out(asked).error is None
    assert scores.stat().st_mtime_ns == before
    assert_equal(tmp_path / "one", sft.run(config.model_copy(update={"out": tmp_path / "alone"})).folder)
    other = parse_config({**base, "out": str(tmp_path / "one"), "train": {**base["train"], "lr": 0.5}})
    told = carry_out(replace(asked, config=other.model_dump(mode="json")))
    assert told.error is not None and "cannot resume" in told.error and "train.lr" in told.error


@pytest.mark.proof
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_was_ended_goes_on_bit_for_bit(end: signal.Signals, model_folder: Path, tmp_path: Path) -> None:
    base = settings_file(tmp_path, model_folder, max_steps=400, save_every=50)
    words = (base, "lora.r=2,4", "--jobs", 2)
    out, straight = tmp_path / "out", tmp_path / "straight"
    process = start(*words, "--out", out, start_new_session=True)
    metrics = [out / name / "metrics.jsonl" for name in ("r2", "r4")]
    deadline = time.monotonic() + 300
    while not any(each.is_file() and len(each.read_text().splitlines()) > 60 for each in metrics):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(end)
    _, err = process.communicate()
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[end]
    if end != signal.SIGKILL:
        assert "of 2 runs finished" in err and "the same command goes on" in err
        assert json.loads((out / "sweep.json").read_text())["status"] == "stopped"
        states = [json.loads(each.read_text())["status"] for each in out.glob("*/run.json")]
        assert "stopped" in states and "running" not in states
    assert ramify_sweep(*words, "--out", out)[0] == 0
    assert ramify_sweep(*words, "--out", straight)[0] == 0
    for name in ("r2", "r4"):
        assert_equal(out / name, straight / name)
        last = [json.loads((each / name / "metrics.jsonl").read_text().splitlines()[-1]) for each in (out, straight)]
        assert last[0]["loss"] == last[1]["loss"]


def evaluated(folder: Path, right: list[bool], seed: int) -> Stage:
    """An evaluation on disk in which these problems were answered rightly, of a training with this seed."""
    problems = [Problem(f"p{n}", (Message("user", f"{n}?"),), answer=str(n)) for n in range(len(right))]
    write_json(folder / "run.json", {"seed": seed, "config": {"seed": seed}, "seconds": 1.0})
    made = folder / "eval"
    write_json(made / "run.json", {"kind": "evaluation", "config": {}, "hashes": {"problems": "same"}})
    write_jsonl(made / "problems.jsonl", problems)
    samples = [Sample(problem.id, 0, (1, 2), (-0.1, -0.1), "x", Stop.EOS) for problem in problems]
    reasons = [Reason.CORRECT if each else Reason.WRONG for each in right]
    write_jsonl(made / "samples.jsonl", samples)
    write_jsonl(
        made / "verdicts.jsonl",
        [Verdict(p.id, 0, float(r is Reason.CORRECT), r, "x") for p, r in zip(problems, reasons, strict=True)],
    )
    write_json(made / "scores.json", {})
    return Stage(folder.name, made, folder)


def row(folder: Path, label: str, right: list[bool], seed: int = 1) -> Row:
    config = parse_config({"out": str(folder / f"{label}-{seed}"), "seed": seed, "data": {"train": "task"}})
    run = SweepRun(f"{label}-{seed}", {"lora.r": label}, seed, config)
    return Row(run, evaluated(folder / run.name, right, seed), seconds=2.0, peak=10**9)


def of(n: int, right: int, offset: int = 0) -> list[bool]:
    """n answers, of which `right` are right, from `offset` on."""
    return [(number - offset) % n < right for number in range(n)]


def test_the_highest_setting_is_called_best_only_where_it_is_shown(tmp_path: Path) -> None:
    clear = result_of(
        [row(tmp_path, "4", of(200, 40)), row(tmp_path, "8", of(200, 150)), row(tmp_path, "16", of(200, 60))]
    )
    assert clear.verdict == "best: lora.r=8: 75.0 % (68.6–80.5), better than all 2 others"
    assert clear.alike == ()
    assert [each.label for each in clear.ranked] == ["lora.r=8", "lora.r=16", "lora.r=4"]
    assert [each.overall.tests for each in clear.contrasts] == [2, 2]
    near = result_of([row(tmp_path / "near", "4", of(200, 100)), row(tmp_path / "near", "8", of(200, 104, 6))])
    assert near.verdict.startswith("highest: lora.r=8: 52.0 %")
    assert near.verdict.endswith("but it cannot be told apart from lora.r=4")
    for result, is_best in ((clear, True), (near, False)):
        record = record_of(result)
        assert record["highest"] == "lora.r=8" and record["is_best"] is is_best
    assert any("likely a little too high" in note for note in near.notes)
    assert any("variance between seeds is not covered" in note for note in near.notes)


def test_the_winner_among_equal_settings_is_seldom_called_best(tmp_path: Path) -> None:
    """Settings of 60 problems, all right with probability one half: the correction holds the claim back."""
    draws = np.random.default_rng(7)
    claims = 0
    for trial in range(10):
        rows = [
            row(tmp_path / str(trial), str(r), (draws.random(60) < 0.5).tolist())
            for r in range(1, 7)
        ]  # fmt: skip
        claims += not result_of(rows).alike
    assert claims == 0  # it would have to be better than each of five


def test_seeds_of_a_setting_are_one_group(tmp_path: Path) -> None:
    rows = [row(tmp_path, "4", of(100, 50 + seed), seed) for seed in (1, 2, 3)]
    rows += [row(tmp_path, "8", of(100, 80 + seed), seed) for seed in (1, 2, 3)]
    found = result_of(rows)
    assert len(found.settings) == 2
    assert found.best is not None and found.best.arm is not None and found.best.arm.seeds == 3
    assert found.best.accuracy is not None and found.best.accuracy.value == pytest.approx(0.82)
    (only,) = found.contrasts
    assert only.across_seeds
    assert any("cover the variance between seeds" in note for note in found.notes)
    assert record_of(found)["settings"][1]["accuracy"]["seeds"] == 3
    assert record_of(found)["settings"][1]["answer_rate"] == found.best.arm.scores.answer_rate.value


def test_the_notes_say_which_differences_cover_seeds(tmp_path: Path) -> None:
    rows = [row(tmp_path, "4", of(100, 50 + seed), seed) for seed in (1, 2)]
    rows += [row(tmp_path, "8", of(100, 80)), row(tmp_path, "16", of(100, 60))]
    (said,) = (note for note in result_of(rows).notes if "between seeds" in note)
    assert said.startswith("The variance between seeds is covered by 1 of 2 differences, and not by those to lora.r=16")


def test_seeds_alone_are_one_setting(tmp_path: Path) -> None:
    rows = [row(tmp_path, "4", of(100, 50), seed) for seed in (1, 2)]
    rows = [replace(each, run=replace(each.run, settings={})) for each in rows]
    assert result_of(rows).verdict == "one setting: as configured: 50.0 % (40.4–59.6), seeds: 2"


def test_runs_that_failed_are_told_and_left_out(tmp_path: Path) -> None:
    good = row(tmp_path, "4", of(50, 10))
    bad = Row(replace(good.run, name="8-1", settings={"lora.r": "8"}), error="out of <memory>")
    found = result_of([good, bad])
    assert found.verdict.startswith("only lora.r=4")
    assert found.failed == (bad,)
    assert result_of([bad]).verdict == "no run is finished"
    text = sweep_page("mine", found)
    assert "out of &lt;memory&gt;" in text and "<memory>" not in text
    json.dumps(to_plain(record_of(found)), allow_nan=False)


def test_runs_measured_on_other_problems_are_no_part_of_the_comparison(tmp_path: Path) -> None:
    good, other = row(tmp_path, "4", of(50, 10)), row(tmp_path, "8", of(50, 40))
    assert other.stage is not None
    questions = other.stage.folder / "problems.jsonl"
    questions.write_text(questions.read_text().replace('7?"', '8?"'))
    found = result_of([good, other])
    assert found.verdict.startswith("only lora.r=4")
    assert "another question" in (found.rows[1].error or "")


def test_a_launcher_s_process_starts_no_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="starts its own processes"):
        sweep([], tmp_path / "out", None, Listener(print, print))
    assert not (tmp_path / "out").exists()


def test_the_page_has_bars_differences_and_a_table_of_two_settings(tmp_path: Path) -> None:
    rows = []
    for r in ("4", "8"):
        for rate in ("1e-3", "1e-4"):
            one = row(tmp_path, f"{r}x{rate}", of(100, 30 + 5 * int(r) - len(rate)))
            rows.append(replace(one, run=replace(one.run, settings={"lora.r": r, "train.lr": rate})))
    text = sweep_page("<script>", result_of(rows))
    assert "<script>" not in text
    assert text.count("class='row bar'") == 4
    assert text.count("class='row estimate'") == 3
    assert "lora.r \\ train.lr" in text
    assert "minus the others" in text


def test_a_sweep_takes_an_empty_folder_or_its_own(tmp_path: Path) -> None:
    check_folder(tmp_path / "none")
    (tmp_path / "own").mkdir()
    check_folder(tmp_path / "own")
    (tmp_path / "own" / "sweep.json").write_text("{}")
    check_folder(tmp_path / "own")
    (tmp_path / "file").write_text("")
    write_json(tmp_path / "run" / "run.json", {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("")
    for name, said in (("file", "is a file"), ("run", "holds a run"), ("other", "not a sweep")):
        with pytest.raises(RunError, match=said):
            check_folder(tmp_path / name)


def test_two_sweeps_do_not_work_in_one_folder(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "sweep").mkdir()
    runs = plan_sweep(None, ["data.train=task", "lora.r=2,4"], tmp_path)
    with (tmp_path / "sweep" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another sweep works in this folder"):
            sweep(runs, tmp_path, None, Listener(print, print))


def test_as_many_run_side_by_side_as_memory_and_cores_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_for(None) is None and threads_for(1) is None
    assert threads_for(2) == max(1, cores() // 2)
    assert threads_for(1000) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_for(2) is None
    measured = Ended(None, 1.0, peak=10**9, free=10e9, threads=1)
    assert jobs_that_fit(measured, "cpu") == min(8, cores())
    assert jobs_that_fit(replace(measured, free=1e9), "cpu") == 1
    assert jobs_that_fit(replace(measured, threads=cores()), "cpu") == 1
    assert jobs_that_fit(replace(measured, free=None), "cpu") == 1
    assert jobs_that_fit(measured, "cuda:0") == 5  # each takes some besides its tensors
    assert jobs_that_fit(Ended("it failed"), "cpu") == 1


def test_what_ran_alone_decides_and_larger_runs_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(None)
    assert pace.jobs == 1
    pace.learn(Ended("it failed at once", 0.1, peak=10**8, free=10e9, threads=1), "cuda:0")
    assert pace.jobs == 1  # it took next to nothing
    pace.learn(Ended(None, 1.0, peak=10**9, free=10e9, threads=1), "cuda:0")
    assert pace.jobs == 5
    pace.learn(Ended(None, 1.0, peak=10**9, free=4e9, threads=1), "cuda:0")
    assert pace.jobs == 5  # four others took the rest of what it saw
    pace.learn(Ended(None, 1.0, peak=3 * 10**9, free=4e9, threads=1), "cuda:0")
    assert pace.jobs == 2
    fixed = Pace(3)
    fixed.learn(Ended(None, 1.0, peak=10**9, free=1e9, threads=1), "cpu")
    assert fixed.jobs == 3


def test_a_run_that_cannot_fit_is_a_row_before_it_takes_memory(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = yaml.safe_load(settings_file(tmp_path, model_folder, max_steps=2).read_text())
    config = parse_config({**base, "out": str(tmp_path / "one")})
    monkeypatch.setattr(weights, "_available", lambda: 1000.0)
    told = carry_out(Asked(config.model_dump(mode="json"), str(tmp_path / "shared"), os.getppid(), None))
    assert told.error is not None and "weights and optimizer state alone take" in told.error
    assert not (tmp_path / "one").exists()


def test_what_does_nothing_is_refused(model_folder: Path, tmp_path: Path) -> None:
    base, begun = settings_file(tmp_path, model_folder), tmp_path / "begun"
    sft.run(make_config(model_folder, tmp_path / "rows.json", begun, train={"max_steps": 1}))
    code, out, _ = ramify_sweep(base, "lora.r=2,4", "--dry-run", "--out", tmp_path / "out")
    assert code == 0 and "r2" in out and "2 runs" in out
    assert not (tmp_path / "out").exists()
    for words, said in (
        ((base, base, "lora.r=2,4"), "one configuration file"),
        ((base, "lora.r=2,4", "--seed", 3), "--seed 3 does nothing"),
        ((base, "lora.r=2,4", "--random", 3), "only 2 combinations"),
        ((tmp_path / "none.yaml", "lora.r=2,4"), "no such file"),
        ((base, "lora.r=2,4", f"adapter={begun}"), "r2 and r4 are the same run"),
        ((base, "lora.r=2,4", f"model={begun}"), "training from an adapter by method sft does not read"),
    ):
        code, _, err = ramify_sweep(*words)
        assert code == 2 and said in err

"""A plan counts what the run reports, needs what the run needs, and says what to change where something cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_setup import ramify
from train_setup import Watcher, make_config, model_folder, pairs_file, preferences_file

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, DataError, RunError
from ramify.model.load import load_model
from ramify.model.lora import add_adapter, trainable
from ramify.plan import measure as measuring
from ramify.plan import rehearse
from ramify.plan.advice import Need, foreseen_peak, memory_changes, need, tokens_that_fit
from ramify.plan.amounts import clock, gigabytes
from ramify.plan.beforehand import refuse_what_cannot_fit
from ramify.plan.counts import RunSize, packed, reference_parts, step_sizes
from ramify.plan.estimate import Duration, Line, duration
from ramify.plan.footprint import footprint
from ramify.plan.measured import Drawing, Measured, Reading, StepRun
from ramify.plan.plan import _for_schedule, make_plan
from ramify.plan.tries import Limits
from ramify.sample import weights
from ramify.train import dpo, sft
from ramify.train.dryrun import dry_run
from ramify.train.optimizer import MasterAdamW

__all__ = ["model_folder"]
MB = 1 << 20


def size_of(config: RunConfig) -> RunSize:
    course = dry_run(config).course
    assert course is not None
    return RunSize.of(config, course, step_sizes(course, config.train.micro_tokens))


def little_memory(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    """What the system says is free; everything above it is as always."""
    monkeypatch.setattr(weights, "_available", lambda: free)


@pytest.mark.parametrize("micro_tokens", [64, 8192])
def test_counts_are_what_the_run_reports(model_folder: Path, tmp_path: Path, micro_tokens: int) -> None:
    rows, valid = pairs_file(tmp_path / "t.json"), pairs_file(tmp_path / "v.json", 5, start=50)
    config = make_config(
        model_folder,
        rows,
        tmp_path / "run",
        data={"valid": str(valid)},
        train={"micro_tokens": micro_tokens, "save_every": 2, "keep": 9},
    )
    size = size_of(config)
    watched = Watcher()
    run = sft.run(config, progress=watched)
    record = run.record
    assert (size.steps, size.tokens, size.computed) == (record["steps"], record["tokens"], record["computed_tokens"])
    assert size.saved == record["saved_tokens"] and (size.saved > 0 or micro_tokens == 64)
    assert size.exact and size.epochs == 2
    assert size.largest <= max(micro_tokens, record["data"]["longest"])
    assert size.evaluations == len(run.metrics("eval"))
    assert size.checkpoints >= len(list(run.folder.glob("checkpoint-*")))


def test_counts_of_pairs_are_what_the_run_reports(model_folder: Path, tmp_path: Path) -> None:
    rows = preferences_file(tmp_path / "p.jsonl")
    config = make_config(model_folder, rows, tmp_path / "run", method="dpo", train={"batch_size": 3})
    size = size_of(config)
    course = dry_run(config).course
    assert course is not None
    record = dpo.run(config, progress=Watcher()).record
    reference = sum(packed(part) for part in reference_parts(course, config.train.micro_tokens))
    assert reference == record["reference"]["computed_tokens"]
    assert (size.steps, size.tokens, size.computed) == (record["steps"], record["tokens"], record["computed_tokens"])
    assert size.saved == record["saved_tokens"] > 0


def test_a_long_run_is_counted_from_some_of_its_steps(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ramify.plan import counts

    rows = pairs_file(tmp_path / "t.json", rows=60)
    config = make_config(model_folder, rows, tmp_path / "run", train={"epochs": 5})
    exact = size_of(config)
    monkeypatch.setattr(counts, "_MOST_TOKENS", 10)
    monkeypatch.setattr(counts, "_SPREAD", 25)
    found = size_of(config)
    assert exact.exact and not found.exact
    assert found.steps == exact.steps == 75
    assert found.computed == pytest.approx(exact.computed, rel=0.05) and found.computed != exact.computed


@pytest.mark.parametrize("kind", ["lora", "dora", "full", "bf16"])
def test_the_footprint_is_that_of_the_tensors(model_folder: Path, tmp_path: Path, kind: str) -> None:
    """Bytes of weights, masters, gradients and moments, counted on the real tensors after a step."""
    lora: dict[str, Any] | None = {"r": 4, "alpha": 8, "dora": kind == "dora"}
    dtype = "bf16" if kind == "bf16" else "fp32"
    config = make_config(model_folder, tmp_path / "t.json", tmp_path / "run", train={"dtype": dtype})
    config = (
        make_config(model_folder, tmp_path / "t.json", tmp_path / "run", train={"dtype": dtype}, lora=lora)
        if kind in ("lora", "dora")
        else config.model_copy(update={"lora": None})
    )
    found = footprint(config)
    loaded = load_model(str(model_folder), dtype=dtype, device="cpu", trainable=True)
    parameters = sum(each.numel() for each in loaded.network.parameters())
    if config.lora is not None:
        loaded = add_adapter(loaded, config.lora, seed=1)
    else:
        loaded.network.requires_grad_(True)
    own = trainable(loaded.network)
    optimizer = MasterAdamW(own, 0.0)
    for parameter in own.values():
        parameter.grad = torch.ones_like(parameter)
    gradients = sum(each.grad.nbytes for each in own.values() if each.grad is not None)
    optimizer.gather()
    fp32 = sum(each.grad.nbytes for each in optimizer.masters.values() if each.grad is not None)
    optimizer.step(0.1)
    state = sum(each.nbytes for name, each in optimizer.state().items() if not name.startswith("step/"))
    transient = gradients if dtype == "bf16" else 0
    assert found.parameters == parameters
    assert found.trained == sum(each.numel() for each in own.values())
    assert found.weights == sum(each.nbytes for each in loaded.network.parameters())
    assert found.state == state + fp32 + transient
    assert found.checkpoint == state + sum(each.nbytes for each in own.values())


def test_what_cannot_fit_is_refused_before_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, out = pairs_file(tmp_path / "t.json"), tmp_path / "run"
    config = make_config(Path("nano"), rows, out).model_copy(update={"lora": None})
    needed = footprint(config).memory
    little_memory(monkeypatch, needed + 1)
    refuse_what_cannot_fit(config)
    little_memory(monkeypatch, needed - 1)
    with pytest.raises(ConfigError, match=r"weights and optimizer state alone take .* are free") as caught:
        refuse_what_cannot_fit(config)
    assert caught.value.hint == "lora={r: 16}"
    settings = ["model=nano", f"data.train={rows}", "lora=null", "train.dtype=fp32", "train.device=cpu"]
    for flag in ([], ["--dry-run"]):
        code, _, err = ramify(monkeypatch, capsys, "train", *settings, "--out", out, *flag)
        assert code == 2
        assert err.startswith("error: weights and optimizer state alone take")
    assert not out.exists()
    weights_alone = 4 * footprint(config).parameters
    little_memory(monkeypatch, 1.2 * weights_alone)
    with pytest.raises(ConfigError) as caught:
        refuse_what_cannot_fit(config)
    assert caught.value.hint == "lora={r: 16} train.dtype=bf16"
    little_memory(monkeypatch, weights_alone / 4)
    with pytest.raises(ConfigError) as caught:
        refuse_what_cannot_fit(config)
    assert caught.value.hint == "a smaller model"


def test_a_control_group_counts_as_free_memory(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "cgroup"
    group.mkdir()
    for name, text in (("memory.max", "2000000"), ("memory.current", "1990000"), ("memory.stat", "inactive_file 0")):
        (group / name).write_text(text)
    own = tmp_path / "own"
    own.write_text("0::/\n")
    left = weights._left_in_cgroup
    monkeypatch.setattr(weights, "_left_in_cgroup", lambda: left(group, own))
    with pytest.raises(ConfigError, match="10 kB of memory are free"):
        refuse_what_cannot_fit(make_config(model_folder, tmp_path / "t.json", tmp_path / "run"))


def test_a_full_disk_is_refused_beforehand(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(model_folder, tmp_path / "t.json", tmp_path / "a" / "run")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: _Usage(int(folder == tmp_path)))
    with pytest.raises(RunError, match=r"checkpoints take .* 1 bytes of disk are free"):
        refuse_what_cannot_fit(config)


def test_a_run_in_the_folder_makes_room_for_what_replaces_it(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(model_folder, tmp_path / "t.json", tmp_path / "run")
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-2" / "state").write_bytes(bytes(1 << 20))
    needed = footprint(config).disk
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: _Usage(needed - (1 << 20)))
    with pytest.raises(RunError, match="of disk are free"):
        refuse_what_cannot_fit(config)
    (tmp_path / "run" / "run.json").write_text("{}")
    refuse_what_cannot_fit(config)


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


@pytest.fixture(scope="module")
def planned(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plan of a small run, and its settings."""
    folder = tmp_path_factory.mktemp("planned")
    rows, valid = pairs_file(folder / "t.json", 40), pairs_file(folder / "v.json", 5, start=50)
    config = make_config(model_folder, rows, folder / "run", data={"valid": str(valid)})
    return make_plan(config)


def test_a_plan_tries_the_run_out(planned: Any) -> None:
    measured = planned.measured
    assert planned.goes and planned.verdict.startswith("go: about ")
    assert planned.size == size_of(planned.config)
    assert measured.reached and measured.device == "cpu"
    assert measured.evaluation.computed == measured.evaluation.total > 0
    whole = [each for each in measured.steps if each.whole]
    assert max(each.largest for each in whole) == planned.size.largest
    assert [each.whole for each in measured.steps[:3]] == [False, False, True]
    assert planned.memory.bytes == measured.peak > 100 * MB
    assert planned.duration.low < planned.duration.seconds < planned.duration.high
    assert planned.duration.parts["steps"] > 0
    assert not planned.config.out.exists() and not list(planned.config.out.parent.glob(".ramify-plan-*"))


def test_the_checkpoint_that_was_written_is_the_one_foreseen(planned: Any) -> None:
    tokenizer = 20_000
    assert 0 < planned.measured.checkpoint - planned.footprint.checkpoint < 3 * tokenizer
    assert planned.disk > 2 * planned.measured.checkpoint


def test_a_plan_is_written_as_json_and_read_again(planned: Any) -> None:
    plain = json.loads(json.dumps(planned.as_plain()))
    assert Measured.of(plain["measured"]) == planned.measured
    assert plain["verdict"] == planned.verdict and plain["size"]["saved"] == planned.size.saved
    assert plain["counts"]["rows"] == 40


def test_a_plan_says_what_to_change(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is tried where weights alone have no room; a schedule that is mostly warm-up is not a go either."""
    rows = pairs_file(tmp_path / "t.json")
    little_memory(monkeypatch, 0.0)
    monkeypatch.setattr("ramify.plan.plan.resident_memory", lambda: 1000)
    settings = [f"model={model_folder}", f"data.train={rows}", "prompt.chat_template=plain", "train.warmup=2"]
    out = tmp_path / "plan.json"
    code, said, _ = ramify(
        monkeypatch, capsys, "plan", *settings, "lora=null", "train.epochs=3", f"out={tmp_path / 'r'}", "--out", out
    )
    assert code == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("change a smaller model: weights") and "1 kB of memory are free" in last
    assert "2 of 3 steps are warm-up, and the learning rate hardly reaches 0.001" in last
    assert json.loads(out.read_text())["changes"] and not (tmp_path / "r").exists()


def test_a_command_of_trl_is_planned_as_the_run_that_it_is(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    little_memory(monkeypatch, 0.0)
    monkeypatch.setattr("ramify.plan.plan.resident_memory", lambda: 1000)
    rows, run = pairs_file(tmp_path / "t.json"), tmp_path / "run"
    words = f"--model_name_or_path {model_folder} --dataset_name {rows} --max_steps 5 --output_dir {run}".split()
    settings = "prompt.chat_template=plain"
    code, planned, err = ramify(monkeypatch, capsys, "plan", "sft", *words, settings)
    assert code == 1 and "change a smaller model: weights" in planned
    _, _, trained = ramify(monkeypatch, capsys, "train", "sft", *words, settings)
    told, again = ([line for line in said.splitlines() if line.startswith("  ")] for said in (err, trained))
    assert told == again and any("train.max_steps=5" in line for line in told)
    assert not run.exists()
    for option, said in (
        ("--no_such_option", "no_such_option"),
        ("--resume_from_checkpoint", "a plan is of a whole run"),
    ):
        code, _, err = ramify(monkeypatch, capsys, "plan", "sft", *words, option, "true")
        assert code == 2 and said in err


def test_a_plan_says_which_rows_and_answers_are_too_long(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": "1?", "completion": "1"}] * 4 + [{"prompt": "2?", "completion": "two " * 40}] * 6
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    little_memory(monkeypatch, 0.0)
    monkeypatch.setattr("ramify.plan.plan.resident_memory", lambda: 1000)
    base = make_config(
        model_folder, tmp_path / "t.jsonl", tmp_path / "run", sample={"max_new_tokens": 20}, train={"epochs": 30}
    )
    longest = dry_run(base).longest
    said = [note for note in make_plan(base).notes if "max_new_tokens" in note]
    assert len(said) == 1 and said[0].startswith("6 of 10 answers that are trained have more than")
    short = base.model_copy(
        update={"data": base.data.model_copy(update={"max_length": longest - 1, "drop_long": True})}
    )
    found = make_plan(short)
    assert "data.max_length: 6 of 10 sequences are too long and left out" in found.changes
    assert not [note for note in found.notes if "max_new_tokens" in note]


def test_the_setting_that_counts_is_the_one_to_change(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json")
    config = make_config(model_folder, rows, tmp_path / "run", train={"max_steps": 3, "warmup": 2})
    (said,) = _for_schedule(config, size_of(config))
    assert said.startswith("train.warmup or train.max_steps: 2 of 3 steps are warm-up")


@pytest.mark.parametrize(("method", "said"), [("sft", "tokens of one pass"), ("rft", "tokens of all prompts")])
def test_tokens_are_called_what_they_are(
    method: str, said: str, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    settings = [f"method={method}", f"model={model_folder}", f"data.train={pairs_file(tmp_path / 't.json')}"]
    settings += ["prompt.chat_template=plain", "sample.max_new_tokens=4", f"out={tmp_path / 'run'}", "--dry-run"]
    code, out, err = ramify(monkeypatch, capsys, "train", *settings)
    assert code == 0, err
    assert said in out


def test_a_system_that_does_not_say_what_is_free_is_planned_on(planned: Any) -> None:
    unknown = replace(planned, memory=replace(planned.memory, room=float("inf")))
    assert unknown.goes and "inf" not in unknown.verdict and gigabytes(unknown.memory.room) == "not known"
    assert json.loads(json.dumps(unknown.as_plain(), allow_nan=False))["memory"]["room"] is None


def test_a_model_that_is_to_be_divided_is_planned_whole(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_SECONDS", 1.0)
    config = make_config(model_folder, pairs_file(tmp_path / "t.json"), tmp_path / "run", train={"shard": "fsdp"})
    found = make_plan(config)
    assert found.measured is not None and found.config.train.shard == "fsdp"
    assert any("one process that has the whole model" in note for note in found.notes)


def test_where_nothing_can_be_written_the_plan_says_so(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config = make_config(model_folder, pairs_file(tmp_path / "t.json"), tmp_path / "file" / "run")
    with pytest.raises(RunError, match=r"file/run: cannot be written"):
        measuring.measure(config, 1e12)


def test_a_plan_that_is_ended_leaves_nothing(model_folder: Path, tmp_path: Path) -> None:
    rows = pairs_file(tmp_path / "t.json")
    words = [f"model={model_folder}", f"data.train={rows}", "prompt.chat_template=plain", f"out={tmp_path / 'run'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ramify", "plan", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".ramify-plan-*/asked.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143 and err.startswith("terminated")
    assert not list(tmp_path.glob(".ramify-plan-*"))


def test_errors_of_the_other_process_are_raised_here(model_folder: Path, tmp_path: Path) -> None:
    config = make_config(model_folder, tmp_path / "absent.json", tmp_path / "run")
    asked = {"config": config.model_dump(mode="json"), "seconds": 1.0, "memory": 1e12, "spawned": 0.0}
    (tmp_path / measuring.ASKED).write_text(json.dumps(asked))
    rehearse.main(tmp_path)
    with pytest.raises(DataError, match=r"absent\.json") as here:
        measuring.read_found(tmp_path)
    with pytest.raises(DataError) as there:
        sft.run(config, progress=Watcher())
    assert (here.value.message, here.value.hint) == (there.value.message, there.value.hint)


def test_a_step_that_is_foreseen_not_to_fit_is_not_taken(model_folder: Path, tmp_path: Path) -> None:
    config = make_config(model_folder, pairs_file(tmp_path / "t.json"), tmp_path / "run")
    found = rehearse.rehearse(config, 0.0, Limits(60.0, memory=0.0))
    (first,) = found.steps
    assert not first.whole and not found.reached and first.largest < found.size.largest
    assert not need(found, 0.0).fits and not need(found, 0.0).reached


def test_pairs_are_tried_with_their_reference(model_folder: Path, tmp_path: Path) -> None:
    rows = preferences_file(tmp_path / "p.jsonl")
    config = make_config(model_folder, rows, tmp_path / "run", method="dpo", train={"batch_size": 3})
    found = rehearse.rehearse(config, 0.0, Limits(60.0, memory=1e18))
    assert found.reached and found.reference is not None and found.evaluation is None
    assert found.reference.computed == found.reference.total > 0
    free = config.model_copy(update={"dpo": config.dpo.model_copy(update={"loss": "orpo"}), "out": tmp_path / "free"})
    assert rehearse.rehearse(free, 0.0, Limits(60.0, memory=1e18)).reference is None


def test_sampling_is_tried_and_its_answers_are_trained_on(model_folder: Path, tmp_path: Path) -> None:
    config = make_config(
        model_folder,
        pairs_file(tmp_path / "t.json"),
        tmp_path / "run",
        method="rft",
        sample={"n": 3, "temperature": 1.0, "max_new_tokens": 5, "live": 6},
        select={"strategy": "distinct", "per_problem": 2},
    )
    found = rehearse.rehearse(config, 0.0, Limits(60.0, memory=1e18))
    drawn = found.drawing
    assert drawn is not None
    assert drawn.samples == drawn.finished == 12  # twice as many as are live, of four questions
    assert 0 < drawn.cut <= 12 and 0 < drawn.mean <= 5 and drawn.tokens > 0
    assert found.size.steps == 2 * 12 * 2 // 4  # two rows of each question, two epochs
    told = duration(config, found, samples=36)
    assert told.parts["sampling"] == pytest.approx(36 * drawn.mean * drawn.seconds / drawn.tokens)
    assert told.error >= 0.3


def steps(*sizes: tuple[int, int]) -> list[StepRun]:
    return [StepRun(tokens, tokens, 0.0, peak, whole=True) for tokens, peak in sizes]


def test_memory_of_a_larger_step_lies_on_a_line() -> None:
    seen = steps((100, 600 * MB), (200, 700 * MB), (150, 700 * MB))
    assert foreseen_peak(seen, 200) == 700 * MB
    assert foreseen_peak(seen[:2], 400) == 900 * MB
    assert foreseen_peak(seen[:1], 400) == 600 * MB


def test_a_smaller_micro_batch_is_proposed_where_it_helps(model_folder: Path, tmp_path: Path) -> None:
    seen = steps((100, 600 * MB), (1000, 1500 * MB))  # 500 MB and a megabyte a token
    assert tokens_that_fit(seen, 1000 * MB / 0.9) == 448
    config = make_config(model_folder, tmp_path / "t.json", tmp_path / "run")
    least, has = footprint(config), Need(1500 * MB, 1000 * MB / 0.9, "training", True)
    size = RunSize(1, 0, 1.0, 1000, 1000, 1000, 0, 1, True)
    assert not Need(980 * MB, 1000 * MB, "training", True).fits and Need(900 * MB, 1000 * MB, "training", True).fits
    found = Measured(size, "cpu", 0, 0, 0, 0, tuple(seen), 0, 0, 0, 0, None, None, None, 0, 1, True)
    assert memory_changes(config, least, found, 100, has).startswith("train.micro_tokens=448 ")
    assert memory_changes(config, least, found, 900, has).startswith("train.checkpointing=true")
    spared = config.model_copy(update={"train": config.train.model_copy(update={"checkpointing": True})})
    assert memory_changes(spared, least, found, 900, has) == "train.dtype=bf16"
    drawn = Need(1500 * MB, 1000 * MB, "sampling", True)
    fewer = memory_changes(config, least, found, 100, drawn)
    assert fewer == f"sample.live={config.sample.live // 2} (the result stays the same)"
    one = config.model_copy(update={"sample": config.sample.model_copy(update={"live": 1})})
    assert memory_changes(one, least, found, 100, drawn) == "train.dtype=bf16"
    assert memory_changes(config, least, found, 100, replace(drawn, part="loading")) == "train.dtype=bf16"


def test_what_reached_the_largest_memory_first_is_named() -> None:
    """A process keeps its peak: whatever is tried later shows the same one, and is not to be blamed for it."""
    seen = tuple(steps((100, 900 * MB), (200, 900 * MB)))
    size = RunSize(1, 0, 1.0, 200, 200, 200, 1, 1, True)
    reading, drawing = Reading(9, 9, 1, 0, 900 * MB), Drawing(2, 2, 0, 9, 1.0, 5.0, 900 * MB)
    found = Measured(size, "cpu", 0, 0, 0, 900 * MB, seen, 0, 0, 0, 0, reading, reading, drawing, 0, 1, True)
    parts = [need(found, 1e12).part]
    for change in (
        {"drawing": None},
        {"loaded": 500 * MB},
        {"steps": tuple(steps((200, 600 * MB)))},
        {"evaluation": replace(reading, peak=700 * MB)},
    ):
        found = replace(found, **change)
        parts.append(need(found, 1e12).part)
    assert parts == ["sampling", "loading", "training", "evaluation", "reference"]


def test_a_range_of_time_begins_at_nothing() -> None:
    assert Duration({"steps": 10.0}, error=1.5, busy=0.0).low == 0.0
    assert Duration({"steps": 10.0}, error=0.5, busy=0.0).low == 5.0


def test_seconds_lie_on_the_line_through_the_steps() -> None:
    seen = [StepRun(0, 0, 99.0, 0, True)]  # warms up
    seen += [StepRun(tokens, tokens, 0.5 + 0.01 * tokens, 0, True) for tokens in (100, 200, 300, 400)]
    line = Line.through(seen)
    assert line.start == pytest.approx(0.5) and line.rate == pytest.approx(0.01)
    assert line.total(10, 2000) == pytest.approx(25.0)
    assert line.error(10, 2000) == pytest.approx(0.0, abs=1e-6)
    alike = Line.through([seen[0], *(StepRun(100, 100, seconds, 0, True) for seconds in (1.0, 2.0, 3.0))])
    assert alike.total(7, 700) == pytest.approx(14.0)
    assert alike.error(7, 700) > 0.5


@pytest.mark.parametrize(
    ("seconds", "said"), [(40, "40 s"), (89, "89 s"), (210, "3.5 min"), (7560, "2.1 h"), (259200, "3.0 days")]
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert clock(seconds) == said

"""`ramify demo`: runs the stages, keeps what is finished, and writes results.json and report.html."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from ramify import nano
from ramify.base.config import RunConfig
from ramify.base.errors import TrainingError
from ramify.base.records import sha256_file, to_plain, write_json, write_text
from ramify.base.runs import Run, is_run
from ramify.console import SampleBar
from ramify.demo.narrator import Narrator
from ramify.demo.speed import Speed, measure_speed
from ramify.demo.stages import DemoStage, demo_stages
from ramify.evaluate.report import Contents, write_report
from ramify.evaluate.run import evaluate, load, problems_of
from ramify.evaluate.settings import evaluation_config
from ramify.evaluate.stages import Stage, compare
from ramify.model.load import LoadedModel
from ramify.train import rft, sft
from ramify.train.folder import check_unchanged


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user chose.

    Attributes:
        out: folder of everything.
        quick: few questions and steps.
        n: held-out questions; None: as the settings say.
        overwrite: do finished stages again.
    """

    out: Path
    quick: bool = False
    n: int | None = None
    overwrite: bool = False


def run_demo(options: DemoOptions, narrator: Narrator | None = None) -> dict[str, Any]:
    """Run what is not finished, and write results.json and report.html.

    Returns:
        The content of results.json.

    Raises:
        RamifyError: a stage cannot be run.
    """
    say = Narrator() if narrator is None else narrator
    began = perf_counter()
    stages = demo_stages(options.out, options.quick, options.n)
    say.begin(stages[0].config)
    base = load(stages[0].config)
    _clear_stale(stages, options)
    for stage in stages:
        say.stage(stage)
        _run_stage(stage, base, say)
    measured = [Stage(stage.name, stage.evaluation, stage.folder if stage.trains else None) for stage in stages]
    speed = measure_speed(base, stages[1].config, measured[1])
    say.speed(speed)
    results = _results(stages, measured, speed, perf_counter() - began)
    write_json(options.out / "results.json", results)
    write_report(options.out / "report.html", Contents(_title(stages[0].config), measured, speed=speed.table()))
    say.end(measured, options.out, perf_counter() - began)
    return results


def _clear_stale(stages: list[DemoStage], options: DemoOptions) -> None:
    """Remove earlier runs when asked, or when they started from other weights; note which weights these are."""
    marker, weights = options.out / "model.sha256", sha256_file(nano.path() / "model.safetensors")
    known = marker.is_file() and marker.read_text(encoding="utf-8").strip() == weights
    for stage in stages:
        if is_run(stage.folder) and (options.overwrite or not known):
            shutil.rmtree(stage.folder)
    write_text(marker, f"{weights}\n")


def _run_stage(stage: DemoStage, base: LoadedModel, say: Narrator) -> None:
    """Train (when the stage does) and measure, unless that is done already with the same settings."""
    fresh = stage.trains and _train(stage.config, say)
    config = stage.config
    if stage.trains:
        config = evaluation_config(str(stage.folder), options={"out": str(stage.evaluation)})
    if not fresh and _is_measured(config):
        say.kept(Stage(stage.name, stage.evaluation))
        return
    problems = problems_of(config)
    loaded = None if stage.trains else base
    with SampleBar("answering", len(problems), say.bars) as bar:
        found = evaluate(config, loaded=loaded, problems=problems, on_sample=bar)
    say.measured(found)


def _train(config: RunConfig, say: Narrator) -> bool:
    """Train, go on with, or keep the stage's run; whether anything was trained."""
    assert config.out is not None
    run = Run(config.out)
    resume = is_run(config.out) and _is_unchanged(run, config)
    if resume and run.record.get("status") == "finished":
        return False
    method = {"sft": sft.run, "rft": rft.run}[config.method]
    say.trained(method(config, resume=resume, overwrite=not resume, progress=say.bars))
    return True


def _is_unchanged(run: Run, config: RunConfig) -> bool:
    try:
        check_unchanged(run, config, {})
    except TrainingError:
        return False
    return True


def _is_measured(config: RunConfig) -> bool:
    """Whether there is a finished evaluation of the same settings."""
    assert config.out is not None
    if not (config.out / "scores.json").is_file():
        return False
    return bool(Run(config.out).record.get("config") == config.model_dump(mode="json"))


def _results(stages: list[DemoStage], measured: list[Stage], speed: Speed, seconds: float) -> dict[str, Any]:
    """What results.json holds: the rates of each stage, and every later stage compared with the earlier ones."""
    found: dict[str, Any] = {stage.key: _rates(each) for stage, each in zip(stages, measured, strict=True)}
    found["compared"] = {
        f"{stages[i].key} → {stages[j].key}": to_plain(compare(measured[i], measured[j]))
        for j in range(len(stages))
        for i in range(j)
    }
    return {**found, "speed": to_plain(speed), "seconds": round(seconds, 1)}


def _rates(stage: Stage) -> dict[str, Any]:
    scores = stage.scores
    return {
        "accuracy": scores.accuracy.value,
        "accuracy_interval": [scores.accuracy.low, scores.accuracy.high],
        "answer_rate": scores.answer_rate.value,
        "stop_rate": scores.stop_rate.value,
        "n": scores.n,
    }


def _title(config: RunConfig) -> str:
    return f"From base to RFT: {config.task.name.replace('_', ' ')} with {config.model}"

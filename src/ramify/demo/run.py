"""`ramify demo`: runs the stages, keeps what is finished, exports the last, writes results.json and report.html."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

from ramify import nano
from ramify.base.config import RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, RamifyError, RunError, TrainingError
from ramify.base.records import sha256_file, to_plain, write_json, write_text
from ramify.base.runs import Run, is_run
from ramify.console import SampleBar
from ramify.demo.narrator import Narrator
from ramify.demo.speed import Speed, measure_speed
from ramify.demo.stages import DemoStage, demo_stages
from ramify.evaluate.compare.comparison import Comparison, compare_stages
from ramify.evaluate.compare.trace import traced
from ramify.evaluate.folder import drawn_before
from ramify.evaluate.report.extras import Extras
from ramify.evaluate.report.write import write_report
from ramify.evaluate.run import evaluate, load, problems_of
from ramify.evaluate.scores import Scores
from ramify.evaluate.settings import evaluation_config
from ramify.evaluate.stages import Stage
from ramify.export.card import parity_head, parity_lines
from ramify.export.plan import Wish
from ramify.export.run import Export, export
from ramify.model.load import LoadedModel
from ramify.sample.llamacpp.runtime import PACKAGES
from ramify.train import rft, sft
from ramify.train.folder import check_unchanged
from ramify.train.rows import read_examples

KINDS = ("f16", "q8_0", "q4_k_m")
_SCORED = 100


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

    @property
    def score(self) -> int:
        """Questions that every exported file answers too."""
        return min(self.n or _SCORED, 10 if self.quick else _SCORED)


def run_demo(options: DemoOptions, narrator: Narrator | None = None) -> dict[str, Any]:
    """Run what is not finished, and write results.json and report.html.

    Returns:
        The content of results.json.

    Raises:
        RamifyError: a stage cannot be run, or an exported file is not the model that was trained.
    """
    say = Narrator() if narrator is None else narrator
    began = perf_counter()
    stages = demo_stages(options.out, options.quick, options.n)
    _clear_stale(stages, options)
    say.begin(stages[0].config)
    base = load(stages[0].config)
    for stage in stages:
        say.stage(stage)
        _run_stage(stage, base, say)
    measured = [Stage(stage.name, stage.evaluation, stage.folder if stage.trains else None) for stage in stages]
    speed = measure_speed(base, stages[1].config, measured[1])
    say.speed(speed)
    exported, failure = _tried(stages[-1], options, say)
    comparison = compare_stages(measured, title=_title(stages[0].config), each=True)
    results = _results(stages, comparison, speed, perf_counter() - began)
    write_json(options.out / "results.json", {**results, "parity": to_plain(list(exported.rows if exported else ()))})
    tables = {"Export": (parity_head(exported.rows), parity_lines(exported.rows))} if exported else {}
    notes = (f"The export failed: {failure}",) if failure else ()
    extras = Extras(notes=notes, speed=speed.table(), tables=tables)
    write_report(options.out / "report.html", traced(comparison), extras)
    say.end(comparison, options.out, perf_counter() - began)
    if failure is not None:
        raise failure
    _refuse_failed(exported)
    return results


def _refuse_failed(exported: Export | None) -> None:
    """End with an error where an exported file is not the model that was trained; all of the demo is written by then.

    Raises:
        RunError: names the rows of the parity table.
    """
    if exported is not None and exported.failures:
        raise RunError(f"{exported.folder} is not the model that was trained: {'; '.join(exported.failures)}")


def _clear_stale(stages: list[DemoStage], options: DemoOptions) -> None:
    """Remove earlier runs of the demo when asked, or when they started from other weights.

    Raises:
        RunError: a stage's folder holds a run that the demo did not write; nothing is removed.
    """
    found = [stage for stage in stages if is_run(stage.folder)]
    foreign = [stage.key for stage in found if not _marker(stage).is_file()]
    if foreign and not options.overwrite:
        raise RunError(
            f"{options.out}: holds runs that the demo did not write ({', '.join(foreign)})",
            hint="another folder (--out), or --overwrite to replace them",
        )
    for stage in found:
        if options.overwrite or _marker(stage).read_text(encoding="utf-8") != _weights():
            shutil.rmtree(stage.folder)


def _marker(stage: DemoStage) -> Path:
    """What shows that the demo wrote a folder; holds the hash of the weights it started from."""
    return stage.folder / "demo.sha256"


def _weights() -> str:
    return sha256_file(nano.path() / "model.safetensors") + "\n"


def _run_stage(stage: DemoStage, base: LoadedModel, say: Narrator) -> None:
    """Train (when the stage does) and measure, unless that is done already with the same settings."""
    fresh = stage.trains and _train(stage, say)
    config = stage.config
    if stage.trains:
        options = {"out": str(stage.evaluation), "evaluate.limit": config.evaluate.limit}
        config = evaluation_config(str(stage.folder), options=options)
    if not fresh and _is_measured(config):
        say.kept(Stage(stage.name, stage.evaluation))
        return
    problems = problems_of(config)
    loaded = None if stage.trains else base
    with SampleBar("answering", len(problems), say.bars, drawn_before(config, problems)) as bar:
        found = evaluate(config, loaded=loaded, problems=problems, on_sample=bar, overwrite=True)
    if not stage.trains:  # a training's folder was marked before
        write_text(_marker(stage), _weights())
    say.measured(found)


def _train(stage: DemoStage, say: Narrator) -> bool:
    """Train, go on with, or keep the stage's run; whether anything was trained."""
    run = Run(stage.folder)
    begun = as_begun(run, stage.config) if is_run(stage.folder) else None
    if begun is not None and run.record.get("status") == "finished":
        return False
    if begun is None and is_run(stage.folder):
        shutil.rmtree(stage.folder)
    write_text(_marker(stage), _weights())
    config = stage.config if begun is None else begun
    method = {"sft": sft.run, "rft": rft.run}[config.method]
    say.trained(method(config, resume=begun is not None, progress=say.bars))
    return True


def as_begun(run: Run, config: RunConfig) -> RunConfig | None:
    """The settings that a run is kept, or gone on with, under; None: it was made differently.

    Which questions are asked afterwards is no part of what made it, unless validation rows are those beyond them.
    """
    try:
        before = parse_config(run.record.get("config") or {})
        begun = config.model_copy(update={"evaluate": before.evaluate})
        check_unchanged(run, begun, {})
    except (ConfigError, TrainingError):
        return None
    moved = config.evaluate != before.evaluate and config.data.valid is not None
    return None if moved and read_examples(config, "valid") != read_examples(begun, "valid") else begun


def _tried(stage: DemoStage, options: DemoOptions, say: Narrator) -> tuple[Export | None, RamifyError | None]:
    """The export, or what kept it from being made: the report of what was trained is written all the same."""
    try:
        return _export(stage, options, say), None
    except RamifyError as error:
        return None, error


def _export(stage: DemoStage, options: DemoOptions, say: Narrator) -> Export | None:
    """The last stage as GGUF files, proven; None where the packages that write and read them are not installed."""
    if find_spec("gguf") is None or not any(map(find_spec, PACKAGES)):
        say.not_exported()
        return None
    say.exporting()
    wish = Wish(
        str(stage.folder), options.out / "export", quants=KINDS, score=options.score, name="demo", overwrite=True
    )
    found = export(wish, say.bars)
    say.exported(found)
    return found


def _is_measured(config: RunConfig) -> bool:
    """Whether there is a finished evaluation of the same settings."""
    assert config.out is not None
    if not (config.out / "scores.json").is_file():
        return False
    return bool(Run(config.out).record.get("config") == config.model_dump(mode="json"))


def _results(stages: list[DemoStage], found: Comparison, speed: Speed, seconds: float) -> dict[str, Any]:
    """What results.json holds: the rates of each stage, and every later stage compared with the earlier ones."""
    keys = {arm.name: stage.key for stage, arm in zip(stages, found.arms, strict=True)}
    rates: dict[str, Any] = {keys[arm.name]: _rates(arm.scores) for arm in found.arms}
    compared = {
        f"{keys[each.before.name]} → {keys[each.after.name]}": {
            **to_plain(each.overall.paired),
            "p_adjusted": each.overall.p_adjusted,
            "verdict": each.verdict,
        }
        for each in found.contrasts
    }
    return {**rates, "compared": compared, "speed": to_plain(speed), "seconds": round(seconds, 1)}


def _rates(scores: Scores) -> dict[str, Any]:
    return {
        "accuracy": scores.accuracy.value,
        "accuracy_interval": [scores.accuracy.low, scores.accuracy.high],
        "answer_rate": scores.answer_rate.value,
        "stop_rate": scores.stop_rate.value,
        "n": scores.n,
    }


def _title(config: RunConfig) -> str:
    return f"From base to RFT: {config.task.name.replace('_', ' ')} with {config.model}"

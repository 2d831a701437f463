"""`ramify plan`: what a run will take, before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.run_words import read_run

if TYPE_CHECKING:
    from ramify.plan.plan import Plan

Rows = list[tuple[str, str]]

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CONFIG] [KEY=VALUE]...", help="As `ramify train` takes them."),
]


def plan(
    arguments: Arguments = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan here, as JSON.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Plan to replace the run in the folder.")] = False,
) -> None:
    """Check, count and measure a run before it: tokens, steps, memory, time, disk. Exit code 1: something must change.

    A few steps are tried out in a process of their own; nothing is trained. For example:
    ramify plan recipes/unit-conversion/sft.yaml model=nano

    Commands of TRL are planned as they are: ramify plan sft --model_name_or_path nano --dataset_name DIR …
    """
    from ramify.base.errors import ConfigError
    from ramify.base.records import write_json
    from ramify.console import Bars, output, table
    from ramify.plan.plan import make_plan

    config, asked = read_run(arguments or [], {})
    if "resume" in asked:
        raise ConfigError("a plan is of a whole run, not of what is left of one", hint="leave the option out")
    if out is not None and out.is_dir():
        raise ConfigError(f"--out {out}: is a folder, a file is needed", hint="out=FOLDER is where the run goes")
    bars = Bars()
    bars.start("counting and measuring", None)
    try:
        made = make_plan(config, overwrite=overwrite or "overwrite" in asked)
    finally:
        bars.close()
    for note in made.notes:
        bars.note(note)
    output().print(table(f"plan: {config.method} of {config.model} to {config.out}", ("", ""), _rows(made)))
    output().print(made.verdict, markup=False, soft_wrap=True)
    if out is not None:
        write_json(out, made.as_plain())
    if not made.goes:
        raise typer.Exit(1)


def _rows(made: Plan) -> Rows:
    return _counted(made) + _computed(made) + _needed(made) + _timed(made)


def pass_names(method: str) -> tuple[str, str]:
    """What the tokens of a dry run are those of, and its longest: of rejection sampling only prompts are known."""
    if method == "rft":
        return "tokens of all prompts", "longest prompt and answer in tokens"
    return "tokens of one pass", "longest sequence in tokens"


def _counted(made: Plan) -> Rows:
    """Of the rows."""
    counts, config = made.counts, made.config
    named = {"sft": "rows", "dpo": "pairs", "rft": "questions"}[config.method]
    tokens, longest = pass_names(config.method)
    found = [
        (f"{named} to train on", f"{counts.rows:,}"),
        ("left out, too long (none is ever cut)", f"{counts.too_long:,}"),
        ("validation rows", f"{counts.valid_rows:,}"),
        (tokens, f"{counts.tokens:,}"),
        ("trained tokens of one pass", f"{counts.trained:,.0f}"),
        (longest, f"{counts.longest:,}"),
        ("samples to draw", f"{counts.samples:,}"),
    ]
    return [row for row in found if row[1] != "0" or row[0].startswith("left out")]


def _computed(made: Plan) -> Rows:
    """Of the steps."""
    size, config = made.size, made.config
    if size is None:
        return []
    about = "" if size.exact else "about "
    share = size.saved / max(size.tokens, 1)
    return [
        ("optimizer steps", f"{size.steps:,}"),
        ("of them warm-up", f"{size.warmup:,}"),
        (f"{'pairs' if config.method == 'dpo' else 'sequences'} a step", f"{config.train.batch_size:,}"),
        ("epochs", f"{size.epochs:.2f}"),
        ("tokens of the run, unshared", f"{about}{size.tokens:,}"),
        ("tokens computed, shared", f"{about}{size.computed:,}"),
        ("saved by sharing", f"{about}{size.saved:,} ({share:.1%})"),
        ("largest micro-batch in tokens", f"{size.largest:,}"),
        ("evaluations, checkpoints", f"{size.evaluations:,}, {size.checkpoints:,}"),
    ]


def _needed(made: Plan) -> Rows:
    """Of memory and disk."""
    from ramify.plan.amounts import gigabytes

    least, has = made.footprint, made.memory
    how = "measured" if has.reached else "foreseen"
    needed = "more than there is" if has.bytes is None else f"{gigabytes(has.bytes)} ({has.part}, {how})"
    return [
        ("parameters, trained", f"{least.parameters:,}, {least.trained:,}"),
        ("weights, optimizer state", f"{gigabytes(least.weights)} ({least.dtype}), {gigabytes(least.state)}"),
        ("peak memory", needed),
        ("memory that is free", gigabytes(has.room)),
        ("a checkpoint, all on disk", f"{gigabytes(least.checkpoint)}, {gigabytes(least.disk)}"),
    ]


def _timed(made: Plan) -> Rows:
    """Of time."""
    from ramify.plan.amounts import clock

    took = made.duration
    if took is None:
        return []
    parts = [(f"time: {name}", clock(seconds)) for name, seconds in took.parts.items() if seconds >= 0.5]
    return [*parts, ("time of the run", f"{clock(took.seconds)} ± {took.error:.0%}")]

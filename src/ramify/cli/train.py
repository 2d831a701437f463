"""`ramify train`: supervised fine-tuning, rejection sampling followed by it, or preference optimisation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ramify.base.config import RunConfig

Arguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CONFIG] [KEY=VALUE]...", help="A YAML file (recipes/…), and settings that go before it."),
]


def train(
    arguments: Arguments = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<name of CONFIG>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check settings, model and data; train nothing.")] = False,
) -> None:
    """Train a model: `ramify train recipes/unit-conversion/sft.yaml model=nano`, or by settings alone.

    For example: ramify train method=sft model=nano data.train=train.json out=runs/mine train.lr=1e-3
    """
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import config_from

    config = config_from(arguments or [], {"out": out})
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    if config.data.train is None:
        raise ConfigError("data.train is not set", hint="data.train=FILE, or data.train=task for the task's own rows")
    if dry_run:
        return _show_dry_run(config, resume, overwrite)
    from ramify.console import Bars, console
    from ramify.train import dpo, rft, sft

    train_with = {"sft": sft.run, "rft": rft.run, "dpo": dpo.run}[config.method]
    run = train_with(config, resume=resume, overwrite=overwrite, progress=Bars())
    record = run.record
    console().print(f"finished in {record.get('seconds', 0):.0f} s: {run.folder}", markup=False, soft_wrap=True)
    console().print(f"next: ramify eval {run.folder}", style="dim", markup=False, soft_wrap=True)


def _show_dry_run(config: RunConfig, resume: bool, overwrite: bool) -> None:
    """What the run would do, on standard output."""
    from ramify.console import Bars, output, table
    from ramify.train.dryrun import dry_run

    found = dry_run(config, resume=resume, overwrite=overwrite)
    for note in found.notes:
        Bars().note(note)
    counts = {
        "rows": found.rows,
        "tokens of one pass": found.tokens,
        "longest sequence in tokens": found.longest,
        "optimizer steps": found.steps,
        "samples to draw": found.samples,
    }
    rows = [(name, f"{count:,}") for name, count in counts.items() if count]
    output().print(table(f"dry run: {config.method} of {config.model} to {config.out}", ("", ""), rows))

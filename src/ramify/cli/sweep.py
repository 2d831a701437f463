"""`ramify sweep`: the same run with other settings, many times, and what can be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ramify.plan.sweep.axes import Drawing
    from ramify.plan.sweep.results import Row, SweepResult
    from ramify.plan.sweep.runs import SweepRun

Arguments = Annotated[
    list[str],
    typer.Argument(metavar="[CONFIG] KEY=VALUE,VALUE...", help="A YAML file, and settings with the values they take."),
]


def sweep(
    arguments: Arguments,
    out: Annotated[Path | None, typer.Option(help="Folder of the sweep; default runs/sweep-<name of CONFIG>.")] = None,
    random: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Draw N combinations instead of taking all of them.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw; training's own is seed=1,2,3.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs side by side; default as many as memory and cores allow.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list the runs; start none.")] = False,
) -> None:
    """Train and evaluate every combination of settings, or some at random, and compare them honestly.

    Each run is a normal run folder in the sweep's. The same command goes on with a sweep that was stopped. Values of
    seed= are repetitions: they are grouped. With --random, lr=1e-5..1e-3 is a range, drawn by its logarithm.

    For example: ramify sweep recipes/unit-conversion/sft.yaml lora.r=4,16,64 train.lr=1e-4,5e-4
    """
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import is_override
    from ramify.plan.sweep.axes import Drawing
    from ramify.plan.sweep.runs import plan_sweep

    files = [each for each in arguments if not is_override(each)]
    if len(files) > 1:
        raise ConfigError(f"one configuration file is allowed, found {' '.join(files)}", hint="settings are key=value")
    if random is None and seed != 0:
        raise ConfigError(f"--seed {seed} does nothing without --random", hint=f"seed={seed} is the seed of training")
    drawing: Drawing | None = None if random is None else Drawing(random, seed)
    folder = out or Path("runs") / (f"sweep-{Path(files[0]).stem}" if files else "sweep")
    overrides = [each for each in arguments if each not in files]
    runs = plan_sweep(files[0] if files else None, overrides, folder, drawing)
    if dry_run:
        return _list(runs)
    _carry_out(runs, folder, jobs)


def _list(runs: Sequence[SweepRun]) -> None:
    from ramify.console import output, table

    output().print(table(f"{len(runs)} runs", ("run", "settings", "seed"), [(r.name, r.label, r.seed) for r in runs]))


def _carry_out(runs: Sequence[SweepRun], folder: Path, jobs: int | None) -> None:
    from ramify.console import console
    from ramify.plan.sweep.run import PAGE, Listener, sweep

    tell = _Teller(len(runs))
    result = sweep(runs, folder, jobs, Listener(tell.started, tell.ended))
    _show(result)
    console().print(f"written: {folder / PAGE}", style="dim", markup=False, soft_wrap=True)
    if result.failed:
        raise typer.Exit(1)


class _Teller:
    """A line on standard error for each run that has begun or ended."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def started(self, run: SweepRun) -> None:
        """A process for it was started."""
        self._print(f"{run.name} …", "dim")

    def ended(self, row: Row) -> None:
        """It is finished, now or before, or has failed."""
        from ramify.evaluate.words import rate

        self._done += 1
        count = f"{self._done} of {self._total}"
        if row.stage is None:
            self._print(f"{count}  {row.run.name}: failed: {row.error}", "red")
            return
        took = "" if row.seconds is None else f", {row.seconds:.0f} s"
        self._print(f"{count}  {row.run.name}: {rate(row.stage.scores.accuracy)}{took}", None)

    def _print(self, text: str, style: str | None) -> None:
        from ramify.console import console, neutral

        console().print(neutral(text), style=style, markup=False, soft_wrap=True)


def _show(result: SweepResult) -> None:
    """Settings, verdict and notes on standard output."""
    from ramify.console import neutral, output, table
    from ramify.plan.sweep.page import SETTING_COLUMNS, setting_rows

    terminal = output()
    terminal.print(table("", SETTING_COLUMNS, setting_rows(result)))
    terminal.print()
    terminal.print(neutral(result.verdict), markup=False, soft_wrap=True)
    for note in result.notes:
        terminal.print(neutral(f"- {note}"), style="dim", markup=False, soft_wrap=True)

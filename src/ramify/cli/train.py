"""`ramify train`: supervised fine-tuning, rejection sampling followed by it, or preference optimisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli.run_words import is_main, read_run

if TYPE_CHECKING:
    from ramify.base.config import RunConfig
    from ramify.cli.launch import Layout

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
    print_launch: Annotated[
        bool, typer.Option("--print-launch", help="Show how to start several processes; start none.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(help="With --print-launch: processes on each machine; default its GPUs.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="With --print-launch: machines.")] = None,
) -> None:
    """Train a model: `ramify train recipes/unit-conversion/sft.yaml model=nano`, or by settings alone.

    For example: ramify train method=sft model=nano data.train=train.json out=runs/mine train.lr=1e-3

    Commands of TRL run as they are (docs/from-trl.md): ramify train sft --model_name_or_path nano --dataset_name DIR …
    """
    from ramify.base.errors import ConfigError

    words, options = arguments or [], {"out": out}
    flags = {"resume": resume, "overwrite": overwrite}
    if print_launch:
        return _show_launch(words, options, flags, _layout(processes, nodes))
    if processes is not None or nodes is not None:
        raise ConfigError(f"--{'nodes' if processes is None else 'processes'} does nothing without --print-launch")
    config, asked = read_run(words, options)
    flags = {name: given or name in asked for name, given in flags.items()}
    if all(flags.values()):
        raise ConfigError("--resume and --overwrite exclude each other")
    if not dry_run:
        _train(config, **flags)
    elif is_main():
        _show_dry_run(config, **flags)


def _train(config: RunConfig, resume: bool, overwrite: bool) -> None:
    """Train, unless memory or disk have no room for it, and say where the result is."""
    from ramify.console import Bars, console
    from ramify.plan.beforehand import refuse_what_cannot_fit
    from ramify.train import dpo, rft, sft
    from ramify.train.checks import check_engine
    from ramify.train.folder import Opening, check_free, run_folder

    check_engine(config)
    check_free(run_folder(config), Opening(resume, overwrite))
    refuse_what_cannot_fit(config)

    train_with = {"sft": sft.run, "rft": rft.run, "dpo": dpo.run}[config.method]
    run = train_with(config, resume=resume, overwrite=overwrite, progress=Bars())
    if not is_main():
        return
    seconds = run.record.get("seconds", 0)
    console().print(f"finished in {seconds:.0f} s: {run.folder}", markup=False, soft_wrap=True)
    console().print(f"next: ramify eval {run.folder}", style="dim", markup=False, soft_wrap=True)


def _show_launch(words: Sequence[str], options: Mapping[str, Any], flags: Mapping[str, bool], layout: Layout) -> None:
    """The commands that start the run in several processes, on standard output."""
    from ramify.cli.launch import launch_lines
    from ramify.cli.settings import config_from
    from ramify.cli.trl_command import is_trl
    from ramify.console import output

    if is_trl(words):
        from ramify.cli.trl_run import as_typed

        step = as_typed(words, options, layout.size).step
        told = f"# a step holds {step.says} = {step.rows} rows of TRL's: its batch size counts for each process"
    else:
        size = config_from(words, options).train.batch_size
        told = f"# each step's {size} sequences are shared out, and the result is that of one process"
    typed = [text for name, value in options.items() if value is not None for text in (f"--{name}", str(value))]
    typed += [f"--{name}" for name, given in flags.items() if given]
    for line in (*launch_lines(["train", *words, *typed], layout), told):
        output().print(line, markup=False, soft_wrap=True)


def _layout(processes: int | None, nodes: int | None) -> Layout:
    """As many processes as were asked, or as this machine has GPUs."""
    from ramify.cli.launch import Layout

    if processes is None:
        import torch

        processes = max(1, torch.cuda.device_count())
    return Layout(processes, 1 if nodes is None else nodes)


def _show_dry_run(config: RunConfig, resume: bool, overwrite: bool) -> None:
    """What the run would do, on standard output."""
    from ramify.cli.plan import pass_names
    from ramify.console import Bars, output, table
    from ramify.plan.amounts import gigabytes
    from ramify.plan.beforehand import refuse_what_cannot_fit
    from ramify.train.checks import check_engine
    from ramify.train.dryrun import dry_run

    check_engine(config)
    least = refuse_what_cannot_fit(config)
    found = dry_run(config, resume=resume, overwrite=overwrite)
    for note in found.notes:
        Bars().note(note)
    tokens, longest = pass_names(config.method)
    counts = {
        "rows": found.rows,
        "left out, too long": found.too_long,
        tokens: found.tokens,
        "trained tokens of one pass": round(found.trained),
        longest: found.longest,
        "optimizer steps": found.steps,
        "of them warm-up": 0 if found.course is None else found.course.schedule.warmup,
        "samples to draw": found.samples,
    }
    rows = [(name, f"{count:,}") for name, count in counts.items() if count]
    rows.append(("memory of weights and optimizer, without activations", gigabytes(least.memory)))
    rows.append(("disk that checkpoints take", gigabytes(least.disk)))
    output().print(table(f"dry run: {config.method} of {config.model} to {config.out}", ("", ""), rows))

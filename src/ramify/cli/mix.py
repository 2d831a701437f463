"""`ramify data mix`: several data sets become one, in stated shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.cli.train import Arguments

if TYPE_CHECKING:
    from ramify.base.config_mix import MixConfig
    from ramify.data.mix.report import Report
    from ramify.prompts.renderer import Renderer


def mix(
    out: Annotated[Path, typer.Option(help="Folder of the mix.")],
    arguments: Arguments = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Write train.jsonl and validation.jsonl too.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Show so many rows before and after prompt erasure.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the sources that were read, read the others.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the mix in the folder.")] = False,
) -> None:
    """Mix data sets by their weights: deduplicated, split, with a report of wanted and real shares.

    For example: ramify data mix recipes/orca/mix-files.yaml rows=2000 --out data/orca

    A setting of one source is named by it: sources.gsm8k.weight=20. The folder is what `ramify train data.train=DIR`
    and `datasets.load_from_disk` read.
    """
    from ramify.base.errors import ConfigError
    from ramify.console import Bars, console
    from ramify.data.mix.build import mix as make
    from ramify.data.mix.folder import MixFolder
    from ramify.data.mix.write import Wishes

    config = _config(arguments or [])
    if show and not config.erasures():
        raise ConfigError(f"--show {show} shows prompt erasure, and the mix has none", hint="erase.mode=replace")
    folder = MixFolder(out, resume=resume, overwrite=overwrite)
    try:
        made = make(config, folder, _renderer(config), Wishes(jsonl, show), Bars())
    except KeyboardInterrupt as stopped:
        stopped.args = ("interrupted; the same command with --resume keeps the sources that were read",)
        raise
    for row in made.shown:
        _show(row)
    _tell(made.report)
    console().print(f"written: {folder.out}", style="dim", markup=False, soft_wrap=True)


def _config(arguments: Sequence[str]) -> MixConfig:
    """The settings that a file and overrides mean.

    Raises:
        ConfigError: there is not one file, or a setting is refused.
    """
    from ramify.base.config_file import load_mix
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import is_override

    files = [each for each in arguments if not is_override(each)]
    if len(files) != 1:
        found = f", found {' '.join(files)}" if files else ""
        raise ConfigError(f"one file with the settings of the mix is needed{found}", hint="ramify data mix FILE.yaml")
    return load_mix(files[0], [each for each in arguments if each not in files])


def _renderer(config: MixConfig) -> Renderer:
    """What counts tokens."""
    from ramify.model.outline import load_outline
    from ramify.train.checks import renderer_for

    return renderer_for(load_outline(config.model, revision=config.revision), config.prompt)


def _show(row: dict[str, Any]) -> None:
    """A row before and after erasure."""
    from rich.text import Text

    from ramify.console import output

    turns = row.get("messages") or row["prompt"]
    after = turns[0]["content"] if turns[0]["role"] == "system" else None
    shown = Text(f"── {row['source']} {row['row']}\n", style="dim")
    shown.append(f"- {row['original_system']}\n", style="red")
    shown.append("- (no system turn)\n" if after is None else f"+ {after}\n", style="green")
    for turn in turns[after is not None :]:
        shown.append(f"  {turn['role']}: ", style="dim").append(f"{turn['content']}\n", style="default")
    output().print(shown, soft_wrap=True)


def _tell(report: Report) -> None:
    """The report on standard output, what is noteworthy on standard error."""
    from ramify.console import console, output, table
    from ramify.data.mix.report import DROPPED_COLUMNS, EVALUATION_COLUMNS, FIGURES, SHARE_COLUMNS

    terminal, lines = output(), console()
    terminal.print(table("", SHARE_COLUMNS, report.shares()))
    terminal.print(table("", ("split", *FIGURES), report.sides()))
    terminal.print(table("", DROPPED_COLUMNS, report.dropped()))
    if report.evaluations:
        terminal.print(table("", EVALUATION_COLUMNS, report.decontamination()))
    if report.erasure():
        terminal.print(table("", ("source", "prompt erasure, of the rows read"), report.erasure()))
    for line in [*report.why(), *report.notes]:
        lines.print(f"note: {line}", style="yellow", markup=False, soft_wrap=True)

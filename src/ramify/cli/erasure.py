"""`ramify erasure`: whether a prompt that was left out in training has moved into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ramify.evaluate.erasure import Erasure


def erasure(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A training run.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Any setting.")] = None,
    system: Annotated[str | None, typer.Option(help="The system turn that was erased: text, or a file.")] = None,
    fewshot: Annotated[str | None, typer.Option(help="Worked turns that were erased: a name, or a file.")] = None,
    start: Annotated[str | None, typer.Option(help="The start model; default: what the run began with.")] = None,
    task: Annotated[str | None, typer.Option(help="unit_conversion, math, grading, or your own Python file.")] = None,
    problems: Annotated[str | None, typer.Option(help="A file of problems; default: the task's held-out ones.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="First so many; default 500, of a file all.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for it; default RUN/erasure.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other evaluations in --out.")] = False,
) -> None:
    """Evaluate start model and run, each with the erased prompt and without: four answers to the same problems.

    For example: ramify erasure runs/tuned --system prompts/long.txt
    The run's own prompt is the one without. What was stopped goes on with the same command.
    """
    from ramify.base.config import RunConfig
    from ramify.base.errors import ConfigError
    from ramify.base.runs import is_run
    from ramify.cli.settings import given
    from ramify.console import SampleBar
    from ramify.evaluate.erasure import four_ways, measure
    from ramify.evaluate.settings import evaluation_config

    if system is None and fewshot is None:
        raise ConfigError("which prompt was erased?", hint="--system TEXT|FILE, --fewshot NAME|FILE, or both")
    if out is None and not is_run(run):
        raise ConfigError(f"{run} is no run folder, so where is the result to go?", hint="--out DIR")
    options = {"task.name": task, "evaluate.problems": problems, "evaluate.limit": n}
    config = evaluation_config(run, overrides or [], given(options))
    config = config.model_copy(update={"out": out or Path(run) / "erasure"})
    changed = given({"system": None if system is None else _text(system), "fewshot": fewshot})
    asked = config.prompt.model_copy(update=changed)
    configs = four_ways(config, asked, start=None if start is None else RunConfig(model=start))
    found = measure(configs, watch=SampleBar, overwrite=overwrite)
    _show(found)
    typer.echo(f"written to {config.out}", err=True)


def _text(given: str) -> str:
    """A text, or the content of the file of that name.

    Raises:
        ConfigError: the file cannot be read.
    """
    from ramify.base.errors import ConfigError

    try:
        path = Path(given)
        return path.read_text(encoding="utf-8-sig").strip() if len(given) < 256 and path.is_file() else given
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--system {given}: cannot be read: {error}") from None


def _show(found: Erasure) -> None:
    from ramify.console import output, table
    from ramify.evaluate import words

    cells = [
        (model, words.rate(with_it.scores.accuracy), words.rate(without.scores.accuracy))
        for model, with_it, without in (
            ("start model", found.start_with, found.start_without),
            ("tuned model", found.tuned_with, found.tuned_without),
        )
    ]
    terminal = output()
    terminal.print(table("", ("accuracy", "with the prompt", "without it"), cells))
    terminal.print()
    rows = [
        (what, words.points(each.paired), words.p_value(each.p_adjusted), words.outcome(each))
        for what, each in found.differences.items()
    ]
    terminal.print(table("", ("", "points (95 % interval)", "p, corrected", "finding"), rows))
    terminal.print(found.headline, markup=False, soft_wrap=True)

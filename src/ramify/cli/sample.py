"""`ramify sample`: k graded samples of each problem, and the training rows chosen among them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.train import Arguments

if TYPE_CHECKING:
    from ramify.base.config import RunConfig


def sample(
    arguments: Arguments = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/<name of CONFIG>.")] = None,
    engine: Annotated[str | None, typer.Option(help="own, llamacpp (a GGUF file), openai (a server) or vllm.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Draw only what is missing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Draw, grade and select: `ramify sample CONFIG --out DIR` writes samples, verdicts, rows and yield.

    For example: ramify sample model=nano data.train=train.json sample.n=8 sample.temperature=0.7 --out runs/draws
    Train the same model on the chosen rows with:
    ramify train runs/draws/config.yaml method=sft data.train=runs/draws out=runs/mine
    """
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import config_from, with_gguf_file

    config = with_gguf_file(config_from(arguments or [], {"out": out, "engine": engine}))
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    from ramify.console import Bars, console, output, show_usage, table
    from ramify.sample.endpoint.usage import usage_from
    from ramify.train import rft

    run = rft.sample(config, resume=resume, overwrite=overwrite, progress=Bars())
    output().print(table("", ("rejection sampling", "count"), yield_rows(run.folder)))
    show_usage(usage_from(run.record))
    if (run.folder / "rows.jsonl").stat().st_size:
        console().print(f"next: {next_command(config, run.folder)}", style="dim", markup=False, soft_wrap=True)


def next_command(config: RunConfig, folder: Path) -> str:
    """The command that trains on a run's rows: the run's own model and settings, its rows, another folder.

    Samples of another engine train another model, which the user names.
    """
    import shlex

    source = shlex.quote(str(folder))
    limit = "" if config.data.limit is None else " data.limit=null"  # it counted questions, not the rows chosen
    target = shlex.quote(f"{folder}-sft")
    if config.engine != "own":
        return f"ramify train model=YOUR_MODEL data.train={source} out={target}"
    return f"ramify train {shlex.quote(str(folder / 'config.yaml'))} method=sft data.train={source}{limit} out={target}"


def yield_rows(folder: Path) -> list[tuple[str, object]]:
    """The last round of a run's yield.json as lines of a table; no line when there is none."""
    import json

    path = folder / "yield.json"
    rounds = json.loads(path.read_text(encoding="utf-8"))["rounds"] if path.is_file() else []
    found = rounds[-1] if rounds else {}
    plain = [(name.replace("_", " "), value) for name, value in found.items() if isinstance(value, int | float)]
    return plain + [(f"refused: {name}", count) for name, count in found.get("refused", {}).items()]

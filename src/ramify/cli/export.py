"""`ramify export`: a trained model as files that other programs use, each proven to be the same model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ramify.export.plan import Target


def export(
    source: Annotated[str, typer.Argument(metavar="RUN", help="A run, a model or adapter folder, a hub id, or nano.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the export; default RUN/export.")] = None,
    to: Annotated[str, typer.Option(help="merged, gguf, ollama; several with commas.")] = "gguf",
    quant: Annotated[
        str | None,
        typer.Option(help="GGUF kinds: f32, f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m, …; default f16,q8_0."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type of the merged folder: bf16, fp16, fp32; default bf16.")
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="An adapter folder or run on top of the model.")] = None,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="The adapter as a GGUF of its own, for a base that is there.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Read every file back and compare it with the trained model.")
    ] = True,
    score: Annotated[
        int, typer.Option(min=0, help="Problems of the run's task that every stage answers, as a column.")
    ] = 0,
    llama_cpp: Annotated[
        Path | None, typer.Option(help="A llama.cpp checkout: its converter does families that are not built in.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What files are called; default: after the run.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the export in --out.")] = False,
) -> None:
    """Merge, write GGUF files, quantise, and prove it: one table of adapter, merged model and every file.

    For example: ramify export runs/mine --to gguf --quant f16,q8_0,q4_k_m
    The folder gets a model card, the table and the hashes of all files. Exit code 1 when a file is not the same model.
    """
    from ramify.base.errors import RunError
    from ramify.console import Bars, console, output, table
    from ramify.export.card import parity_head, parity_lines
    from ramify.export.plan import Wish
    from ramify.export.run import export as make

    wish = Wish(
        source=source,
        out=_default_out(source) if out is None else out,
        to=_targets(to),
        quants=None if quant is None else tuple(_listed(quant)),
        adapter=adapter,
        dtype=dtype,
        adapter_only=adapter_only,
        llama_cpp=llama_cpp,
        verify=verify,
        score=score,
        name=name,
        overwrite=overwrite,
    )
    bars = Bars()
    try:
        made = make(wish, bars)
    finally:
        bars.close()
    for note in made.notes:
        console().print(note, style="dim", markup=False)
    if made.rows:
        output().print(table("", parity_head(made.rows), parity_lines(made.rows)))
    typer.echo(f"written to {made.folder}", err=True)
    if made.failures:
        raise RunError(f"{made.folder} is not the model that was trained: {'; '.join(made.failures)}")


def _default_out(source: str) -> Path:
    from ramify.base.runs import is_run

    return Path(source) / "export" if is_run(source) else Path("runs") / f"export-{Path(source).name}"


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _targets(text: str) -> tuple[Target, ...]:
    """What to make, by name.

    Raises:
        ConfigError: a name is unknown, or there is none.
    """
    from ramify.base.errors import ConfigError, unknown
    from ramify.export.plan import Target

    allowed = {each.value: each for each in Target}
    names = _listed(text)
    for each in names:
        if each not in allowed:
            raise ConfigError(unknown("target", each, allowed))
    if not names:
        raise ConfigError("--to names nothing", hint=f"one of {', '.join(allowed)}")
    return tuple(allowed[each] for each in dict.fromkeys(names))

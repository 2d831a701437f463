"""`ramify demo`: the whole path on the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the runs and the report; default runs/demo, or runs/demo-quick.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few questions and steps; proves nothing.")] = False,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Held-out questions; default 500.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do finished stages again.")] = False,
) -> None:
    """Watch a small model get better: base, few-shot prompting, SFT, rejection sampling. Minutes, no network."""
    from ramify.demo.run import DemoOptions, run_demo

    folder = out if out is not None else Path("runs") / ("demo-quick" if quick else "demo")
    run_demo(DemoOptions(folder, quick, n, overwrite))

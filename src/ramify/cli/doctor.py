"""`ramify doctor`: what this machine can do, what is missing, what is broken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ramify.plan.doctor.examine import Examination

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    runs: Annotated[Path, typer.Option(help="Where runs are to go: its disk is looked at.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Look at Python, torch, accelerator, matrix rates, memory, disk, extras and environment; change nothing.

    Exit code 1 when something is broken, 0 otherwise: what is merely missing is a note with the line that installs it.
    """
    from ramify.console import output
    from ramify.plan.doctor.examine import examine

    found = examine(runs)
    if as_json:
        _print_json(found)
    else:
        _print(found)
        output().print(f"{found.verdict} ({found.seconds:.0f} s)", markup=False)
    if found.is_broken:
        raise typer.Exit(1)


def _print(found: Examination) -> None:
    """One line a finding, advice below it."""
    from rich.text import Text

    from ramify.console import neutral, output

    terminal, area = output(), None
    for each in found.findings:
        if each.area != area:
            area = each.area
            terminal.print(Text(area, style="bold"))
        state = each.state.value
        line = Text.assemble(f"  {state:<8}", f"{neutral(each.name)}: {neutral(each.seen)}")
        line.stylize(_STYLES[state], 2, 2 + len(state))
        terminal.print(line, soft_wrap=True)
        if each.advice:
            terminal.print(Text(f"          → {neutral(each.advice)}", style="dim"), soft_wrap=True)


def _print_json(found: Examination) -> None:
    """The same as one JSON document."""
    import json

    from ramify.base.records import to_plain

    document = {
        "verdict": found.verdict,
        "broken": found.is_broken,
        "seconds": round(found.seconds, 3),
        "findings": to_plain(found.findings),
    }
    typer.echo(json.dumps(document, ensure_ascii=False, indent=2))

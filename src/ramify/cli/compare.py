"""`ramify compare`: two or more evaluated runs, question by question."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Runs that `ramify eval` has measured.")],
    out: Annotated[Path | None, typer.Option(help="Write a report here: one offline HTML file.")] = None,
) -> None:
    """Compare runs on the questions they share: difference, 95 % interval, fixed, broken, exact p."""
    from ramify.base.errors import ConfigError
    from ramify.console import output, table
    from ramify.evaluate import words
    from ramify.evaluate.rating_tables import MEASURES, measures
    from ramify.evaluate.stages import compare as compare_stages
    from ramify.evaluate.stages import named_stages, pairs_to_compare

    if len(runs) < 2:
        raise ConfigError("two runs are needed to compare", hint="ramify compare runs/a runs/b")
    stages = named_stages(runs)
    rows = [
        (
            f"{a.name} → {b.name}",
            words.finding(found),
            words.points(found),
            found.fixed,
            found.broken,
            words.p_value(found.p),
        )
        for a, b in pairs_to_compare(stages)
        for found in [compare_stages(a, b)]
    ]
    terminal = output()
    shown = [(s.name, words.rate(s.scores.accuracy), words.rate(s.scores.answer_rate), s.scores.n) for s in stages]
    terminal.print(table("", ("", "accuracy", "answer rate", "problems"), shown))
    terminal.print()
    terminal.print(table("", ("", "finding", "points (95 % interval)", "fixed", "broken", "p"), rows))
    rated = [(stage.name, *measures(stage.ratings.overall)) for stage in stages if stage.ratings is not None]
    if rated:
        terminal.print()
        terminal.print(table("", ("", *MEASURES), rated))
    if out is not None:
        from ramify.evaluate.report import Contents, write_report

        write_report(out, Contents(f"{stages[0].name} and {stages[-1].name} compared", stages))
        typer.echo(f"written to {out}", err=True)

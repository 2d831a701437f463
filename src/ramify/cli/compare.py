"""`ramify compare`: two or more evaluated runs, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ramify.evaluate.compare.comparison import Comparison
    from ramify.evaluate.compare.unmeasured import Unmeasured
    from ramify.evaluate.stages import Stage

FORMS = (".html", ".htm", ".md", ".markdown", ".json")


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Evaluations, runs, models, adapters, GGUF.")],
    out: Annotated[list[Path] | None, typer.Option(help="Report: .html, .md or .json; may be given again.")] = None,
    each: Annotated[bool, typer.Option("--each", help="Keep runs apart that differ in their seed alone.")] = False,
    title: Annotated[str | None, typer.Option(help="Of the report.")] = None,
    near: Annotated[
        int | None, typer.Option(min=0, help="Training rows beside a broken answer of the report; 0: none; default 3.")
    ] = None,
) -> None:
    """Compare on the same questions: a verdict in words, difference, 95 % interval, fixed, broken, exact p.

    What was not evaluated yet is evaluated now: on the problems of the first that was, with its task and sampling.
    Runs that differ in their training seed alone are one, and what is said of them covers the variance between seeds.
    """
    from ramify.base.errors import ConfigError
    from ramify.evaluate.compare.comparison import compare_stages
    from ramify.evaluate.compare.trace import ROWS

    for path in out or ():
        if path.suffix.lower() not in FORMS:
            raise ConfigError(f"--out {path}: a report ends in {', '.join(FORMS)}")
    for option, value in (("--title", title), ("--near", near)):
        if value is not None and not out:
            raise ConfigError(f"{option} {value}: is of a report, and none is written", hint="--out report.html")
    if len(runs) < 2:
        raise ConfigError("two runs are needed to compare", hint="ramify compare runs/a runs/b")
    found = compare_stages(_stages(runs), title=title, each=each)
    _show(found)
    if out:
        _write(found, out, ROWS if near is None else near)


def _stages(names: Sequence[str]) -> list[Stage]:
    """The evaluations that the names mean; what is not evaluated yet is evaluated like the first that is.

    Raises:
        RunError: none of them is evaluated.
        ConfigError: one cannot be evaluated here.
    """
    from ramify.evaluate.stages import evaluation_folder, find_evaluation, stage, stages_of

    known = [find_evaluation(Path(name)) for name in names]
    first = next((folder for folder in known if folder is not None), None)
    if first is None:
        first = evaluation_folder(Path(names[0]))  # which raises: there is nothing to be like
    example = stage(first)
    wanted = {name: _wanted(example, name) for name, folder in zip(names, known, strict=True) if folder is None}
    made = {name: _evaluated(each) for name, each in wanted.items()}  # only when nothing of it is refused
    return stages_of([(name, folder or made[name]) for name, folder in zip(names, known, strict=True)])


def _wanted(example: Stage, name: str) -> Unmeasured:
    from ramify.base.errors import RamifyError
    from ramify.evaluate.compare.unmeasured import like, refused
    from ramify.sample.llamacpp.choices import find_gguf

    try:
        return like(example, name, gguf=find_gguf(name))
    except RamifyError as error:
        raise refused(name, error) from None


def _evaluated(wanted: Unmeasured) -> Path:
    """The folder of a model's evaluation, which is made now where there is none."""
    from ramify.base.errors import RamifyError
    from ramify.console import console, neutral
    from ramify.evaluate.compare.unmeasured import refused

    to = console()
    if wanted.is_done:
        said = f"{wanted.name}: evaluated before, in {wanted.folder}"
        to.print(neutral(said), style="dim", markup=False, soft_wrap=True)
        return wanted.folder
    said = f"{wanted.name}: not evaluated yet; {wanted.command}"
    to.print(neutral(said), style="dim", markup=False, soft_wrap=True)
    try:
        _measure(wanted)
    except RamifyError as error:
        raise refused(wanted.name, error) from None
    return wanted.folder


def _measure(wanted: Unmeasured) -> None:
    from ramify.console import SampleBar
    from ramify.evaluate.folder import drawn_before
    from ramify.evaluate.run import evaluate

    config, problems = wanted.config, wanted.problems
    done = drawn_before(config, problems)
    with SampleBar("sampling", len(problems) * config.sample.n, done=done) as bar:
        evaluate(config, problems=problems, on_sample=bar)


def _show(found: Comparison) -> None:
    """Verdicts first, then tables, then what a reader must know; on standard output."""
    from ramify.console import neutral, output, table
    from ramify.evaluate.compare import facts
    from ramify.evaluate.report.rating_tables import rating_table
    from ramify.evaluate.report.rule_table import rule_table

    terminal = output()
    for each in facts.leading(found):
        said = f"{each.after.name} against {each.before.name}: {each.verdict}"
        terminal.print(neutral(said), style="bold", markup=False, soft_wrap=True)
        if each.categories:
            terminal.print(neutral(f"by category: {each.by_category}"), markup=False, soft_wrap=True)
    tables = [
        ("", facts.answer_table(found.arms)),
        ("correct", facts.overall(found.contrasts)),
        ("could be read, right or wrong", facts.form_table(found.contrasts)),
        *((f"by category: {facts.title(each)}", facts.claims(each.categories)) for each in facts.leading(found)),
        ("right at least once in k", facts.chances(found.contrasts)),
        ("rules", rule_table(found.arms)),
        ("agreement with the assistant", rating_table([stage for arm in found.arms for stage in arm.stages])),
        ("settings that differ", facts.settings(found)),
    ]
    for caption, shown in tables:
        if shown.rows:
            terminal.print()
            terminal.print(table(caption, shown.columns, shown.rows))
    terminal.print()
    for note in found.notes:
        terminal.print(neutral(note), style="dim", markup=False, soft_wrap=True)


def _write(found: Comparison, paths: Sequence[Path], near: int) -> None:
    from ramify.base.records import write_json
    from ramify.evaluate.compare.plain import as_plain
    from ramify.evaluate.compare.trace import traced
    from ramify.evaluate.report.write import write_report

    whole = traced(found, near) if near else found
    for path in paths:
        if path.suffix.lower() == ".json":
            write_json(path, as_plain(whole))
        else:
            write_report(path, whole)
        typer.echo(f"written to {path}", err=True)

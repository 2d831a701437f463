"""`ramify data labs`: rubric-marked submissions become rows to train and to test on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ramify.data.labs.records import DEFAULT, Against, Choices, Form, Note, Statement

T = TypeVar("T")


def labs(
    folder: Annotated[Path, typer.Argument(metavar="LABS", help="The folder that holds the lab folders.")],
    out: Annotated[Path, typer.Option(help="Folder for train.jsonl, test.jsonl and report.json.")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="More names for --eval-labs.")] = None,
    eval_labs: Annotated[
        list[str] | None, typer.Option(metavar="NAME...", help="Labs held out: all their rows are test rows.")
    ] = None,
    shield_students: Annotated[
        bool, typer.Option("--shield-students", help="Students of held-out labs never train.")
    ] = DEFAULT.shield_students,
    train_split: Annotated[
        float, typer.Option(help="Share of the students who train, over all labs that are not held out.")
    ] = DEFAULT.train_split,
    form: Annotated[Form, typer.Option("--as", help="Which rows to write.")] = DEFAULT.form,
    pairs: Annotated[
        Against, typer.Option(help="Ratings rejected beside the one given: all others, next to it, or farthest.")
    ] = DEFAULT.against,
    statement: Annotated[
        Statement, typer.Option(help="ps.txt or problemStatement.txt; or modified_ps.txt.")
    ] = DEFAULT.statement,
    system_prompt: Annotated[Path | None, typer.Option(metavar="FILE", help="The text of a system turn.")] = None,
    seed: Annotated[int, typer.Option(help="Decides who trains.")] = DEFAULT.seed,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Secret bytes to hash students' names with; else the seed.")
    ] = None,
    max_file_kb: Annotated[
        int, typer.Option(help="Largest statement and source file, and sum of a student's source files.")
    ] = DEFAULT.max_file_kb,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first thing that cannot be used.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace those three files in the folder.")] = False,
) -> None:
    """Turn rubric-marked submissions into preference pairs, without students' names.

    LABS holds a folder for each lab, with ps.txt, rubrics.json, rubric_ratings.csv and submissions/<name@…>/.
    What cannot be used is told in a line each on standard error, and left out.

    For example: ramify data labs labs --out data/grading --eval-labs lab7 lab8
    """
    from ramify.base.errors import ConfigError
    from ramify.console import console, output, table
    from ramify.data.labs.build import build
    from ramify.data.labs.rows import TRAIN

    if names and not eval_labs:
        raise ConfigError(f"unexpected {' '.join(names)}", hint="one folder of labs; names of labs follow --eval-labs")
    choices = Choices(
        train_split=train_split,
        eval_labs=(*(eval_labs or ()), *(names or ())),
        system=_content(system_prompt, lambda path: path.read_text(encoding="utf-8-sig").strip()),
        statement=statement,
        against=pairs,
        form=form,
        shield_students=shield_students,
        seed=seed,
        secret=_content(key_file, Path.read_bytes),
        strict=strict,
        max_file_kb=max_file_kb,
    )
    lines, terminal = console(), output()

    def tell(note: Note) -> None:
        lines.print(note.line, markup=False, soft_wrap=True)

    report = build(folder, out, choices, overwrite=overwrite, tell=tell)
    terminal.print(table("", ("lab / criterion", "students", "grades", "rows", "left out"), report.table()))
    terminal.print(table("", ("split", "students", "grades", "rows"), report.sizes()))
    terminal.print(table("", ("", "count"), list(report.totals.items())))
    if not report.splits[TRAIN].rows:
        lines.print("note: nobody trains: train.jsonl is empty", style="yellow", markup=False)
    lines.print(f"written: {out}", style="dim", markup=False, soft_wrap=True)


def _content(path: Path | None, read: Callable[[Path], T]) -> T | None:
    """What a file named by an option holds; None without one.

    Raises:
        DataError: it cannot be read.
    """
    from ramify.base.errors import DataError

    if path is None:
        return None
    try:
        return read(path)
    except UnicodeDecodeError:
        raise DataError("not valid UTF-8", path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=path) from None

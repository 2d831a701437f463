"""`ramify judge`: a model says which of two evaluations answers better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ramify.evaluate.judge.run import Ruling
    from ramify.evaluate.judge.scores import Standing

_READ = {"adapter", "revision", "seed", "prompt", "sample", "evaluate.scoring", "engine", "endpoint"}
_READ |= {"train.dtype", "train.quantize", "train.device", "train.micro_tokens"}


def judge(
    before: Annotated[Path, typer.Argument(metavar="A", help="An evaluation, or a run that was evaluated.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another one, on the same problems.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Any setting.")] = None,
    model: Annotated[str, typer.Option("--judge", metavar="MODEL", help="The judge: any model, run or GGUF.")] = "",
    engine: Annotated[str | None, typer.Option(help="own, llamacpp (a GGUF file), openai (a server) or vllm.")] = None,
    scoring: Annotated[str | None, typer.Option(help="generate, or options: its most probable word.")] = None,
    criteria: Annotated[str | None, typer.Option(help="A sentence on what makes an answer better.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="First so many problems; default all.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest reply of the judge.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for it; default runs/judge-A-B.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another judgement in --out.")] = False,
) -> None:
    """Show a judge the answers of A and B to each problem, in both orders, and count what it prefers.

    For example: ramify judge runs/base runs/polite --judge Qwen/Qwen3-4B
    A judge that changes its mind with the order is counted as a tie; what cannot be read is left out. How well it
    agrees with the rules of the task is told beside. What was stopped goes on with the same command.
    """
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import given, with_gguf_file
    from ramify.console import SampleBar, show_usage
    from ramify.evaluate.settings import evaluation_config, refuse_unread

    if not model:
        raise ConfigError("who is to judge?", hint="--judge MODEL")
    options = {"engine": engine, "evaluate.scoring": scoring, "sample.max_new_tokens": max_new_tokens, "out": out}
    config = with_gguf_file(evaluation_config(model, overrides or [], given(options)))
    refuse_unread(overrides or [], _READ, "ramify judge")
    from ramify.evaluate.folder import drawn_before
    from ramify.evaluate.judge.asking import CRITERIA
    from ramify.evaluate.judge.run import Case, default_folder, rule_on
    from ramify.evaluate.stages import named_stages

    one, other = named_stages([before, after])
    folder = out or default_folder(one, other)
    case = Case.of(one, other, criteria or CRITERIA, n)
    done = drawn_before(config.model_copy(update={"out": folder}), case.questions)
    with SampleBar("judging", len(case.questions), done=done) as bar:
        found = rule_on(case, config, folder, on_sample=bar, overwrite=overwrite)
    _show(found)
    show_usage(found.usage)
    typer.echo(f"written to {folder}", err=True)


def _show(found: Ruling) -> None:
    from ramify.console import output, table
    from ramify.evaluate.judge.scores import headline
    from ramify.evaluate.words import rate

    told, terminal = found.judgement, output()
    before, after = found.case.before.name, found.case.after.name
    terminal.print(headline(before, after, told.overall), markup=False, soft_wrap=True)
    groups = [("all", told.overall), *told.categories.items()]
    columns = ("", f"{after} better", f"{before} better", "tie", "errors", "win rate", "p, corrected")
    terminal.print(table("", columns, [(name, *_cells(each)) for name, each in groups]))
    bias, rules = told.bias, told.rules
    shares = (
        ("judges alike in both orders", bias.n, bias.consistent),
        ("prefers whichever stands first", bias.n, bias.first),
        ("prefers whichever stands second", bias.n, bias.second),
        ("agrees with the rules", rules.n, rules.agreement),
        ("prefers the only right answer", rules.decided, rules.followed),
    )
    rows = [(what, count, rate(share) if count else "none") for what, count, share in shares]
    rows.append(("Cohen's kappa with the rules", rules.n, "none" if rules.kappa is None else f"{rules.kappa:.3f}"))
    terminal.print(table("", ("the judge", "pairs", "95 % interval in brackets"), rows))
    if found.case.left_out:
        terminal.print(f"left out: {found.case.left_out} problems that only one of the two was asked", markup=False)


def _cells(found: Standing) -> tuple[str, ...]:
    from ramify.evaluate.words import p_value, rate

    counts = (found.wins, found.losses, found.ties, found.errors)
    return (*map(str, counts), rate(found.win_rate) if found.n else "none", p_value(found.p_adjusted))

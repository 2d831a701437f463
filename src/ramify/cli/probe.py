"""`ramify probe`: what a run has forgotten, and what it makes of held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ramify.evaluate.probe.run import HeldOut, Probe
    from ramify.evaluate.scores import Rate

_SHOWN = 3  # prompts whose two answers are printed
_READ = {"adapter", "revision", "prompt", "task", "data.columns", "data.shape", "data.as_text", "engine"}
_READ |= {"train.dtype", "train.quantize", "train.device", "train.micro_tokens"}


def probe(
    model: Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="A run, or a model with an adapter.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Any setting.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Held-out rows with answers: perplexity before and after.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="More general prompts, besides those that are shipped.")] = None,
    base: Annotated[str | None, typer.Option(help="The base; default: the model without its adapter.")] = None,
    adapter: Annotated[str | None, typer.Option(help="An adapter folder or run on top of the model.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer of the base.")] = 64,
    out: Annotated[Path | None, typer.Option(help="A JSON file for it; default RUN/probe.json.")] = None,
) -> None:
    """Does the tuned model still do what its base did? And what does it make of held-out rows?

    The base answers general prompts; both models read these answers, and their next-token distributions are compared.
    For example: ramify probe runs/polite --rows valid.jsonl
    """
    from ramify.base.errors import ConfigError, RunError
    from ramify.base.runs import is_run
    from ramify.cli.settings import given
    from ramify.console import Bars
    from ramify.evaluate.settings import evaluation_config, refuse_unread

    if out is None and not is_run(model):
        raise ConfigError(f"{model} is no run folder, so where is the result to go?", hint="--out FILE.json")
    path = out or Path(model) / "probe.json"
    if path.is_dir():
        raise RunError(f"{path}: is a folder, a file is needed", hint="--out FILE.json")
    config = evaluation_config(model, overrides or [], given({"adapter": adapter}))
    refuse_unread(overrides or [], _READ, "ramify probe")
    if config.engine != "own":
        raise ConfigError(f"engine = {config.engine}: a probe needs the own engine", hint="leave engine out")
    from ramify.evaluate.probe.run import Wish, write_probe
    from ramify.evaluate.probe.run import probe as measure

    bars = Bars()
    try:
        found = measure(config, Wish(base, rows, prompts, max_new_tokens), bars)
    finally:
        bars.close()
    _show(found)
    write_probe(found, path)
    typer.echo(f"written to {path}", err=True)


def _show(found: Probe) -> None:
    from ramify.console import output, table
    from ramify.evaluate.words import rate

    told, terminal = found.forgetting, output()
    rows = [
        ("next token as the base's (top-1)", rate(told.top1)),
        ("KL(base ‖ tuned), nats a token", _figure(told.kl)),
        ("base's answers less probable by, nats a token", _figure(told.drop)),
        ("answers word for word the same", rate(told.same)),
        ("general prompts / tokens", f"{told.prompts} / {told.tokens}"),
    ]
    terminal.print(table(f"{found.model} beside {found.base}", ("", "95 % interval in brackets"), rows))
    if found.held_out is not None:
        _show_held_out(found.held_out)
    changed = [each for each in told.answers if each.base != each.tuned][:_SHOWN]
    for each in changed:
        terminal.print(f"\n{_line(each.prompt)}", style="bold", markup=False)
        terminal.print(f"  base:  {_line(each.base)}", markup=False)
        terminal.print(f"  tuned: {_line(each.tuned)}", markup=False)


def _show_held_out(found: HeldOut) -> None:
    from ramify.console import output, table

    sides = (("base", found.base), ("tuned", found.tuned))
    rows = [
        (name, f"{each.perplexity:.3f}", f"{each.bits_per_token:.3f}", f"{each.bits_per_byte:.3f}")
        for name, each in sides
    ]
    output().print(table("", ("held-out answers", "perplexity", "bits a token", "bits a byte"), rows))
    counted = f"{found.base.answers} answers, {found.base.tokens} tokens"
    output().print(f"{counted}; gain in nats a token: {_figure(found.gain)}", markup=False)


def _figure(found: Rate) -> str:
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"


def _line(text: str) -> str:
    from ramify.console import neutral

    line = " ".join(neutral(text).split())
    return line if len(line) <= 100 else f"{line[:99]}…"

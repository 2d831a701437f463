"""`ramify`: one short function a command. Nothing here loads torch before a command needs it."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Annotated

import typer

from ramify.cli import (
    chat,
    compare,
    data,
    demo,
    doctor,
    erasure,
    evaluate,
    export,
    generate,
    judge,
    plan,
    probe,
    run_words,
    sample,
    serve,
    sweep,
    train,
    ui,
)
from ramify.cli.errors import Commands, report

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",  # batches on all cores; said, so that no process started later warns of it
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TRANSFORMERS_VERBOSITY": "error",
}

app = typer.Typer(
    cls=Commands,
    name="ramify",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Take a small language model through the whole fine-tuning path: prompting, SFT, rejection sampling, proof.",
)
app.command("demo")(demo.demo)
app.command("train", context_settings=run_words.SETTINGS)(train.train)
app.command("plan", context_settings=run_words.SETTINGS)(plan.plan)
app.command("sweep")(sweep.sweep)
app.command("sample")(sample.sample)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("judge")(judge.judge)
app.command("probe")(probe.probe)
app.command("erasure")(erasure.erasure)
app.command("generate")(generate.generate)
app.command("export")(export.export)
app.command("chat")(chat.chat)
app.command("ui")(ui.ui)
app.command("serve")(serve.serve)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")


def _version(asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        typer.echo(f"ramify {version('ramify')}")
    except PackageNotFoundError:
        typer.echo("ramify (not installed)")
    raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _speak_utf8() -> None:
    """Read and write UTF-8 whatever the terminal's own encoding is, which may lack the signs of tables and texts."""
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def main() -> None:
    """Run the command line and exit: 0 done, 1 a run failed, 2 bad input, 130 interrupted, 143 ended by SIGTERM."""
    _speak_utf8()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAMIFY_DEBUG"):
        warnings.simplefilter("ignore")  # libraries warn their callers, not the person at the terminal
    sys.exit(report(lambda: app(prog_name="ramify", standalone_mode=False)))

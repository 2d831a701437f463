"""`ramify eval`: how good a model or a run is at a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ramify.base.config import RunConfig
    from ramify.evaluate.ratings import Ratings
    from ramify.evaluate.run import Evaluation


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL_OR_RUN", help="nano, a hub id, a folder, or a run.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Any setting.")] = None,
    task: Annotated[
        str | None, typer.Option(help="unit_conversion, math, grading, chat, or your own Python file.")
    ] = None,
    problems: Annotated[str | None, typer.Option(help="A file of problems; default: the task's held-out ones.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="First so many; default 500, of a file all.")] = None,
    scoring: Annotated[str | None, typer.Option(help="generate, or options: the most probable one.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Samples of each problem.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; default 0, or 0.7 with -k above 1.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest completion.")] = None,
    fewshot: Annotated[str | None, typer.Option(help="Worked turns: a shipped name, a file, or `none`.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="model, plain, chatml, llama3, or a Jinja file.")] = None,
    system: Annotated[str | None, typer.Option(help="A system turn.")] = None,
    adapter: Annotated[str | None, typer.Option(help="An adapter folder or run on top of the model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every draw.")] = None,
    engine: Annotated[str | None, typer.Option(help="own, llamacpp (a GGUF file), openai (a server) or vllm.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for it; default below.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another evaluation in --out.")] = False,
) -> None:
    """Measure accuracy, answer rate, stop rate, pass@k and maj@k, with 95 % intervals.

    A run is prompted as it was trained; a model by its own chat template, unless options say otherwise. The folder is
    RUN/eval or runs/eval-MODEL, followed by words and a hash of what the options change. What was stopped goes on
    with the same command. Task grading also gets kappa and what else ratings have, by lab, criterion and split; task
    chat (open answers; task.rules=FILE) how often each rule holds.
    """
    options = {
        "task.name": task,
        "evaluate.problems": problems,
        "evaluate.limit": n,
        "evaluate.scoring": scoring,
        "sample.n": k,
        "sample.temperature": temperature,
        "sample.max_new_tokens": max_new_tokens,
        "prompt.fewshot": fewshot,
        "prompt.chat_template": chat_template,
        "prompt.system": system,
        "adapter": adapter,
        "seed": seed,
        "engine": engine,
        "out": out,
    }
    from ramify.cli.settings import given, with_gguf_file
    from ramify.console import SampleBar, console
    from ramify.evaluate.settings import EVALUATION_READS, evaluation_config, refuse_unread

    config = with_gguf_file(evaluation_config(model, overrides or [], given(options)))
    refuse_unread(overrides or [], EVALUATION_READS, "ramify eval")
    _refuse_drawing(config, [*given(options), *(each.partition("=")[0] for each in overrides or [])])
    console().print(_what(config), style="dim", markup=False)
    from ramify.evaluate.folder import drawn_before
    from ramify.evaluate.run import evaluate as measure
    from ramify.evaluate.run import problems_of

    asked = problems_of(config)
    done, total = drawn_before(config, asked), len(asked) * config.sample.n
    if done:
        console().print(f"going on with {done} of {total} samples drawn before", style="dim", markup=False)
    stage = "sampling" if config.evaluate.scoring == "generate" else "scoring options"
    with SampleBar(stage, total, done=done) as bar:
        found = measure(config, problems=asked, on_sample=bar, overwrite=overwrite)
    _show(found)


def _refuse_drawing(config: RunConfig, named: Sequence[str]) -> None:
    """Refuse settings of drawing that were asked for where nothing is drawn.

    Raises:
        ConfigError: there is one.
    """
    from ramify.base.errors import ConfigError

    idle = [name for name in named if name.startswith("sample.")]
    if config.evaluate.scoring == "options" and idle:
        raise ConfigError(f"{idle[0]}: evaluate.scoring=options draws nothing", hint=f"leave {idle[0]} out")


def _what(config: RunConfig) -> str:
    prompt, sample = config.prompt, config.sample
    drawn = "greedy" if sample.temperature == 0 else f"{sample.n} × T {sample.temperature:g}"
    if config.evaluate.scoring == "options":
        drawn = "the most probable option"
    worked = f", few-shot {prompt.fewshot}" if prompt.fewshot else ""
    by = "" if config.engine == "own" else f" by {config.engine}"
    return f"{config.model}{by} on {config.task.name}: {prompt.chat_template} template{worked}, {drawn}"


def _show(found: Evaluation) -> None:
    """A table on standard output, so that it can be piped."""
    from ramify.console import output, show_usage, table
    from ramify.evaluate.words import rate

    scores = found.scores
    rows: list[tuple[str, Any]] = [
        ("accuracy", rate(scores.accuracy)),
        ("answer rate", rate(scores.answer_rate)),
        ("stop rate", rate(scores.stop_rate)),
        ("cut off", rate(scores.truncated)),
        ("problems", scores.n),
    ]
    if scores.samples > scores.n:
        rows += [(f"pass@{k}", f"{100 * value:.1f} %") for k, value in scores.pass_at_k.items()]
        rows += [(f"maj@{k}", f"{100 * value:.1f} %") for k, value in scores.maj_at_k.items() if k > 1]
    if scores.errors:
        rows.append(("grader failures (left out)", scores.errors))
    output().print(table("", ("", "95 % interval in brackets"), rows))
    if found.ratings is not None:
        _show_ratings(found.ratings)
    if found.rules:
        rules = [(name, rate(each.rate), each.problems) for name, each in found.rules.items()]
        output().print(table("", ("rule", "holds", "problems"), rows=rules))
    show_usage(found.usage)
    if found.folder is not None:
        typer.echo(f"written to {found.folder}", err=True)


def _show_ratings(found: Ratings) -> None:
    """Agreement over everything and by group."""
    from ramify.console import output, table
    from ramify.evaluate.report.rating_tables import MEASURES, measures

    rows = [("all", *measures(found.overall))]
    for grouping, values in found.groups.items():
        rows += [(f"{grouping} {value}", *measures(each)) for value, each in values.items()]
    output().print()
    output().print(table("", ("", *MEASURES), rows))

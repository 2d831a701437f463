"""`ramify generate`: batched completions of a file or of standard input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ramify.base.types import Sample


def generate(
    prompts: Annotated[
        str, typer.Argument(metavar="PROMPTS|-", help="Lines (.txt), rows (.json, .jsonl), or - for stdin.")
    ],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Any setting.")] = None,
    out: Annotated[Path | None, typer.Option(help="File of JSON lines; default: standard output.")] = None,
    model: Annotated[str, typer.Option(help="nano, a hub id, a folder, or a run.")] = "nano",
    adapter: Annotated[str | None, typer.Option(help="An adapter folder or run on top of it.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Completions of each prompt; default 1.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; default 0, or 0.7 with --n above 1.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest completion.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    fewshot: Annotated[str | None, typer.Option(help="Worked turns: a name that ships, or a YAML file.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="model, plain, chatml, llama3, or a Jinja file.")] = None,
    system: Annotated[str | None, typer.Option(help="A system turn.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of every draw.")] = None,
    engine: Annotated[str | None, typer.Option(help="own, llamacpp (a GGUF file), openai (a server) or vllm.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the rows that are in --out, make the others.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file --out.")] = False,
) -> None:
    """Complete many prompts at once. Each row holds the prompt and its completion (or completions, with --n).

    The rows can be trained on: they are of the shapes that `ramify train` reads.
    """
    options = {
        "sample.n": n,
        "sample.temperature": temperature,
        "sample.max_new_tokens": max_new_tokens,
        "sample.top_p": top_p,
        "prompt.fewshot": fewshot,
        "prompt.chat_template": chat_template,
        "prompt.system": system,
        "adapter": adapter,
        "seed": seed,
        "engine": engine,
    }
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import given, with_gguf_file
    from ramify.console import Bars, show_usage
    from ramify.evaluate.complete import Destination, check_destination, complete, read_prompts
    from ramify.evaluate.settings import evaluation_config

    if resume and out is None:
        raise ConfigError("--resume needs --out", hint="--out FILE")
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other")
    if out is not None:
        check_destination(out, prompts, resume=resume, overwrite=overwrite)
    asked = read_prompts(prompts)
    config = with_gguf_file(evaluation_config(model, overrides or [], given(options)))
    destination = Destination(out, asked, config.sample.n)
    if resume:
        destination.keep()
    if destination.stale:
        Bars().note(f"{destination.stale} rows of {out} do not answer these prompts (or not --n times): left out")
    waiting = destination.waiting
    if waiting:
        from ramify.console import SampleBar
        from ramify.sample.engines import open_engine

        opened = open_engine(config, config.prompt)
        destination.begin()
        try:
            with SampleBar("generating", len(waiting) * config.sample.n) as bar:

                def on_sample(sample: Sample) -> None:
                    bar(sample)
                    destination.add(sample)

                complete(config, opened, waiting, on_sample)
        finally:
            opened.close()
            show_usage(opened.usage())
    destination.close()

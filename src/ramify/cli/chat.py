"""`ramify chat`: a conversation at the terminal."""

from __future__ import annotations

from typing import Annotated

import typer


def chat(
    model: Annotated[
        str, typer.Argument(help="A run, nano, a hub id, a folder, a GGUF file, an export, or 'REPO, Q4'.")
    ] = "nano",
    adapter: Annotated[str | None, typer.Option(help="An adapter folder or run on top of it.")] = None,
    compare: Annotated[str | None, typer.Option(help="The other model of /compare; default: its own base.")] = None,
    system: Annotated[str | None, typer.Option(help="The system turn; empty: none; default: the run's own.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="model, plain, chatml, llama3, or a Jinja file.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; default 0.7.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer; default 512, of a run its own.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Keep the k likeliest tokens; 0: all.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Keep tokens so likely, relative to the likeliest.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Above 1: repeat less.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed and lines give the same answers; default 42.")] = None,
    n_ctx: Annotated[int | None, typer.Option(min=8, help="Tokens that a GGUF file has room for.")] = None,
    dtype: Annotated[str, typer.Option(help="fp32, bf16, fp16, nf4, or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N, mps, or auto.")] = "auto",
) -> None:
    """Talk to a model; /help lists what else can be typed. Ctrl-C stops an answer, Ctrl-D ends.

    A run is prompted as it was trained. From a pipe every line is a question, and only answers go to standard output:
    echo 'How many g are in 3 kg?' | ramify chat runs/sft
    """
    from ramify.base.config import RunConfig
    from ramify.base.config_file import parse_config
    from ramify.cli.chat_talk import Talk
    from ramify.cli.chat_view import View
    from ramify.cli.settings import given
    from ramify.serve.session import Session

    drawn = {"temperature": temperature, "max_new_tokens": max_new_tokens, "top_p": top_p, "top_k": top_k}
    drawn = given({**drawn, "min_p": min_p, "repetition_penalty": repetition_penalty})
    parse_config({"sample": drawn}, "command line")  # refused before a model is loaded
    view = View()
    with view.busy(f"opening {model} …"):
        from ramify.serve.voices import open_voice

        voice = open_voice(model, adapter=adapter, chat_template=chat_template, n_ctx=n_ctx, dtype=dtype, device=device)
        other = None if compare is None else open_voice(compare, dtype=dtype, device=device)
    settings = parse_config({"sample": {**voice.settings.model_dump(), **drawn}}, "command line").sample
    talk = Talk(view, voice, other, Session(settings, RunConfig().seed if seed is None else seed, system))
    try:
        talk.run()
    finally:
        talk.close()

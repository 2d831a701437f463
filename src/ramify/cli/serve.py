"""`ramify serve`: models behind OpenAI's HTTP interface."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramify.serve.http.limits import MIB, Limits

if TYPE_CHECKING:
    import socket

    from ramify.serve.http.app import Access
    from ramify.serve.http.guard import Entry
    from ramify.serve.voices import Voice

KEY_VARIABLE = "RAMIFY_API_KEY"


def serve(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="nano, hub ids, folders, runs, GGUF files.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key_env: Annotated[
        str | None, typer.Option(help=f"Variable that holds the key clients must bring; default {KEY_VARIABLE}.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Requests computed at once.")] = Limits.parallel,
    queue: Annotated[int, typer.Option(min=0, help="Requests that wait; one more gets 429.")] = Limits.queue,
    max_body: Annotated[int, typer.Option(min=1, help="Largest request in MiB.")] = Limits.body // MIB,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = Limits.timeout,
    allow_host: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A name it is called by.")] = None,
    cors: Annotated[list[str] | None, typer.Option(metavar="ORIGIN", help="Pages that may use it; * for all.")] = None,
    base: Annotated[bool, typer.Option(help="Serve an adapter's base model too, on the same weights.")] = True,
    adapter: Annotated[str | None, typer.Option(help="An adapter folder or run on top of the one MODEL.")] = None,
    system: Annotated[str | None, typer.Option(help="A system turn for requests that have none.")] = None,
    chat_template: Annotated[str | None, typer.Option(help="model, plain, chatml, llama3, or a Jinja file.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or nf4.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    n_ctx: Annotated[int | None, typer.Option(min=8, help="Tokens that a GGUF file has room for.")] = None,
) -> None:
    """Answer OpenAI's clients: /v1/chat/completions, /v1/completions, /v1/models, /health.

    What a request leaves out is as in `ramify chat`. Ctrl-C or SIGTERM ends the server; requests in hand may finish.

    For OpenAI's Python client: OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    """
    from ramify.serve.http.app import build
    from ramify.serve.http.process import bind, check_installed, run

    check_installed()
    limits = Limits(parallel, queue, max_body * MIB, timeout)
    access = _access(api_key_env, {host, *(allow_host or ())}, cors or [])
    _check_models(models, adapter)
    loading = {"adapter": adapter, "system": system, "chat_template": chat_template, "dtype": dtype, "device": device}
    with bind(host, port) as bound, ExitStack() as opened:
        voices = open_models(models, {**loading, "n_ctx": n_ctx}, base, opened)
        app = build(voices, limits=limits, access=access, tell=_log)
        run(app, bound, lambda: announce(bound, access, voices))


def _access(variable: str | None, hosts: set[str], origins: list[str]) -> Access:
    """Who may use the server; the key comes from the environment, where no list of processes shows it.

    Raises:
        ConfigError: a variable was named that is not set.
    """
    import os

    from ramify.base.errors import ConfigError
    from ramify.serve.http.app import Access

    key = os.environ.get(KEY_VARIABLE if variable is None else variable)
    if key is None and variable is not None:
        raise ConfigError(f"the environment variable {variable} is not set", hint="it holds the key clients must bring")
    return Access(key, frozenset(hosts), frozenset(origins))


def _check_models(models: list[str], adapter: str | None) -> None:
    """Refuse what cannot go together before a model is loaded.

    Raises:
        ConfigError: a model is named twice, or an adapter given for several.
    """
    from ramify.base.errors import ConfigError

    twice = next((name for name in models if models.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named twice")
    if adapter is not None and len(models) > 1:
        raise ConfigError("--adapter goes with one MODEL", hint="an adapter folder or a run can be a MODEL itself")


def open_models(models: list[str], loading: dict[str, Any], base: bool, opened: ExitStack) -> list[Voice]:
    """The models in the order they were named, and behind each adapter its base, unless that was named itself."""
    from ramify.serve.voices import open_voice

    voices: list[Voice] = []
    for name in models:
        voice = open_voice(name, **loading)
        opened.callback(voice.close)
        voices.append(voice)
        if not base or voice.base is None:
            continue
        before = voice.base()
        if before.name in {*models, *(each.name for each in voices)}:
            before.close()
            continue
        opened.callback(before.close)
        voices.append(before)
    return voices


def announce(bound: socket.socket, access: Access, voices: list[Voice]) -> None:
    """Say where the server is and what it has, and warn where others reach it without a key."""
    from ramify.console import Bars, console
    from ramify.serve.http.process import is_private, url_of

    if access.key is None and not is_private(bound):
        Bars().note(f"anyone who reaches {url_of(bound)} may use these models: set {KEY_VARIABLE} to ask for a key")
    names = ", ".join(voice.name for voice in voices)
    console().print(f"{url_of(bound)}/v1 serves {names}", markup=False, soft_wrap=True)


def _log(entry: Entry) -> None:
    """One line a request, without anything that was said."""
    import sys
    from datetime import datetime

    status = "left" if entry.status is None else entry.status
    clock = datetime.now().strftime("%H:%M:%S")
    line = f"{clock} {entry.client} {entry.method} {entry.path} {status} {entry.seconds:.3f}s"
    print(line, file=sys.stderr, flush=True)

"""`ramify ui`: the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ui(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="To choose from; the first one is chosen.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder with run folders.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page.")] = 7860,
    host: Annotated[str, typer.Option(help="Address it listens on; another one than this machine's needs --auth.")] = (
        "127.0.0.1"
    ),
    auth: Annotated[
        str | None, typer.Option(help="A file, or an environment variable, with USER:PASSWORD in each line.")
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option(help="JSON lines that judgements are added to; default RUNS/feedback.jsonl.")
    ] = None,
    keep: Annotated[int, typer.Option(min=2, help="Most models that are open at once.")] = 2,
    n_ctx: Annotated[
        int | None, typer.Option("--n-ctx", min=1, help="Tokens that a GGUF file has room for; default what it says.")
    ] = None,
    listed: Annotated[bool, typer.Option("--listed", help="Only listed models may be opened.")] = False,
    share: Annotated[
        bool, typer.Option("--share", help="Reachable from everywhere, through Gradio's service.")
    ] = False,
) -> None:
    """Chat with models, compare two, judge answers, watch runs: a page on this machine, without any other host.

    Judgements become rows: `ramify train method=dpo data.train=runs/feedback.jsonl`.
    """
    from ramify.console import console
    from ramify.serve.page.launch import Place, check_place, read_auth, show_page
    from ramify.serve.page.opening import page_for

    place = Place(host, port, () if auth is None else read_auth(auth), share)
    check_place(place)
    page = page_for(tuple(models or ()), runs, feedback, keep=keep, n_ctx=n_ctx, typed=not listed)
    show_page(page, place, say=lambda address: console().print(f"{address}  (Ctrl-C ends it)", soft_wrap=True))

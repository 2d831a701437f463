"""The chat page as a Hugging Face Space; on your own machine `python recipes/chat/app.py` shows the same.

    MODELS   names to choose from, separated by `;`: GGUF files as `REPO, Q4`, hub ids, folders
    RUNS     a folder with run folders, exports and GGUF files
    AUTH     USER:PASSWORD in each line; a Space without it is open to everyone who may see it

Visitors choose among the models of the list and cannot have others fetched. See recipes/chat/space/README.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from ramify.serve.page.launch import Place, read_auth, show_page
from ramify.serve.page.opening import page_for

MODELS = "unsloth/Llama-3.2-1B-Instruct-GGUF, Q4; unsloth/Llama-3.2-1B-Instruct-GGUF, Q8"
N_CTX = 2048
"""Tokens of prompt and answer: what a free Space has memory for."""


def main() -> None:
    """Show the page: on a Space to everyone, elsewhere on this machine alone."""
    on_space = "SPACE_ID" in os.environ
    models = tuple(name.strip() for name in os.environ.get("MODELS", MODELS).split(";") if name.strip())
    page = page_for(models, Path(os.environ.get("RUNS", "runs")), None, keep=2, n_ctx=N_CTX, typed=not on_space)
    auth = read_auth("AUTH") if os.environ.get("AUTH") else ()
    host = "0.0.0.0" if on_space else "127.0.0.1"
    show_page(page, Place(host, int(os.environ.get("GRADIO_SERVER_PORT", "7860")), auth, open=on_space))


if __name__ == "__main__":
    main()

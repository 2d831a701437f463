"""What Transformers, PEFT and the hub raise, as one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from huggingface_hub import errors as hub
from safetensors import SafetensorError
from transformers.utils import logging

from ramify.base.errors import ModelError

INCOMPLETE = "an interrupted download or copy leaves files incomplete: remove the folder and fetch it again"
"""What to do about files that end too early."""


@contextmanager
def one_line(name: str) -> Iterator[None]:
    """Turn what Transformers, PEFT and the hub raise into one `ModelError`."""
    try:
        yield
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError, httpx2.HTTPError) as error:
        raise _explain(name, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of Transformers inside the block: they would cut into the caller's own."""
    shown = logging.is_progress_bar_enabled()
    bars: Any = logging
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def _explain(name: str, error: BaseException) -> ModelError:
    chain = list(_causes(error))
    if any(isinstance(cause, hub.GatedRepoError) for cause in chain):
        return ModelError(
            f"model {name}: access is gated",
            hint="ask for access on its hub page, then `hf auth login` or set HF_TOKEN",
        )
    if any(isinstance(cause, hub.RevisionNotFoundError) for cause in chain):
        return ModelError(f"model {name}: no such revision")
    if any(isinstance(cause, hub.RepositoryNotFoundError) for cause in chain):
        return ModelError(f"model {name}: not on the hub, or private", hint="check the id; private ones need HF_TOKEN")
    if any(_is_network(cause) for cause in chain):
        return ModelError(
            f"model {name}: not in the local cache, and the hub cannot be reached",
            hint="go online once, or give a local folder; `nano` ships with Ramify and needs no network",
        )
    if any("trust_remote_code" in str(cause) for cause in chain):
        return ModelError(
            f"model {name}: needs code that comes with it, which is never run here",
            hint="models of the families that Transformers itself knows can be loaded",
        )
    first = str(error).strip().splitlines()
    return ModelError(
        f"model {name}: cannot be read: {type(error).__name__}: {first[0][:300] if first else ''}",
        hint=INCOMPLETE,
    )


def _is_network(cause: BaseException) -> bool:
    if isinstance(cause, hub.OfflineModeIsEnabled | hub.LocalEntryNotFoundError | ConnectionError | TimeoutError):
        return True
    if isinstance(cause, httpx2.TransportError):  # as the hub's client lets it through
        return True
    text = str(cause)
    return "couldn't connect" in text or "Name or service not known" in text or "name resolution" in text


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

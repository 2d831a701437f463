"""The `gguf` package: installed with `ramify[export]`, imported when a file is written."""

from __future__ import annotations

from importlib.util import find_spec

from ramify.base.errors import ConfigError


def require_gguf() -> None:
    """Refuse early where the package is missing.

    Raises:
        ConfigError: it is not installed; says how to get it.
    """
    if find_spec("gguf") is None:
        raise ConfigError("GGUF files need the package gguf, which is not installed", hint="pip install 'ramify[chat]'")

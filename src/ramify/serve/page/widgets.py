"""Gradio, opened in one place: told beforehand to ask nobody anything, and missed with one line where it is absent."""

from __future__ import annotations

import os
from typing import Any

from ramify.base.errors import ConfigError

_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_RUN_HISTORY": "False"}


def gradio() -> Any:
    """The module `gradio`. Its telemetry is switched off before it is imported: it looks names up while it is built.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.update(_QUIET)
    try:
        import gradio as gr
    except ImportError:
        raise ConfigError("the page needs gradio, which is not installed", hint="pip install 'ramify[chat]'") from None
    return gr

"""Where the rows of a mix's sources and evaluations are read from."""

from __future__ import annotations

from typing import Any

from ramify.base.config_mix import Origin
from ramify.data.source import Source


def origin_of(settings: Origin, **more: Any) -> Source:
    """What the settings of a source and of an evaluation have in common, and what only one of them has."""
    return Source(
        name=settings.path,
        config=settings.config,
        split=settings.split,
        revision=settings.revision,
        columns=settings.columns,
        shape=settings.shape,
        **more,
    )

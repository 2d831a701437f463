"""What decides the outcome of a source's first pass, as a hash: equal hashes, equal entries set aside."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ramify.base.config_mix import MixConfig, MixSource
from ramify.base.errors import DataError
from ramify.base.records import sha256_file
from ramify.data.mix.intake import Rules, source_of
from ramify.data.mix.overlap import evaluated
from ramify.data.source import Source

_FORMAT = 2
"""Of what is set aside: raised when it changes, so that nothing older is gone on with."""
_AFTERWARDS = {"name", "weight", "optional", "erase"}
"""Settings of a source that its first pass does not read; erasure may be that of the mix."""


def decides_all(rules: Rules) -> str:
    """Hash of what holds for all sources: tokens, limits, and the content of evaluations.

    Raises:
        DataError: an evaluation cannot be read.
    """
    config, renderer = rules.config, rules.renderer
    return _hash(
        {
            "format": _FORMAT,
            "limits": [config.bad_rows, config.max_length],
            "template": renderer.template.source,
            "prompt": config.prompt.model_dump(mode="json"),
            "vocabulary": sorted(renderer.tokenizer.get_vocab().items()),
            "stop": renderer.stop_id,
            "evaluation": [[each.model_dump(mode="json"), content(evaluated(each))] for each in config.decontaminate],
            "overlap": config.overlap,
        }
    )


def decides(source: MixSource, config: MixConfig, common: str) -> str:
    """Hash of what decides what is set aside of one source.

    Raises:
        DataError: its files cannot be read.
    """
    erase = config.erase_of(source)
    return _hash(
        {
            "common": common,
            "source": source.model_dump(mode="json", exclude=_AFTERWARDS),
            "erase": None if erase is None else [erase.model_dump(mode="json"), config.seed],
            "content": content(source_of(source, config)),
        }
    )


def content(source: Source) -> Any:
    """Names and SHA-256 of a source's files. A data set of the hub is known by its id and revision alone.

    Raises:
        DataError: a file cannot be read.
    """
    if source.hub_id is not None:
        return source.hub_id
    root = Path(source.name)
    try:
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        return [[path.relative_to(root).as_posix(), sha256_file(path)] for path in files]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path=error.filename or root) from None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

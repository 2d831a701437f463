"""From a command line to a `RunConfig`: an optional YAML file, then `key=value` overrides, then options."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.base.errors import ConfigError

if TYPE_CHECKING:
    from ramify.base.config import RunConfig

_KEY = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")


def config_from(arguments: Sequence[str], options: Mapping[str, Any] | None = None) -> RunConfig:
    """The settings that `[CONFIG] [key=value …]` and options mean; options that are None are left out.

    Without `out` a run goes to runs/<name of the file>, or runs/<method> without a file.

    Raises:
        ConfigError: there are two files, a file is missing, or a setting is refused.
    """
    from ramify.base.config_file import load_config

    files = [argument for argument in arguments if not is_override(argument)]
    if len(files) > 1:
        raise ConfigError(f"one configuration file is allowed, found {' '.join(files)}", hint="settings are key=value")
    chosen = [f"{name}={_yaml_text(value)}" for name, value in given(options or {}).items()]
    overrides = [argument for argument in arguments if argument not in files]
    config = load_config(files[0] if files else None, [*overrides, *chosen])
    if config.out is None:
        name = Path(files[0]).stem if files else config.method
        config = config.model_copy(update={"out": Path("runs") / name})
    return config


def with_gguf_file(config: RunConfig) -> RunConfig:
    """With engine llamacpp, the GGUF file in place of what the user calls it: an export, or `REPO, Q4`.

    Raises:
        ModelError: there is no such file, or there are several.
    """
    if config.engine != "llamacpp":
        return config
    from ramify.sample.llamacpp.choices import find_gguf

    path = find_gguf(config.model)
    return config if path is None else config.model_copy(update={"model": str(path)})


def is_override(argument: str) -> bool:
    """Whether an argument is `key=value`; else it names a file. A file whose name holds `=` is told by its folder."""
    key, equals, _ = argument.partition("=")
    # A long value is no file name: the system refuses to look for one.
    return bool(equals) and (_KEY.fullmatch(key) is not None or not os.path.isfile(argument))


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line; paths as text."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in options.items() if value is not None
    }


def _yaml_text(value: Any) -> str:
    """A value as the right side of an override: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)

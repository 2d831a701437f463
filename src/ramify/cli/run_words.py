"""The words that say what is to be trained: a recipe and settings, or a command of TRL."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ramify.base.config import RunConfig

SETTINGS: dict[str, Any] = {"ignore_unknown_options": True}
"""How a command is registered that takes such words: what it does not know may be an option of TRL."""


def read_run(words: Sequence[str], options: Mapping[str, Any]) -> tuple[RunConfig, frozenset[str]]:
    """The settings of a run, and which of `resume` and `overwrite` a command of TRL asks for.

    How a command of TRL was understood is told on standard error.

    Args:
        options: of the command, as for `config_from`.

    Raises:
        RamifyError: a word or an option is refused; of a command of TRL also what model or data are refused for.
        ConfigError: no rows are named.
    """
    from ramify.base.errors import ConfigError
    from ramify.cli.settings import config_from
    from ramify.cli.trl_command import is_trl

    config, asked = _of_trl(words, options) if is_trl(words) else (config_from(words, options), frozenset[str]())
    if config.data.train is None:
        raise ConfigError("data.train is not set", hint="data.train=FILE, or data.train=task for the task's own rows")
    return config, asked


def _of_trl(words: Sequence[str], options: Mapping[str, Any]) -> tuple[RunConfig, frozenset[str]]:
    from ramify.cli.trl_run import trl_run
    from ramify.console import Bars, console

    bars = Bars()
    if is_main():
        bars.start("rows counted", None)
    try:
        run = trl_run(words, options, bars.update)
    finally:
        bars.close()
    if is_main():
        console().print(f"trl {words[0]} as ramify train (docs/from-trl.md):", style="bold", markup=False)
        for line in run.lines():
            console().print(f"  {line}", markup=False, soft_wrap=True)
    return run.config, run.plan.flags


def is_main() -> bool:
    """Whether this process is the one that speaks, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"

"""TRL's command line as it is typed: `--name value`, `--name=value`, flags without a value, lists, `--config FILE`.

Names may be written with dashes, and `--no_name` turns a flag off. `key=value` is a setting of Ramify's, wherever it
stands. Options on the command line go before those of the file, and the last of two equal ones counts.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ramify.base.config import RunConfig
from ramify.base.config_file import read_yaml
from ramify.base.errors import ConfigError, nearest
from ramify.cli.trl_options import DPO, SFT, TRAINERS, Effect, Kind, Option, options_of

_TRUE, _FALSE, _NONE = ("true", "yes", "t", "y", "1"), ("false", "no", "f", "n", "0"), ("none", "null")
_ELSEWHERE = ("distillation", "grpo", "kto", "reward", "rloo")
_SETTING = re.compile(rf"(?:{'|'.join(RunConfig.model_fields)})(?:\.\w+)*=")
_NUMBERS = {Kind.WHOLE: int, Kind.NUMBER: float}


@dataclass(frozen=True, slots=True)
class Given:
    """An option that was given: what it is, its value, and how it was typed."""

    option: Option
    value: Any
    typed: str

    @property
    def is_on(self) -> bool:
        """Whether it asks for anything."""
        return self.value not in (None, False, "no", "none", [])


@dataclass(frozen=True, slots=True)
class Command:
    """A command of TRL.

    Attributes:
        trainer: sft or dpo.
        given: its options, by TRL's newest name for each.
        overrides: settings of Ramify's, `key=value`.
    """

    trainer: str
    given: Mapping[str, Given]
    overrides: tuple[str, ...] = ()

    def value(self, name: str, default: Any = None) -> Any:
        """What an option was given, or `default`."""
        return self.given[name].value if name in self.given else default

    def typed(self, *names: str) -> str:
        """How these options were typed, as far as they were given."""
        return " ".join(self.given[name].typed for name in names if name in self.given)


def is_trl(arguments: Sequence[str]) -> bool:
    """Whether the arguments of `ramify train` or `ramify plan` are a command of TRL: `sft …` or `dpo …`.

    Raises:
        ConfigError: they are one of TRL's other commands, or options without a command.
    """
    first = arguments[0] if arguments else ""
    if first in TRAINERS:
        return True
    if first in _ELSEWHERE and not Path(first).exists():
        raise ConfigError(f"trl {first} is not known here", hint=f"of TRL's commands {SFT} and {DPO} are")
    for argument in arguments:
        if argument.startswith("-"):
            name = argument.partition("=")[0]
            known = any(name.lstrip("-").replace("-", "_") in options_of(trainer) for trainer in TRAINERS)
            hint = f"options of TRL follow its command: sft {name} …"
            raise ConfigError(f"no such option: {name}", hint=hint if known else "--help lists the options")
    return False


def read_command(arguments: Sequence[str]) -> Command:
    """What a command of TRL says; its first argument is the trainer.

    Raises:
        ConfigError: an option is unknown, refused, has a value of another kind, or does nothing without another one;
            or the file of `--config` cannot be read.
    """
    trainer, *rest = arguments
    overrides = tuple(each for each in rest if _SETTING.match(each))
    typed = list(_typed([each for each in rest if not _SETTING.match(each)]))
    of_files = [pair for name, texts in typed if name == "config" for pair in _of_file(trainer, texts)]
    found = [_given(trainer, name, texts) for name, texts in (*of_files, *typed) if name != "config"]
    command = Command(trainer, {each.option.name: each for each in found}, overrides)
    for each in command.given.values():
        _check(command, each)
    return command


def _typed(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option's name with the texts that stand behind it.

    Raises:
        ConfigError: a text stands before the first option.
    """
    if arguments and not arguments[0].startswith("--"):
        raise ConfigError(f"unexpected {arguments[0]!r}", hint="an option begins with --, a setting is key=value")
    starts = [at for at, argument in enumerate(arguments) if argument.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(arguments)], strict=True):
        name, equals, value = arguments[start][2:].partition("=")
        yield name, [*([value] if equals else []), *arguments[start + 1 : end]]


def _of_file(trainer: str, texts: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The options of a YAML file, as if they had been typed.

    Raises:
        ConfigError: the file cannot be read, or sets variables of the environment.
    """
    if len(texts) != 1:
        raise ConfigError("--config: the name of one YAML file is needed")
    for name, value in read_yaml(Path(texts[0])).items():
        if name == "env":
            raise ConfigError(f"{texts[0]}: env is not taken", hint="set variables before the command: NAME=VALUE …")
        if value is not None or _may_be_none(trainer, str(name)):
            yield str(name), [_text(each) for each in value] if isinstance(value, list) else [_text(value)]


def _may_be_none(trainer: str, name: str) -> bool:
    """Whether null means something for an option; for a text, or one that is refused, it means that it is not given."""
    option = options_of(trainer).get(name.replace("-", "_"))
    return option is None or (option.effect is not Effect.REFUSED and option.kind not in (Kind.TEXT, Kind.LIST))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _given(trainer: str, name: str, texts: list[str]) -> Given:
    """An option with its value.

    Raises:
        ConfigError: it is unknown, or its value is of another kind.
    """
    plain = name.replace("-", "_")
    known = options_of(trainer)
    typed = shlex.join([f"--{name}", *texts])
    if plain in known:
        return Given(known[plain], _parsed(known[plain], name, texts), typed)
    off = known.get(plain.removeprefix("no_"))
    if off is not None and off.kind is Kind.FLAG and not texts:
        return Given(off, False, typed)
    raise _unknown(trainer, name, plain)


def _unknown(trainer: str, name: str, plain: str) -> ConfigError:
    where = "docs/from-trl.md lists the options that are understood"
    others = [other for other in TRAINERS if plain in options_of(other)]
    if others:
        return ConfigError(f"--{name} is an option of {others[0]}, not of {trainer}", hint=where)
    guess = nearest(plain, options_of(trainer))
    asked = f"; did you mean --{guess}?" if guess else ""
    return ConfigError(f"unknown option --{name} of {trainer}{asked}", hint=where)


def _parsed(option: Option, name: str, texts: list[str]) -> Any:
    """The value of an option; `none` is None but for text.

    Raises:
        ConfigError: it is of another kind, or there are several where one is allowed.
    """
    if option.effect is Effect.REFUSED or (option.kind is Kind.LIST and texts):
        return texts
    if option.kind is Kind.FLAG and not texts:
        return True
    if len(texts) != 1:
        raise ConfigError(f"{' '.join([f'--{name}', *texts])}: {option.kind.value} is needed")
    lowered = texts[0].lower()
    if option.kind is Kind.TEXT:
        is_mapping = any(isinstance(each, Mapping) for each in option.allowed or ())
        return _mapping(texts[0]) if is_mapping else texts[0]
    if option.kind is Kind.FLAG and lowered in (*_TRUE, *_FALSE):
        return lowered in _TRUE
    if lowered in _NONE:
        return None
    try:
        return _NUMBERS[option.kind](texts[0])
    except (KeyError, ValueError):
        raise ConfigError(f"--{name} {texts[0]}: {option.kind.value} is needed") from None


def _mapping(text: str) -> Any:
    """The mapping that a text in braces stands for; the text itself where it stands for none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _check(command: Command, given: Given) -> None:
    """Refuse what would do nothing, or mean something else.

    Raises:
        ConfigError: the option or its value is not taken, or it does nothing without another option.
    """
    option = given.option
    if option.effect is Effect.REFUSED:
        raise ConfigError(f"{given.typed}: {option.says}", hint=option.instead)
    values = given.value if option.kind is Kind.LIST else [given.value]
    if option.allowed is not None and not all(each in option.allowed for each in values):
        raise ConfigError(f"{given.typed}: {option.says}", hint=option.instead)
    needed = option.needs
    if needed is None or not given.is_on or (needed in command.given and command.given[needed].is_on):
        return
    off = command.typed(needed)
    hint = f"{off} turns it off" if off else f"add --{needed}, or leave it out"
    raise ConfigError(f"{given.typed}: does nothing without --{needed}", hint=hint)

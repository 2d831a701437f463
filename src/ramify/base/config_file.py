"""Configurations from YAML files and dotted overrides; whatever is wrong with them is said in one line.

Unknown keys are refused with the nearest name. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, nearest

_EXPONENT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_LISTS = ("lora.targets", "sample.stop")
_PATHS = ("data.train", "data.valid", "prompt.fewshot", "sample_prompt.fewshot", "evaluate.problems", "out")
_NEEDED = {"path_type": "a path", "string_type": "text", "tuple_type": "a list", "model_type": "a section {…}"}


def load_config(path: Path | str | None, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """Read a YAML file (None: all defaults) and apply `a.b=value` overrides; values are parsed as YAML.

    Relative paths stay as written (relative to the working directory).

    Raises:
        ConfigError: the file is missing or not a mapping, a key is unknown, a value has the wrong type or range.
    """
    values: dict[str, Any] = {} if path is None else _read_yaml(Path(path))
    for override in overrides:
        apply_override(values, override)
    return parse_config(values, where=str(path) if path is not None else "command line")


def parse_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Validate a plain mapping.

    Raises:
        ConfigError: one line that names the field, the value seen, and what is allowed.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _one_line(error, where) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="recipes lie in recipes/<name>/*.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        _refuse_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader), path)
        values = yaml.safe_load(text)
    except RecursionError:
        raise ConfigError(f"{path}: YAML nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of settings is needed, found {type(values).__name__}")
    return values


def _refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    """YAML would keep the last of two equal keys of a mapping and drop the others unsaid."""
    lines: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode):
            if key.value in lines:
                raise ConfigError(f"{path}:{line}: {key.value!r} is given twice (first on line {lines[key.value]})")
            lines[key.value] = line
        _refuse_repeated_keys(value, path)


def apply_override(values: dict[str, Any], override: str) -> None:
    """Put one `a.b=value` into a nested mapping of settings, in place; the value is parsed as YAML.

    Raises:
        ConfigError: it is not of that form.
    """
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"override {override!r} is not of the form key=value", hint="for example train.lr=1e-4")
    *parents, leaf = name.split(".")
    for parent in parents:
        inner = values.get(parent)
        if not isinstance(inner, dict):
            inner = {}
            values[parent] = inner
        values = inner
    try:
        values[leaf] = yaml_scalar(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"override {override!r}: the value is not valid YAML") from None


def yaml_scalar(text: str) -> Any:
    """YAML value of an override. `1e-4`, which YAML 1.1 reads as text, is a number here.

    Text without quotes is taken as it stands: YAML would cut `end with #### n` at what it reads as a comment.
    """
    text = text.strip()
    if not text or text.startswith("#"):
        return text
    value = yaml.safe_load(text)
    if not isinstance(value, str):
        return value
    if _EXPONENT.fullmatch(value):
        return float(value)
    return value if text[0] in "\"'" else text


def _one_line(error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    if first["type"] == "value_error":  # of `_consistent`
        return ConfigError(f"{where}: {first['ctx']['error']}")
    place = first["loc"] if first["type"] == "extra_forbidden" else _place_of(first["loc"])
    name = ".".join(str(part) for part in place) or "config"
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(first["loc"][:-1])
        guesses: Sequence[str | None] = _homes_of(str(first["loc"][-1])) or [nearest(str(first["loc"][-1]), allowed)]
        asked = f"; did you mean {' or '.join(repr(guess) for guess in guesses)}?" if guesses[0] else ""
        return ConfigError(f"{where}: unknown setting {name!r}{asked} (allowed: {', '.join(sorted(allowed))})")
    alternatives = [each for each in error.errors() if each["loc"][: len(place)] == place]
    seen = repr(first.get("input"))
    seen = seen if len(seen) <= 60 else f"{seen[:57]}..."
    return ConfigError(f"{where}: {name} = {seen}: {_allowed(alternatives)}", hint=_hint(name, first))


def _allowed(alternatives: Sequence[Mapping[str, Any]]) -> str:
    """What a setting may be, where each alternative of its type has refused a value."""
    needed = [_NEEDED.get(each["type"], each.get("ctx", {}).get("expected")) for each in alternatives]
    if all(needed):
        return f"{' or '.join(dict.fromkeys(map(str, needed)))} is needed"
    return " or ".join(dict.fromkeys(each["msg"] for each in alternatives))


def _place_of(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of a location that names a setting, without the alternatives of its type, which follow it."""
    leaf = [at for at in range(1, len(location)) if str(location[at]) in _fields_at(location[:at])]
    return location[: leaf[-1] + 1] if leaf else location[:1]


def _hint(name: str, first: Mapping[str, Any]) -> str | None:
    """How to write the value that was probably meant."""
    seen = first.get("input")
    if isinstance(seen, str) and any(each in first["type"] for each in ("tuple", "literal")) and name in _LISTS:
        return f"a list stands in brackets: {name}=[{seen}]"
    if isinstance(seen, int | float) and not isinstance(seen, bool) and name in _PATHS:
        return f"a file of that name is ./{seen}"
    return "quotes go around a number, yes/no, and text with a colon" if first["type"] == "string_type" else None


def _homes_of(name: str) -> list[str]:
    """`train.lr` for `lr`: where a setting lives that was named without its section, or in a wrong one."""
    if name in RunConfig.model_fields:
        return [name]
    return [f"{section}.{name}" for section in RunConfig.model_fields if name in _fields_at((section,))]


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None:
            continue
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                section = candidate
    return list(section.model_fields)

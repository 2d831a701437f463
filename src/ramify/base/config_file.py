"""Configurations from YAML files and dotted overrides; whatever is wrong with them is said in one line.

Unknown keys are refused with the nearest name. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ramify.base.config import RunConfig, Section
from ramify.base.config_mix import MixConfig
from ramify.base.errors import ConfigError, nearest, unknown

Settings = TypeVar("Settings", bound=Section)

_EXPONENT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_LISTS = ("lora.targets", "sample.stop", "decontaminate", "erase.when")
_PATHS = (
    "data.train",
    "data.valid",
    "task.rules",
    "prompt.fewshot",
    "sample_prompt.fewshot",
    "evaluate.problems",
    "out",
)
_NEEDED = {
    "too_short": "at least one entry",
    "path_type": "a path",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a section {…}",
}


def load_config(path: Path | str | None, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """Read a YAML file (None: all defaults) and apply `a.b=value` overrides; values are parsed as YAML.

    Relative paths stay as written (relative to the working directory).

    Raises:
        ConfigError: the file is missing or not a mapping, a key is unknown, a value has the wrong type or range.
    """
    return _load(RunConfig, path, overrides)


def load_mix(path: Path | str | None, overrides: list[str] | tuple[str, ...] = ()) -> MixConfig:
    """The settings of a mix, as `load_config` reads those of a run.

    Raises:
        ConfigError: as `load_config`.
    """
    return _load(MixConfig, path, overrides)


def parse_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Validate a plain mapping.

    Raises:
        ConfigError: one line that names the field, the value seen, and what is allowed.
    """
    return _parse(RunConfig, values, where)


def _load(kind: type[Settings], path: Path | str | None, overrides: Sequence[str]) -> Settings:
    values: dict[str, Any] = {} if path is None else read_yaml(Path(path))
    for override in overrides:
        apply_override(values, override)
    return _parse(kind, values, where=str(path) if path is not None else "command line")


def _parse(kind: type[Settings], values: dict[str, Any], where: str) -> Settings:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _one_line(kind, error, where) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a plain mapping of settings; empty: no settings.

    Raises:
        ConfigError: it is missing, cannot be read, is not YAML or not a mapping, or names a key twice.
    """
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

    An entry of a list of sections is reached by its `name`: `sources.gsm8k.weight=0.2`.

    Raises:
        ConfigError: it is not of that form, or a list has no entry of that name.
    """
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"override {override!r} is not of the form key=value", hint="for example train.lr=1e-4")
    *parents, leaf = name.split(".")
    try:
        _inside(values, parents, override)[leaf] = yaml_scalar(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"override {override!r}: the value is not valid YAML") from None


def _inside(values: dict[str, Any], path: Sequence[str], override: str) -> dict[str, Any]:
    """The section at the end of a path; what is no section on the way there becomes one."""
    if not path:
        return values
    name, *rest = path
    inner = values.get(name)
    if _have_names(inner):
        if not rest:
            raise ConfigError(f"override {override!r}: names no setting", hint="for example sources.NAME.weight=2")
        inner, rest = _entry(inner, rest[0], override), rest[1:]
    elif not isinstance(inner, dict):
        inner = values[name] = {}
    return _inside(inner, rest, override)


def _have_names(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Whether a value is a list of sections that have names."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) and "name" in each for each in value)


def _entry(entries: list[dict[str, Any]], name: str, override: str) -> dict[str, Any]:
    """The section of that name.

    Raises:
        ConfigError: there is none.
    """
    named = {str(each["name"]): each for each in entries}
    if name not in named:
        raise ConfigError(f"override {override!r}: {unknown('entry', name, named)}")
    return named[name]


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


def _one_line(kind: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    # An unknown name explains why a needed one is missing, so it is told first.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    if first["type"] == "value_error":  # of `_consistent`
        return ConfigError(f"{where}: {first['ctx']['error']}")
    if first["type"] == "missing":
        return ConfigError(f"{where}: {'.'.join(map(str, first['loc']))} is not set")
    place = first["loc"] if first["type"] == "extra_forbidden" else _place_of(kind, first["loc"])
    name = ".".join(str(part) for part in place) or "config"
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(kind, first["loc"][:-1])
        wrong = str(first["loc"][-1])
        guesses: Sequence[str | None] = _homes_of(kind, wrong) or [nearest(wrong, allowed)]
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


def _place_of(kind: type[BaseModel], location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of a location that names a setting, without the alternatives of its type, which follow it."""
    leaf = [at for at in range(1, len(location)) if str(location[at]) in _fields_at(kind, location[:at])]
    return location[: leaf[-1] + 1] if leaf else location[:1]


def _hint(name: str, first: Mapping[str, Any]) -> str | None:
    """How to write the value that was probably meant."""
    seen = first.get("input")
    if isinstance(seen, str) and any(each in first["type"] for each in ("tuple", "literal")) and name in _LISTS:
        return f"a list stands in brackets: {name}=[{seen}]"
    if isinstance(seen, int | float) and not isinstance(seen, bool) and name in _PATHS:
        return f"a file of that name is ./{seen}"
    return "quotes go around a number, yes/no, and text with a colon" if first["type"] == "string_type" else None


def _homes_of(kind: type[BaseModel], name: str) -> list[str]:
    """`train.lr` for `lr`: where a setting lives that was named without its section, or in a wrong one."""
    if name in _names(kind):
        return [name]
    return [f"{section}.{name}" for section in _names(kind) if name in _fields_at(kind, (section,))]


def _fields_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    section = kind
    for part in location:
        field = _names(section).get(str(part))
        if field is None:
            continue
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                section = candidate
    return list(_names(section))


def _names(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the names they are set with."""
    return {field.alias or name: field for name, field in section.model_fields.items()}

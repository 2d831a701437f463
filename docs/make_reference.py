"""The reference: pages made from the code, so that they cannot say anything else.

    python docs/make_reference.py            writes docs/reference/*.md
    python docs/make_reference.py --check    writes nothing; exit code 1, and the names of the pages that differ

A setting's help is the docstring under its field, a command's is its `--help`, a file's is the docstring of the module
that writes it, and an error's that of its class. What is added to any of them is here with the next call.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from reference_source import module_doc, python_page, record
from reference_types import blocks, cell, kind_of, section_in, table, text_of, with_bounds
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from ramify.base import errors
from ramify.base.config import RunConfig
from ramify.base.config_mix import MixConfig
from ramify.base.types import Reason, Stop
from ramify.cli.errors import describe
from ramify.cli.main import app
from ramify.data.shapes import SHAPES
from ramify.evaluate.settings import deciding

FOLDER = Path(__file__).resolve().parent / "reference"
MADE = "<!-- Made by docs/make_reference.py from the code; changes belong there. -->\n"
WRITERS = (
    ("A run", "ramify.base.runs"),
    ("Supervised fine-tuning", "ramify.train.sft"),
    ("Checkpoints", "ramify.train.checkpoint"),
    ("Rejection sampling", "ramify.train.rft"),
    ("Preference optimisation", "ramify.train.dpo"),
    ("Log-probabilities of a reference", "ramify.train.reference"),
    ("An evaluation", "ramify.evaluate.run"),
    ("A comparison", "ramify.evaluate.compare.comparison"),
    ("An erasure", "ramify.evaluate.erasure"),
    ("A judgement", "ramify.evaluate.judge.run"),
    ("What a judgement means", "ramify.evaluate.judge.asking"),
    ("What a probe measures", "ramify.evaluate.probe.forgetting"),
    ("How probable held-out answers are", "ramify.evaluate.probe.likelihood"),
    ("A mix", "ramify.data.mix.folder"),
    ("An export", "ramify.export.run"),
    ("A plan", "ramify.plan.plan"),
    ("A sweep", "ramify.plan.sweep.run"),
    ("Rules", "ramify.tasks.chat.rules"),
    ("A file of rules", "ramify.tasks.chat.rulebook"),
    ("Verdicts on open answers", "ramify.tasks.chat.task"),
    ("Worked turns", "ramify.prompts.fewshot"),
)
"""What is read from or written to disk, and the module whose docstring says how."""
RECORDS = (
    ("Problem", "ramify.base.types"),
    ("Sample", "ramify.base.types"),
    ("Verdict", "ramify.base.types"),
    ("Scores", "ramify.evaluate.scores"),
    ("Rate", "ramify.evaluate.scores"),
    ("Contrast", "ramify.evaluate.compare.contrasts"),
    ("Finding", "ramify.evaluate.statistics.findings"),
    ("Paired", "ramify.evaluate.scores"),
)
"""Records of which files are made, and their modules."""


@dataclass(frozen=True)
class Command:
    """One command with the words that call it."""

    words: str
    made: TyperCommand


def main() -> int:
    """Write the pages, or compare them; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say which pages differ")
    check = parser.parse_args().check
    different = [name for name, text in pages().items() if not _is(FOLDER / name, text)]
    for name in different:
        if not check:
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / name).write_text(pages()[name], encoding="utf-8")
        print(f"{'differs' if check else 'written'}: docs/reference/{name}")
    return 1 if check and different else 0


@cache
def pages() -> dict[str, str]:
    """Every page by its file name."""
    makers: dict[str, Callable[[], Iterable[str]]] = {
        "config.md": config_page,
        "commands.md": commands_page,
        "files.md": files_page,
        "errors.md": errors_page,
        "python.md": python_page,
    }
    return {name: "\n\n".join((MADE.rstrip(), *make())) + "\n" for name, make in makers.items()}


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


# Settings


def config_page() -> Iterator[str]:
    """Every setting of a run and of a mix."""
    yield "# Settings"
    yield (
        "A run is one YAML file; each setting can also be written on the command line, as `train.lr=1e-4`, and goes "
        "before the file. Unknown settings are refused. *Option*: what sets the same on a command's own line. *Eval*: "
        "whether an evaluation depends on it, so that two evaluations with different values are kept apart."
    )
    yield from _sections(RunConfig, "run", frozenset(deciding(RunConfig())), options_by_setting())
    yield "# Settings of a mix"
    yield "`ramify data mix` has a file of its own; see [mixing](../mixing.md)."
    yield from _sections(MixConfig, "mix", frozenset(), {})


def _sections(
    kind: type[BaseModel], whose: str, decides: frozenset[str], options: dict[str, list[str]]
) -> Iterator[str]:
    """One table a section, each section once; `decides` is empty where nothing is evaluated."""
    seen: dict[type[BaseModel], str] = {}
    waiting: list[tuple[str, str, type[BaseModel], str]] = [(f"A {whose}", "", kind, "")]
    titles = ["setting", "type", "default", "meaning", *(["option", "eval"] if decides else [])]
    while waiting:
        heading, prefix, section, said = waiting.pop(0)
        rows = []
        for name, field in section.model_fields.items():
            full, inner = f"{prefix}{field.alias or name}", section_in(field.annotation)
            if inner is not None and inner not in seen:
                seen[inner] = full
                waiting.append((f"`{full}` of a {whose}", f"{full}.", inner, field.description or ""))
            if inner is None or not isinstance(field.get_default(call_default_factory=True), inner):
                given = ", ".join(f"`{each}`" for each in options.get(full, ()))
                row = _setting(full, field, None if inner is None else seen[inner])
                rows.append([*row, given, "yes" if full in decides else ""][: len(titles)])
        yield f"## {heading}"
        yield " ".join(text_of(each) for each in (inspect.getdoc(section) or "", said) if each)
        if rows:
            yield table(titles, rows)


def _setting(full: str, field: FieldInfo, described: str | None) -> list[str]:
    """Name, type, default and meaning; `described` is where the settings of a section stand."""
    below = "Its settings are below." if described == full else f"Its settings are those of `{described}`."
    meaning = " ".join(each for each in (field.description, None if described is None else below) if each)
    kind = with_bounds(kind_of(field.annotation), field.metadata)
    return [f"`{full}`", cell(kind), _default(field), cell(meaning)]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "needed"
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return f"`{json.dumps(plain, ensure_ascii=False, default=str)}`".replace("|", r"\|")


@cache
def options_by_setting() -> dict[str, list[str]]:
    """The options of commands by the setting they are written for, as each command's own source has it."""
    found: dict[str, list[str]] = {}
    for command in commands():
        names = {each.name: each for each in command.made.params if isinstance(each, TyperOption)}
        for setting, name in _pairs(command.made.callback):
            if name in names:
                found.setdefault(setting, []).append(f"{command.words} {names[name].opts[0]}")
    return found


def _pairs(callback: Callable[..., Any] | None) -> Iterator[tuple[str, str]]:
    """`"train.lr": lr` in the mappings of a function."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(callback))) if callback is not None else ast.Module([], [])
    for node in ast.walk(tree):
        for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and isinstance(value, ast.Name):
                yield key.value, value.id


# Commands


@cache
def commands() -> tuple[Command, ...]:
    """Every command, those of groups included, in the order in which `--help` has them."""
    made = typer.main.get_command(app)
    assert isinstance(made, TyperGroup)
    return tuple(_commands(made, "ramify"))


def _commands(group: TyperGroup, words: str) -> Iterator[Command]:
    for name, made in group.commands.items():
        if isinstance(made, TyperGroup):
            yield from _commands(made, f"{words} {name}")
        elif isinstance(made, TyperCommand):
            yield Command(f"{words} {name}", made)


def commands_page() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield "# Commands"
    yield (
        "Every command has `--help`. Exit codes: 0 done, 1 a run failed, 2 bad input or settings, 130 interrupted, 143 "
        "ended by SIGTERM. `RAMIFY_DEBUG=1` shows where an error came from."
    )
    for command in commands():
        yield f"## {command.words}"
        arguments = [each for each in command.made.params if isinstance(each, TyperArgument)]
        shown = [each.metavar or str(each.name).upper() for each in arguments]
        yield f"```sh\n{' '.join([command.words, '[OPTIONS]', *shown])}\n```"
        yield text_of(command.made.help or "")
        rows = [
            [cell(f"`{name}`"), cell(each.help or ""), "needed" if each.required else ""]
            for name, each in zip(shown, arguments, strict=True)
        ]
        options = [each for each in command.made.params if isinstance(each, TyperOption) and not each.hidden]
        rows += [[_option_name(each), cell(each.help or ""), _option_default(each)] for each in options]
        yield table(["argument or option", "meaning", "default"], rows)


def _option_name(option: TyperOption) -> str:
    names = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
    return names if option.is_flag else f"{names} {option.metavar or cell(_option_kind(option))}"


def _option_kind(option: TyperOption) -> str:
    kind = kind_of(option.type_descriptor.annotation)
    low, high = option.min, option.max
    bounds = [f"{sign} {bound:g}" for sign, bound in (("≥", low), ("≤", high)) if bound is not None]
    return " ".join([kind, *bounds])


def _option_default(option: TyperOption) -> str:
    if option.required:
        return "needed"
    empty = option.default is None or option.default is False or option.default == []
    return "" if empty else f"`{getattr(option.default, 'value', option.default)}`"


# Files


def files_page() -> Iterator[str]:
    """What is read and written."""
    yield "# Files"
    yield (
        "All of it is UTF-8. A file of JSON is written whole or not at all; `*.jsonl` has one record a line. Where "
        "several kinds of rows may stand, each row is recognised by its columns ([data](../data.md) has examples)."
    )
    yield "## Rows"
    yield table(["shape", "columns", "read besides"], [_shape_row(name) for name in SHAPES])
    for name, module in RECORDS:
        yield f"## {name}"
        yield from record(module, name)
    for outcome in (Stop, Reason):
        yield f"## {outcome.__name__}"
        yield text_of(inspect.getdoc(outcome) or "")
        meanings = dict(re.findall(r'= "(\w+)"  # (.+)', inspect.getsource(outcome)))
        yield table(["value", "meaning"], [[f"`{each.value}`", cell(meanings[each.value])] for each in outcome])
    for title, module in WRITERS:
        yield f"## {title}"
        yield from blocks(module_doc(module))


def _shape_row(name: str) -> list[str]:
    shape = SHAPES[name]
    ways = " or ".join(" + ".join(f"`{each}`" for each in columns) for columns in shape.columns)
    more = ", ".join(f"`{each}`" for each in shape.optional) + (", all others" if shape.keeps_rest else "")
    lengths = {"pairs": "`[question, answer]`", "triples": "`[question, answer, reasoning]`"}
    return [f"`{name}`", ways or lengths[name], more]


# Errors


def errors_page() -> Iterator[str]:
    """Every error, its exit code, and what the command line makes of other exceptions."""
    yield "# Errors"
    yield (
        "What goes wrong is said in one line, `error: …`, with a `hint: …` below it where there is something to do, on "
        "standard error. From Python the same errors are raised: all are `ramify.base.errors.RamifyError`, with "
        "`.message` and `.hint`."
    )
    rows = [
        [f"`{kind.__name__}`", f"`{kind.__mro__[1].__name__}`", str(code_of(kind)), cell(inspect.getdoc(kind) or "")]
        for kind in _kinds(errors.RamifyError)
    ]
    yield table(["error", "is a", "exit code", "meaning"], rows)
    yield "## Other ends"
    others: list[tuple[str, BaseException]] = [
        ("Ctrl-C", KeyboardInterrupt()),
        ("SIGTERM", errors.Terminated()),
        ("no memory left", MemoryError()),
        ("no space left on the disk", OSError(28, "No space left on device", "FILE")),
        ("an error that was not foreseen", ValueError("…")),
    ]
    told = [(what, describe(error)) for what, error in others]
    rows = [[what, cell(message), cell(hint or ""), str(code)] for what, (message, hint, code) in told]
    yield table(["what happened", "message", "hint", "exit code"], rows)


def code_of(kind: type[errors.RamifyError]) -> int:
    """Exit code of a command that ends with this error."""
    return describe(kind("message"))[2]


def _kinds(kind: type[errors.RamifyError]) -> Iterator[type[errors.RamifyError]]:
    yield kind
    for each in kind.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from _kinds(each)


if __name__ == "__main__":
    sys.exit(main())

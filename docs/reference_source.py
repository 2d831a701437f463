"""What the source says, read and not imported: docstrings of modules, fields of records, the Python interface."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from reference_types import blocks, cell, table, text_of

import ramify.base.errors

PACKAGE = Path(inspect.getfile(ramify.base.errors)).resolve().parent.parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_doc(module: str) -> str:
    """A module's docstring."""
    return ast.get_docstring(_tree(module)) or ""


def record(module: str, name: str) -> Iterator[str]:
    """A record's docstring, and its fields with what is said of each."""
    made = _definition(module, name)
    text, _, rest = (ast.get_docstring(made) or "").partition("\nAttributes:\n")
    entries = re.findall(r"^    ([\w, ]+): (.*(?:\n {8}.*)*)", rest, re.MULTILINE)
    said = {each: cell(meaning) for names, meaning in entries for each in names.split(", ")}
    held = [
        (each.target.id, ast.unparse(each.annotation))
        for each in made.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]
    yield text_of(text.strip())
    yield table(
        ["field", "type", "meaning"], [[f"`{each}`", cell(f"`{kind}`"), said.get(each, "")] for each, kind in held]
    )


def python_page() -> Iterator[str]:
    """Every public name with its signature and its docstring."""
    yield "# Python"
    yield (
        "Everything here is a name of `ramify`. Settings, and the fields of `LoRA` and `RunConfig`, are those of "
        "[a run](config.md); errors are [these](errors.md). `help(ramify.load)` shows the same."
    )
    for name, module in _homes().items():
        made = _definition(module, name)
        yield f"## ramify.{name}"
        if isinstance(made, ast.ClassDef):
            yield from blocks(ast.get_docstring(made) or "")
            for method in made.body:
                if isinstance(method, Function) and _is_shown(method):
                    yield f"### {name}.{method.name}"
                    yield from _described(method)
        else:
            yield from _described(made)


def _homes() -> dict[str, str]:
    """The module of each public name, as the package tells type checkers."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    found = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("ramify.")
        for alias in node.names
    }
    return {name: found[name] for name in sorted(found, key=lambda each: (each[0].isupper(), each))}


def _definition(module: str, name: str) -> ast.ClassDef | Function:
    return next(each for each in _tree(module).body if isinstance(each, ast.ClassDef | Function) and each.name == name)


def _tree(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def _is_shown(method: Function) -> bool:
    """Whether a method is public, and no overload of the one that follows."""
    return not method.name.startswith("_") and not any(
        "overload" in ast.unparse(each) for each in method.decorator_list
    )


def _described(made: Function) -> Iterator[str]:
    """Signature and docstring; a property is told by its type alone."""
    returns = "" if made.returns is None else f" -> {ast.unparse(made.returns)}"
    is_property = any(ast.unparse(each) == "property" for each in made.decorator_list)
    arguments = "" if is_property else f"({ast.unparse(made.args)})"
    yield f"```text\n{made.name}{arguments}{returns}\n```"
    yield from blocks(ast.get_docstring(made) or "")

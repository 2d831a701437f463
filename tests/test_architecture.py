"""The shape of the code: who may import whom, what loads torch, how long a module is, that every setting is read."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from ramify.base import config, config_mix
from ramify.base.config import RunConfig
from ramify.base.config_file import load_config, load_mix
from ramify.base.config_mix import MixConfig
from ramify.tasks.chat.rulebook import read_rulebook

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
LINE = "base prompts data nano tree model sample tasks train evaluate plan export serve console api demo cli"
ORDER = (*re.findall(r"\w+", LINE), "__init__", "__main__")
FILES = sorted((SOURCE / "ramify").rglob("*.py"))
MODULES = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in FILES}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in MODULES.items()}
SETTINGS = (config.__name__, config_mix.__name__)
NO_TORCH = ("base", "prompts", "data", "nano", "tasks", "console", "cli")


def package(module: str) -> str:
    """The part of `ramify` that a module belongs to."""
    return module.split(".")[1]


def imports(module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a module imports, inside functions too."""
    here = module.split(".")[:-1]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) + 1 - node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public functions, classes and methods of a module; an overload speaks through the function it belongs to."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or child.name.startswith("_"):
            continue
        if not any(isinstance(each, ast.Name) and each.id == "overload" for each in child.decorator_list):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, f"{child.name}.")


def python(code: str) -> str:
    """Output of a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_part_has_its_place_in_the_order() -> None:
    assert {package(name) for name in MODULES} <= set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_only_from_their_left(module: str) -> None:
    place = ORDER.index(package(module))
    wrong = []
    for line, name in imports(module):
        parts = name.split(".")
        if parts[0] != "ramify":
            continue
        imported = parts[1] if len(parts) > 1 and parts[1] in ORDER else "__init__"
        if ORDER.index(imported) > place or (package(module) == "evaluate" and imported == "train"):
            wrong.append(f"{module}:{line} imports {name}")
    assert not wrong


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_importable_and_export_what_they_say(module: str) -> None:
    if module == "ramify.__main__":
        return  # importing it is running it
    loaded = importlib.import_module(module.removesuffix(".__init__"))
    exported = getattr(loaded, "__all__", [])
    assert len(exported) == len(set(exported))
    missing = [name for name in exported if not hasattr(loaded, name)]
    assert not missing


def test_the_python_interface_exports_what_the_documentation_uses() -> None:
    import ramify

    assert {"load", "train", "evaluate", "LoRA"} <= set(ramify.__all__)


def test_help_loads_no_torch() -> None:
    code = """
import runpy, sys
sys.argv = ["ramify", "--help"]
try:
    runpy.run_module("ramify", run_name="__main__", alter_sys=True)
except SystemExit as done:
    assert not done.code, done.code
print("LOADED", sorted({"torch", "transformers", "peft", "numpy"} & set(sys.modules)))
"""
    assert "LOADED []" in python(code)


@pytest.mark.parametrize("part", [part for part in NO_TORCH if any(package(name) == part for name in MODULES)])
def test_light_parts_load_no_torch(part: str) -> None:
    names = [name.removesuffix(".__init__") for name in MODULES if package(name) == part]
    code = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    assert python(code).strip() == "False"


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short_and_named_for_what_they_do(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 400
    assert not {"utils", "util", "helpers", "helper", "common", "misc"} & set(module.split("."))


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_says_what_it_does(module: str) -> None:
    tree = TREES[module]
    silent = [name for name, node in definitions(tree) if not ast.get_docstring(node)]
    assert not silent
    assert ast.get_docstring(tree) or not tree.body or module == "ramify.__main__"


def sections(model: type[BaseModel], name: str = "config") -> Iterator[tuple[str, type[BaseModel]]]:
    """(name under which it is reached, class) of each part of a configuration."""
    yield name, model
    for field, info in model.model_fields.items():
        for kind in (info.annotation, *getattr(info.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from sections(kind, field)


ALL_SECTIONS = [*sections(RunConfig), *sections(MixConfig)]


def reads(module: str) -> tuple[set[str], set[str]]:
    """Attributes a module reads, and all names in it."""
    nodes = list(ast.walk(TREES[module]))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    return attributes, names | attributes


def test_every_setting_is_read() -> None:
    """A field counts as read where a module that handles its section (by class or by name) reads that attribute."""
    code = {name: reads(name) for name in MODULES if name not in SETTINGS}
    unread = [
        f"{section}.{field}"
        for section, model in ALL_SECTIONS
        for field in model.model_fields
        for handled in [{section, model.__name__, defining(model, field).__name__}]
        if not any(field in attributes and handled & names for attributes, names in code.values())
    ]
    assert not unread


def defining(model: type[BaseModel], field: str) -> type:
    """The class that a field of a section is written in: the section's own, or one that several sections share."""
    return next(each for each in model.__mro__ if field in vars(each).get("__annotations__", {}))


def test_every_setting_has_its_help() -> None:
    sectional = {name for name, _ in ALL_SECTIONS}
    silent = [
        f"{section}.{name}"
        for section, model in ALL_SECTIONS
        for name, info in model.model_fields.items()
        if not info.description and name not in sectional
    ]
    assert not silent
    assert all(model.__doc__ for _, model in ALL_SECTIONS)


def test_settings_are_defined_where_settings_are() -> None:
    elsewhere = [
        f"{module}.{node.name}"
        for module, tree in TREES.items()
        if module not in SETTINGS
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id in {"BaseModel", "Section"} for base in node.bases)
    ]
    assert not elsewhere


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_valid(recipe: Path) -> None:
    if recipe.name == "rules.yaml":
        assert read_rulebook(recipe).by_category
        return
    load = load_mix if re.search(r"^sources:", recipe.read_text(encoding="utf-8"), re.M) else load_config
    read = load(recipe)
    assert read == load(recipe, ["model=nano", "seed=42"]).model_copy(
        update={name: getattr(read, name) for name in ("model", "seed")}
    )


def test_third_party_imports_are_declared_and_declared_ones_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=\[;~! ]", item)[0].lower() for item in project["dependencies"]}
    parts = ("data", "export", "serve", "speech", "ui")
    extras = {re.split(r"[<>=\[;~! ]", item)[0] for part in parts for item in project["optional-dependencies"][part]}
    named = {"yaml": "pyyaml"}
    used = {
        named.get(top, top.replace("_", "-"))
        for module in MODULES
        for _, name in imports(module)
        if (top := name.split(".")[0]) not in {*sys.stdlib_module_names, "ramify"}
    }
    through_others = {"tensorboard", "jinja2", "accelerate", "huggingface-hub"}  # by torch, transformers and peft
    where_installed = {"faster-whisper", "llama-cpp", "vllm"}  # used by those who have them
    assert used <= needed | extras | through_others | where_installed
    assert needed <= used | through_others


TEXTS = [
    path
    for pattern in ("src/**/*", "tests/**/*", "recipes/**/*", "docs/**/*", "benchmarks/**/*", "scripts/*", "*", ".ci/*")
    for path in sorted(ROOT.glob(pattern))
    if path.is_file()
    and path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".jsonl", ".jinja", ".html", ".sh", ""}
]


def test_no_file_names_a_machine_or_a_registry() -> None:
    """Built from halves so that this file passes its own test."""
    private = re.compile("|".join(("/ro" + "ot/", "/wo" + "rk/", "/ho" + "me/", "/opt/py" + "pi", "/tmp/br" + "ief")))
    hosts = re.compile("|".join(("py" + r"pi\.org", "python" + r"hosted\.org", r"download\.py" + r"torch\.org")))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1)
        if private.search(line) or hosts.search(line)
    ]
    assert not found

"""The reference is what the code says, and what the tables of other tools call ours exists."""

from __future__ import annotations

import inspect
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from cli_setup import ramify
from pydantic import BaseModel
from test_docs import FENCED, LINK, ROOT
from train_setup import model_folder
from typer.core import TyperCommand, TyperGroup

import ramify as package
from ramify.base import errors
from ramify.base.config import RunConfig
from ramify.base.config_file import load_config
from ramify.base.config_mix import MixConfig
from ramify.base.errors import ConfigError
from ramify.cli.errors import OK, describe
from ramify.cli.main import app
from ramify.data.shapes import SHAPES

__all__ = ["model_folder"]

PROGRAM = ROOT / "docs" / "make_reference.py"
REFERENCE = ROOT / "docs" / "reference"
TABLES = sorted((ROOT / "docs").glob("*from*.md"))
OURS = "Ramify"
SETTING = re.compile(r"[a-z_]+(?:\.[a-z_]+)?")
BAR = re.compile(r"(?<!\\)\|")
PLACEHOLDERS = {"NAME", "FILE.yaml", "CONFIG", "RUN", "MODEL", "FILE", "DIR", "TEXT", "LABS", "…", "key=value"}
OTHERS = ("trl", "llamafactory", "axolotl", "unsloth")
VALUES = ("chatml", "llama3", "plain", "rft", "true", "false", "accelerate launch -m ramify train sft …")
"""Values that a table may name beside their setting, and how a launcher is told."""
OF_ROWS = {"weight", "rows", "optional", "seed", "erase", "validation", "dedup", "short"}
"""What the tables name of a mix, or of a turn."""


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def commands() -> dict[str, TyperCommand]:
    """Every command by the words that call it."""

    def under(group: TyperGroup, words: str) -> Iterator[tuple[str, TyperCommand]]:
        for name, made in group.commands.items():
            if isinstance(made, TyperGroup):
                yield from under(made, f"{words} {name}")
            elif isinstance(made, TyperCommand):
                yield f"{words} {name}", made

    made = typer.main.get_command(app)
    assert isinstance(made, TyperGroup)
    return dict(under(made, "ramify"))


def settings(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings that hold a value, by another way than the program's."""
    for name, field in kind.model_fields.items():
        full = f"{prefix}{field.alias or name}"
        inner = [each for each in [field.annotation, *getattr(field.annotation, "__args__", ())] if _is_section(each)]
        yield from settings(inner[0], f"{full}.") if inner else (full,)


def _is_section(kind: object) -> bool:
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


def test_the_pages_are_what_the_program_makes() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"python docs/make_reference.py writes them anew\n{done.stdout}{done.stderr[-2000:]}"


def test_a_page_that_says_something_else_is_named_and_mended(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for path in ROOT.glob("docs/*.py"):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, str(folder / PROGRAM.name)]
    subprocess.run(command, check=True, capture_output=True)
    made = {path.name: path.read_text(encoding="utf-8") for path in (folder / "reference").iterdir()}
    assert made == {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.iterdir()}
    (folder / "reference" / "errors.md").write_text("something else", encoding="utf-8")
    done = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "differs: docs/reference/errors.md\n")
    assert (folder / "reference" / "errors.md").read_text(encoding="utf-8") == "something else"


def test_every_setting_stands_in_the_reference_with_its_default_and_help() -> None:
    of_run, of_mix = page("config.md").split("# Settings of a mix", 1)
    for text, kind, elsewhere in ((of_run, RunConfig, "sample_prompt."), (of_mix, MixConfig, "sources.erase.")):
        rows = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")}
        for full in settings(kind):
            if not full.startswith(elsewhere):
                _, default, meaning = [cell.strip() for cell in BAR.split(rows[full])[2:5]]
                assert default and meaning, full
    assert "| `train.lr` | number > 0 | `0.001` | Peak learning rate. |" in of_run


def test_every_command_and_option_stands_in_the_reference() -> None:
    text = page("commands.md")
    for words, made in commands().items():
        part = text.split(f"\n## {words}\n", 1)[1].split("\n## ", 1)[0]
        for parameter in made.params:
            for name in parameter.opts if parameter.param_type_name == "option" else ():
                assert f"`{name}`" in part, f"{words} {name}"


def test_every_error_shape_and_exit_code_stands_in_the_reference() -> None:
    kinds = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.RamifyError)]
    assert len(kinds) >= 8
    for kind in kinds:
        row = next(row for row in page("errors.md").splitlines() if row.startswith(f"| `{kind.__name__}` |"))
        assert f"| {describe(kind('x'))[2]} |" in row
    assert all(f"| `{name}` |" in page("files.md") for name in SHAPES)


def test_every_name_of_the_package_stands_in_the_reference() -> None:
    text = page("python.md")
    assert re.findall(r"^## ramify\.(\w+)$", text, re.MULTILINE) == sorted(
        package.__all__, key=lambda n: (n[0].isupper(), n)
    )
    assert "num_return_sequences: int | None=None" in text and "Several need a temperature." in text


def test_the_reference_is_well_formed() -> None:
    for path in REFERENCE.glob("*.md"):
        text = FENCED.sub("", path.read_text(encoding="utf-8"))
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            widths = {len(BAR.findall(row)) for row in block.splitlines()}
            assert len(widths) == 1, f"{path.name}: {block[:200]}"
        targets = [target for target, _ in LINK.findall(text) if target and not target.startswith("http")]
        assert all((path.parent / target).exists() for target in targets)


def test_files_of_a_run_are_in_the_reference(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a training and its evaluation leave is described."""
    monkeypatch.chdir(tmp_path)
    line = [f"model={model_folder}", "data.train=task", "task.rows=4", "train.max_steps=1", "train.dtype=fp32"]
    assert ramify(monkeypatch, capsys, "train", *line, "prompt.chat_template=plain", "--out", "run")[0] == OK
    asked = ["--n", "1", "--max-new-tokens", "2", "--out", "evaluated"]
    assert ramify(monkeypatch, capsys, "eval", "run", *asked)[0] == OK
    text = page("files.md")
    for path in [*(tmp_path / "run").iterdir(), *(tmp_path / "evaluated").iterdir()]:
        name = "checkpoint-N" if path.name.startswith("checkpoint-") else path.name
        assert name in text or name.startswith("events.out.tfevents"), name


def cells(path: Path) -> Iterator[str]:
    """What stands in the columns of a page that are called Ramify."""
    column = None
    for line in path.read_text(encoding="utf-8").splitlines():
        row = [cell.strip() for cell in BAR.split(line)] if line.startswith("|") else []
        if OURS in row:
            column = row.index(OURS)
        elif not row:
            column = None
        elif column is not None and not row[column].startswith("---"):
            yield row[column]


def tokens(path: Path) -> list[str]:
    return [token for cell in cells(path) for token in re.findall(r"`([^`]+)`", cell)]


def test_there_are_tables() -> None:
    assert {path.stem for path in TABLES} == {"coming-from", *(f"from-{name}" for name in OTHERS)}
    assert all(len(tokens(path)) > 20 for path in TABLES if path.stem != "from-trl")


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_what_the_tables_call_ours_exists(path: Path) -> None:
    made = commands()
    wrong = [token for token in tokens(path) if not _exists(token, made)]
    assert not wrong


def _exists(token: str, made: dict[str, TyperCommand]) -> bool:
    if token.startswith("ramify "):
        return _is_command(token, made)
    if token.startswith("ramify."):
        return hasattr(package, token.removeprefix("ramify.").split("(")[0])
    if token.startswith(("recipes/", "scripts/")):
        return (ROOT / token).exists()
    if token in OF_ROWS or token in ("adapter/", "model/", *SHAPES, *VALUES):
        return True
    name, equals, value = token.partition("=")
    return SETTING.fullmatch(name) is not None and _is_setting(name, value if equals else None)


def _is_command(token: str, made: dict[str, TyperCommand]) -> bool:
    """The command exists, and so do its options and settings."""
    words = token.split()
    length = 3 if words[1] == "data" else 2
    command = made.get(" ".join(words[:length]))
    if command is None:
        return False
    known = {name for parameter in command.params for name in parameter.opts}
    given = [word for word in words[length:] if word not in PLACEHOLDERS]
    options = [word for word in given if word.startswith("-")]
    named = [word.split("=", 1) for word in given if re.match(r"[a-z_]+(\.[a-z_]+)?=", word)]
    return set(options) <= known and all(_is_setting(name, value.split(",")[0]) for name, value in named)


def _is_setting(name: str, value: str | None) -> bool:
    """Whether it can be set, and to that value."""
    section, _, field = name.partition(".")
    inner = getattr(load_config(None), section, None)
    if not hasattr(RunConfig(), section) or (field and not hasattr(inner, field)):
        return False
    if value is None:
        return True
    try:
        load_config(None, ["data.valid=valid.json", f"{name}={value}"])
    except ConfigError:
        return False
    return True


@pytest.mark.proof
@pytest.mark.usefixtures("chromium")
def test_a_picture_of_a_page_is_taken(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="pip install 'ramify[test]'")
    report, picture = tmp_path / "report.html", tmp_path / "images" / "report.png"
    report.write_text("<body style='background: #123456'><h1>A report</h1></body>", encoding="utf-8")
    command = [sys.executable, str(ROOT / "docs" / "make_pictures.py"), str(report), "--out", str(picture)]
    done = subprocess.run([*command, "--height", "700"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (1280, 700)


def test_what_the_readme_has_measured_is_in_the_benchmarks() -> None:
    measured = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Measured\n")[1].split("\n## ")[0]
    rows = [BAR.split(row) for row in measured.splitlines() if row.startswith("| ")][1:]
    benchmarks = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert len(rows) >= 5
    for row in rows:
        figures = re.findall(r"\d+(?:\.\d+)?", f"{row[2]} {row[3]}")
        assert len(figures) >= 2 and all(f" {figure} |" in benchmarks for figure in figures), row
    named = set(re.findall(r"python -m benchmarks\.(\w+)", measured))
    assert named and all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in named)

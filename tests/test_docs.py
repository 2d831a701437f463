"""Documentation that runs: commands and Python examples of each page are executed, in order, in a fresh folder.

A block marked `sh` is not run: it installs things, or shows what a reader fills in. Commands run as written, with their
work made small (`SMALL`), so that what is tested is that they work, not what they achieve.
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?<=\n\n)((?: {4}.*\n|\n(?= {4}))+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)?(?:#([\w-]+))?\)")
TRAINING = ["task.rows=24", "train.max_steps=2"]
SMALL = {
    "demo": ["--quick"],
    "train": TRAINING,
    "plan": TRAINING,
    "sweep": [*TRAINING, "evaluate.limit=8"],
    "sample": TRAINING,
    "eval": ["--n", "8"],
    "erasure": ["--n", "8"],
    "probe": ["--max-new-tokens", "8"],
}
DRAWING = ["sample.n=4", "select.rounds=1"]


def blocks(page: Path) -> list[str]:
    """Fenced and indented blocks of a page, in order, those marked `sh` left out."""
    text = page.read_text(encoding="utf-8")
    fenced = [(match.start(), match[2]) for match in FENCED.finditer(text) if match[1] != "sh"]
    bare = FENCED.sub(lambda match: "\n" * len(match[0]), text)  # same length, so that the order stays
    return [content for _, content in sorted(fenced + [(m.start(), _dedent(m[1])) for m in INDENTED.finditer(bare)])]


def _dedent(block: str) -> str:
    return "\n".join(line[4:] for line in block.splitlines()) + "\n"


def commands(block: str) -> list[list[str]]:
    """The `ramify …` and `python …` lines of a block as argument lists, without prompt and comment."""
    lines = [line.removeprefix("$ ") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("ramify ", "python "))]


def typed(page: Path) -> list[list[str]]:
    """The commands of a page, in order, as this Python runs them."""
    words = [command for block in blocks(page) for command in commands(block)]
    return [[sys.executable, *(each[1:] if each[0] == "python" else ["-m", *each])] for each in words]


def is_python(block: str) -> bool:
    return block.startswith("import ramify")


def smaller(arguments: list[str]) -> list[str]:
    """What Python is given to run the command with little to do."""
    if arguments[0] == "python":
        return arguments[1:]
    draws = any("rft" in each for each in arguments) and arguments[1] in ("train", "sample", "plan")
    added = [*SMALL.get(arguments[1], []), *(DRAWING if draws else [])]
    replaced = {each.partition("=")[0] for each in added if "=" in each}  # a sweep takes each setting once
    return ["-m", *(each for each in arguments if each.partition("=")[0] not in replaced), *added]


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False}
    done = subprocess.run(command, cwd=folder, env=environment, **quiet)  # nobody types
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def furnish(folder: Path) -> Path:
    """A folder like a fresh clone, as far as pages need it, with the reader's own files in it."""
    for name in ("recipes", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    pairs = [[f"How many g are in {n} kg?", 1000.0 * n] for n in range(1, 41)]
    (folder / "train.json").write_text(json.dumps(pairs[:30]), encoding="utf-8")
    (folder / "valid.json").write_text(json.dumps(pairs[30:]), encoding="utf-8")
    (folder / "questions.txt").write_text("".join(f"{question}\n" for question, _ in pairs[:3]), encoding="utf-8")
    return folder


@pytest.mark.proof
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    shell = furnish(tmp_path / "shell")
    for number, block in enumerate(blocks(page)):
        if is_python(block):
            run([sys.executable, "-c", block], furnish(tmp_path / f"python{number}"))
        for command in commands(block):
            run([sys.executable, *smaller(command)], shell)


@pytest.mark.proof
def test_the_examples_of_the_python_interface_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ramify.api

    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(ramify.api)
    assert result.attempted > 0
    assert result.failed == 0


def test_pages_hold_examples_that_can_run() -> None:
    for page in PAGES:
        found = blocks(page)
        assert any(commands(block) for block in found)
        for block in found:
            if is_python(block):
                compile(block, str(page), "exec")
        assert not [line for block in found for line in block.splitlines() if re.match(r"\$ (?!ramify |python )", line)]
    assert any(is_python(block) for block in blocks(PAGES[0]))


def test_commands_in_the_documentation_exist() -> None:
    """Every `ramify X` that a page names is a command."""
    import typer
    from typer.core import TyperGroup

    from ramify.cli.main import app

    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    names = set(command.commands)
    named = {
        word
        for page in PAGES
        for word in re.findall(r"(?:^\$ |`)(?:python -m )?ramify ([a-z]+)\b", page.read_text(encoding="utf-8"), re.M)
    }
    assert named
    assert named <= names
    assert names <= set(re.findall(r"`ramify ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
    }
    broken = [
        target or anchor
        for target, anchor in LINK.findall(FENCED.sub("", text))
        if not target.startswith(("http:", "https:"))
        and not ((page.parent / target).exists() if target else anchor in anchors)
    ]
    assert not broken


def test_settings_named_in_the_documentation_exist() -> None:
    """Each `section.field=` on a page is a setting."""
    from ramify.base.config import RunConfig
    from ramify.base.config_file import load_config

    config = load_config(None)
    wrong = []
    for page in PAGES:
        for section, field in re.findall(r"\b([a-z_]+)\.([a-z_]+)=", page.read_text(encoding="utf-8")):
            if section in RunConfig.model_fields:
                inner = getattr(config, section)
                wrong += [] if inner is None or hasattr(inner, field) else [f"{page.name}: {section}.{field}"]
    assert not wrong

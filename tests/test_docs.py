"""Documentation that runs: `python` and `console` blocks are executed, in order, in a fresh folder.

A block marked `sh` is not run: it installs things, or shows what a reader fills in.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)?(?:#([\w-]+))?\)")


def blocks(page: Path, *languages: str) -> Iterator[tuple[str, str]]:
    """(language, content) of a page's fenced blocks, in order."""
    for language, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language in languages:
            yield language, content


def commands(content: str) -> list[str]:
    """What a reader types: the lines after `$ `, with those they continue on."""
    joined = content.replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def run(command: list[str] | str, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder like a fresh clone, as far as documents need it."""
    for name in ("recipes", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.proof
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(page: Path, workplace: Path) -> None:
    found = list(blocks(page, "python", "console"))
    for language, content in found:
        if language == "python":
            run([sys.executable, "-c", content], workplace)
        for command in commands(content) if language == "console" else []:
            run(command, workplace)


@pytest.mark.proof
def test_the_examples_of_the_python_interface_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ramify.api

    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(ramify.api)
    assert result.attempted > 0
    assert result.failed == 0


def test_console_blocks_hold_commands_and_python_blocks_compile() -> None:
    for page in PAGES:
        for language, content in blocks(page, "python", "console"):
            if language == "python":
                compile(content, str(page), "exec")
            else:
                assert commands(content), f"{page.name}: a console block without a line that starts with `$ `"


def test_commands_in_the_documentation_exist() -> None:
    """Every `ramify X` that a page names is a command."""
    import typer

    from ramify.cli.main import app

    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
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
        for target, anchor in LINK.findall(BLOCK.sub("", text))
        if not target.startswith(("http:", "https:"))
        and not ((page.parent / target).exists() if target else anchor in anchors)
    ]
    assert not broken


def test_settings_named_in_the_documentation_exist() -> None:
    """Each `section.field=` on a page is a setting."""
    from ramify.base.config import RunConfig, load_config

    config = load_config(None)
    wrong = []
    for page in PAGES:
        for section, field in re.findall(r"\b([a-z_]+)\.([a-z_]+)=", page.read_text(encoding="utf-8")):
            if section in RunConfig.model_fields:
                inner = getattr(config, section)
                wrong += [] if inner is None or hasattr(inner, field) else [f"{page.name}: {section}.{field}"]
    assert not wrong

"""`ramify data mix`, and the recipe that makes its own sources."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import sleep

import pytest
from mix_setup import LONG, chats, content, question, rows, settings, write
from typer.testing import CliRunner, Result

from ramify.base.config_file import load_mix
from ramify.cli.errors import describe
from ramify.cli.main import app

ORCA = Path(__file__).resolve().parent.parent / "recipes" / "orca"


def ramify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "mix", *map(str, arguments)])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A mix of two sources, one with system turns that are erased."""
    write(tmp_path / "a.jsonl", chats("a", 30, LONG))
    write(tmp_path / "b.jsonl", chats("b", 5))
    sources = [
        {"name": "a", "from": str(tmp_path / "a.jsonl"), "erase": {"mode": "replace", "text": "Be [brief]."}},
        {"name": "b", "from": str(tmp_path / "b.jsonl")},
    ]
    path = tmp_path / "mix.yaml"
    path.write_text(json.dumps(settings(sources, rows=20)), encoding="utf-8")
    return path


def test_a_mix_prints_its_shares_and_says_why_they_differ(recipe: Path, tmp_path: Path) -> None:
    done = ramify(recipe, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    table = " ".join(done.stdout.split())
    assert re.search(r"\ba 50\.00 % 66\.67 % \d+\.\d\d % 10 ", table)
    assert re.search(r"\bb 50\.00 % 33\.33 % \d+\.\d\d % 5 ", table)
    assert "note: b: has 5 of 10 rows that its weight asks for: all taken" in done.stderr
    assert "note: a: its share is larger because less came of b" in done.stderr
    assert f"written: {tmp_path / 'out'}" in done.stderr.replace("\n", "")
    assert not (tmp_path / "out.partial").exists()


def test_rows_are_shown_before_and_after_erasure(recipe: Path, tmp_path: Path) -> None:
    done = ramify(recipe, "--out", tmp_path / "out", "--show", 2)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines.count(f"- {LONG}") == lines.count("+ Be [brief].") == 2
    assert sum(line.startswith("  user: a asks for number") for line in lines) == 2


def test_json_lines_are_written_on_request_and_are_the_same_rows(recipe: Path, tmp_path: Path) -> None:
    done = ramify(recipe, "validation=0.3", "--out", tmp_path / "out", "--jsonl")
    assert done.exit_code == 0, done.output
    for split in ("train", "validation"):
        lines = (tmp_path / "out" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows(tmp_path / "out", split)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{recipe}", "--show", "1", "sources.a.erase=null"], "--show 1 shows prompt erasure, and the mix has none"),
        (["{recipe}", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["{recipe}", "{recipe}"], "one file with the settings of the mix is needed, found"),
        (["rows=3"], "one file with the settings of the mix is needed"),
        (["{recipe}", "sources.b.from=absent.jsonl"], "source b: absent.jsonl: no such file"),
        (["{recipe}", "model=absent"], "unknown model 'absent'"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    recipe: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = ramify(*(each.format(recipe=recipe) for each in arguments), "--out", tmp_path / "out")
    assert done.exception is not None and done.exit_code != 0
    said, _, code = describe(done.exception)
    assert message in said and "\n" not in said
    assert code == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(recipe: Path, tmp_path: Path) -> None:
    assert ramify(recipe, "--out", tmp_path / "out").exit_code == 0
    before = content(tmp_path / "out")
    again = ramify(recipe, "--out", tmp_path / "out")
    assert again.exception is not None and "holds files already" in describe(again.exception)[0]
    assert content(tmp_path / "out") == before
    assert ramify(recipe, "seed=1", "--out", tmp_path / "out", "--overwrite").exit_code == 0
    assert content(tmp_path / "out") != before
    other = write(tmp_path / "mine" / "letters.txt", []).parent
    refused = ramify(recipe, "--out", other, "--overwrite")
    assert refused.exception is not None and "holds files that are no mix" in describe(refused.exception)[0]
    assert [path.name for path in other.iterdir()] == ["letters.txt"]


def test_the_recipe_on_files_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, str(ORCA / "sources.py"), "--out", "data/orca-sources"], check=True)
    done = ramify(ORCA / "mix-files.yaml", "--out", "data/orca-files")
    assert done.exit_code == 0, done.output
    report = json.loads(Path("data/orca-files/report.json").read_text(encoding="utf-8"))
    parts = {part["name"]: part for part in report["parts"]}
    assert report["total"]["rows"] == 2000
    assert parts["arc-challenge"]["why"].endswith("all taken")
    [evaluation] = report["evaluations"]
    overlapping = sum(part["left_out"].get("overlaps with an evaluation prompt", 0) for part in parts.values())
    assert (evaluation["questions"], evaluation["left_out"]) == (50, overlapping)
    assert parts["gsm8k"]["left_out"]["overlaps with an evaluation prompt"] >= 20
    assert re.search(r"data/orca-sources/gsm8k-test\.jsonl +50 +\d+", done.stdout)
    assert all(part["left_out"]["duplicate"] > 0 for part in parts.values())
    assert parts["slimorca"]["erasure"]["changed"] > 0 < parts["slimorca"]["erasure"]["without a system turn"]
    train = rows(Path("data/orca-files"))
    assert {row["source"] for row in train} == set(parts)
    lines = Path("data/orca-sources/gsm8k-test.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line)["question"] for line in lines]
    assert {question(row) for row in train}.isdisjoint(asked)
    assert {question(row) for row in train}.isdisjoint(map(question, rows(Path("data/orca-files"), "validation")))


def test_the_recipe_with_hub_names_is_the_same_mix() -> None:
    hub, files = load_mix(ORCA / "mix.yaml"), load_mix(ORCA / "mix-files.yaml")
    assert [(each.name, each.weight, each.erase) for each in hub.sources] == [
        (each.name, each.weight, each.erase) for each in files.sources
    ]
    assert [each.path for each in hub.sources] == [
        "Open-Orca/SlimOrca-Dedup",
        "allenai/ai2_arc",
        "tau/commonsense_qa",
        "openai/gsm8k",
        "meta-math/MetaMathQA",
        "rajpurkar/squad",
    ]
    assert hub.rows == 300_000
    assert [(each.path, each.config, each.split) for each in hub.decontaminate] == [("openai/gsm8k", "main", "test")]


@pytest.mark.proof
def test_a_mix_killed_at_any_moment_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.jsonl", chats(name, 600, LONG))
    sources = [{"name": name, "from": f"{name}.jsonl", "erase": {"mode": "drop", "share": 0.5}} for name in "abc"]
    (tmp_path / "mix.yaml").write_text(json.dumps(settings(sources, validation=0.1)), encoding="utf-8")
    command = [sys.executable, "-m", "ramify", "data", "mix", "mix.yaml", "--jsonl", "--out"]
    subprocess.run([*command, "straight"], cwd=tmp_path, check=True, capture_output=True)
    chance = random.Random(0)
    killed = 0
    while not (tmp_path / "out").exists():
        begun = subprocess.Popen(
            [*command, "out", "--resume"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_for_writing(tmp_path / "out.partial", begun)
        with suppress(subprocess.TimeoutExpired):  # at once to begin with, then ever later, so that it ends
            begun.communicate(timeout=0 if killed < 3 else chance.uniform(0, 0.5) * (killed - 2))
        killed += begun.poll() is None
        begun.kill()
        assert b"error" not in begun.communicate()[1]
    assert killed > 2
    assert content(tmp_path / "out") == content(tmp_path / "straight")
    assert not (tmp_path / "out.partial").exists()


def wait_for_writing(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Until a process, which is slow to begin, has changed something in a folder."""
    before = newest(folder)
    while newest(folder) == before and process.poll() is None:
        sleep(0.01)


def newest(folder: Path) -> int:
    try:
        return max((path.stat().st_mtime_ns for path in folder.rglob("*")), default=0)
    except FileNotFoundError:  # something was renamed or removed meanwhile
        return -1

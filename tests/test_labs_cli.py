"""`ramify data labs` and the two scripts over it, as they are called from a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lab_setup import graded, lines, write_lab
from typer.testing import CliRunner, Result

from ramify.cli.errors import describe
from ramify.cli.main import app

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    for number in range(3):
        write_lab(tmp_path / "labs" / f"lab{number}", graded(10))
    return tmp_path / "labs"


def ramify(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "labs", *map(str, arguments)])


def script(name: str, *arguments: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(SCRIPTS / name), *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_a_build_prints_its_table_and_tells_bad_input_on_standard_error(labs: Path, tmp_path: Path) -> None:
    (labs / "lab1" / "rubrics.json").unlink()
    done = ramify(labs, "--out", tmp_path / "out", "--eval-labs", "lab2")
    assert done.exit_code == 0, done.output
    assert "lab1:rubrics.json: the rubric cannot be used: no such file" in done.stderr.splitlines()
    assert "person." not in done.output
    table = " ".join(done.stdout.split())
    assert "lab2 (held out) 10 Correctness 10 10 30 Style 10 10 10" in table
    assert "all 10 40 80" in table
    assert "train 7 14 28 unseen student, seen lab 3 6 12" in table
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "test.jsonl", "train.jsonl"]


def test_titles_are_printed_as_they_are(tmp_path: Path) -> None:
    write_lab(tmp_path / "labs" / "lab[1]", {"ann@x.org": [0]}, ratings={"[/b] [red]Style": ("Good.", "Bad.")})
    done = ramify(tmp_path / "labs", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "lab[1]" in done.stdout
    assert "[/b] [red]Style" in done.stdout


def test_several_held_out_labs_follow_one_option(labs: Path, tmp_path: Path) -> None:
    assert ramify(labs, "--eval-labs", "lab0", "lab2", "--out", tmp_path / "a").exit_code == 0
    assert ramify(labs, "--out", tmp_path / "b", "--eval-labs", "lab2", "--eval-labs", "lab0").exit_code == 0
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert {row["lab"] for row in lines(tmp_path / "a" / "train.jsonl")} == {"lab1"}


def test_every_option_arrives(labs: Path, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Grade strictly.\n")
    (tmp_path / "key").write_bytes(b"\0secret")
    options = "--train-split .5 --statement short --pairs extreme --as pairs --seed 3 --max-file-kb 7 --strict"
    files = ["--system-prompt", tmp_path / "system.txt", "--key-file", tmp_path / "key"]
    done = ramify(labs, "--out", tmp_path / "o", *options.split(), *files, "--eval-labs", "lab0", "--shield-students")
    assert done.exit_code == 0, done.output
    assert "nobody trains" in done.stderr  # all students are in the lab that is held out
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["choices"] == {
        "as": "pairs",
        "pairs": "extreme",
        "statement": "short",
        "train_split": 0.5,
        "eval_labs": ["lab0"],
        "shield_students": True,
        "seed": 3,
        "system": "Grade strictly.",
        "strict": True,
        "max_file_kb": 7,
    }
    assert report["student_keys"] == "a key file"
    assert lines(tmp_path / "o" / "train.jsonl") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lab0"], "unexpected lab0"),
        (["--system-prompt", "none.txt"], "none.txt: cannot be read"),
        (["--key-file", "none"], "none: cannot be read"),
        (["--eval-labs", "lab7"], "unknown held-out lab 'lab7'; did you mean 'lab"),
    ],
)
def test_what_is_refused_is_one_line(labs: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = ramify(labs, *arguments, "--out", tmp_path / "out")
    assert done.exception is not None
    said, _, code = describe(done.exception)
    assert message in said
    assert code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["create_dpo_dataset.sh", "dpo_train.sh"])
def test_scripts_explain_themselves(name: str) -> None:
    assert script(name, "--help").stdout.startswith(f"usage: scripts/{name}")
    for wrong in (["--no_such", "1"], ["--verbose"], ["surprise"]):
        assert script(name, *wrong, code=2).stderr.startswith("error: ")


def test_the_data_script_writes_the_files_asked_for(labs: Path, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Grade.")
    paths = ["--train_dataset_path", tmp_path / "my data" / "a.jsonl", "--test_dataset_path", tmp_path / "b.jsonl"]
    options = ["--parent_dir", labs, "--eval_lab_names", "lab0", "lab1", "--train_split", ".5", "--verbose", "0"]
    system = ["--system_prompt_path", tmp_path / "system.txt"]
    script("create_dpo_dataset.sh", *options, *system, *paths, "--", "--pairs", "adjacent")
    rows = lines(tmp_path / "my data" / "a.jsonl")
    assert {row["lab"] for row in rows} == {"lab2"}
    assert len({row["student"] for row in rows}) == 5
    assert rows[0]["prompt"][0] == {"role": "system", "content": "Grade."}
    assert rows[0]["prompt"][1]["content"].startswith("Context:\nWrite it.\n")
    assert {row["margin"] for row in rows} == {1}
    assert {row["lab"] for row in lines(tmp_path / "b.jsonl")} == {"lab0", "lab1", "lab2"}
    assert sorted(path.name for path in (tmp_path / "my data").iterdir()) == ["a.jsonl", "report.json"]
    assert "exists" in script("create_dpo_dataset.sh", *options, *paths, code=2).stderr
    script("create_dpo_dataset.sh", *options, *paths, "--overwrite")


def test_the_training_script_passes_its_options_on(tmp_path: Path) -> None:
    echo = tmp_path / "python"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o755)
    options = "--model_size 22b --device cpu --lora_r 8 --lora_alpha 32 --lora_dropout 0 --lora_targets q_proj,v_proj"
    more = "--learning_rate 1e-4 --epochs 2 --batch_size 4 --beta .2 --max_length 99 --quantize none --resume seed=3"
    files = ["--train_dataset_path", 'a "b": #c.jsonl', "--test_dataset_path", "t.jsonl", "--output_dir", "out dir"]
    done = script("dpo_train.sh", *options.split(), *more.split(), *files, "--model", "some/model", PYTHON=str(echo))
    recipe = SCRIPTS.parent / "recipes" / "grading" / "codestral-22b.yaml"
    assert recipe.is_file()
    assert done.stdout.splitlines() == [
        "-m",
        "ramify",
        "train",
        str(recipe),
        r'data.train="a \"b\": #c.jsonl"',
        'train.device="cpu"',
        "lora.r=8",
        "lora.alpha=32",
        "lora.dropout=0",
        "lora.targets=[q_proj,v_proj]",
        "train.lr=1e-4",
        "train.epochs=2",
        "train.batch_size=4",
        "dpo.beta=.2",
        "data.max_length=99",
        "train.quantize=null",
        "--resume",
        "seed=3",
        'data.valid="t.jsonl"',
        "--out",
        "out dir",
        'model="some/model"',
    ]


def test_what_the_training_script_passes_on_are_settings(tmp_path: Path) -> None:
    """The arguments of the test above, read as `ramify train` reads them."""
    from ramify.cli.settings import config_from

    recipe = str(SCRIPTS.parent / "recipes" / "grading" / "codestral-22b.yaml")
    given = [r'data.train="a \"b\": #c.jsonl"', "lora.targets=[q_proj,v_proj]", "train.quantize=null", "train.lr=1e-4"]
    config = config_from([recipe, *given, 'data.valid="t.jsonl"', 'model="some/model"', "dpo.beta=.2"])
    assert (str(config.data.train), config.train.quantize, config.train.lr) == ('a "b": #c.jsonl', None, 1e-4)
    assert config.lora is not None
    assert config.lora.targets == ("q_proj", "v_proj")

"""The grading recipe: labs whose grades are found again from the programs' text, and what training on them is worth."""

from __future__ import annotations

import csv
import filecmp
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_docs import run, typed

from ramify.base.config_file import load_config
from ramify.base.records import read_jsonl
from ramify.data.sources import read_problems
from ramify.evaluate.scores import paired
from ramify.evaluate.stages import named_stages
from ramify.train.dryrun import dry_run

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "recipes" / "grading"
PAGE = ROOT / "docs" / "grading.md"
STAGES = ("grading-base", "grading-sft", "grading-dpo", "grading-sft-dpo")
LARGE = ("codellama-7b", "codestral-22b")


@dataclass(frozen=True)
class Graded:
    """A submission as it lies in a lab folder, and the letter of each criterion's title."""

    lab: Path
    student: str
    code: str
    letters: dict[str, str]


def marked_cells(lab: Path) -> dict[str, dict[str, list[str]]]:
    """For each student and criterion the letters of the marked cells."""
    with (lab / "rubric_ratings.csv").open(encoding="utf-8", newline="") as file:
        titles, _, letters, *_, last = rows = list(csv.reader(file))
    assert len({len(row) for row in rows}) == 1 and last[0]
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows[6:]:
        of_student = found.setdefault(row[0], {title: [] for title in titles[1:]})
        for title, letter, cell in zip(titles[1:], letters[1:], row[1:], strict=True):
            if cell != "0":
                of_student[title].append(letter)
    return found


def graded(labs: Path) -> list[Graded]:
    found = []
    for lab in sorted(labs.iterdir()):
        for student, letters in marked_cells(lab).items():
            [file] = (lab / "submissions" / student).iterdir()
            assert file.suffix == ".cpp"
            code = file.read_text(encoding="utf-8")
            found.append(Graded(lab, student, code, {title: letter for title, [letter] in letters.items()}))
    return found


def make_labs(out: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECIPE / "labs.py"), "--out", str(out), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grading") / "labs"
    done = make_labs(out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def submitted(labs: Path) -> list[Graded]:
    return graded(labs)


@pytest.fixture(scope="module")
def rows(labs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's three folders of rows."""
    folder = tmp_path_factory.mktemp("rows")
    shutil.copytree(labs, folder / "labs")
    for command in typed(PAGE):
        if command[2:5] == ["ramify", "data", "labs"]:
            run(command, folder)
    return folder / "data"


def test_a_lab_folder_holds_what_a_teaching_team_has(labs: Path) -> None:
    folders = sorted(labs.iterdir())
    assert len(folders) == 3
    for lab in folders:
        assert {entry.name for entry in lab.iterdir()} == {
            "ps.txt",
            "modified_ps.txt",
            "rubrics.json",
            "rubric_ratings.csv",
            "submissions",
        }
        rubric = json.loads((lab / "rubrics.json").read_text(encoding="utf-8"))
        marks = marked_cells(lab)
        for criterion in rubric:
            assert 2 <= len(criterion["Ratings"]) <= 4
            assert [rating["title"] for rating in criterion["Ratings"]] == list("ABCD")[: len(criterion["Ratings"])]
            assert all(len(cells[criterion["title"]]) == 1 for cells in marks.values())
        assert sorted(marks) == sorted(entry.name for entry in (lab / "submissions").iterdir())
        assert len(marks) == 120 and all(student.endswith("@example.org") for student in marks)


def test_both_tables_of_marks_occur(labs: Path) -> None:
    texts = [(lab / "rubric_ratings.csv").read_text(encoding="utf-8").splitlines() for lab in sorted(labs.iterdir())]
    assert [any("No Comments" in line for line in lines) for lines in texts] == [False, True, False]
    assert all(set(",".join(lines[6:]).split(",")) & {"1"} for lines in texts[::2])


def test_the_same_seed_gives_the_same_files_and_another_others(labs: Path, tmp_path: Path) -> None:
    assert make_labs(tmp_path / "again", "--seed", 0).returncode == 0
    assert make_labs(tmp_path / "other", "--seed", 1).returncode == 0
    names = [str(path.relative_to(labs)) for path in sorted(labs.rglob("*")) if path.is_file()]
    assert filecmp.cmpfiles(labs, tmp_path / "again", names, shallow=False) == (names, [], [])
    assert {each.code for each in graded(labs)} != {each.code for each in graded(tmp_path / "other")}


def test_what_cannot_be_made_is_refused(labs: Path, tmp_path: Path) -> None:
    for arguments, words in (((labs,), "exists"), ((tmp_path / "none", "--students", 209), "1 to 208")):
        done = make_labs(*arguments)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and words in done.stderr


def test_programs_are_short_and_none_occurs_twice_in_a_lab(submitted: list[Graded]) -> None:
    assert max(len(each.code.splitlines()) for each in submitted) <= 12
    assert len({(each.lab, "".join(each.code.split())) for each in submitted}) == len(submitted)


def test_no_rating_is_the_common_one(submitted: list[Graded]) -> None:
    """Guessing each criterion's most common rating is right in less than half of all grades; all ratings are given."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for each in submitted:
        for title, letter in each.letters.items():
            counts.setdefault((each.lab.name, title), Counter())[letter] += 1
    assert sum(max(each.values()) for each in counts.values()) < 0.5 * sum(map(Counter.total, counts.values()))
    assert all(min(each.values()) >= 10 for each in counts.values())
    assert {len(each) for each in counts.values()} == {2, 4}


def test_no_submission_names_a_student(submitted: list[Graded]) -> None:
    parts = {part for each in submitted for part in each.student.partition("@")[0].split(".")}
    assert not parts & {word.lower() for each in submitted for word in re.findall(r"[A-Za-z]+", each.code)}


def test_comments_and_layout_are_as_graded(submitted: list[Graded]) -> None:
    for each in submitted:
        lines = body_lines(each.code)
        commented, indented = ({"//" in line for line in lines}, {line.startswith("  ") for line in lines})
        assert commented == {each.letters["Comments"] == "A"}, each.code
        assert indented == {each.letters["Layout"] == "A"}, each.code


def test_results_are_as_graded_when_programs_run(submitted: list[Graded], compiler: str, tmp_path: Path) -> None:
    """Every program that should compile is run on the examples of its statement."""
    for lab in sorted({each.lab for each in submitted}):
        runs = [each for each in submitted if each.lab == lab and each.letters["Results"] != "D"]
        rights = examples_right(runs, read_examples(lab), tmp_path / f"{lab.name}.cpp", compiler)
        for each, right in zip(runs, rights, strict=True):
            assert ("A" if all(right) else "B" if any(right) else "C") == each.letters["Results"], each.code


def test_programs_without_semicolons_do_not_compile(submitted: list[Graded], compiler: str, tmp_path: Path) -> None:
    broken = [each for each in submitted if ends_of_statements(each.code) == 0]
    assert broken == [each for each in submitted if each.letters["Results"] == "D"]
    for number, each in enumerate({each.lab: each for each in broken}.values()):
        file = tmp_path / f"{number}.cpp"
        file.write_text(f"#include <vector>\nusing std::vector;\n{each.code}", encoding="utf-8")
        done = subprocess.run([compiler, "-fsyntax-only", file], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "error" in done.stderr, each.code


@pytest.mark.parametrize("name", LARGE)
def test_large_models_are_trained_as_the_source_project_did(name: str) -> None:
    config = load_config(RECIPE / f"{name}.yaml")
    train, lora = config.train, config.lora
    assert config.method == "dpo" and config.dpo.loss == "sigmoid" and config.dpo.beta == 0.1
    assert lora is not None and (lora.r, lora.alpha, lora.dropout) == (16, 16, 0.1)
    assert (train.lr, train.schedule, train.warmup, train.epochs, train.batch_size) == (1e-5, "cosine", 100, 1, 16)
    assert (train.quantize, train.dtype, train.checkpointing, train.tensorboard) == ("nf4", "bf16", True, True)
    assert config.data.max_length == 1536 and config.model.startswith(("codellama/", "mistralai/"))


@pytest.mark.parametrize("recipe", sorted(RECIPE.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_grading_recipe_dry_runs_on_nano(
    recipe: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands but for the model, its 4 bits and its bf16: the rows are where the page puts them."""
    monkeypatch.chdir(rows.parent)
    config = load_config(recipe, ["model=nano", "train.quantize=null", "train.dtype=fp32", "data.limit=20"])
    found = dry_run(config.model_copy(update={"out": tmp_path / "run"}))
    assert found.rows == 20 and 0 < found.longest < 700 and found.tokens > 20 * 100 and found.steps > 0
    assert recipe.read_text(encoding="utf-8").startswith("# ")


def test_rows_of_the_labs_are_short_and_held_out_students_have_enough_grades(rows: Path) -> None:
    asked = read_problems(rows / "problems" / "test.jsonl")
    assert len(asked) >= 300 and all(len(problem.options) in (2, 3, 4) for problem in asked)
    train, test = (
        {row["student"] for _, row in read_jsonl(rows / "pairs" / f"{split}.jsonl")} for split in ("train", "test")
    )
    assert train and test and not train & test
    assert {problem.meta["student"] for problem in asked} == test


@pytest.mark.proof
def test_the_page_typed_as_it_stands_shows_what_training_is_worth(tmp_path: Path) -> None:
    """On at least 300 grades of held-out students SFT and DPO beat the base model, and DPO keeps what SFT learned."""
    shutil.copytree(RECIPE, tmp_path / "recipes" / "grading", ignore=shutil.ignore_patterns("__pycache__"))
    for command in typed(PAGE):
        run(command, tmp_path)
    base, sft, dpo, both = named_stages([tmp_path / "runs" / name for name in STAGES])
    assert len(base.problems) >= 300
    assert {problem.meta["split"] for problem in base.problems} == {"unseen student, seen lab"}
    for better in (sft, dpo):
        found = paired(base.verdicts, better.verdicts)
        assert found.n == len(base.problems) and found.low > 0
    assert paired(sft.verdicts, both.verdicts).difference >= -0.02
    report = (tmp_path / "runs" / "grading.html").read_text(encoding="utf-8")
    assert all(name in report for name in STAGES)


def body_lines(code: str) -> list[str]:
    """The lines between the braces."""
    found = re.search(r"\{\n(.*)\n\}\n$", code, re.DOTALL)
    assert found is not None
    return found[1].split("\n")


def ends_of_statements(code: str) -> int:
    """Semicolons at the end of a line, comments aside."""
    return len(re.findall(r";(?: //.*)?$", code, re.MULTILINE))


def function_of(code: str) -> str:
    """The name of the function."""
    head = re.match(r"int (\w+)\(vector<int> \w+\)", code)
    assert head is not None
    return head[1]


def read_examples(lab: Path) -> list[tuple[str, str]]:
    """(arguments, result) of the statement's examples."""
    found = re.findall(r"^(.+) -> (-?\d+)$", (lab / "ps.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 4
    return found


def examples_right(runs: list[Graded], examples: list[tuple[str, str]], file: Path, compiler: str) -> list[list[bool]]:
    """For each program, which of the examples it gets right: all are compiled as one program, each in a namespace."""
    spaces = "".join(f"namespace s{number} {{\n{each.code}}}\n" for number, each in enumerate(runs))
    calls = "".join(
        f'    std::printf("%d\\n", s{number}::{function_of(each.code)}({given}));\n'
        for number, each in enumerate(runs)
        for given, _ in examples
    )
    head = "#include <cstdio>\n#include <vector>\nusing std::vector;\n"
    file.write_text(f"{head}{spaces}int main() {{\n{calls}}}\n", encoding="utf-8")
    program = file.with_suffix("")
    done = subprocess.run([compiler, "-O0", "-o", program, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    rows = [lines[start : start + len(examples)] for start in range(0, len(lines), len(examples))]
    assert len(rows) == len(runs)
    return [[given == wanted for given, (_, wanted) in zip(row, examples, strict=True)] for row in rows]

"""`ramify compare`: verdict first, reports in three forms, and what is not evaluated yet is evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_setup import ramify as ramify_command
from compare_setup import answers, write_evaluation, write_training
from train_setup import model_folder, pairs_file

from ramify.base.config import RunConfig, Sampling
from ramify.base.records import read_jsonl, write_json, write_jsonl
from ramify.cli.errors import BAD_INPUT, FAILED, OK
from ramify.evaluate.compare.unmeasured import like
from ramify.evaluate.stages import stage

__all__ = ["model_folder"]

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ramify(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command line, run in this process."""
    return lambda *arguments: ramify_command(monkeypatch, capsys, *arguments)


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    base = write_evaluation(tmp_path / "base", answers(20, 120), categories=3)
    return [base, write_evaluation(tmp_path / "tuned", answers(80, 120), categories=3)]


def test_the_verdict_comes_first(ramify: Command, two: list[Path]) -> None:
    code, out, err = ramify("compare", *two)
    assert code == OK, err
    first, *others = out.splitlines()
    assert first.startswith("tuned against base: better: +50.0 points, 95 % interval +")
    shown = "\n".join(others)
    assert "by category: base → tuned" in shown and "kind 2" in shown
    assert "corrected over the categories" in shown


def test_reports_are_written_in_every_form(ramify: Command, two: list[Path], tmp_path: Path) -> None:
    outs = [tmp_path / f"c.{form}" for form in ("html", "md", "json")]
    code, _, err = ramify("compare", *two, *(part for out in outs for part in ("--out", out)), "--title", "A <title>")
    assert code == OK and err.count("written to") == 3
    html, markdown, plain = (out.read_text(encoding="utf-8") for out in outs)
    assert "A &lt;title&gt;" in html and "<title>" not in html.split("</head>")[1]
    assert markdown.startswith("# A ")
    assert json.loads(plain)["title"] == "A <title>"


def test_a_form_that_is_not_known_is_refused_before_anything_is_read(ramify: Command, tmp_path: Path) -> None:
    code, _, err = ramify("compare", "nowhere/a", "nowhere/b", "--out", tmp_path / "report.pdf")
    assert code == BAD_INPUT and "report.pdf" in err and ".html" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("option", [("--near", 2), ("--title", "Mine")])
def test_what_belongs_to_a_report_is_refused_without_one(
    ramify: Command, two: list[Path], option: tuple[str, object]
) -> None:
    code, out, err = ramify("compare", *two, *option)
    assert code == BAD_INPUT and not out
    assert f"{option[0]} {option[1]}: is of a report, and none is written" in err


def test_nothing_that_a_terminal_would_obey_is_shown(ramify: Command, tmp_path: Path) -> None:
    folders = [write_evaluation(tmp_path / name, answers(3, 8), categories=2) for name in ("a\x1b[2J", "b\u202e")]
    for folder in folders:
        rows = [
            row | {"category": f"{row['category']}\x1b]0;x\x07"} for _, row in read_jsonl(folder / "problems.jsonl")
        ]
        write_jsonl(folder / "problems.jsonl", rows)
    code, out, err = ramify("compare", *folders)
    assert code == OK, err
    assert not set(out) & {"\x1b", "\x07", "\u202e"} and "\\x1b" in out


def test_seeds_are_put_together_or_kept_apart(ramify: Command, two: list[Path], tmp_path: Path) -> None:
    runs = [write_training(tmp_path / f"s{seed}", answers(70 + seed, 120), seed=seed) for seed in (1, 2)]
    plain = write_evaluation(tmp_path / "plain", answers(20, 120))
    together = ramify("compare", plain, *runs)[1]
    assert "s (2 seeds) against plain: better" in together and "cover the variance between seeds" in together
    apart = ramify("compare", plain, *runs, "--each")[1]
    assert "(2 seeds)" not in apart and "the variance between seeds is not covered" in apart


def test_what_is_not_evaluated_yet_is_evaluated_like_the_first_that_is(
    ramify: Command, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    questions = pairs_file(tmp_path / "pairs.json", rows=8)
    options = ("--problems", questions, "sample.max_new_tokens=4", "prompt.chat_template=plain", "train.dtype=fp32")
    assert ramify("eval", model_folder, *options, "--out", "first", "--n", 6)[0] == OK
    code, out, err = ramify("compare", model_folder, "first", "--out", "c.json")
    assert code == OK, err
    assert f"{model_folder}: not evaluated yet; ramify eval " in err
    assert "as many became right as became wrong" in out
    plain = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    made = Path(plain["arms"][0]["evaluations"][0])
    assert made.parent == Path("runs") and made.name.startswith("eval-")
    settings = stage(made).record["config"]
    assert settings["sample"]["max_new_tokens"] == 4 and settings["prompt"]["chat_template"] == "plain"
    assert [each.id for each in stage(made).problems] == [each.id for each in stage(Path("first")).problems]
    again = ramify("compare", model_folder, "first")
    assert again[0] == OK and f"evaluated before, in {made}" in again[2]


def test_what_cannot_be_evaluated_is_refused_in_one_line(ramify: Command, two: list[Path]) -> None:
    code, _, err = ramify("compare", two[0], "./nowhere/b")
    said, hint = err.splitlines()
    assert code == BAD_INPUT
    assert said.startswith("error: ./nowhere/b: is not evaluated, and cannot be evaluated like the others: ")
    assert "ramify eval ./nowhere/b" in hint


def test_nothing_is_evaluated_when_nothing_was(ramify: Command, tmp_path: Path) -> None:
    code, _, err = ramify("compare", "nano", "nano")
    assert code == FAILED and "nano: not there (no scores.json)" in err and "ramify eval nano" in err


def test_a_gguf_file_is_asked_the_same_by_llama_cpp(two: list[Path], tmp_path: Path) -> None:
    config = RunConfig(sample=Sampling(max_new_tokens=7), seed=3)
    first = write_evaluation(tmp_path / "first", answers(2, 5), config=config)
    file = tmp_path / "x-Q8_0.gguf"
    wanted = like(stage(first), str(file), gguf=file)
    assert (wanted.config.engine, wanted.config.model) == ("llamacpp", str(file))
    assert (wanted.config.sample.max_new_tokens, wanted.config.seed) == (7, 3)
    assert "engine=" in wanted.command


def test_a_run_keeps_its_prompt_and_takes_the_rest(tmp_path: Path) -> None:
    config = RunConfig(sample=Sampling(max_new_tokens=7))
    first = write_evaluation(tmp_path / "first", answers(2, 5), config=config)
    run = write_training(tmp_path / "run", answers(2, 5))
    settings = json.loads((run / "run.json").read_text(encoding="utf-8"))
    settings["config"]["prompt"]["system"] = "Count."
    settings["config"]["sample"]["max_new_tokens"] = 55
    write_json(run / "run.json", settings)
    (run / "adapter").mkdir()
    write_json(run / "adapter" / "adapter_config.json", {"base_model_name_or_path": "nano"})
    wanted = like(stage(first), str(run))
    assert wanted.config.prompt.system == "Count."
    assert wanted.config.sample.max_new_tokens == 7
    assert wanted.folder.parent == run and not wanted.is_done

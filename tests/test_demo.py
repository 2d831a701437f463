"""The demonstration: small here, in full among the proofs."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ramify.base.config_file import load_config, parse_config
from ramify.base.errors import RunError
from ramify.base.runs import Run, create_run
from ramify.cli.demo import demo
from ramify.demo.narrator import Narrator
from ramify.demo.run import DemoOptions, as_begun, run_demo
from ramify.demo.stages import demo_stages
from ramify.export.gguf import families
from ramify.train.rows import read_examples


def tell() -> tuple[Narrator, io.StringIO]:
    text = io.StringIO()
    return Narrator(Console(file=text, width=120)), text


def test_stages_measure_the_same_questions(tmp_path: Path) -> None:
    stages = demo_stages(tmp_path, n=700)
    assert [stage.key for stage in stages] == ["base", "cot", "sft", "rft"]
    assert {stage.config.evaluate.limit for stage in stages} == {700}
    assert len({stage.config.task.model_dump_json() for stage in stages[2:]}) == 1
    assert {stage.config.sample.max_new_tokens for stage in stages} == {stages[0].config.sample.max_new_tokens}
    default = demo_stages(tmp_path)
    assert all((stage.config.evaluate.limit or 0) >= 500 for stage in default)
    sft, rft = default[2].config, default[3].config
    assert rft.sample_prompt is not None and rft.sample_prompt == default[1].config.prompt
    assert sft.data.train == rft.data.train == "task"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo")
    narrator, text = tell()
    run_demo(DemoOptions(out, quick=True), narrator)
    return out, text.getvalue()


def test_quick_demo_goes_the_whole_path(quick: tuple[Path, str]) -> None:
    out, text = quick
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    for key in ("base", "cot", "sft", "rft"):
        rates = results[key]
        assert 0 <= rates["accuracy"] <= rates["answer_rate"] <= 1 and rates["n"] == 24
    assert set(results["compared"]) >= {"base → cot", "base → sft", "cot → rft", "sft → rft"}
    assert results["speed"]["batched"] > 0 and results["speed"]["alone"] > 0
    for run in ("sft", "rft"):
        assert (out / run / "adapter" / "adapter_config.json").is_file()
        assert (out / run / "eval" / "scores.json").is_file()
    html = (out / "report.html").read_text(encoding="utf-8")
    assert all(name in html for name in ("few-shot chain of thought", "SFT: loss", "Rejection sampling", "Settings"))
    assert "report.html" in text and "accuracy" in text
    stages = [row["stage"] for row in results["parity"]]
    assert stages == ["adapter fp32", "F16", "Q8_0", "Q4_K_M"] and all(stage in text for stage in stages)
    assert (out / "export" / "demo-Q4_K_M.gguf").is_file() and "Q4_K_M" in html


def test_training_rows_and_curve_rows_are_not_measured(quick: tuple[Path, str]) -> None:
    out, _ = quick
    asked = (out / "rft" / "eval" / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    measured = {json.loads(line)["prompt"][-1]["content"] for line in asked}
    rows = [json.loads(line) for line in (out / "rft" / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    config = load_config(out / "sft" / "config.yaml")
    curve = [example.prompt[-1].content for example in read_examples(config, "valid")]
    assert len(curve) == 200 and rows
    asked_in_rows = [row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"] for row in rows]
    assert not measured & {*curve, *asked_in_rows}


def test_a_second_demo_keeps_what_is_finished(quick: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ramify.demo.run.KINDS", ("f16",))
    out, _ = quick
    before = {path: path.read_bytes() for path in out.rglob("*.jsonl")}
    narrator, text = tell()
    run_demo(DemoOptions(out, quick=True), narrator)
    assert text.getvalue().count("kept from before") == 4
    assert {path: path.read_bytes() for path in out.rglob("*.jsonl")} == before


def test_an_export_that_is_another_model_ends_the_demo_with_an_error(
    quick: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ramify.demo.run.KINDS", ("f16",))
    monkeypatch.setitem(families.FAMILIES, "llama", replace(families.FAMILIES["llama"], permuted=False))
    narrator, text = tell()
    with pytest.raises(RunError, match="F16: KL divergence"):
        run_demo(DemoOptions(quick[0], quick=True), narrator)
    assert "FAILED" in text.getvalue() and "report.html" in text.getvalue()


def test_a_demo_whose_export_cannot_be_written_reports_what_was_trained(quick: tuple[Path, str]) -> None:
    out, _ = quick
    shutil.rmtree(out / "export", ignore_errors=True)
    (out / "export").write_text("mine")
    (out / "report.html").unlink()
    narrator, text = tell()
    with pytest.raises(RunError, match="is a file, a folder is needed"):
        run_demo(DemoOptions(out, quick=True), narrator)
    (out / "export").unlink()
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "The export failed: " in html and "is a file" in html and "SFT: loss" in html
    assert json.loads((out / "results.json").read_text(encoding="utf-8"))["parity"] == []
    assert "report.html" in text.getvalue()


def test_runs_of_others_are_left_alone(tmp_path: Path) -> None:
    """`--out runs`, where runs/sft is somebody's work."""
    mine = create_run(tmp_path / "sft", parse_config({"model": "nano"})).folder / "adapter.safetensors"
    mine.write_bytes(b"hours of work")
    narrator, _ = tell()
    with pytest.raises(RunError, match=r"holds runs that the demo did not write \(sft\)") as raised:
        run_demo(DemoOptions(tmp_path, quick=True), narrator)
    assert "--out" in str(raised.value.hint) and "--overwrite" in str(raised.value.hint)
    assert mine.read_bytes() == b"hours of work" and [path.name for path in tmp_path.iterdir()] == ["sft"]


def test_other_questions_do_not_train_again(tmp_path: Path) -> None:
    """RFT is kept; SFT's validation rows are those beyond the questions, so other questions make it another run."""
    for stage in demo_stages(tmp_path):
        if stage.trains:
            create_run(stage.folder, stage.config)
    sft, rft = demo_stages(tmp_path)[2:]
    for n, kept in ((None, True), (500, True), (600, False)):
        again, drawn = demo_stages(tmp_path, n=n)[2:]
        assert as_begun(Run(drawn.folder), drawn.config) == rft.config
        assert as_begun(Run(again.folder), again.config) == (sft.config if kept else None)
    for stage in demo_stages(tmp_path, quick=True)[2:]:
        assert as_begun(Run(stage.folder), stage.config) is None


@pytest.mark.parametrize(("quick", "folder"), [(True, "demo-quick"), (False, "demo")])
def test_a_quick_demo_has_its_own_folder(quick: bool, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[DemoOptions] = []
    monkeypatch.setattr("ramify.demo.run.run_demo", asked.append)
    demo(quick=quick)
    assert asked[0].out == Path("runs") / folder and asked[0].quick is quick


@pytest.mark.proof
def test_full_demo_proves_its_claims(tmp_path: Path) -> None:
    narrator, _ = tell()
    results = run_demo(DemoOptions(tmp_path), narrator)
    compared = results["compared"]
    assert results["base"]["n"] >= 500 and results["base"]["accuracy"] < 0.2
    for pair in ("base → cot", "base → sft", "cot → rft"):
        assert compared[pair]["low"] > 0, pair
    assert results["rft"]["accuracy"] >= results["sft"]["accuracy"] - 0.01
    assert results["seconds"] < 480

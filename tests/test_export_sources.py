"""Exports of all that a model can be: without an adapter or a template, with one that refuses turns, too large."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from export_setup import Watcher
from test_export_run import TEMPLATE, ZEPHYR, random_model
from tiny_models import tiny_model
from tiny_tokenizers import byte_level, metaspace

from ramify.base.config import LoRA, Prompting
from ramify.base.errors import ConfigError, ModelError, RunError
from ramify.base.records import sha256_file
from ramify.base.runs import Run
from ramify.base.types import Message
from ramify.export import memory, stages
from ramify.export import run as export_run
from ramify.export.card import _evaluations
from ramify.export.plan import Target, Wish, make_plan
from ramify.export.run import export
from ramify.export.stages import trial_of
from ramify.export.whole import whole_folder
from ramify.model.load import load_model
from ramify.model.lora import add_adapter, save_trained
from ramify.prompts.renderer import Renderer
from ramify.sample.llamacpp.runtime import open_runtime


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma whose template refuses a system turn, as the real one does."""
    tokenizer = metaspace(bos=True, tokens=("<start_of_turn>", "<end_of_turn>"))
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + TEMPLATE
    )
    tokenizer.eos_token = "<end_of_turn>"
    return random_model(tmp_path_factory.mktemp("gemma"), "gemma", tokenizer)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano with an adapter that changes nothing."""
    folder = tmp_path_factory.mktemp("adapter") / "adapted"
    loaded = add_adapter(load_model("nano", dtype="fp32", device="cpu"), LoRA(r=4), seed=1)
    save_trained(loaded, folder)
    return folder


def test_turns_that_the_template_refuses_are_not_asked(gemma: Path, tmp_path: Path) -> None:
    made = export(Wish(str(gemma), tmp_path / "out", quants=("f16",)))
    assert made.failures == [] and made.rows[-1].prompts.total == 6


def test_a_base_model_without_template_gets_the_plain_one(tmp_path: Path) -> None:
    model = random_model(tmp_path / "model", "llama", byte_level())
    made = export(Wish(str(model), tmp_path / "out", quants=("f16",)))
    assert made.failures == []
    assert any("has no chat template: its files get the plain one" in note for note in made.notes)


@pytest.mark.parametrize("template", [ZEPHYR, None], ids=["without bos", "plain"])
def test_prompts_begin_as_they_did_in_training(template: str | None, tmp_path: Path) -> None:
    """TinyLlama's template writes no bos, though its tokenizer puts one before a text; plain prompts do begin so."""
    tokenizer = metaspace(bos=True)
    tokenizer.chat_template = template
    model = random_model(tmp_path / "model", "llama", tokenizer)
    made = export(Wish(str(model), tmp_path / "out", quants=("f16",)))
    assert made.failures == [] and made.rows[-1].prompts.all
    asked = Renderer(tokenizer, Prompting(chat_template="plain" if template is None else "model"))
    with closing(open_runtime(made.folder / "model-F16.gguf")) as runtime:
        begins = asked.prompt_ids((Message("user", "hello"),))[0] == tokenizer.bos_token_id
        assert runtime.add_bos == begins == (template is None)


def test_nothing_is_merged_where_there_is_no_adapter(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: sha256_file(path) for path in gemma.iterdir()}
    wish = Wish(str(gemma), tmp_path / "merged", quants=("f16",), verify=False, name="model")
    with monkeypatch.context() as patched:
        patched.setattr(export_run, "unmerged", lambda *_: None)
        merged = export(wish).folder
    monkeypatch.setattr(export_run, "merge", lambda *_, **__: pytest.fail("merged"))
    linked = export(Wish(str(gemma), tmp_path / "linked", quants=("f16",), verify=False, name="model")).folder
    assert sha256_file(linked / "model-F16.gguf") == sha256_file(merged / "model-F16.gguf")
    assert {path.name: sha256_file(path) for path in gemma.iterdir()} == before, "the model's folder is as it was"


def test_tokens_without_a_row_still_get_one(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATE.replace("{{ bos_token }}", "")
    network = tiny_model("llama", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=None)
    network.save_pretrained(str(tmp_path / "model"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    tokenizer.save_pretrained(str(tmp_path / "model"))
    assert export(Wish(str(tmp_path / "model"), tmp_path / "out", quants=("f16",))).failures == []


def test_an_fp32_folder_is_what_the_files_are_made_of(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged: list[Path] = []
    honest = export_run.merge
    monkeypatch.setattr(export_run, "merge", lambda *asked, **more: merged.append(asked[1]) or honest(*asked, **more))
    wish = Wish(str(gemma), tmp_path / "out", to=(Target.MERGED, Target.GGUF), quants=("f32",), dtype="fp32")
    made = export(wish)
    assert [path.name for path in merged] == ["merged"] and made.failures == []
    assert (made.folder / "merged" / "config.json").is_file()


def test_a_half_precision_folder_is_held_to_its_own_rounding(gemma: Path, tmp_path: Path) -> None:
    """Not to that of sums in half precision, which grows with the model and is no defect of the files."""
    found = {}
    for dtype in ("fp16", "bf16"):
        made = export(Wish(str(gemma), tmp_path / dtype, to=(Target.MERGED,), dtype=dtype))
        agreement = made.rows[-1].agreement
        assert made.failures == [] and agreement is not None
        found[dtype] = agreement.kl
    assert 0 < found["fp16"] < found["bf16"] / 16 < 1e-5  # three bits more: errors 8 times smaller, squared


def test_what_memory_cannot_hold_in_fp32_is_compared_in_half_precision(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 0.0)
    made = export(Wish(str(gemma), tmp_path / "out", quants=("f16",)))
    assert [row.stage for row in made.rows] == ["base bf16", "F16"] and made.failures == []
    monkeypatch.setattr(export_run, "unmerged", lambda *_: None)
    made = export(Wish(str(gemma), tmp_path / "again", quants=("f16",), verify=False))
    assert any("rounded to fp16" in note for note in made.notes)


def test_an_adapter_alone_says_what_it_is(adapted: Path, tmp_path: Path) -> None:
    made = export(Wish(str(adapted), tmp_path / "out", adapter_only=True, quants=("q8_0",)))
    assert (made.folder / "adapted-adapter-Q8_0.gguf").is_file() and made.rows == ()
    assert any("tensors are f16" in note for note in made.notes), "a rank of 4 is no row of q8_0"
    card = (made.folder / "README.md").read_text()
    assert "merged in" not in card and "--no-verify" not in card and "ramify chat" not in card
    assert "llama-cli -m BASE.gguf --lora adapted-adapter-Q8_0.gguf" in card


def test_answers_that_are_graded_have_room(gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be longer than all that the files are compared on."""
    monkeypatch.setattr(stages, "SHORT", stages.SHORT[1:2])
    monkeypatch.setattr(stages, "LONG", ())
    monkeypatch.setattr(stages, "_OWN_PROBES", 0)
    made = export(Wish(str(gemma), tmp_path / "out", quants=("f16",), score=1))
    assert made.rows[-1].score is not None and made.rows[-1].score.total == 1


def test_a_model_too_short_for_any_probe_is_refused_in_one_line(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "LONG", ())
    monkeypatch.setattr(stages, "SHORT", ())
    with pytest.raises(ModelError, match="no probe fits"):
        export(Wish(str(gemma), tmp_path / "out", quants=("f16",)))
    assert list(tmp_path.iterdir()) == []


def test_a_task_without_problems_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    rows = tmp_path / "task.py"
    rows.write_text(
        "class Empty:\n    name = 'empty'\n    fewshot = system = None\n"
        "    def problems(self, split, n=None): return []\n    def grade(self, problem, sample): ...\n"
        "    def completion(self, problem): return ''\ntask = Empty()\n"
    )
    run = tmp_path / "run"
    run.mkdir()
    config = {"model": "nano", "method": "sft", "task": {"name": str(rows)}}
    (run / "run.json").write_text(json.dumps({"kind": "train", "status": "finished", "config": config}))
    plan = make_plan(Wish("nano", tmp_path / "out", score=2))
    asked = Wish(str(run), tmp_path / "out", score=2)
    with pytest.raises(ConfigError, match="has no problems of its own"):
        trial_of(replace(plan, wish=asked))


def test_bars_are_closed_when_a_step_fails(gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_run, "quantize", interrupted)
    watcher = Watcher()
    with pytest.raises(KeyboardInterrupt):
        export(Wish(str(gemma), tmp_path / "out", quants=("q4_k_m",)), watcher)
    assert watcher.closed == len(watcher.stages) > 1
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_do_not_take_each_others_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with whole_folder(tmp_path / "out", overwrite=True) as one:
        (one / "file").write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with whole_folder(tmp_path / "out") as other:
            (other / "file").write_text("other")
        assert (one / "file").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_came_in_the_meantime_is_not_replaced_unasked(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="exists already"), whole_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("late")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "file").write_text("first")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "file").read_text() == "first"


def test_a_damaged_evaluation_does_not_cost_the_export(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "scores.json").write_text('{"accuracy": ')
    (tmp_path / "eval-list").mkdir()
    (tmp_path / "eval-list" / "scores.json").write_text("[1]")
    assert _evaluations(Run(tmp_path)) == []


def test_what_was_there_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "export.json").write_text("old")
    honest = os.replace

    def refused(source: Path, target: Path) -> None:
        if source.suffix == ".tmp":
            raise OSError(28, "No space left on device")
        honest(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(RunError, match="No space left"), whole_folder(out, overwrite=True):
        pass
    assert (out / "export.json").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["out"]


CONVERTER = """
import sys
from pathlib import Path
from ramify.export.gguf.writer import write_gguf
folder, target, kind = Path(sys.argv[1]), Path(sys.argv[3]), sys.argv[5]
assert (folder / "tokenizer.json").is_file() and sys.argv[2::2] == ["--outfile", "--outtype"]
write_gguf(folder, target, kind)
"""


def test_a_converter_of_the_users_own_is_handed_the_merged_folder(gemma: Path, tmp_path: Path) -> None:
    (tmp_path / "convert_hf_to_gguf.py").write_text(CONVERTER)
    made = export(Wish(str(gemma), tmp_path / "out", quants=("f16",), llama_cpp=tmp_path))
    assert made.failures == [] and [row.stage for row in made.rows] == ["base fp32", "F16"]


def test_a_converter_that_fails_is_quoted_and_leaves_nothing(gemma: Path, tmp_path: Path) -> None:
    (tmp_path / "convert_hf_to_gguf.py").write_text("import sys\nsys.exit('Model Foo is not supported')")
    with pytest.raises(ModelError, match=r"failed \(1\): Model Foo is not supported"):
        export(Wish(str(gemma), tmp_path / "out", quants=("f16",), llama_cpp=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["convert_hf_to_gguf.py"]

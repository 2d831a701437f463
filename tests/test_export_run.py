"""Exports from end to end: what is written, that it is proven, and that a broken one is caught, each in its own way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_setup import ramify
from gguf_tokenizers import llama_class
from tiny_models import tiny_model
from tiny_tokenizers import metaspace

from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, ModelError, RunError
from ramify.base.records import sha256_file
from ramify.export import run as export_run
from ramify.export.gguf import families, vocabulary
from ramify.export.plan import Target, Wish, make_plan
from ramify.export.run import Export, export
from ramify.train import sft

ROWS = [[f"How many grams are in {n} kg?", n * 1000] for n in range(2, 26)]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano with an adapter that has learnt something, in a few steps."""
    folder = tmp_path_factory.mktemp("trained")
    rows = folder / "rows.json"
    rows.write_text(json.dumps(ROWS))
    values = {
        "model": "nano",
        "out": str(folder / "run"),
        "data": {"train": str(rows)},
        "lora": {"r": 8},
        "train": {"max_steps": 6, "batch_size": 8, "device": "cpu", "dtype": "fp32", "tensorboard": False, "lr": 3e-3},
        "sample": {"max_new_tokens": 16},
        "evaluate": {"limit": 8},
    }
    sft.run(parse_config(values))
    return folder / "run"


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Gemma with a SentencePiece-like tokenizer."""
    return random_model(tmp_path_factory.mktemp("gemma"), "gemma")


def random_model(folder: Path, family: str, tokenizer: Any = None) -> Path:
    if tokenizer is None:
        tokenizer = metaspace(bos=True, tokens=("<start_of_turn>", "<end_of_turn>"), template=TEMPLATE)
        tokenizer.eos_token = "<end_of_turn>"
    network = tiny_model(
        family,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=None,
    )
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def everything(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """All targets and several kinds at once."""
    wish = Wish(
        str(trained),
        tmp_path_factory.mktemp("exports") / "all",
        to=(Target.MERGED, Target.OLLAMA),
        quants=("f16", "q8_0", "q4_k_m"),
        score=8,
    )
    return export(wish)


def test_every_stage_is_in_the_table_and_passes(everything: Export) -> None:
    assert [row.stage for row in everything.rows] == ["adapter fp32", "merged bf16", "F16", "Q8_0", "Q4_K_M"]
    assert everything.failures == []
    f16 = everything.rows[2]
    assert f16.prompts.all and f16.greedy.all and f16.stops.all and f16.agreement is not None
    assert f16.agreement.kl < 1e-5 and f16.agreement.top1 > 0.99 and f16.agreement.positions > 200
    sizes = [row.size for row in everything.rows[2:]]
    assert sizes == sorted(sizes, reverse=True)
    assert all(row.score is not None and row.score.total == 8 for row in everything.rows)
    assert everything.rows[2].score == everything.rows[0].score


def test_the_folder_describes_itself(everything: Export, trained: Path) -> None:
    folder = everything.folder
    record = json.loads((folder / "export.json").read_text())
    assert record["status"] == "passed" and record["source"] == str(trained) and record["base"] == "nano"
    assert all(sha256_file(folder / each["path"]) == each["sha256"] for each in record["files"])
    named = {each["path"] for each in record["files"]}
    assert {"run-F16.gguf", "run-Q8_0.gguf", "run-Q4_K_M.gguf", "merged/config.json", "Modelfile"} <= named
    assert {"Modelfile-Q8_0", "Modelfile-Q4_K_M", "tokenizer/tokenizer.json"} <= named
    card = (folder / "README.md").read_text()
    assert "library_name: transformers" in card and "| Q4_K_M |" in card and "agrees with the model" in card
    assert "optimizer steps: 6" in card and "ollama create run" in card
    assert "FROM ./run-F16.gguf" in (folder / "Modelfile").read_text()
    assert not list(folder.parent.glob(".*")), "nothing is left beside the export"


def test_kinds_that_are_only_a_step_are_tried_and_not_kept(trained: Path, tmp_path: Path) -> None:
    made = export(Wish(str(trained), tmp_path / "out", quants=("q4_k_m",)))
    assert [row.stage for row in made.rows] == ["adapter fp32", "F16 (not kept)", "Q4_K_M"]
    assert [path.name for path in made.folder.glob("*.gguf")] == ["run-Q4_K_M.gguf"]


# --- broken on purpose: each is caught, and told ------------------------------------------------------------------


def broken(source: Path, out: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, dict[str, Any]]:
    """Exit code, what was said, and the record, of an export of one file."""
    code, _, err = ramify(monkeypatch, capsys, "export", source, "--quant", "f16", "--out", out)
    return code, err, json.loads((out / "export.json").read_text())


def test_a_missing_permutation_is_caught(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(families.FAMILIES["llama"], permuted=False)
    monkeypatch.setitem(families.FAMILIES, "llama", wrong)
    code, err, record = broken(trained, tmp_path / "out", capsys, monkeypatch)
    assert code == 1 and record["status"] == "failed"
    assert "F16: KL divergence" in err and "Do not use it" in (tmp_path / "out" / "README.md").read_text()


def test_a_norm_off_by_one_is_caught(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = replace(families.FAMILIES["gemma"], norm_offset=0.0)
    monkeypatch.setitem(families.FAMILIES, "gemma", wrong)
    code, err, _ = broken(gemma, tmp_path / "out", capsys, monkeypatch)
    assert code == 1 and "F16: KL divergence" in err


def misspelt(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """From now on the fields of every vocabulary are written as `wrong` has them."""
    honest = vocabulary.Vocabulary.fields
    monkeypatch.setattr(vocabulary.Vocabulary, "fields", lambda self: wrong(dict(honest(self))))


def test_a_wrong_score_table_is_caught(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def late_merges_first(fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"tokenizer.ggml.scores": [-score for score in fields["tokenizer.ggml.scores"]]}

    misspelt(monkeypatch, late_merges_first)
    code, err, _ = broken(gemma, tmp_path / "out", capsys, monkeypatch)
    assert code == 1 and "prompts become other token ids" in err


def test_a_dropped_stop_token_is_caught(
    gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_ends(fields: dict[str, Any]) -> dict[str, Any]:
        words = [str(each).replace("<end_of_turn>", "<end_of_nothing>") for each in fields["tokenizer.ggml.tokens"]]
        ends = ("eos_token_id", "eot_token_id", "eom_token_id")
        left = {key: value for key, value in fields.items() if not key.endswith(ends)}
        return left | {"tokenizer.ggml.tokens": words}

    misspelt(monkeypatch, without_ends)
    code, err, _ = broken(gemma, tmp_path / "out", capsys, monkeypatch)
    assert code == 1 and "does not stop at token" in err


def with_field(monkeypatch: pytest.MonkeyPatch, key: str, change: Callable[[Any], Any]) -> None:
    """From now on a file says something else under one key; nothing when the change gives None."""
    honest = vocabulary.Vocabulary.fields

    def wrong(self: vocabulary.Vocabulary) -> dict[str, Any]:
        fields: dict[str, Any] = dict(honest(self))
        fields[key] = change(fields[key])
        return {name: value for name, value in fields.items() if value is not None}

    monkeypatch.setattr(vocabulary.Vocabulary, "fields", wrong)


CHANGED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "another template": ("tokenizer.chat_template", lambda text: text.replace("assistant", "helper")),
    "a template that refuses": ("tokenizer.chat_template", lambda _: "{{ raise_exception('no turns') }}"),
    "no template": ("tokenizer.chat_template", lambda _: None),
    "another BOS rule": ("tokenizer.ggml.add_bos_token", lambda begins: not begins),
}


@pytest.mark.parametrize("case", CHANGED)
def test_prompts_that_users_get_otherwise_are_caught(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where llama.cpp is known to differ by a space, which alone is no defect."""
    tokenizer = llama_class(legacy=False)
    tokenizer.chat_template = ZEPHYR
    model = random_model(tmp_path / "model", "llama", tokenizer)
    with_field(monkeypatch, *CHANGED[case])
    made = export(Wish(str(model), tmp_path / "out", quants=("f16",)))
    assert any("prompts become other token ids" in each for each in made.failures)


def test_the_same_gemma_passes_when_nothing_is_broken(gemma: Path, tmp_path: Path) -> None:
    assert export(Wish(str(gemma), tmp_path / "out", quants=("f16", "q8_0"))).failures == []


def test_a_space_that_llama_cpp_cannot_leave_out_is_told_and_not_held_against_the_file(tmp_path: Path) -> None:
    tokenizer = llama_class(legacy=False)
    tokenizer.chat_template = ZEPHYR
    made = export(Wish(str(random_model(tmp_path / "model", "llama", tokenizer)), tmp_path / "out", quants=("f16",)))
    row = made.rows[-1]
    assert made.failures == [] and row.known > 0
    assert row.prompts.count + row.known == row.prompts.total
    assert any("puts a space behind every special token" in note for note in made.notes)


# --- refused before a weight is read -------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[Path, Path], Wish], type[Exception], str]] = {
    "kind": (lambda run, out: Wish(str(run), out, quants=("q4_k_mm",)), ConfigError, "did you mean 'q4_k_m'"),
    "no kind": (lambda run, out: Wish(str(run), out, quants=()), ConfigError, "no quantisation given"),
    "type": (
        lambda run, out: Wish(str(run), out, to=(Target.MERGED,), dtype="bf17"),
        ConfigError,
        "did you mean 'bf16'",
    ),
    "model": (lambda run, out: Wish("nanno", out), ModelError, "did you mean 'nano'"),
    "name": (lambda run, out: Wish(str(run), out, name="a/b"), ConfigError, "letters, digits"),
    "adapter as a folder": (
        lambda run, out: Wish(str(run), out, to=(Target.MERGED,), adapter_only=True),
        ConfigError,
        "--adapter-only writes a GGUF",
    ),
    "adapter with a score": (
        lambda run, out: Wish(str(run), out, adapter_only=True, score=3),
        ConfigError,
        "--score does nothing",
    ),
    "quant of nothing": (
        lambda run, out: Wish(str(run), out, to=(Target.MERGED,), quants=("f16",)),
        ConfigError,
        "--quant is of GGUF files",
    ),
    "type of nothing": (lambda run, out: Wish(str(run), out, dtype="fp32"), ConfigError, "--dtype is the type"),
    "checkout for nothing": (
        lambda run, out: Wish(str(run), out, to=(Target.MERGED,), llama_cpp=run),
        ConfigError,
        "--llama-cpp does nothing",
    ),
    "here": (lambda run, out: Wish(str(run), Path()), RunError, "is where you are"),
    "score": (lambda run, out: Wish(str(run), out, verify=False, score=3), ConfigError, "--no-verify"),
    "no adapter": (lambda run, out: Wish("nano", out, adapter_only=True), ConfigError, "has no adapter"),
    "checkout": (lambda run, out: Wish(str(run), out, llama_cpp=run), ConfigError, "convert_hf_to_gguf.py"),
    "a file": (lambda run, out: Wish(str(run), run / "run.json"), RunError, "is a file"),
    "something else": (lambda run, out: Wish(str(run), run), RunError, "not an export"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_wishes_are_refused_in_one_line(case: str, trained: Path, tmp_path: Path) -> None:
    wish, kind, words = REFUSED[case]
    with pytest.raises(kind, match=words) as found:
        make_plan(wish(trained, tmp_path / "out"))
    assert "\n" not in str(found.value) and not (tmp_path / "out").exists()


def test_a_family_that_is_not_written_is_refused_by_name(tmp_path: Path) -> None:
    model = random_model(tmp_path / "phi", "phi3")
    with pytest.raises(ModelError, match="phi3"):
        export(Wish(str(model), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_export_is_not_replaced_unasked(everything: Export, trained: Path) -> None:
    with pytest.raises(RunError, match="holds an export already"):
        export(Wish(str(trained), everything.folder))


def test_a_failure_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_run, "quantize", full)
    with pytest.raises(RunError, match="No space left"):
        export(Wish(str(trained), tmp_path / "out", quants=("q4_k_m",)))
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_is_refused_first(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(RunError, match="GB are free"):
        export(Wish(str(trained), tmp_path / "out"))
    assert not (tmp_path / "out").exists()

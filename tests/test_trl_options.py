"""TRL's command line: understood as TRL's own parser understands it, translated, or refused with a reason."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_setup import ramify
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st
from train_setup import model_folder, pairs_file, preferences_file
from trl import DPOConfig, ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, TrlParser, pack_dataset
from trl.scripts.utils import DatasetMixtureConfig

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError
from ramify.base.runs import Run
from ramify.cli import trl_rows
from ramify.cli.errors import BAD_INPUT, OK
from ramify.cli.trl_command import is_trl, read_command
from ramify.cli.trl_options import DPO, SFT, TRAINERS, Effect, Kind, Option, options_of
from ramify.cli.trl_plan import (
    BATCH_SIZE,
    DROPOUT,
    LEARNING_RATE,
    LOGGING_STEPS,
    MAX_LENGTH,
    SAVE_STEPS,
    SCHEDULE,
    TEST_SPLIT,
)
from ramify.cli.trl_rows import Counted, count_rows, packed_rows
from ramify.cli.trl_run import as_typed, trl_run
from ramify.model.outline import load_outline
from ramify.train.checks import renderer_for

__all__ = ["model_folder"]

CONFIGS: dict[str, tuple[Any, ...]] = {
    SFT: (ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig),
    DPO: (ScriptArguments, DPOConfig, ModelConfig, DatasetMixtureConfig),
}
SOURCE_COMMAND = (
    "--model_name_or_path nano --dataset_name DATA --dataset_train_split train --dataset_test_split validation "
    "--learning_rate 2e-5 --num_train_epochs 3 --packing True --per_device_train_batch_size 2 "
    "--gradient_accumulation_steps 4 --gradient_checkpointing --eval_strategy steps --eval_steps 100 "
    "--logging_steps 25 --output_dir OUT"
)
"""Of the project that mixes Orca's rows: full fine-tuning."""
LORA = "--use_peft --lora_r 32 --lora_alpha 16 --learning_rate 2e-4"
"""What it adds for adapters."""


def words(text: str, **names: object) -> list[str]:
    """A command line as a list; capital words stand for names."""
    return [str(names.get(word, word)) for word in text.split()]


def config_of(text: str, trainer: str = SFT) -> RunConfig:
    """The settings that options alone decide."""
    return as_typed([trainer, "--dataset_name", "rows.jsonl", *words(text)]).config


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_option_of_trl_is_known(trainer: str) -> None:
    theirs = {field.name for kind in CONFIGS[trainer] for field in dataclasses.fields(kind) if field.init}
    assert theirs - set(options_of(trainer)) == set()


@pytest.mark.parametrize("trainer", TRAINERS)
def test_options_of_trl_are_parsed_as_by_its_own_parser(trainer: str) -> None:
    line = words(
        "--model_name_or_path=nano --learning-rate 2.0e-4 --num_train_epochs 1 --per_device_train_batch_size 2 "
        "--gradient_accumulation_steps 8 --gradient-checkpointing --eval_strategy steps --eval_steps 100 --bf16 False "
        "--use_peft --lora_r 32 --lora_alpha 16 --lora_target_modules q_proj v_proj --max_length none --seed=7 "
        "--no_remove_unused_columns --max_steps -1 --weight_decay 0.1 --lr_scheduler_type cosine --warmup_steps 0.1 "
        "--dataset_streaming yes --dataset_name rows.jsonl"
    )
    theirs = vars(TrlParser(CONFIGS[trainer]).parse_known_args(line)[0])
    ours = read_command([trainer, *line]).given
    assert len(ours) == 22
    for each in ours.values():
        names = [name for name in (each.option.name, *each.option.older) if theirs.get(name) is not None]
        assert each.value == (theirs[names[0]] if names else None), each.typed


def test_defaults_that_are_taken_over_are_trls() -> None:
    def default(kind: Any, name: str) -> Any:
        return next(field.default for field in dataclasses.fields(kind) if field.name == name)

    for kind, trainer in ((SFTConfig, SFT), (DPOConfig, DPO)):
        assert default(kind, "learning_rate") == LEARNING_RATE[trainer]
        assert default(kind, "per_device_train_batch_size") == BATCH_SIZE
        assert default(kind, "lr_scheduler_type") == SCHEDULE
        assert default(kind, "logging_steps") == LOGGING_STEPS
        assert default(kind, "save_steps") == SAVE_STEPS
        assert default(kind, "max_length") == MAX_LENGTH
        assert default(kind, "eval_strategy") == "no" and default(kind, "save_strategy") == "steps"
        assert default(kind, "warmup_steps") == 0 and default(kind, "gradient_accumulation_steps") == 1
        assert default(kind, "load_best_model_at_end") is False
        ours = RunConfig().train
        assert (default(kind, "num_train_epochs"), default(kind, "max_steps")) == (ours.epochs, -1)
        assert (default(kind, "weight_decay"), default(kind, "max_grad_norm")) == (ours.weight_decay, ours.clip)
        assert default(kind, "seed") == RunConfig().seed
    assert default(ModelConfig, "lora_dropout") == DROPOUT and default(ModelConfig, "use_peft") is False
    assert default(ScriptArguments, "dataset_test_split") == TEST_SPLIT
    assert RunConfig().lora is not None
    assert default(ModelConfig, "lora_r") == RunConfig().lora.r
    assert default(ModelConfig, "lora_alpha") == RunConfig().lora.alpha


def test_the_source_projects_command_is_full_fine_tuning() -> None:
    run = as_typed(["sft", *words(SOURCE_COMMAND, DATA="data/orca", OUT="runs/orca")], processes=4)
    config = run.config
    assert (config.method, config.model, config.lora) == ("sft", "nano", None)
    assert (str(config.data.train), config.data.split, config.data.valid_split) == ("data/orca", "train", "validation")
    assert (config.train.lr, config.train.epochs, config.train.schedule, config.train.warmup) == (2e-5, 3, "linear", 0)
    assert (config.train.eval_every, config.train.log_every, config.train.checkpointing) == (100, 25, True)
    assert config.train.load_best is False and str(config.out) == "runs/orca"
    step = run.step
    assert (step.rows, step.packed, step.says) == (32, 1024, "2 × 4 × 4 processes")


def test_the_source_projects_adapter_has_its_rank_and_trls_dropout() -> None:
    config = config_of(LORA)
    assert config.lora is not None and config.train.lr == 2e-4
    assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (32, 16, 0.05)


def test_a_preference_run_has_the_defaults_of_trls_dpo() -> None:
    config = config_of("--use_peft --loss_type robust --label_smoothing 0.1 --beta 0.2", DPO)
    assert config.method == "dpo" and config.train.lr == 1e-6
    assert config.lora is not None and config.lora.dropout == 0
    assert (config.dpo.loss, config.dpo.beta, config.dpo.label_smoothing) == ("robust", 0.2, 0.1)
    kept = config_of("--use_peft --lora_dropout 0.1 --disable_dropout False", DPO)
    assert kept.lora is not None and kept.lora.dropout == 0.1


EXAMPLES = {
    "model_name_or_path": "other/model",
    "model_revision": "v2",
    "dtype": "bfloat16",
    "bf16": "",
    "fp16": "",
    "use_cpu": "",
    "use_peft": "",
    "lora_r": "8 --use_peft",
    "lora_alpha": "8 --use_peft",
    "lora_dropout": "0.2 --use_peft",
    "lora_target_modules": "q_proj --use_peft",
    "use_rslora": "--use_peft",
    "use_dora": "--use_peft",
    "load_in_4bit": "--use_peft",
    "dataset_name": "other.jsonl",
    "dataset_config": "main",
    "dataset_train_split": "train[:10]",
    "dataset_test_split": "dev --eval_strategy epoch",
    "dataset_streaming": "",
    "dataset_text_field": "body",
    "max_length": "77",
    "chat_template_path": "TEMPLATE",
    "learning_rate": "1e-3",
    "num_train_epochs": "1.5",
    "max_steps": "9",
    "lr_scheduler_type": "cosine",
    "warmup_steps": "10",
    "warmup_ratio": "0.1",
    "weight_decay": "0.01",
    "max_grad_norm": "0",
    "seed": "1",
    "activation_checkpointing": "",
    "output_dir": "elsewhere",
    "logging_steps": "5",
    "eval_strategy": "steps",
    "eval_steps": "5 --eval_strategy steps",
    "save_strategy": "steps",
    "save_steps": "5",
    "save_total_limit": "5",
    "load_best_model_at_end": "--eval_strategy epoch",
    "report_to": "none",
    "fsdp": "full_shard",
    "beta": "0.5",
    "loss_type": "ipo",
    "label_smoothing": "0.1 --loss_type robust",
}
"""A value for every option that becomes a setting, with what it needs."""
STEPS = ("per_device_train_batch_size", "gradient_accumulation_steps")
FOLDER = ("overwrite_output_dir", "resume_from_checkpoint")


def known(effect: Effect) -> Iterator[tuple[str, Option]]:
    """Trainer and option, each option once."""
    seen = set()
    for trainer in TRAINERS:
        for option in options_of(trainer).values():
            if option.effect is effect and (option.name, option.trainer) not in seen:
                seen.add((option.name, option.trainer))
                yield trainer, option


def ids(pairs: Iterator[tuple[str, Option]]) -> list[Any]:
    return [pytest.param(*pair, id=f"{pair[0]}-{pair[1].name}") for pair in pairs]


@pytest.mark.parametrize(("trainer", "option"), ids(known(Effect.SETS)))
def test_every_option_that_becomes_a_setting_changes_it(trainer: str, option: Option, tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    template.write_text("{{ messages }}")
    for name in (option.name, *option.older):
        if option.name in STEPS:
            changed = as_typed([trainer, *words(f"--dataset_name x --{name} 3")]).step
            assert changed.rows == (3 if option.name == STEPS[0] else 24)
            continue
        if option.name in FOLDER:
            flags = as_typed([trainer, *words(f"--dataset_name x --{name} True")]).plan.flags
            assert flags == {str(option.setting).removeprefix("--")}
            continue
        value, *needed = EXAMPLES[option.name].split(" --")
        value, needed = ("", [value[2:], *needed]) if value.startswith("--") else (value, needed)
        rest = " ".join(f"--{each}" for each in needed)
        with_it = config_of(f"--{name} {value} {rest}".replace("TEMPLATE", str(template)), trainer)
        without = config_of(rest, trainer)
        section, _, field = str(option.setting).rpartition(".")
        one, two = (getattr(config, section) if section else config for config in (with_it, without))
        assert getattr(one, field) != getattr(two, field)


@pytest.mark.parametrize(("trainer", "option"), ids(known(Effect.HOLDS)))
def test_every_option_that_always_holds_is_said_and_sets_nothing(trainer: str, option: Option) -> None:
    needed = "" if option.needs is None else f"--{option.needs} {'steps' if option.needs == 'eval_strategy' else ''}"
    needed += " --use_peft" if option.needs == "load_in_4bit" else ""
    for value in option.allowed or (8 if option.kind is Kind.WHOLE else "<|im_end|>",):
        text = json.dumps(value).replace(" ", "") if isinstance(value, dict) else str(value)
        run = as_typed([trainer, *words(f"--dataset_name rows.jsonl --{option.name} {text} {needed}")])
        assert run.config == config_of(needed, trainer)
        assert any(option.says in line for line in run.lines())


@pytest.mark.parametrize(("trainer", "option"), ids(known(Effect.REFUSED)))
def test_every_refused_option_has_a_reason_and_a_way_out(trainer: str, option: Option) -> None:
    with pytest.raises(ConfigError) as refused:
        read_command([trainer, f"--{option.name}", "1"])
    assert refused.value.message == f"--{option.name} 1: {option.says}"
    assert refused.value.hint == option.instead and option.says and option.instead


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sft --learning_rat 1", "unknown option --learning_rat of sft; did you mean --learning_rate?"),
        ("sft --xyzzy 1", "unknown option --xyzzy of sft"),
        ("sft --beta 0.1", "--beta is an option of dpo, not of sft"),
        ("dpo --packing True", "--packing is an option of sft, not of dpo"),
        ("sft --push_to_hub", "--push_to_hub: nothing is uploaded"),
        ("sft --optim adafactor", "--optim adafactor: the optimizer is AdamW, with fp32 masters"),
        ("sft --packing --packing_strategy wrapped", "--packing_strategy wrapped: no row is cut"),
        ("sft --packing_strategy bfd", "--packing_strategy bfd: does nothing without --packing"),
        ("sft --lora_r 32", "--lora_r 32: does nothing without --use_peft"),
        ("sft --eval_steps 100", "--eval_steps 100: does nothing without --eval_strategy"),
        ("sft --eval_steps 100 --eval_strategy no", "--eval_steps 100: does nothing without --eval_strategy"),
        ("sft --eval_steps 9 --eval_strategy epoch", "--eval_steps 9: does nothing with --eval_strategy epoch"),
        ("sft --save_steps 9 --save_strategy epoch", "--save_steps 9: does nothing with --save_strategy epoch"),
        ("sft --save_strategy best", "--save_strategy best: no, steps or epoch is needed"),
        ("sft --completion_only_loss False", "--completion_only_loss False: the loss falls on answers only"),
        ("sft --learning_rate fast", "--learning_rate fast: a number is needed"),
        ("sft --logging_steps 0.1", "--logging_steps 0.1: a whole number is needed"),
        ("sft --packing maybe", "--packing maybe: true or false is needed"),
        ("sft --learning_rate", "--learning_rate: a number is needed"),
        ("sft --seed 1 2", "--seed 1 2: a whole number is needed"),
        ("sft --report_to", "--report_to: one value or more is needed"),
        ("sft --gradient_accumulation_steps none", "--gradient_accumulation_steps none: at least 1 is needed"),
        ("sft rows.jsonl", "unexpected 'rows.jsonl'"),
        ("sft --bf16 --fp16", "--bf16 --fp16: one of them is needed"),
        ("sft --dtype int8", "--dtype int8: bfloat16, float16, float32, auto are known"),
        ("sft --lr_scheduler_type polynomial", "--lr_scheduler_type polynomial: this schedule is not known here"),
        ("sft --lr_scheduler_type constant --warmup_steps 5", "--warmup_steps 5: the schedule constant has no warm-up"),
        ("sft --warmup_steps 5 --warmup_ratio 0.1", "both say how long the warm-up is"),
        ("sft --warmup_ratio 3", "--warmup_ratio 3: a share of all steps, below 1, is needed"),
        ("sft --report_to wandb", "--report_to wandb: metrics go to metrics.jsonl and to TensorBoard"),
        ("sft --fsdp offload", "--fsdp offload: full_shard, with or without auto_wrap, is known here"),
        ("sft --resume_from_checkpoint other/checkpoint-3", "a run goes on from its own newest checkpoint"),
        ("sft --chat_template_path no/such", "a Jinja file, or a folder with chat_template.jinja, is needed"),
        ("sft --per_device_train_batch_size 0", "--per_device_train_batch_size 0: at least 1 is needed"),
        ("sft --config missing.yaml", "missing.yaml: no such file"),
        ("sft --config", "--config: the name of one YAML file is needed"),
        ("sft --seed 1", "--dataset_name is not given"),
        ("dpo --loss_type simpo", "--loss_type simpo: one of sigmoid, ipo, hinge, robust is needed"),
        ("dpo --loss_type sigmoid sft", "--loss_type sigmoid sft: one of sigmoid, ipo, hinge, robust is needed"),
        ("dpo --label_smoothing 0.1", "--label_smoothing 0.1: of the losses known here TRL smooths robust only"),
        ("dpo --use_peft --lora_dropout 0.1", "--lora_dropout 0.1: TRL's dpo turns dropout off"),
        ("dpo --max_prompt_length 512", "--max_prompt_length 512: nothing is ever cut"),
        ("sft --save_total_limit none", "--save_total_limit none: the number of checkpoints to keep is needed"),
        ("sft --output_dir one --out two", "--output_dir one and --out: one of them names the run folder"),
        ("grpo --seed 1", "trl grpo is not known here"),
        ("--learning_rate 1", "no such option: --learning_rate"),
        ("recipe.yaml --qick", "no such option: --qick"),
    ],
)
def test_what_means_something_else_is_one_line(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ramify(monkeypatch, capsys, "train", *line.split())
    first, *rest = err.strip().splitlines()
    assert code == BAD_INPUT and not out
    assert first.startswith("error: ") and message in first
    assert len(rest) <= 1 and all(each.startswith("hint: ") for each in rest)


def test_options_come_from_a_file_then_from_the_command_line_then_from_settings(tmp_path: Path) -> None:
    file = tmp_path / "sft.yaml"
    file.write_text(
        "dataset_name: rows.jsonl\nlearning_rate: 1.0e-3\nseed: 1\npacking: true\nuse_peft: true\n"
        "lora_target_modules: [q_proj, v_proj]\neval_strategy: no\nmax_length: null\n"
    )
    run = as_typed(["sft", "--seed", "2", "--config", str(file), "--lora_r", "4", "train.lr=0.5", "--packing", "false"])
    assert (run.config.seed, run.config.train.lr) == (2, 0.5)
    assert run.config.lora is not None and (run.config.lora.r, run.config.lora.targets) == (4, ("q_proj", "v_proj"))
    assert run.config.data.valid_split is None and run.step.packed is None
    assert "train.lr=0.5  (as given)" in run.lines()
    file.write_text("env: {A: b}\n")
    with pytest.raises(ConfigError, match="env is not taken"):
        as_typed(["sft", "--config", str(file)])


ODD = (
    "",
    "none",
    "True",
    "no",
    "-1",
    "0",
    "1e999",
    "nan",
    "{",
    "{a: 1}",
    "a b",
    "steps",
    "x=1",
    "train.lr=1",
    "--",
    "é",
)


@given(st.sampled_from(TRAINERS), st.data())
def test_whatever_is_typed_is_a_run_or_one_line(trainer: str, data: st.DataObject) -> None:
    taken = sorted(name for name, option in options_of(trainer).items() if option.effect is not Effect.REFUSED)
    names = st.sampled_from([*taken, "config", "no_remove_unused_columns", "unheard_of"])
    line = [trainer, "--dataset_name=rows.jsonl"]
    for name in data.draw(st.lists(names, max_size=4)):
        line += [f"--{name}", *data.draw(st.lists(st.sampled_from(ODD), max_size=2))]
    try:
        assert as_typed(line).plan.lines()
    except ConfigError as error:
        assert "\n" not in error.message


def test_an_override_ends_a_list() -> None:
    config = config_of("--use_peft --lora_target_modules q_proj v_proj data.drop_long=true")
    assert config.lora is not None and config.lora.targets == ("q_proj", "v_proj") and config.data.drop_long


def test_a_file_named_like_a_command_of_trl_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grpo").write_text("seed: 1\n")
    assert not is_trl(["grpo"]) and not is_trl([]) and not is_trl(["a.yaml", "seed=1"])


def test_going_on_is_from_the_newest_checkpoint(tmp_path: Path) -> None:
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    command = ["sft", "--dataset_name", "x", "--output_dir", str(tmp_path), "--resume_from_checkpoint"]
    for value in ("True", str(tmp_path), str(tmp_path / "checkpoint-10")):
        assert as_typed([*command, value]).plan.flags == {"resume"}
    assert not as_typed([*command, "False"]).plan.flags
    with pytest.raises(ConfigError, match="its own newest checkpoint"):
        as_typed([*command, str(tmp_path / "checkpoint-5")])


LENGTHS = st.lists(st.integers(0, 80), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 64))
def test_packed_rows_hold_what_fits_and_no_two_could_be_one(lengths: list[int], size: int) -> None:
    tokens = [min(length, size) for length in lengths if length]
    count = packed_rows(lengths, size)
    assert -(-sum(tokens) // size) <= count <= len(tokens)
    assert count < 2 * sum(tokens) / size + 1  # any two rows of a best fit hold more than one row's tokens


@pytest.mark.parametrize("rows", [40, 2300])
def test_packed_rows_are_those_of_trl(rows: int) -> None:
    lengths = [1 + (n * n * 7919) % 90 for n in range(rows)]
    theirs = pack_dataset(Dataset.from_dict({"input_ids": [[0] * n for n in lengths]}), 64, "bfd")
    assert packed_rows(lengths, 64) == len(theirs)


def test_of_many_rows_every_tenth_thousand_stands_for_ten(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs_file(tmp_path / "rows.json", rows=30)
    monkeypatch.setattr(trl_rows, "_TOGETHER", 2)
    monkeypatch.setattr(trl_rows, "_ALL", 5)
    run = as_typed(["sft", "--dataset_name", str(rows), "prompt.chat_template=plain"])
    renderer, told = renderer_for(load_outline(str(model_folder)), run.config.prompt), list[int]()
    about = count_rows(run.config, renderer, 64, told.append)
    assert about.sequences == 2 * 5 + 2 * 10 and not about.exact and told == list(range(2, 31, 2))
    monkeypatch.setattr(trl_rows, "_ALL", 15)
    exact = count_rows(run.config, renderer, 64)
    assert exact.sequences == 30 and exact.exact and about.in_one == pytest.approx(exact.in_one, rel=0.4)
    assert count_rows(run.config) == Counted(30, 30)


@pytest.mark.proof
@pytest.mark.parametrize("packed", [96, 1024])
def test_rows_of_conversations_are_packed_as_trls_trainer_packs_them(
    packed: int, model_folder: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "chats.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in chats(60)))
    arguments = SFTConfig(str(tmp_path / "trl"), packing=True, max_length=packed, report_to="none", use_cpu=True)
    trainer = SFTTrainer(str(model_folder), args=arguments, train_dataset=Dataset.from_list(chats(60)))
    assert trainer.train_dataset is not None
    run = as_typed(["sft", "--dataset_name", str(rows)])
    counted = count_rows(run.config, renderer_for(load_outline(str(model_folder)), run.config.prompt), packed)
    assert counted.sequences == 90
    assert counted.rows == pytest.approx(len(trainer.train_dataset), rel=0.03)


def chats(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Conversations of one or two answers, of different lengths."""
    return [
        {
            "messages": [
                {"role": role, "content": f"{text} {at} {'and so on ' * (at % 4)}"}
                for _ in range(1 + at % 2)
                for role, text in (("user", "What is"), ("assistant", "It is"))
            ]
        }
        for at in range(start, start + n)
    ]


def folder_of(path: Path) -> Path:
    """A data set saved as the source project saves it."""
    splits = {"train": Dataset.from_list(chats(24)), "validation": Dataset.from_list(chats(4, start=24))}
    DatasetDict(splits).save_to_disk(str(path))
    return path


def test_the_source_projects_command_runs_on_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words(f"{SOURCE_COMMAND} {LORA}", DATA=folder_of(tmp_path / "data"), OUT=tmp_path / "run")
    code, _, err = ramify(monkeypatch, capsys, "train", "sft", *line)
    assert code == OK, err
    run = Run(tmp_path / "run")
    assert run.record["status"] == "finished" and run.adapter is not None
    settings = run.record["config"]
    assert settings["lora"]["targets"] == ["q_proj", "v_proj"]
    found = re.search(r"= 8 packed rows of 1,024 tokens; one holds ([\d.]+) sequences here \(36 in (\d+)\)", err)
    assert found is not None, err
    assert settings["train"]["batch_size"] == round(8 * 36 / int(found[2]))
    assert "differs: the loss falls on answers only" in err and "TRL's default" in err
    assert [row["kind"] for row in run.metrics("eval")]


def test_trls_preference_command_runs(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words(
        "--model_name_or_path MODEL --dataset_name DATA --output_dir OUT --per_device_train_batch_size 2 --max_steps 2 "
        "--gradient_accumulation_steps 2 --no_remove_unused_columns --precompute_ref_log_probs --use_cpu "
        "--dtype float32",
        MODEL=model_folder,
        DATA=preferences_file(tmp_path / "pairs.jsonl"),
        OUT=tmp_path / "run",
    )
    code, _, err = ramify(monkeypatch, capsys, "train", "dpo", *line)
    assert code == OK, err
    run = Run(tmp_path / "run")
    assert run.record["steps"] == 2 and run.model is not None and run.adapter is None
    assert run.record["config"]["train"]["batch_size"] == 4 and "2 × 2 × 1 process = 4 pairs" in err
    again, _, err = ramify(monkeypatch, capsys, "train", "dpo", *line, "--overwrite_output_dir", "--dry-run")
    assert again == OK, err


def test_conversations_are_counted_by_their_answers(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "chats.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in chats(8)))
    line = words("--model_name_or_path M --dataset_name D --eos_token <|im_end|>", M=model_folder, D=rows)
    for processes, extra, shown in (
        ("1", [], "train.batch_size=12"),
        ("2", [], "train.batch_size=24"),
        ("1", ["data.turns=last"], "train.batch_size=8"),
        ("1", ["train.batch_size=5"], "train.batch_size=5  (as given)"),
    ):
        monkeypatch.setenv("WORLD_SIZE", processes)
        code, _, err = ramify(monkeypatch, capsys, "train", "sft", *line, *extra, "--dry-run")
        assert code == OK and shown in err, err
    code, _, err = ramify(monkeypatch, capsys, "train", "sft", *line, "--eos_token", "</s>")
    assert code == BAD_INPUT and "with this chat template answers end in <|im_end|>" in err


def test_what_accelerate_is_set_up_for_is_taken_or_refused(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = words("sft --model_name_or_path M --dataset_name D", M=model_folder, D=pairs_file(tmp_path / "rows.json"))
    assert trl_run(line).config.train.shard == "none"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert trl_run(line).config.train.shard == "fsdp"
    assert trl_run([*line, "train.shard=none"]).config.train.shard == "none"
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="set up for DeepSpeed, which is not used here"):
        trl_run(line)


@pytest.mark.parametrize("effect", Effect)
def test_the_documentation_has_the_tables_of_the_code(effect: Effect, root: Path) -> None:
    page = (root / "docs" / "from-trl.md").read_text(encoding="utf-8")
    rows = "\n".join(table_rows(effect))
    assert f"|\n{rows}\n" in page, f"the table of what {effect.value} should be\n{rows}"


def table_rows(effect: Effect) -> list[str]:
    """The options of one effect as rows of a table; options refused for the same reason share a row."""
    rows: dict[str, list[str]] = {}
    for _, option in known(effect):
        name = ", ".join(f"`{each}`" for each in (option.name, *option.older))
        name += f" ({option.trainer})" if option.trainer else ""
        values = ", ".join(f"`{json.dumps(each)}`" for each in option.allowed or ()) or "any"
        cells = {
            Effect.SETS: f"{name} | `{option.setting}` | {option.says}",
            Effect.HOLDS: f"{name} | {values} | {option.says}",
            Effect.REFUSED: f"{option.says} | {option.instead}",
        }[effect]
        rows.setdefault(cells, []).append(name)
    shared = effect is Effect.REFUSED
    return [f"| {', '.join(names)} | {cells} |" if shared else f"| {cells} |" for cells, names in rows.items()]


def test_null_in_a_file_is_no_text(tmp_path: Path) -> None:
    names = ("resume_from_checkpoint", "chat_template_path", "model_revision", "lr_scheduler_kwargs", "report_to")
    (tmp_path / "sft.yaml").write_text("dataset_name: rows.jsonl\n" + "".join(f"{name}: null\n" for name in names))
    run = as_typed(["sft", "--config", str(tmp_path / "sft.yaml")])
    assert set(run.command.given) == {"dataset_name"}


def test_a_split_is_kept_where_validation_rows_are_named() -> None:
    words = [
        "sft",
        "--dataset_name",
        "a.jsonl",
        "--eval_strategy",
        "epoch",
        "--dataset_test_split",
        "dev",
        "data.valid=folder",
    ]
    assert as_typed(words).config.data.valid_split == "dev"


def test_a_strategy_that_is_off_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = ramify(monkeypatch, capsys, *["train", "sft", "--eval_steps", "100", "--eval_strategy", "no"])
    assert "hint: --eval_strategy no turns it off" in err

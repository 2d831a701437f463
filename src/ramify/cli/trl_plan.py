"""From a command of TRL to settings: what was named, and TRL's defaults where ours would mean another run.

Where the two differ for good, `DIFFERENCES` says so. Nothing here looks at a model or at data; `trl_run` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ramify.base.errors import ConfigError
from ramify.cli.trl_command import Command
from ramify.cli.trl_options import DPO, SFT, Effect
from ramify.cli.trl_values import CONVERT, is_resumed

LEARNING_RATE: Mapping[str, float] = {SFT: 2e-5, DPO: 1e-6}
BATCH_SIZE, SCHEDULE, WARMUP, DROPOUT = 8, "linear", 0, 0.05
TEST_SPLIT, LOGGING_STEPS, SAVE_STEPS, MAX_LENGTH = "test", 10, 500, 1024
"""TRL's defaults that ours would not mean."""

DIFFERENCES: Mapping[str, tuple[str, ...]] = {
    SFT: (
        "the loss falls on answers only; TRL's falls on whole conversations unless assistant_only_loss is set",
        "rows that are too long stop the run (data.drop_long=true leaves them out); TRL cuts them",
    ),
    DPO: (
        "pairs of one prompt stay neighbours when the order is shuffled (dpo.group_by)",
        "pairs that are too long stop the run (data.drop_long=true leaves them out); TRL cuts them",
    ),
}
"""What the plan ends with."""

_DEFAULT = "TRL's default"
_TYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "auto": "auto"}
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the plan.

    Attributes:
        old: options as they were typed, or what stands for them.
        setting: what they become; None: they say what always holds.
        value: of the setting.
        says: what a reader should know.
    """

    old: str
    setting: str | None = None
    value: Any = None
    says: str = ""

    @property
    def new(self) -> str:
        """The setting with its value, as it would be typed."""
        if self.setting is None or self.setting.startswith("--"):
            return self.setting or "always so"
        return f"{self.setting}={json.dumps(self.value, ensure_ascii=False)}"


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step of TRL holds.

    Attributes:
        rows: TRL's rows of one device at once, times accumulated ones, times processes.
        packed: tokens of a packed row; None: rows are not packed.
        says: how `rows` came about.
    """

    rows: int
    packed: int | None
    says: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A command of TRL in our settings.

    Attributes:
        entries: the lines of the plan.
        flags: which of `resume` and `overwrite` are asked for.
    """

    entries: tuple[Entry, ...]
    flags: frozenset[str] = frozenset()

    @property
    def settings(self) -> list[str]:
        """`key=value` of every setting; a section as a whole comes before what is in it."""
        found = [each for each in self.entries if each.setting is not None and not each.setting.startswith("--")]
        return [each.new for each in sorted(found, key=lambda each: "." in str(each.setting))]

    def lines(self) -> list[str]:
        """The plan as text in columns: option, setting, remark."""
        cells = [(each.old, each.new, each.says) for each in self.entries]
        old, new = (max(len(row[column]) for row in cells) for column in (0, 1))
        return [f"{row[0]:{old}}  {row[1]:{new}}  {row[2]}".rstrip() for row in cells]


def translate(command: Command) -> Plan:
    """The plan of a command, as far as it is known without looking at model and data; batch sizes count TRL's rows.

    Raises:
        ConfigError: values that mean nothing here, or that contradict each other.
    """
    parts = (_named, _rate, _precision, _adapter, _smoothing, _evaluation, _saving, _held)
    entries = (Entry(command.trainer, "method", command.trainer), *(entry for part in parts for entry in part(command)))
    asked = {"resume": is_resumed(command), "overwrite": bool(command.value("overwrite_output_dir"))}
    return Plan(entries, frozenset(name for name, given in asked.items() if given))


def step_of(command: Command, processes: int = 1) -> Step:
    """What one optimizer step holds when so many processes train together.

    Raises:
        ConfigError: it would hold nothing.
    """
    device = command.value("per_device_train_batch_size", BATCH_SIZE)
    accumulated = command.value("gradient_accumulation_steps", 1)
    if (device or 0) < 1 or (accumulated or 0) < 1:
        typed = command.typed("per_device_train_batch_size", "gradient_accumulation_steps")
        raise ConfigError(f"{typed}: at least 1 is needed")
    packed = (command.value("max_length") or MAX_LENGTH) if command.value("packing") else None
    together = f"{processes} process{'' if processes == 1 else 'es'}"
    return Step(device * accumulated * processes, packed, f"{device} × {accumulated} × {together}")


def _named(command: Command) -> Iterator[Entry]:
    """Options whose value, or a plain function of it, is the setting."""
    for name, given in command.given.items():
        if given.option.setting is not None and name not in _TOGETHER:
            convert = CONVERT.get(name)
            value = given.value if convert is None else convert(given.value, given.typed)
            yield Entry(given.typed, given.option.setting, value)


def _rate(command: Command) -> Iterator[Entry]:
    """Learning rate, its schedule and its warm-up.

    Raises:
        ConfigError: the schedule is not known here, or has no warm-up.
    """
    if "learning_rate" not in command.given:
        yield Entry(_DEFAULT, "train.lr", LEARNING_RATE[command.trainer])
    kind = command.value("lr_scheduler_type", SCHEDULE)
    if kind not in _SCHEDULES:
        raise ConfigError(
            f"{command.typed('lr_scheduler_type')}: this schedule is not known here",
            hint=f"{', '.join(_SCHEDULES)} are",
        )
    steps, ratio = command.value("warmup_steps") or 0, command.value("warmup_ratio") or 0
    warmup = command.typed("warmup_steps", "warmup_ratio")
    if steps and ratio:
        raise ConfigError(f"{warmup}: both say how long the warm-up is", hint="leave one of them out")
    if ratio >= 1:
        raise ConfigError(f"{warmup}: a share of all steps, below 1, is needed", hint="--warmup_steps counts steps")
    if (steps or ratio) and kind == "constant":
        raise ConfigError(f"{warmup}: the schedule constant has no warm-up", hint="constant_with_warmup has")
    yield Entry(command.typed("lr_scheduler_type") or _DEFAULT, "train.schedule", _SCHEDULES[kind])
    yield Entry(warmup or _DEFAULT, "train.warmup", steps or ratio or WARMUP)


def _precision(command: Command) -> Iterator[Entry]:
    """The type of weights and activations, where it was named."""
    bf16, fp16, dtype = (command.value(name) for name in ("bf16", "fp16", "dtype"))
    typed = command.typed("dtype", "bf16", "fp16")
    if bf16 and fp16:
        raise ConfigError(f"{typed}: one of them is needed")
    if dtype is not None and dtype not in _TYPES:
        raise ConfigError(f"{command.typed('dtype')}: {', '.join(_TYPES)} are known")
    if bf16 or fp16:
        yield Entry(typed, "train.dtype", "bf16" if bf16 else "fp16", "what is trained has fp32 masters")
    elif dtype is not None:
        yield Entry(typed, "train.dtype", _TYPES[dtype])
    elif typed:
        yield Entry(typed, "train.dtype", "fp32" if bf16 is False else "auto")


def _adapter(command: Command) -> Iterator[Entry]:
    """Whether an adapter is trained, and its dropout.

    Raises:
        ConfigError: a dropout that TRL would turn off.
    """
    if not command.value("use_peft"):
        yield Entry(command.typed("use_peft") or _DEFAULT, "lora", None, "all weights are trained")
        return
    yield Entry(command.typed("use_peft"), "lora", {}, "an adapter is trained")
    turned_off = command.trainer == DPO and command.value("disable_dropout", True)
    dropout = command.value("lora_dropout", 0.0 if turned_off else DROPOUT)
    if turned_off and dropout:
        raise ConfigError(
            f"{command.typed('lora_dropout')}: TRL's dpo turns dropout off",
            hint="add --disable_dropout False to keep it",
        )
    yield Entry(command.typed("lora_dropout") or _DEFAULT, "lora.dropout", dropout)


def _smoothing(command: Command) -> Iterator[Entry]:
    """Label smoothing of preference optimisation.

    Raises:
        ConfigError: TRL's loss does not use it.
    """
    if "label_smoothing" not in command.given:
        return
    typed, value = command.typed("label_smoothing"), command.value("label_smoothing")
    if value and command.value("loss_type", ["sigmoid"]) != ["robust"]:
        raise ConfigError(
            f"{typed}: of the losses known here TRL smooths robust only",
            hint=f"--loss_type robust, or dpo.label_smoothing={value} for conservative DPO",
        )
    yield Entry(typed, "dpo.label_smoothing", value)


def _evaluation(command: Command) -> Iterator[Entry]:
    """Validation during training.

    Raises:
        ConfigError: the strategy is not known, or a number of steps does nothing.
    """
    typed = command.typed("eval_strategy")
    strategy = _strategy(command, "eval_strategy", "no")
    if strategy == "no":
        if typed:
            yield Entry(typed, "data.valid_split", None)
        return
    has_own = any(each.startswith("data.valid=") for each in command.overrides)
    if not has_own or "dataset_test_split" in command.given:
        split = command.value("dataset_test_split", TEST_SPLIT)
        yield Entry(command.typed("dataset_test_split") or _DEFAULT, "data.valid_split", split)
    if strategy == "epoch" and "eval_steps" in command.given:
        raise ConfigError(f"{command.typed('eval_steps')}: does nothing with {typed}", hint="--eval_strategy steps")
    steps = command.value("eval_steps") or command.value("logging_steps") or LOGGING_STEPS
    every = None if strategy == "epoch" else steps
    yield Entry(command.typed("eval_strategy", "eval_steps"), "train.eval_every", every)
    best = command.value("load_best_model_at_end", False)
    yield Entry(command.typed("load_best_model_at_end") or _DEFAULT, "train.load_best", best)


def _saving(command: Command) -> Iterator[Entry]:
    """Checkpoints and TensorBoard, where they were named.

    Raises:
        ConfigError: the strategy is not known, a number of steps does nothing, or metrics are to go elsewhere.
    """
    if "save_total_limit" in command.given and command.value("save_total_limit") is None:
        raise ConfigError(f"{command.typed('save_total_limit')}: the number of checkpoints to keep is needed")
    typed = command.typed("save_strategy", "save_steps")
    strategy = _strategy(command, "save_strategy", "steps")
    if strategy != "steps" and "save_steps" in command.given:
        raise ConfigError(f"{command.typed('save_steps')}: does nothing with {command.typed('save_strategy')}")
    if typed:
        every = (command.value("save_steps") or SAVE_STEPS) if strategy == "steps" else None
        says = "one at each epoch's end, so that the run can be gone on with" if strategy == "no" else ""
        yield Entry(typed, "train.save_every", every, says)
    if strategy == "no" and "save_total_limit" not in command.given:
        yield Entry(command.typed("save_strategy"), "train.keep", 1)
    reports = [str(each).lower() for each in command.value("report_to", [])]
    if reports not in ([], ["none"], ["tensorboard"]):
        raise ConfigError(
            f"{command.typed('report_to')}: metrics go to metrics.jsonl and to TensorBoard",
            hint="--report_to tensorboard, or none",
        )
    if reports:
        yield Entry(command.typed("report_to"), "train.tensorboard", reports == ["tensorboard"])


def _held(command: Command) -> Iterator[Entry]:
    """Options that say what always holds, and those about the folder."""
    for name in ("overwrite_output_dir", "resume_from_checkpoint"):
        if name in command.given:
            asked = command.value(name) if name.startswith("overwrite") else is_resumed(command)
            setting, typed = command.given[name].option.setting, command.typed(name)
            yield Entry(typed, setting) if asked else Entry(typed, None, None, f"no {setting}")
    for given in command.given.values():
        if given.option.effect is Effect.HOLDS:
            yield Entry(given.typed, None, None, given.option.says)


def _strategy(command: Command, name: str, default: str) -> str:
    value = str(command.value(name, default)).lower()
    value = "no" if value in ("false", "none") else value
    if value not in ("no", "steps", "epoch"):
        hint = "the best checkpoint is kept in any case" if value == "best" else None
        raise ConfigError(f"{command.typed(name)}: no, steps or epoch is needed", hint=hint)
    return value


_TOGETHER = frozenset(
    {
        *("per_device_train_batch_size", "gradient_accumulation_steps"),
        *("lr_scheduler_type", "warmup_steps", "warmup_ratio", "dtype", "bf16", "fp16", "use_peft", "lora_dropout"),
        *("dataset_test_split", "eval_strategy", "eval_steps", "load_best_model_at_end", "label_smoothing"),
        *("save_strategy", "save_steps", "report_to", "overwrite_output_dir", "resume_from_checkpoint"),
    }
)
"""Options that decide a setting together."""

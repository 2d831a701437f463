"""A command of TRL as a run: its plan, completed by what only model and data can tell."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ramify.base.errors import ConfigError
from ramify.cli.settings import config_from
from ramify.cli.trl_command import Command, read_command
from ramify.cli.trl_options import SFT
from ramify.cli.trl_plan import DIFFERENCES, Entry, Plan, Step, step_of, translate
from ramify.cli.trl_rows import Counted, count_rows

if TYPE_CHECKING:
    from ramify.base.config import RunConfig
    from ramify.prompts.renderer import Renderer

_SHARDED = "--fsdp full_shard shards the model; ramify train … --print-launch shows the launcher's command"


@dataclass(frozen=True, slots=True)
class TrlRun:
    """A command of TRL, ready to run.

    Attributes:
        command: as it was typed.
        step: what one of its optimizer steps holds.
        plan: how the settings came about.
        config: the settings.
    """

    command: Command
    step: Step
    plan: Plan
    config: RunConfig

    def lines(self) -> list[str]:
        """The plan as text: options and settings, what was set beside them, what differs from TRL in any case."""
        given = [f"{each}  (as given)" for each in self.command.overrides]
        return [*self.plan.lines(), *given, *(f"differs: {each}" for each in DIFFERENCES[self.command.trainer])]


def trl_run(
    arguments: Sequence[str],
    options: Mapping[str, Any] | None = None,
    tell: Callable[[int], None] | None = None,
) -> TrlRun:
    """The run that a command of TRL means here. Its batch sizes count for each process that a launcher started.

    Args:
        arguments: sft or dpo, then options of TRL, and settings `key=value`, which go before them.
        options: options of ours, as for `config_from`.
        tell: is called with the rows counted so far.

    Raises:
        RamifyError: an option is refused, or model or data, which decide some settings, cannot be read.
    """
    run = as_typed(arguments, options, int(os.environ.get("WORLD_SIZE", "1")))
    _check_stop(run)
    found = [each for each in (_launcher(run), _targets(run), _batch(run, tell)) if each is not None]
    plan = replace(run.plan, entries=(*run.plan.entries, *found))
    return replace(run, plan=plan, config=_config(run.command, plan, options))


def as_typed(arguments: Sequence[str], options: Mapping[str, Any] | None = None, processes: int = 1) -> TrlRun:
    """The run as far as the options alone decide it: neither model nor data are looked at.

    Args:
        processes: how many train together.

    Raises:
        ConfigError: an option is refused.
    """
    command = read_command(arguments)
    plan, step = translate(command), step_of(command, processes)
    return TrlRun(command, step, plan, _config(command, plan, options))


def _config(command: Command, plan: Plan, options: Mapping[str, Any] | None) -> RunConfig:
    if "output_dir" in command.given and (options or {}).get("out") is not None:
        raise ConfigError(f"{command.typed('output_dir')} and --out: one of them names the run folder")
    config = config_from([*plan.settings, *command.overrides], options)
    if config.data.train is None:
        raise ConfigError("--dataset_name is not given", hint="--dataset_name FILE, a folder, or a hub id")
    return config


def _launcher(run: TrlRun) -> Entry | None:
    """What `accelerate launch` was configured for, as it tells the processes that it starts.

    Raises:
        ConfigError: for what is not used here.
    """
    for name, what in (("DEEPSPEED", "DeepSpeed"), ("MEGATRON_LM", "Megatron-LM")):
        if os.environ.get(f"ACCELERATE_USE_{name}") == "true":
            raise ConfigError(f"accelerate launch is set up for {what}, which is not used here", hint=_SHARDED)
    if os.environ.get("ACCELERATE_USE_FSDP") != "true" or _is_set(run.command, "train.shard"):
        return None
    return Entry("accelerate's FSDP", "train.shard", "fsdp")


def _targets(run: TrlRun) -> Entry | None:
    """The layers that PEFT adapts when none are named, as far as it knows the architecture; else ours."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    from ramify.model.outline import model_type
    from ramify.model.source import resolve

    named = "lora_target_modules" in run.command.given or _is_set(run.command, "lora", "lora.targets")
    config = run.config
    if config.lora is None or named or resolve(config.model, config.adapter).adapter is not None:
        return None
    kind = model_type(config.model, config.revision)
    found = DEFAULTS.get(kind)
    if isinstance(found, list):
        return Entry("PEFT's default", "lora.targets", found, f"for {kind}; all-linear adapts every linear layer")
    return Entry("", "lora.targets", config.lora.targets, f"PEFT has no list of layers for {kind}")


def _batch(run: TrlRun, tell: Callable[[int], None] | None) -> Entry | None:
    """The batch size in sequences that holds what TRL's holds in rows; None: it was set otherwise."""
    typed = run.command.typed("per_device_train_batch_size", "gradient_accumulation_steps") or "TRL's default"
    step = run.step
    if _is_set(run.command, "train.batch_size"):
        return None
    if run.command.trainer != SFT:
        return Entry(typed, "train.batch_size", step.rows, f"{step.says} = {step.rows} pairs")
    renderer = None if step.packed is None else _renderer(run)
    counted = count_rows(run.config, renderer, step.packed or 0, tell)
    return Entry(typed, "train.batch_size", max(1, round(step.rows * counted.in_one)), _counts(step, counted))


def _counts(step: Step, counted: Counted) -> str:
    """How TRL's rows became sequences."""
    rows = "rows" if step.packed is None else f"packed rows of {step.packed:,} tokens"
    if step.packed is None and counted.rows == counted.sequences:
        return f"{step.says} = {step.rows} rows"
    about = "" if counted.exact else "about "
    return (
        f"{step.says} = {step.rows} {rows}; one holds {about}{counted.in_one:.2f} sequences here "
        f"({about}{counted.sequences:,} in {counted.rows:,})"
    )


def _renderer(run: TrlRun) -> Renderer:
    from ramify.model.outline import load_outline
    from ramify.train.checks import renderer_for

    config = run.config
    outline = load_outline(config.model, adapter=config.adapter, revision=config.revision)
    return renderer_for(outline, config.prompt)


def _check_stop(run: TrlRun) -> None:
    """Refuse an `--eos_token` that is not the one answers end in.

    Raises:
        ConfigError: it is another one.
    """
    asked = run.command.value("eos_token")
    if asked is None:
        return
    renderer = _renderer(run)
    stop = renderer.tokenizer.convert_ids_to_tokens(renderer.stop_id)
    if asked != stop:
        raise ConfigError(
            f"{run.command.typed('eos_token')}: with this chat template answers end in {stop}",
            hint="--chat_template_path FILE, or prompt.chat_template=chatml, chooses another template",
        )


def _is_set(command: Command, *names: str) -> bool:
    """Whether one of these settings was given as `key=value`."""
    return any(each.partition("=")[0] in names for each in command.overrides)

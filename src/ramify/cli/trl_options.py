"""What each option of TRL's command line becomes: a setting, what always holds here, or a refusal with its reason.

`trl sft` and `trl dpo` (TRL 1.x) take the fields of SFTConfig or DPOConfig, ModelConfig, ScriptArguments and
DatasetMixtureConfig. All of them are here or in `trl_refused`; a test holds the tables to TRL's own parser, and
docs/from-trl.md to the tables. Nothing here imports TRL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from ramify.cli.trl_refused import REFUSED, Refusal

SFT, DPO = "sft", "dpo"
TRAINERS = (SFT, DPO)


class Kind(Enum):
    """What stands behind an option."""

    FLAG = "true or false"
    WHOLE = "a whole number"
    NUMBER = "a number"
    TEXT = "one value"
    LIST = "one value or more"


class Effect(Enum):
    """What naming an option does."""

    SETS = "becomes a setting"
    HOLDS = "says what always holds here"
    REFUSED = "would do nothing, or mean something else"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of TRL.

    Attributes:
        name: TRL's, with underscores.
        kind: what stands behind it.
        setting: the setting it becomes; None: it becomes none.
        says: what it means here, or why values are refused; "": the setting means the same.
        allowed: values that are taken; None: any; (): none, the option is refused.
        instead: what to do where a value is refused.
        needs: the option without which it would do nothing.
        trainer: the command that knows it; None: both.
        older: names it had in earlier versions.
    """

    name: str
    kind: Kind
    setting: str | None = None
    says: str = ""
    allowed: tuple[Any, ...] | None = None
    instead: str = "leave it out"
    needs: str | None = None
    trainer: str | None = None
    older: tuple[str, ...] = ()

    @property
    def effect(self) -> Effect:
        """What naming it does."""
        if self.allowed == ():
            return Effect.REFUSED
        return Effect.HOLDS if self.setting is None else Effect.SETS


_FLAG, _WHOLE, _NUMBER, _TEXT, _LIST = Kind
_EVAL, _PEFT, _4BIT, _PACKING, _BEST = (
    "eval_strategy",
    "use_peft",
    "load_in_4bit",
    "packing",
    "load_best_model_at_end",
)
_RECOMPUTE = "recomputes every layer in the backward pass; without it nothing is recomputed (TRL's default is to)"
_WHOLE_TEXT = "leave it out: training on the whole text is not offered"
_BOTH = (True, False)

_SETTINGS = (
    Option("model_name_or_path", _TEXT, "model"),
    Option("model_revision", _TEXT, "revision"),
    Option("dtype", _TEXT, "train.dtype", "bf16 and fp16, where named, decide before it", older=("torch_dtype",)),
    Option("bf16", _FLAG, "train.dtype", "weights and activations in bf16, fp32 masters of what is trained"),
    Option("fp16", _FLAG, "train.dtype", "weights and activations in fp16, fp32 masters of what is trained"),
    Option("use_cpu", _FLAG, "train.device", older=("no_cuda",)),
    Option("use_peft", _FLAG, "lora", "without it all weights are trained"),
    Option("lora_r", _WHOLE, "lora.r", needs=_PEFT),
    Option("lora_alpha", _NUMBER, "lora.alpha", needs=_PEFT),
    Option("lora_dropout", _NUMBER, "lora.dropout", "0.05 without it (dpo: 0, as TRL turns it off)", needs=_PEFT),
    Option("lora_target_modules", _LIST, "lora.targets", "PEFT's own for the architecture without it", needs=_PEFT),
    Option("use_rslora", _FLAG, "lora.rslora", needs=_PEFT),
    Option("use_dora", _FLAG, "lora.dora", needs=_PEFT),
    Option("load_in_4bit", _FLAG, "train.quantize", "nf4, doubly quantised, computed in bf16", needs=_PEFT),
    Option("dataset_name", _TEXT, "data.train", "a file, a folder or a hub id"),
    Option("dataset_config", _TEXT, "data.config"),
    Option("dataset_train_split", _TEXT, "data.split"),
    Option("dataset_test_split", _TEXT, "data.valid_split", needs=_EVAL),
    Option("dataset_streaming", _FLAG, "data.stream"),
    Option("dataset_text_field", _TEXT, "data.columns", "the column that is read as `text`", trainer=SFT),
    Option(
        "max_length",
        _WHOLE,
        "data.max_length",
        "longer rows stop the run, or are left out with data.drop_long=true; TRL cuts them",
        older=("max_seq_length",),
    ),
    Option(
        "chat_template_path",
        _TEXT,
        "prompt.chat_template",
        "a Jinja file, or a folder with chat_template.jinja",
        trainer=SFT,
    ),
    Option("learning_rate", _NUMBER, "train.lr"),
    Option("num_train_epochs", _NUMBER, "train.epochs"),
    Option("max_steps", _WHOLE, "train.max_steps", "-1: num_train_epochs decides"),
    Option(
        "per_device_train_batch_size",
        _WHOLE,
        "train.batch_size",
        "× gradient_accumulation_steps × processes, with TRL's rows counted in sequences",
    ),
    Option("gradient_accumulation_steps", _WHOLE, "train.batch_size", "see per_device_train_batch_size"),
    Option("lr_scheduler_type", _TEXT, "train.schedule", "linear, cosine, constant or constant_with_warmup"),
    Option("warmup_steps", _NUMBER, "train.warmup", "a share of all steps when below 1"),
    Option("warmup_ratio", _NUMBER, "train.warmup"),
    Option("weight_decay", _NUMBER, "train.weight_decay"),
    Option("max_grad_norm", _NUMBER, "train.clip", "0: no clipping"),
    Option("seed", _WHOLE, "seed"),
    Option("activation_checkpointing", _FLAG, "train.checkpointing", _RECOMPUTE, older=("gradient_checkpointing",)),
    Option("output_dir", _TEXT, "out"),
    Option("overwrite_output_dir", _FLAG, "--overwrite", "without it a folder that holds a run is refused"),
    Option("resume_from_checkpoint", _TEXT, "--resume", "goes on from the newest checkpoint of the run"),
    Option("logging_steps", _WHOLE, "train.log_every"),
    Option("eval_strategy", _TEXT, "train.eval_every", "no, steps or epoch", older=("evaluation_strategy",)),
    Option("eval_steps", _WHOLE, "train.eval_every", "logging_steps, or 10, without it", needs=_EVAL),
    Option("save_strategy", _TEXT, "train.save_every", "steps or epoch; no: one at each epoch's end, the newest kept"),
    Option("save_steps", _WHOLE, "train.save_every"),
    Option("save_total_limit", _WHOLE, "train.keep", "the best one is kept besides"),
    Option("load_best_model_at_end", _FLAG, "train.load_best", "off without it, as in TRL", needs=_EVAL),
    Option("report_to", _LIST, "train.tensorboard", "tensorboard or none"),
    Option("fsdp", _TEXT, "train.shard", "full_shard: every process has a part of each layer (FSDP2)"),
    Option("beta", _NUMBER, "dpo.beta", trainer=DPO),
    Option("loss_type", _LIST, "dpo.loss", "sigmoid, ipo, hinge or robust, one of them", trainer=DPO),
    Option("label_smoothing", _NUMBER, "dpo.label_smoothing", "with loss_type robust, as in TRL", trainer=DPO),
)

_HOLD = (
    Option("packing", _FLAG, None, "rows are always packed and never see each other", _BOTH, trainer=SFT),
    Option("packing_strategy", _TEXT, None, "no row is cut", ("bfd",), needs=_PACKING, trainer=SFT),
    Option("eval_packing", _FLAG, None, "a validation loss does not depend on it", _BOTH, trainer=SFT),
    Option("padding_free", _FLAG, None, "nothing is ever padded", _BOTH),
    Option("completion_only_loss", _FLAG, None, "the loss falls on answers only", (True,), _WHOLE_TEXT, trainer=SFT),
    Option("assistant_only_loss", _FLAG, None, "the loss falls on answers only", (True,), _WHOLE_TEXT, trainer=SFT),
    Option("loss_type", _TEXT, None, "the loss is the negative log-likelihood", ("nll", "chunked_nll"), trainer=SFT),
    Option(
        "eos_token", _TEXT, None, "answers end in the chat template's stop token; another one is refused", trainer=SFT
    ),
    Option("shuffle_dataset", _FLAG, None, "rows are shuffled in every epoch", _BOTH, trainer=SFT),
    Option("train_sampling_strategy", _TEXT, None, "rows are shuffled in every epoch", ("random",)),
    Option("group_by_length", _FLAG, None, "nothing is padded, so length need not order rows", (False,)),
    Option("dataloader_drop_last", _FLAG, None, "the last, shorter step of an epoch is kept", (False,)),
    Option("remove_unused_columns", _FLAG, None, "columns that a row's shape does not know are ignored", _BOTH),
    Option("per_device_eval_batch_size", _WHOLE, None, "no result depends on it; train.micro_tokens bounds memory"),
    Option(
        "optim",
        _TEXT,
        None,
        "the optimizer is AdamW, with fp32 masters",
        ("adamw_torch", "adamw_torch_fused", "adamw_hf"),
    ),
    Option("adam_beta1", _NUMBER, None, "AdamW with betas 0.9 and 0.999", (0.9,)),
    Option("adam_beta2", _NUMBER, None, "AdamW with betas 0.9 and 0.999", (0.999,)),
    Option("adam_epsilon", _NUMBER, None, "AdamW with epsilon 1e-8", (1e-8,)),
    Option(
        "average_tokens_across_devices",
        _FLAG,
        None,
        "a step's loss is divided once, by all its trained tokens",
        (True,),
    ),
    Option("label_smoothing_factor", _NUMBER, None, "targets are not smoothed", (0.0,)),
    Option(
        "activation_checkpointing_kwargs",
        _TEXT,
        None,
        "layers are recomputed without re-entering autograd",
        ({"use_reentrant": False},),
        older=("gradient_checkpointing_kwargs",),
    ),
    Option("activation_offloading", _FLAG, None, "activations stay on their device", (False,)),
    Option("tf32", _FLAG, None, "products of fp32 numbers are computed in fp32", (False,), "--bf16 is faster still"),
    Option("bf16_full_eval", _FLAG, None, "validation is computed as training is", (False,)),
    Option("fp16_full_eval", _FLAG, None, "validation is computed as training is", (False,)),
    Option(
        "torch_compile", _FLAG, None, "layers are fused where that is known to be exact, and not compiled", (False,)
    ),
    Option("use_liger_kernel", _FLAG, None, "layers are fused where that is known to be exact", (False,)),
    Option("use_cache", _FLAG, None, "training keeps no cache of keys", (False,)),
    Option(
        "auto_find_batch_size",
        _FLAG,
        None,
        "memory is bounded by train.micro_tokens",
        (False,),
        "train.micro_tokens=4096",
    ),
    Option("trust_remote_code", _FLAG, None, "no remote code is run", (False,)),
    Option("load_in_8bit", _FLAG, None, "weights are held in 4 or 16 bits", (False,), "--load_in_4bit"),
    Option("bnb_4bit_quant_type", _TEXT, None, "4-bit weights are nf4", ("nf4",), needs=_4BIT),
    Option("use_bnb_nested_quant", _FLAG, None, "4-bit weights are doubly quantised", (True,), needs=_4BIT),
    Option("lora_task_type", _TEXT, None, "adapters are of causal language models", ("CAUSAL_LM",), needs=_PEFT),
    Option("eval_delay", _NUMBER, None, "the first evaluation is after the first eval_steps", (0.0,)),
    Option("eval_on_start", _FLAG, None, "the first evaluation is after the first eval_steps", (False,)),
    Option("prediction_loss_only", _FLAG, None, "validation computes the loss only", (True,)),
    Option(
        "metric_for_best_model",
        _TEXT,
        None,
        "the best checkpoint has the lowest loss",
        ("loss", "eval_loss"),
        needs=_EVAL,
    ),
    Option("greater_is_better", _FLAG, None, "the best checkpoint has the lowest loss", (False,), needs=_EVAL),
    Option("logging_strategy", _TEXT, None, "metrics are written every logging_steps", ("steps",)),
    Option("logging_first_step", _FLAG, None, "metrics are written every logging_steps", (False,), "--logging_steps 1"),
    Option("include_num_input_tokens_seen", _TEXT, None, "tokens are always counted", ("true", "all", "non_padding")),
    Option("skip_memory_metrics", _FLAG, None, "memory is not logged", (True,)),
    Option("save_only_model", _FLAG, None, "a checkpoint holds all that resuming needs", (False,)),
    Option("save_on_each_node", _FLAG, None, "one process writes", (False,)),
    Option("save_safetensors", _FLAG, None, "weights are written as safetensors", (True,)),
    Option("enable_jit_checkpoint", _FLAG, None, "SIGTERM writes a checkpoint", (True,)),
    Option("ignore_data_skip", _FLAG, None, "a resumed run goes on in the data where it stopped", (False,)),
    Option("do_train", _FLAG, None, "`ramify train` trains", (True,)),
    Option("push_to_hub", _FLAG, None, "nothing is uploaded", (False,), "hf upload ORG/NAME RUN/adapter"),
    Option("ddp_find_unused_parameters", _FLAG, None, "gradients are summed without DDP", (False,)),
    Option("ignore_bias_buffers", _FLAG, None, "gradients are summed without DDP", (False,)),
    Option(
        "precompute_ref_log_probs",
        _FLAG,
        None,
        "the reference is computed once, before the first step",
        _BOTH,
        trainer=DPO,
    ),
    Option(
        "precompute_ref_batch_size",
        _WHOLE,
        None,
        "no result depends on it; train.micro_tokens bounds memory",
        trainer=DPO,
    ),
    Option(
        "disable_dropout",
        _FLAG,
        None,
        "adapters drop what lora_dropout says; today's models drop nothing themselves",
        _BOTH,
        trainer=DPO,
    ),
    Option("f_divergence_type", _TEXT, None, "the divergence is the reverse KL", ("reverse_kl",), trainer=DPO),
    Option("use_weighting", _FLAG, None, "pairs count alike", (False,), trainer=DPO),
    Option("sync_ref_model", _FLAG, None, "the reference never moves", (False,), trainer=DPO),
)


@cache
def options_of(trainer: str) -> Mapping[str, Option]:
    """The options that a trainer's command knows, by each of their names."""
    known = [each for each in (*_SETTINGS, *_HOLD, *map(_refused, REFUSED)) if each.trainer in (None, trainer)]
    return {name: each for each in known for name in (each.name, *each.older)}


def _refused(refusal: Refusal) -> Option:
    return Option(refusal.name, Kind.LIST, None, refusal.why, (), refusal.instead, trainer=refusal.trainer)

"""Options of TRL's command line that would do nothing here, or mean something else: why, and what to use instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """An option that is not taken.

    Attributes:
        name: TRL's, with underscores.
        why: in words that follow the option's name.
        instead: what to do.
        trainer: the command that knows it; None: both.
    """

    name: str
    why: str
    instead: str = "leave it out"
    trainer: str | None = None


def _each(names: str, why: str, instead: str = "leave it out", trainer: str | None = None) -> tuple[Refusal, ...]:
    return tuple(Refusal(name, why, instead, trainer) for name in names.split())


_LAUNCH = "ramify train … --print-launch shows what starts several processes"
_CUT = "--max_length bounds rows; data.drop_long=true leaves longer ones out"

REFUSED = (
    # Data
    *_each("datasets streaming test_split_size", "mixing is a step of its own", "ramify data mix CONFIG --out DIR"),
    *_each(
        "dataset_kwargs",
        "rows are recognised by their columns",
        "data.shape=… and data.columns={…} say otherwise",
        "sft",
    ),
    *_each("dataset_num_proc", "rows are rendered in batches by the tokenizer itself"),
    *_each("truncation_mode", "nothing is ever cut", _CUT),
    *_each("max_prompt_length max_completion_length", "nothing is ever cut", _CUT, "dpo"),
    *_each("pad_token pad_to_multiple_of", "nothing is ever padded"),
    *_each(
        "dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor "
        "dataloader_multiprocessing_context dataloader_in_order accelerator_config",
        "rows are rendered before the first step and read from a file mapped into memory",
    ),
    *_each(
        "length_column_name label_names include_for_metrics",
        "columns are recognised by their names",
        "data.columns={…}",
    ),
    # Model
    *_each("model_init_kwargs", "how a model is loaded is decided here", "--dtype and --model_revision are taken"),
    *_each("attn_implementation", "attention runs on the prefix tree, with a backend for each device"),
    *_each("router_aux_loss_coef", "mixtures of experts are not trained with an auxiliary loss"),
    *_each("lora_target_parameters", "adapters go on linear layers", "--lora_target_modules NAME …"),
    *_each("lora_modules_to_save", "an adapter trains its own weights and added tokens only"),
    *_each("bnb_4bit_quant_storage", "4-bit weights are stored as bytes"),
    *_each("neftune_noise_alpha", "embeddings get no noise"),
    *_each("torch_compile_backend torch_compile_mode liger_kernel_config", "nothing is compiled or patched"),
    *_each("torch_empty_cache_steps", "memory is bounded by train.micro_tokens", "train.micro_tokens=4096"),
    # Optimisation
    *_each("lr_scheduler_kwargs", "the schedules have no other parameters", "train.schedule and train.warmup"),
    *_each("optim_args optim_target_modules", "the optimizer is AdamW, with fp32 masters"),
    *_each("data_seed", "one seed decides everything that is random", "--seed"),
    *_each("full_determinism", "everything random is keyed by the seed already", "--seed"),
    # Preference optimisation
    *_each("loss_weights", "one loss is trained at a time; the likelihood can be added", "dpo.sft_weight=…", "dpo"),
    *_each("ld_alpha", "all tokens of an answer count alike", trainer="dpo"),
    *_each("f_alpha_divergence_coef", "the divergence is the reverse KL", trainer="dpo"),
    *_each("discopop_tau", "DiscoPOP is not among the losses", "--loss_type sigmoid, ipo, hinge or robust", "dpo"),
    *_each("ref_model_mixup_alpha ref_model_sync_steps", "the reference never moves", trainer="dpo"),
    # Evaluation, logs and checkpoints
    *_each("do_eval do_predict", "eval_strategy says when validation rows are measured", "--eval_strategy steps"),
    *_each(
        "eval_accumulation_steps eval_do_concat_batches eval_use_gather_object batch_eval_metrics",
        "validation computes the loss only and keeps no predictions",
    ),
    *_each(
        "log_level log_level_replica log_on_each_node debug",
        "one process reports, notes and errors",
        "RAMIFY_DEBUG=1 shows tracebacks",
    ),
    *_each("logging_nan_inf_filter", "a loss that is not finite stops the run"),
    *_each("logging_dir", "TensorBoard's events lie in the run folder", "--output_dir"),
    *_each("disable_tqdm", "bars are shown where a terminal is watched only"),
    *_each(
        "run_name project trackio_space_id trackio_bucket_id trackio_static_space_id",
        "runs are known by their folder",
        "--output_dir",
    ),
    *_each("restore_callback_states_from_checkpoint", "there are no callbacks"),
    *_each(
        "hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision",
        "nothing is uploaded",
        "hf upload ORG/NAME RUN/adapter",
    ),
    # Several processes
    *_each(
        "ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout local_rank",
        "processes are joined without DDP, as the launcher's environment says",
        _LAUNCH,
    ),
    *_each("fsdp_config deepspeed parallelism_config", "models are sharded by FSDP2 alone", "train.shard=fsdp"),
    *_each(
        "num_processes num_machines machine_rank main_process_ip main_process_port mixed_precision multi_gpu gpu_ids "
        "accelerate_config config_file",
        "the launcher takes it, not the training",
        _LAUNCH,
    ),
)
"""Every refused option."""

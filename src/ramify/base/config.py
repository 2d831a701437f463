"""The settings of a run: one default in one place. `config_file` reads them from a YAML file and overrides.

The docstring under a field is its help text. Unknown keys are refused with the nearest name; the resolved
configuration is saved in the run folder. Nothing here imports torch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of the configuration: frozen, unknown keys refused, help taken from the docstring under each field."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class LoRA(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    r: Positive = 16
    """Rank of the update."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """Scale: the update is multiplied by alpha / r, or alpha / sqrt(r) when rank-stabilised."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the adapter's input. Above 0 shared and unshared computation differ (one draw per shared token)."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the linear layers to adapt, or all-linear (every linear layer but the head)."""
    rslora: bool = False
    """Rank-stabilised scaling (Kalajdzievski 2023, arXiv 2312.03732)."""
    dora: bool = False
    """Weight-decomposed adapters (Liu et al. 2024, arXiv 2402.09353)."""


class Prompting(Section):
    """How conversations become tokens."""

    chat_template: str = "model"
    """model (the tokenizer's own), chatml, llama3, plain (question, space, answer; no roles) or a Jinja file."""
    system: str | None = None
    """A system turn put before every prompt that has none."""
    fewshot: Path | str | None = None
    """Worked turns put before every question: a YAML file, or the name of one that ships with Ramify."""


class Data(Section):
    """Where rows come from."""

    train: Path | str | None = None
    """Training rows: a file, a folder, a hub id, a run that selected rows, or `task` for the task's own split."""
    valid: Path | str | None = None
    """Rows for evaluation during training and for the best checkpoint; `task` for 200 of the task's own that
    evaluate.problems does not ask."""
    config: str | None = None
    """Configuration of a hub data set."""
    split: str | None = None
    """Split of data.train that is trained on, where it has several; None: train."""
    valid_split: str | None = None
    """Split that validation rows are taken from: of data.valid, or of data.train where data.valid is not set."""
    revision: str | None = None
    """Revision of a hub data set."""
    stream: bool = False
    """Read a hub data set while it is downloaded, without keeping a copy of it."""
    columns: dict[str, str] = {}
    """What the columns mean where their names do not say it: {prompt: my_question, completion: my_answer}."""
    shape: str | None = None
    """Read all rows as this shape instead of recognising it by its columns."""
    bad_rows: Share = 0.0
    """Share of rows that may be left out, counted with reasons, because they do not fit; one more stops the run."""
    turns: Literal["all", "last"] = "all"
    """Which assistant turns of a conversation are trained."""
    as_text: bool = False
    """Train each `text` as it stands, role markers and all, with eos behind it (method sft); otherwise a text with role
    markers is a conversation, rendered by the model's chat template, of which the answers are trained."""
    limit: Positive | None = None
    """Use only the first rows of the training file."""
    max_length: Positive | None = None
    """Longest allowed sequence in tokens; None: what the model allows. Longer rows stop the run before it starts."""
    drop_long: bool = False
    """Leave rows longer than max_length out (counted and reported) instead of stopping."""


class Task(Section):
    """What the answers are graded by."""

    name: str = "unit_conversion"
    """unit_conversion, math, grading, chat (open answers, graded by rules), or a Python file that defines `task`."""
    rules: Path | None = None
    """A YAML file of rules for each category of problems, and for `every` one (task chat; see docs/rules.md)."""
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """Relative tolerance of numeric answers (strictly less than); None: 0.05 for unit_conversion, exact for math."""
    rows: Positive = 1000
    """Rows of the task's own generated training split."""
    seed: int = 0
    """Seed of the task's own generator."""

    @model_validator(mode="after")
    def _rules_are_read(self) -> Task:
        if self.rules is not None and self.name != "chat":
            raise ValueError(f"task.rules = {str(self.rules)!r} is read by task chat alone; task.name = {self.name}")
        return self


class Train(Section):
    """The optimisation."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training rows (ignored when max_steps is given)."""
    max_steps: Positive | None = None
    """Optimizer steps."""
    batch_size: Positive = 32
    """Sequences (dpo: pairs) in one optimizer step."""
    micro_tokens: Positive = 8192
    """Packed tokens computed at once. Bounds memory; never changes the result."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the learning rate falls after warm-up."""
    warmup: Annotated[float, Field(ge=0.0)] = 0.03
    """Warm-up: a share of all steps when below 1, else a number of steps."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Decoupled weight decay (matrices only)."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient; None: no clipping."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Type of the frozen weights and activations; auto measures which one is fastest here."""
    quantize: Literal["nf4"] | None = None
    """nf4: hold the frozen weights in 4 bits and compute in bf16 (Dettmers et al. 2023, arXiv 2305.14314). Adapters
    only; needs bitsandbytes (pip install 'ramify[quant]')."""
    device: str = "auto"
    """cpu, cuda, cuda:N, mps, or auto."""
    checkpointing: bool = False
    """Recompute layers in the backward pass: less memory, a third more time."""
    shard: Literal["none", "fsdp"] = "none"
    """With several processes: none, each has the whole model; fsdp, each has a part of every layer (FSDP2)."""
    log_every: Positive = 1
    """Steps between lines of metrics."""
    eval_every: Positive | None = None
    """Steps between evaluations on data.valid; None: once an epoch."""
    save_every: Positive | None = None
    """Steps between checkpoints; None: once an epoch."""
    keep: Positive = 2
    """Newest checkpoints kept (the best one is kept besides)."""
    early_stop: Positive | None = None
    """Stop after so many evaluations without a lower validation loss."""
    load_best: bool = True
    """End with the checkpoint of the lowest validation loss when there is data.valid."""
    tensorboard: bool = True
    """Write TensorBoard events beside metrics.jsonl."""


class Sampling(Section):
    """How completions are drawn."""

    n: Positive = 1
    """Samples for each problem."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """0 is greedy; otherwise at least 0.0001."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Keep the smallest set of tokens with this probability (Holtzman et al. 2019, arXiv 1904.09751)."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep the k likeliest tokens; 0: all."""
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Keep tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082)."""
    repetition_penalty: Annotated[float, Field(gt=0.0)] = 1.0
    """Above 1: logits of tokens that prompt or completion hold already are divided by it (multiplied where they are
    negative), before the temperature (Keskar et al. 2019, arXiv 1909.05858)."""
    max_new_tokens: Positive = 128
    """Longest completion in tokens."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a completion; they are not part of the text."""
    live: Positive = 128
    """Sequences decoded at once. Bounds memory; never changes the result."""

    @field_validator("temperature")
    @classmethod
    def _greedy_or_warm(cls, value: float) -> float:
        if 0 < value < 1e-4:  # logits divided by it would overflow
            raise ValueError(f"sample.temperature = {value}: 0 (greedy) or at least 0.0001 is allowed")
        return value


class Select(Section):
    """Which graded samples become training rows (rejection sampling)."""

    strategy: Literal["first_correct", "distinct"] = "first_correct"
    """first_correct: one row a question; distinct: up to `per_problem` correct chains that differ."""
    per_problem: Positive = 4
    """Most rows of one question under `distinct`."""
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """Relative tolerance that a row's number must keep besides being correct; None: correct is enough. A tight one
    keeps out chains whose slips the task's own tolerance forgives."""
    rounds: Positive = 1
    """Rounds of sample, grade, select, train; each samples from the model the round before made."""


class DPO(Section):
    """Preference optimisation on pairs of a chosen and a rejected completion (method dpo)."""

    loss: Literal["sigmoid", "ipo", "hinge", "robust", "simpo", "orpo"] = "sigmoid"
    """sigmoid: DPO (Rafailov et al. 2023, arXiv 2305.18290); ipo (2310.12036); hinge (SLiC, 2305.10425); robust
    (2403.00409); simpo (2405.14734) and orpo (2403.07691) use no reference."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How strongly the policy is held to the reference (orpo: weight of the odds-ratio term)."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """Share of pairs assumed to be the wrong way round (sigmoid: conservative DPO; robust: its debiased form)."""
    gamma: Annotated[float, Field(ge=0.0)] = 0.5
    """Margin that simpo asks for, in units of its rewards."""
    sft_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the negative log-likelihood per token of the chosen completion, added to the loss."""
    reference: Literal["start", "base"] = "start"
    """start: the model the run starts from, its adapter included; base: the model without any adapter."""
    group_by: Literal["none", "prompt", "prefix"] = "prompt"
    """Which pairs stay neighbours when the order is shuffled, so that what they share is computed once: those of one
    prompt; those whose prompts share their greater part (one student's code, one document); or none."""


class Evaluation(Section):
    """What is measured after a run, by `ramify eval` and between rounds."""

    problems: Path | str = "task"
    """Problems: a file, or `task` for the task's own held-out split."""
    limit: Positive | None = None
    """Use only the first problems."""
    scoring: Literal["generate", "options"] = "generate"
    """generate: what the model writes is graded; options: the most probable of each problem's options is its answer,
    computed on the prefix tree without drawing anything (nothing of `sample` is read then)."""


class Endpoint(Section):
    """A server that speaks OpenAI's HTTP interface (engine openai): where it is, and how it is treated."""

    base_url: str | None = None
    """Where it answers, its version included: http://127.0.0.1:8000/v1, https://api.openai.com/v1."""
    key_env: str | None = None
    """Name of the environment variable that holds the key; None: no key is sent. The key itself is written nowhere."""
    parallel: Positive = 8
    """Requests under way at once."""
    requests_per_minute: Positive | None = None
    """Most requests begun in a minute; None: no limit."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds to wait for an answer before it is asked for again."""
    retries: Annotated[int, Field(ge=0)] = 6
    """How often a request is sent again that was refused for the moment, timed out or was answered with nonsense."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        # The value is not repeated where it may hold a password: settings are shown and saved.
        if value is None:
            return None
        if any(mark in value for mark in "@?#"):
            raise ValueError("endpoint.base_url: keys and passwords have no place in it; name a variable (key_env)")
        if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", value):
            raise ValueError(f"endpoint.base_url = {value!r}: http://host:port/v1 or https://host/v1 is needed")
        return value.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("endpoint.key_env: the name of an environment variable is needed, never the key itself")
        return value


EngineName = Literal["own", "llamacpp", "openai", "vllm"]

_IDLE: dict[EngineName, tuple[str, ...]] = {
    "own": (),
    "llamacpp": ("adapter", "revision"),
    "openai": ("adapter", "revision", "prompt.chat_template", "sample_prompt.chat_template", "sample.live"),
    "vllm": (),
}
"""Settings of what is drawn that an engine does not know."""


class RunConfig(Section):
    """One run."""

    method: Literal["sft", "rft", "dpo"] = "sft"
    """sft: supervised fine-tuning; rft: sample, grade, select, then sft; dpo: preference optimisation on pairs."""
    model: str = "nano"
    """A hub id, a local folder, a run, or nano."""
    adapter: str | None = None
    """An adapter folder (or run) to start from."""
    revision: str | None = None
    """Revision of a hub model."""
    out: Path | None = None
    """Run folder; None: runs/<name of the recipe file>."""
    seed: int = 42
    """Seed of everything that is random."""
    lora: LoRA | None = LoRA()
    """Adapters; null for full fine-tuning."""
    data: Data = Data()
    prompt: Prompting = Prompting()
    """How training rows (and the evaluation after training) are rendered."""
    task: Task = Task()
    train: Train = Train()
    sample: Sampling = Sampling()
    """How `ramify sample` and method rft draw."""
    sample_prompt: Prompting | None = None
    """How questions are rendered for rejection sampling; None: as `prompt`."""
    select: Select = Select()
    dpo: DPO = DPO()
    evaluate: Evaluation = Evaluation()
    engine: EngineName = "own"
    """What draws completions: own; llamacpp (a GGUF file); openai (a server, see `endpoint`); vllm."""
    endpoint: Endpoint = Endpoint()

    @model_validator(mode="after")
    def _engine_fits(self) -> RunConfig:
        named = f"engine = {self.engine}"
        for name, value in self.endpoint:
            if self.engine != "openai" and value != Endpoint.model_fields[name].default:
                raise ValueError(f"endpoint.{name} = {value!r}: {named} asks no endpoint; engine = openai does")
        if self.engine == "openai" and self.endpoint.base_url is None:
            raise ValueError("engine = openai needs endpoint.base_url, as in http://127.0.0.1:8000/v1")
        if self.engine != "own" and self.evaluate.scoring == "options":
            raise ValueError(f"evaluate.scoring = options is computed by engine own, not by {named}")
        for setting in _IDLE[self.engine]:
            section, _, name = setting.rpartition(".")
            holder = getattr(self, section) if section else self
            if holder is not None and getattr(holder, name) != type(holder).model_fields[name].default:
                raise ValueError(f"{setting} = {getattr(holder, name)!r} does nothing with {named}; leave it out")
        return self

    @model_validator(mode="after")
    def _whole_texts_are_imitated(self) -> RunConfig:
        data = self.data
        for name, value, idle in (
            ("method", self.method, self.method != "sft"),
            ("data.train", data.train, str(data.train) == "task"),
            ("data.shape", data.shape, data.shape not in (None, "text")),
            ("data.turns", data.turns, data.turns != "all"),
        ):
            if data.as_text and idle:
                raise ValueError(f"data.as_text = true trains whole texts; {name} = {value} has none: leave one out")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.sample.n > 1 and self.sample.temperature == 0:
            raise ValueError(
                f"sample.temperature is 0, so all sample.n = {self.sample.n} samples would be equal; set it above 0"
            )
        if self.train.quantize is not None:
            if self.lora is None:
                raise ValueError("train.quantize = nf4 trains adapters only; set lora, or leave train.quantize out")
            if self.train.dtype not in ("auto", "bf16"):
                raise ValueError(
                    f"train.quantize = nf4 computes in bf16; train.dtype = {self.train.dtype} would do nothing"
                )
        if self.data.valid is None and self.data.valid_split is None:
            for name in ("early_stop", "eval_every"):
                if getattr(self.train, name) is not None:
                    raise ValueError(
                        f"train.{name} = {getattr(self.train, name)} needs validation rows; set data.valid, or leave "
                        f"train.{name} out"
                    )
        return self

"""The settings of a run: one YAML file, dotted overrides, one default in one place.

The docstring under a field is its help text. Unknown keys are refused with the nearest name; the resolved
configuration is saved in the run folder. Nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ramify.base.errors import ConfigError, nearest

_EXPONENT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_LISTS = ("lora.targets", "sample.stop")
_PATHS = ("data.train", "data.valid", "prompt.fewshot", "sample_prompt.fewshot", "evaluate.problems", "out")
_NEEDED = {"path_type": "a path", "string_type": "text", "tuple_type": "a list", "model_type": "a section {…}"}

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
    """Training rows: a file, or `task` for the task's own training split."""
    valid: Path | str | None = None
    """Rows for evaluation during training and for the best checkpoint; `task` for 200 of the task's own that
    evaluate.problems does not ask."""
    limit: Positive | None = None
    """Use only the first rows of the training file."""
    max_length: Positive | None = None
    """Longest allowed sequence in tokens; None: what the model allows. Longer rows stop the run before it starts."""
    drop_long: bool = False
    """Leave rows longer than max_length out (counted and reported) instead of stopping."""


class Task(Section):
    """What the answers are graded by."""

    name: str = "unit_conversion"
    """unit_conversion, math, or a Python file that defines `task`."""
    tolerance: Annotated[float, Field(gt=0)] | None = None
    """Relative tolerance of numeric answers (strictly less than); None: 0.05 for unit_conversion, exact for math."""
    rows: Positive = 1000
    """Rows of the task's own generated training split."""
    seed: int = 0
    """Seed of the task's own generator."""


class Train(Section):
    """The optimisation."""

    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training rows (ignored when max_steps is given)."""
    max_steps: Positive | None = None
    """Optimizer steps."""
    batch_size: Positive = 32
    """Sequences in one optimizer step."""
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
    device: str = "auto"
    """cpu, cuda, cuda:N, mps, or auto."""
    checkpointing: bool = False
    """Recompute layers in the backward pass: less memory, a third more time."""
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


class Evaluation(Section):
    """What is measured after a run, by `ramify eval` and between rounds."""

    problems: Path | str = "task"
    """Problems: a file, or `task` for the task's own held-out split."""
    limit: Positive | None = None
    """Use only the first problems."""


class RunConfig(Section):
    """One run."""

    method: Literal["sft", "rft"] = "sft"
    """sft: supervised fine-tuning; rft: sample, grade, select, then sft."""
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
    evaluate: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.sample.n > 1 and self.sample.temperature == 0:
            raise ValueError(
                f"sample.temperature is 0, so all sample.n = {self.sample.n} samples would be equal; set it above 0"
            )
        if self.data.valid is None:
            for name in ("early_stop", "eval_every"):
                if getattr(self.train, name) is not None:
                    raise ValueError(
                        f"train.{name} = {getattr(self.train, name)} needs validation rows; set data.valid, or leave "
                        f"train.{name} out"
                    )
        return self


def load_config(path: Path | str | None, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """Read a YAML file (None: all defaults) and apply `a.b=value` overrides; values are parsed as YAML.

    Relative paths stay as written (relative to the working directory).

    Raises:
        ConfigError: the file is missing or not a mapping, a key is unknown, a value has the wrong type or range.
    """
    values: dict[str, Any] = {} if path is None else _read_yaml(Path(path))
    for override in overrides:
        apply_override(values, override)
    return parse_config(values, where=str(path) if path is not None else "command line")


def parse_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Validate a plain mapping.

    Raises:
        ConfigError: one line that names the field, the value seen, and what is allowed.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _one_line(error, where) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="recipes lie in recipes/<name>/*.yaml") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        _refuse_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader), path)
        values = yaml.safe_load(text)
    except RecursionError:
        raise ConfigError(f"{path}: YAML nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of settings is needed, found {type(values).__name__}")
    return values


def _refuse_repeated_keys(node: yaml.Node | None, path: Path) -> None:
    """YAML would keep the last of two equal keys of a mapping and drop the others unsaid."""
    lines: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode):
            if key.value in lines:
                raise ConfigError(f"{path}:{line}: {key.value!r} is given twice (first on line {lines[key.value]})")
            lines[key.value] = line
        _refuse_repeated_keys(value, path)


def apply_override(values: dict[str, Any], override: str) -> None:
    """Put one `a.b=value` into a nested mapping of settings, in place; the value is parsed as YAML.

    Raises:
        ConfigError: it is not of that form.
    """
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"override {override!r} is not of the form key=value", hint="for example train.lr=1e-4")
    *parents, leaf = name.split(".")
    for parent in parents:
        inner = values.get(parent)
        if not isinstance(inner, dict):
            inner = {}
            values[parent] = inner
        values = inner
    try:
        values[leaf] = yaml_scalar(text)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"override {override!r}: the value is not valid YAML") from None


def yaml_scalar(text: str) -> Any:
    """YAML value of an override. `1e-4`, which YAML 1.1 reads as text, is a number here.

    Text without quotes is taken as it stands: YAML would cut `end with #### n` at what it reads as a comment.
    """
    text = text.strip()
    if not text or text.startswith("#"):
        return text
    value = yaml.safe_load(text)
    if not isinstance(value, str):
        return value
    if _EXPONENT.fullmatch(value):
        return float(value)
    return value if text[0] in "\"'" else text


def _one_line(error: ValidationError, where: str) -> ConfigError:
    first = error.errors()[0]
    if first["type"] == "value_error":  # of `_consistent`
        return ConfigError(f"{where}: {first['ctx']['error']}")
    place = first["loc"] if first["type"] == "extra_forbidden" else _place_of(first["loc"])
    name = ".".join(str(part) for part in place) or "config"
    if first["type"] == "extra_forbidden":
        allowed = _fields_at(first["loc"][:-1])
        guesses: Sequence[str | None] = _homes_of(str(first["loc"][-1])) or [nearest(str(first["loc"][-1]), allowed)]
        asked = f"; did you mean {' or '.join(repr(guess) for guess in guesses)}?" if guesses[0] else ""
        return ConfigError(f"{where}: unknown setting {name!r}{asked} (allowed: {', '.join(sorted(allowed))})")
    alternatives = [each for each in error.errors() if each["loc"][: len(place)] == place]
    seen = repr(first.get("input"))
    seen = seen if len(seen) <= 60 else f"{seen[:57]}..."
    return ConfigError(f"{where}: {name} = {seen}: {_allowed(alternatives)}", hint=_hint(name, first))


def _allowed(alternatives: Sequence[Mapping[str, Any]]) -> str:
    """What a setting may be, where each alternative of its type has refused a value."""
    needed = [_NEEDED.get(each["type"], each.get("ctx", {}).get("expected")) for each in alternatives]
    if all(needed):
        return f"{' or '.join(dict.fromkeys(map(str, needed)))} is needed"
    return " or ".join(dict.fromkeys(each["msg"] for each in alternatives))


def _place_of(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The part of a location that names a setting, without the alternatives of its type, which follow it."""
    leaf = [at for at in range(1, len(location)) if str(location[at]) in _fields_at(location[:at])]
    return location[: leaf[-1] + 1] if leaf else location[:1]


def _hint(name: str, first: Mapping[str, Any]) -> str | None:
    """How to write the value that was probably meant."""
    seen = first.get("input")
    if isinstance(seen, str) and any(each in first["type"] for each in ("tuple", "literal")) and name in _LISTS:
        return f"a list stands in brackets: {name}=[{seen}]"
    if isinstance(seen, int | float) and not isinstance(seen, bool) and name in _PATHS:
        return f"a file of that name is ./{seen}"
    return "quotes go around a number, yes/no, and text with a colon" if first["type"] == "string_type" else None


def _homes_of(name: str) -> list[str]:
    """`train.lr` for `lr`: where a setting lives that was named without its section, or in a wrong one."""
    if name in RunConfig.model_fields:
        return [name]
    return [f"{section}.{name}" for section in RunConfig.model_fields if name in _fields_at((section,))]


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for part in location:
        field = section.model_fields.get(str(part))
        if field is None:
            continue
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                section = candidate
    return list(section.model_fields)

"""The Python interface: load, generate, train, evaluate.

>>> import ramify
>>> model = ramify.load("nano")
>>> answer = model.generate("How many grams are in 6 kg?", max_new_tokens=40)
>>> isinstance(answer, str)
True
>>> answers = model.generate_batch(["How many m are in 3 km?"] * 2, num_return_sequences=4, temperature=0.7)
>>> [len(group) for group in answers]
[4, 4]
>>> run = ramify.train(model, [["How many g are in 6 kg?", 6000]], lora=ramify.LoRA(r=4), epochs=1, out="runs/doc")
>>> run.load().generate("How many g are in 7 kg?", max_new_tokens=4) == ""
False
>>> 0 <= ramify.evaluate(run, task="unit_conversion", n=4).accuracy <= 1
True
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, overload

from pydantic import BaseModel

from ramify.base.config import Data, LoRA, Prompting, RunConfig
from ramify.base.config_file import parse_config
from ramify.base.errors import ConfigError, RunError, unknown
from ramify.base.records import write_text
from ramify.base.runs import Run, is_run
from ramify.base.types import Conversation, Message, Problem
from ramify.console import Bars, SampleBar
from ramify.data.memory import check_rows, json_lines
from ramify.evaluate.folder import digest, drawn_before
from ramify.evaluate.run import Evaluation, problems_of
from ramify.evaluate.run import evaluate as measure
from ramify.evaluate.settings import evaluation_config
from ramify.model.load import LoadedModel, load_model
from ramify.model.lora import fit_template
from ramify.model.quantize import NF4, is_quantised
from ramify.sample.engine import TreeSampler
from ramify.sample.sampler import PromptTokens
from ramify.tasks.registry import load_task
from ramify.tasks.task import load_problems
from ramify.train import dpo, rft, sft
from ramify.train.folder import Opening, check_free

Prompt = str | Sequence[Message] | Sequence[Mapping[str, str]]
"""A question, or the turns of a conversation up to where the model speaks."""

_LORA = LoRA()
_SEVERAL = "generate_batch(prompts, num_return_sequences=…, temperature=0.7) gives several completions a prompt"
_ELSEWHERE = ("lora", "sample_prompt")  # sections whose settings are given as a whole


class Model:
    """A loaded model and how it is prompted.

    Attributes:
        loaded: network, tokenizer, device and type.
        prompting: chat template, system turn and worked turns of every prompt.
    """

    def __init__(self, loaded: LoadedModel, prompting: Prompting) -> None:
        self.loaded, self._renderer, _ = fit_template(loaded, prompting)
        self.prompting = prompting
        self._sampler = TreeSampler(self.loaded)

    def __repr__(self) -> str:
        return f"<ramify.Model {self.loaded.policy} on {self.loaded.device}>"

    def generate(self, prompt: Prompt, **sampling: Any) -> str:
        """The completion of one prompt; greedy unless `temperature` says otherwise.

        Args:
            prompt: a question, or turns.
            sampling: temperature, max_new_tokens, top_p, top_k, min_p, stop, seed.

        Raises:
            ConfigError: an unknown or impossible setting.
            LengthError: the prompt leaves no room for max_new_tokens.
        """
        if "num_return_sequences" in sampling:
            raise ConfigError("generate gives one completion", hint=_SEVERAL)
        [text] = self.generate_batch([prompt], None, **sampling)
        return text

    @overload
    def generate_batch(
        self, prompts: Sequence[Prompt], num_return_sequences: None = None, temperature: float = 0, **sampling: Any
    ) -> list[str]: ...
    @overload
    def generate_batch(
        self, prompts: Sequence[Prompt], num_return_sequences: int, temperature: float = 0, **sampling: Any
    ) -> list[list[str]]: ...
    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        num_return_sequences: int | None = None,
        temperature: float = 0,
        **sampling: Any,
    ) -> list[str] | list[list[str]]:
        """Completions of many prompts at once; what they share is computed once.

        Args:
            prompts: questions, or conversations.
            num_return_sequences: how many completions each prompt gets; None: one. Several need a temperature.
            temperature: 0 is greedy.
            sampling: max_new_tokens, top_p, top_k, min_p, stop, live, seed.

        Returns:
            One text a prompt, or a list of texts a prompt when num_return_sequences is given.

        Raises:
            ConfigError: an unknown or impossible setting.
            LengthError: a prompt leaves no room for max_new_tokens.
        """
        if isinstance(prompts, str):
            raise ConfigError("generate_batch takes a list of prompts, found a text", hint="generate(prompt) for one")
        if "n" in sampling:
            raise ConfigError(f"unknown setting 'n' (found {sampling['n']!r})", hint=_SEVERAL)
        seed = int(sampling.pop("seed", 42))
        n = 1 if num_return_sequences is None else num_return_sequences
        asked = {"n": n, "temperature": temperature, **sampling}
        settings = parse_config({"sample": asked}, "generate").sample
        tokens = [PromptTokens(str(i), self._renderer.prompt_ids(_turns(each))) for i, each in enumerate(prompts)]
        groups = self._sampler.sample(tokens, settings, seed=seed)
        if num_return_sequences is None:
            return [group[0].text for group in groups]
        return [[sample.text for sample in group] for group in groups]


@dataclass(frozen=True, slots=True)
class TrainedRun(Run):
    """A finished training: its folder, and what is done with it next."""

    def load(self) -> Model:
        """The trained model, prompted as it was trained."""
        return load(str(self.folder))

    def evaluate(self, **settings: Any) -> Evaluation:
        """Measure it; arguments as for `ramify.evaluate`."""
        return evaluate(self, **settings)


def load(
    model: str | Path,
    adapter: str | Path | None = None,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    **prompting: Any,
) -> Model:
    """Load a model.

    Args:
        model: `nano`, a hub id, a local model or adapter folder, or a run.
        adapter: an adapter folder or a run to put on top of it.
        revision: of a hub model.
        dtype: fp32, bf16, fp16, nf4 (4-bit weights), or auto: nf4 for a run that was trained on it, else the fastest
            here, by measurement.
        device: cpu, cuda, cuda:N, mps, or auto.
        prompting: chat_template, system, fewshot; what is not given is as the run was trained, or the model's own.

    Raises:
        ModelError: it cannot be found, fetched, read or used; one line says which.
        ConfigError: an unknown prompting setting, or the model has no chat template (the message lists the choices).
    """
    name = str(model)
    kept = evaluation_config(name) if is_run(name) else RunConfig()
    own = kept.prompt.model_dump() if is_run(name) else {}
    config = parse_config({"prompt": {**own, **prompting}}, "load")
    if dtype == "auto" and kept.train.quantize is not None:
        dtype = kept.train.quantize
    loaded = load_model(
        name, adapter=None if adapter is None else str(adapter), revision=revision, dtype=dtype, device=device
    )
    return Model(loaded, config.prompt)


def train(
    model: Run | Model | str | Path,
    data: str | Path | Sequence[Any],
    method: Literal["sft", "rft", "dpo"] = "sft",
    lora: LoRA | None = _LORA,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> TrainedRun:
    """Train a model; it is loaded anew, so the one given stays as it is. An adapter it has is trained on, and weights
    that it holds in 4 bits are held so again.

    Args:
        model: a run, a loaded model, or whatever `load` takes.
        data: a file, `task` for the task's own rows, or rows in any shape that files may have.
        method: sft; rft (sample, grade, select, then sft); or dpo, whose rows are preference pairs.
        lora: adapter settings; None: full fine-tuning.
        out: run folder; None: runs/<method>.
        resume: go on with the run in the folder.
        overwrite: replace it.
        settings: any setting of a run by its last name (`lr=1e-3`, `epochs=5`, `chat_template="plain"`,
            `temperature=0.7`), or a whole section (`train={"lr": 1e-3}`).

    Raises:
        RamifyError: settings, data or model cannot be used, or the run cannot go on.
    """
    folder = Path(out) if out is not None else Path("runs") / method
    values: dict[str, Any] = {"method": method, "out": str(folder), "lora": None if lora is None else lora.model_dump()}
    if isinstance(model, Model):
        start = model.loaded
        name = start.name if start.adapter is None else start.base
        values |= {"model": name, "adapter": start.adapter, "revision": start.revision}
        values["prompt"] = model.prompting.model_dump()
        values["train"] = {"device": str(start.device), "quantize": NF4 if is_quantised(start.network) else None}
    else:
        values["model"] = _name(model)
    for name, value in settings.items():
        _place(values, name, value)
    in_memory = not isinstance(data, str | Path)
    values.setdefault("data", {})["train"] = str(_rows_file(folder) if in_memory else data)
    config = parse_config(values, "train")
    start_run = {"sft": sft.run, "rft": rft.run, "dpo": dpo.run}[method]
    with _rows_kept(data, folder, Opening(resume, overwrite), config.data) if in_memory else nullcontext():
        run = start_run(config, resume=resume, overwrite=overwrite, progress=Bars())
    return TrainedRun(run.folder)


def evaluate(
    run_or_model: Run | Model | str | Path,
    task: str | None = None,
    problems: str | Path | Sequence[Any] | None = None,
    n: int | None = None,
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    **settings: Any,
) -> Evaluation:
    """Measure a run or a model on a task.

    Args:
        run_or_model: a run, a loaded model, or whatever `load` takes.
        task: unit_conversion, math, or a Python file that defines `task`; None: the run's own, or unit_conversion.
        problems: a file or rows; None: the task's held-out problems.
        n: only the first so many.
        out: folder for it; None: for a run RUN/eval, with a hash when settings or problems are not the run's own; for
            a model it is not written.
        overwrite: replace an evaluation of something else in that folder.
        settings: any setting by its last name (`temperature=0.7`, `chat_template="plain"`), or a section
            (`sample={"n": 8}`).

    Raises:
        RamifyError: settings, problems or model cannot be used.
    """
    values: dict[str, Any] = {}
    name, loaded = _name(run_or_model), None
    if isinstance(run_or_model, Model):
        loaded = run_or_model.loaded
        adapter = None if is_run(name) else loaded.adapter  # a run's own adapter needs no mention
        values = {"prompt": run_or_model.prompting.model_dump(), "adapter": adapter}
    for setting, value in settings.items():
        _place(values, setting, value)
    named = {"task.name": task, "evaluate.limit": n, "out": None if out is None else str(out)}
    in_memory = not isinstance(problems, str | Path | None)
    if not in_memory:
        named["evaluate.problems"] = None if problems is None else str(problems)
    given = {setting: value for setting, value in named.items() if value is not None}
    config = evaluation_config(name, options={**_dotted(values), **given})
    if out is None and not is_run(name):
        config = config.model_copy(update={"out": None})
    asked = _problems(problems, config)[:n] if in_memory else problems_of(config)
    if in_memory and out is None and config.out is not None:  # no setting says which rows they are
        config = config.model_copy(update={"out": config.out.with_name(f"{config.out.name}-{digest(asked)[:6]}")})
    with SampleBar("sampling", len(asked) * config.sample.n, done=drawn_before(config, asked)) as bar:
        return measure(config, loaded=loaded, problems=asked, on_sample=bar, overwrite=overwrite)


def _name(model: Run | Model | str | Path) -> str:
    return model.loaded.name if isinstance(model, Model) else str(model.folder if isinstance(model, Run) else model)


def _turns(prompt: Prompt) -> Conversation:
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    return tuple(each if isinstance(each, Message) else Message(each["role"], each["content"]) for each in prompt)


def _rows_file(folder: Path) -> Path:
    """Where rows in memory are kept: beside the run folder, so that the run can be repeated."""
    return folder.with_name(f"{folder.name}.rows.jsonl")


@contextmanager
def _rows_kept(rows: Any, folder: Path, opening: Opening, settings: Data) -> Iterator[None]:
    """Write the rows that a run trains on, once the run may have the folder and every row can be read.

    Where the block fails before it has replaced an earlier run, that run gets its rows back.

    Raises:
        RunError: the folder is taken, or the run to go on with began with other rows; the file stays as it was.
        DataError: a row cannot be used; says which.
    """
    check_free(folder, opening)
    path, text = _rows_file(folder), json_lines(rows)
    before, record = _content(path), _content(folder / "run.json")
    if opening.resume and is_run(folder) and before not in (None, text.encode()):
        raise RunError(
            f"{folder}: cannot resume, the run began with other rows ({path})",
            hint="resume with those rows, or overwrite=True to start again",
        )
    check_rows(text, settings)
    write_text(path, text)
    try:
        yield
    except BaseException:
        if before is not None and record is not None and record == _content(folder / "run.json"):
            write_text(path, before.decode())
        raise


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _problems(rows: Any, config: RunConfig) -> list[Problem]:
    """Problems from rows in memory, checked as those of a file."""
    text = json_lines(rows)
    check_rows(text)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "problems.jsonl"
        write_text(path, text)
        return load_problems(path, load_task(config.task))


def _place(values: dict[str, Any], name: str, value: Any) -> None:
    """Put a setting where it belongs: at the top, or in the one section that has it.

    Raises:
        ConfigError: no section has it, or several have.
    """
    sections = {field: kind for field, info in RunConfig.model_fields.items() if (kind := _section(info.annotation))}
    if name in RunConfig.model_fields:
        section = sections.get(name)
        values[name] = {**values.get(name, {}), **dict(value)} if section is not None and value is not None else value
        return
    homes = [field for field, kind in sections.items() if name in kind.model_fields and field not in _ELSEWHERE]
    if len(homes) > 1:
        raise ConfigError(f"setting {name!r} is in several sections: {', '.join(homes)}", hint=f"{homes[0]}={{…}}")
    if not homes:
        allowed = {leaf for kind in sections.values() for leaf in kind.model_fields} | set(RunConfig.model_fields)
        raise ConfigError(unknown("setting", name, allowed))
    values.setdefault(homes[0], {})[name] = value


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section class in a field's type, if there is one."""
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            {f"{name}.{leaf}": inner for leaf, inner in value.items()} if isinstance(value, dict) else {name: value}
        )
    return found

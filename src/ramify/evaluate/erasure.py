"""Whether a prompt that was left out in training has moved into the weights: four evaluations and what they show.

                     with the prompt      without it
    start model      what it can do       what it does unasked
    tuned model      what is lost of it   what is in the weights

All four answer the same problems, so every difference is a paired one. Prompt erasure as in Orca 2 (Mitra et al. 2023,
arXiv 2311.11045), which reports the last cell only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ramify.base.config import Prompting, RunConfig
from ramify.base.errors import ConfigError, RunError
from ramify.base.records import to_plain, write_json
from ramify.base.runs import open_run
from ramify.evaluate import words
from ramify.evaluate.compare.comparison import Comparison, compare_stages
from ramify.evaluate.report.extras import Extras
from ramify.evaluate.report.write import write_report
from ramify.evaluate.run import Watcher, evaluate, load, problems_of
from ramify.evaluate.stages import Stage, stage
from ramify.evaluate.statistics.findings import Finding, Outcome

NAMES = ("start-with", "start-without", "tuned-with", "tuned-without")
"""Folders of the four evaluations."""


@dataclass(frozen=True)
class Erasure:
    """The four evaluations, and what they show.

    Attributes:
        start_with, start_without, tuned_with, tuned_without: model, and whether it was given the prompt.
    """

    start_with: Stage
    start_without: Stage
    tuned_with: Stage
    tuned_without: Stage

    @property
    def stages(self) -> tuple[Stage, Stage, Stage, Stage]:
        """The start model without the prompt first, the tuned model without it last."""
        return self.start_without, self.start_with, self.tuned_with, self.tuned_without

    @cached_property
    def comparison(self) -> Comparison:
        """Each with each; what is claimed is corrected over all of them."""
        return compare_stages(self.stages, title="Prompt erasure", each=True)

    @property
    def differences(self) -> dict[str, Finding]:
        """By what they are about; findings of the comparison."""
        found = {(each.before.stage, each.after.stage): each.overall for each in self.comparison.contrasts}
        return {
            "the start model with the prompt, against itself without": found[self.start_without, self.start_with],
            "the tuned model against the start model, both without": found[self.start_without, self.tuned_without],
            "the tuned model without, against the start model with": found[self.start_with, self.tuned_without],
            "the tuned model without, against itself with the prompt": found[self.tuned_with, self.tuned_without],
        }

    @property
    def moved(self) -> float | None:
        """Share of what the prompt was worth to the start model that the tuned model has without it.

        None where it cannot be shown that the prompt was worth anything.
        """
        worth, gained = list(self.differences.values())[:2]
        if worth.outcome is not Outcome.BETTER:
            return None
        return gained.paired.difference / worth.paired.difference

    @property
    def headline(self) -> str:
        """One sentence on what moved."""
        worth, gained, *_ = self.differences.values()
        if self.moved is None:
            return f"It cannot be shown that the prompt helps the start model: {words.points(worth.paired)} points."
        if gained.outcome is not Outcome.BETTER:
            return f"Without the prompt no gain can be shown: {words.points(gained.paired)} points."
        return (
            f"The prompt is worth {words.points(worth.paired)} points to the start model; the tuned model has gained "
            f"{words.points(gained.paired)} without it: {100 * self.moved:.0f} % of it."
        )


def four_ways(config: RunConfig, prompt: Prompting, *, start: RunConfig | None = None) -> dict[str, RunConfig]:
    """The settings of the four evaluations, by name.

    Args:
        config: how the tuned run is evaluated without the prompt; `out` is the folder that the four go into.
        prompt: the prompt that was erased.
        start: model, adapter and revision of the start model; None: those that the run began with.

    Raises:
        ConfigError: the prompt is the one that the run is evaluated with anyway, or `out` is not set.
        RunError: the run does not say what it began with.
    """
    if prompt == config.prompt:
        raise ConfigError(
            "the prompt that was erased is the one the run is prompted with",
            hint="name another --system or --fewshot; the run's own prompt is the one without",
        )
    if config.out is None:
        raise ConfigError("out is not set")
    before = _start_of(config.model) if start is None else start
    own = {name: getattr(before, name) for name in ("model", "adapter", "revision")}
    found = {}
    for name in NAMES:
        changed: dict[str, Any] = {"out": config.out / name}
        changed |= {"prompt": prompt} if name.endswith("-with") else {}
        changed |= own if name.startswith("start") else {}
        found[name] = config.model_copy(update=changed)
    return found


def measure(
    configs: dict[str, RunConfig],
    *,
    watch: Callable[[str, int], AbstractContextManager[Watcher]],
    overwrite: bool = False,
) -> Erasure:
    """Evaluate the four ways (each model is loaded once), and write erasure.json and report.html beside them.

    Args:
        watch: for the name of an evaluation and its number of problems, what is shown its new samples.
        overwrite: the folders may hold evaluations of something else, which are replaced.

    Raises:
        RamifyError: see `ramify.evaluate.run.evaluate`.
    """
    problems = problems_of(configs["tuned-without"])
    for model in ("start", "tuned"):
        loaded = load(configs[f"{model}-with"])
        for kind in ("with", "without"):
            name = f"{model}-{kind}"
            with watch(name, len(problems)) as watcher:
                evaluate(configs[name], loaded=loaded, problems=problems, on_sample=watcher, overwrite=overwrite)
    found = Erasure(**{name.replace("-", "_"): stage(_folder(configs[name]), _title(name)) for name in NAMES})
    folder = _folder(configs["tuned-without"]).parent
    write_json(folder / "erasure.json", to_plain(_summary(found)))
    write_report(folder / "report.html", found.comparison, Extras(notes=(found.headline,)))
    return found


def _summary(found: Erasure) -> dict[str, Any]:
    rates = {name: getattr(found, name.replace("-", "_")).scores.accuracy for name in NAMES}
    return {"accuracy": rates, "differences": found.differences, "moved": found.moved, "finding": found.headline}


def _start_of(run: str) -> RunConfig:
    """The settings that the run was trained with.

    Raises:
        RunError: it has none.
    """
    settings = open_run(run).record.get("config")
    if not settings:
        raise RunError(f"{run}: does not say which model it began with", hint="name it with --start")
    return RunConfig.model_validate(settings)


def _title(name: str) -> str:
    model, _, kind = name.partition("-")
    return f"{model} model {kind} the prompt"


def _folder(config: RunConfig) -> Path:
    assert config.out is not None, "four_ways gives each evaluation a folder"
    return config.out

"""How much faster many questions are answered together than one at a time, with the same answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import perf_counter

from ramify.base.config import RunConfig
from ramify.evaluate.stages import Stage
from ramify.model.load import LoadedModel
from ramify.model.lora import fit_template
from ramify.sample.engine import TreeSampler
from ramify.sample.sampler import PromptTokens

ALONE = 12  # questions answered one at a time


@dataclass(frozen=True, slots=True)
class Speed:
    """New tokens a second of greedy few-shot answers.

    Attributes:
        batched: all questions of the evaluation together.
        alone: one question at a time.
        same: whether the questions answered alone got the same tokens as together.
    """

    batched: float
    alone: float
    same: bool

    @property
    def ratio(self) -> float:
        """How many times faster together."""
        return self.batched / self.alone

    def table(self) -> dict[str, tuple[float, str]]:
        """Rows for the report."""
        return {
            "all questions together": (self.batched, "new tokens/s"),
            "one question at a time": (self.alone, "new tokens/s"),
            "together over one at a time": (self.ratio, "times"),
        }


def measure_speed(loaded: LoadedModel, config: RunConfig, together: Stage) -> Speed:
    """Answer the first questions of an evaluation one at a time, and compare with how long it took for all."""
    loaded, renderer, _ = fit_template(loaded, config.prompt)
    sampler = TreeSampler(loaded)
    answers = {sample.problem_id: sample for sample in together.samples}
    tokens, same = 0, True
    problems = together.problems[:ALONE]
    began = perf_counter()
    for problem in problems:
        prompt = PromptTokens(problem.id, renderer.prompt_ids(problem.prompt))
        [[sample]] = sampler.sample([prompt], config.sample, seed=config.seed)
        tokens += len(sample.token_ids)
        same = same and sample.token_ids == answers[problem.id].token_ids
    seconds = perf_counter() - began
    scores = json.loads((together.folder / "scores.json").read_text(encoding="utf-8"))
    produced = sum(len(sample.token_ids) for sample in together.samples)
    return Speed(batched=produced / max(scores["seconds"], 1e-9), alone=tokens / max(seconds, 1e-9), same=same)

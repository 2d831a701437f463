"""Answers by log-probability: each problem's options are scored on the prefix tree; the most probable one is chosen.

Nothing is drawn. The options of a problem share its prompt, and problems share what their prompts have in common (a
student's code, a lab's statement), so many problems are one forward pass. The score of an option is

    log p(option | prompt) = sum of the log-probabilities of its tokens, the stop token included

which is that of the text as a whole: options of different lengths are compared as the model would produce them, without
a division by length. An option's probability is its share among the problem's options.

An evaluation by options has the same files as one by generation (a sample is the chosen option, as if it had been
written), and one more, `options.jsonl`: one `OptionScores` a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from itertools import islice
from math import exp, log
from pathlib import Path

from ramify.base.config import RunConfig
from ramify.base.errors import ConfigError, DataError, LengthError
from ramify.base.records import write_jsonl
from ramify.base.types import Completion, Example, Problem, Sample, Stop, TokenSequence
from ramify.model.load import LoadedModel
from ramify.model.logprobs import token_logprobs, without_dropout
from ramify.prompts.renderer import Renderer
from ramify.tasks.collection import whole_lines
from ramify.tree.pack import joint_batches, pack

FILE = "options.jsonl"
_DRAWING = "evaluate.scoring=options draws nothing"


@dataclass(frozen=True, slots=True)
class OptionScores:
    """What a model makes of the options of one problem, in their order.

    Attributes:
        logprobs: natural log-probability of each option's text behind the prompt, its stop token included.
        probabilities: the same as shares of the options alone; they add up to 1.
    """

    problem_id: str
    logprobs: tuple[float, ...]
    probabilities: tuple[float, ...]

    @classmethod
    def of(cls, problem_id: str, logprobs: Sequence[float]) -> OptionScores:
        """Scores with their probabilities."""
        most = max(logprobs)
        total = most + log(sum(exp(each - most) for each in logprobs))
        return cls(problem_id, tuple(logprobs), tuple(exp(each - total) for each in logprobs))

    @property
    def best(self) -> int:
        """Place of the most probable option; the first of equals."""
        return self.logprobs.index(max(self.logprobs))


OnChoice = Callable[[Sample, OptionScores], None]


@dataclass(frozen=True)
class OptionScorer:
    """Chooses among options with a loaded model.

    Attributes:
        micro_tokens: packed tokens computed at once; bounds memory, never changes the result.
    """

    loaded: LoadedModel
    renderer: Renderer
    micro_tokens: int

    def choose(self, problems: Sequence[Problem], *, seed: int, wanted: Container[str], on_choice: OnChoice) -> None:
        """Score the options of the problems wanted, and tell each choice once all its options are scored.

        Args:
            problems: all of the evaluation: they decide what is computed together, so that a resumed evaluation
                computes what the straight one did; parts in which nothing is wanted are left out.
            seed: what samples are labelled with; the choice does not depend on it.
            wanted: ids of the problems to choose for.
            on_choice: gets the chosen option as a sample with index 0, and the scores of all.

        Raises:
            DataError: a problem offers fewer than two options.
            LengthError: prompt and option are more than the model allows, with counts, before anything is computed.
        """
        rendered = [self._render(problem) for problem in problems]
        self._check_lengths(rendered)
        for part in joint_batches((each.sequences for each in rendered), self.micro_tokens):
            if any(problems[index].id in wanted for index in part):
                found = self._scored([rendered[index] for index in part])
                for index, logprobs in zip(part, found, strict=True):
                    if problems[index].id in wanted:
                        on_choice(*self._choice(rendered[index], logprobs, seed))

    def _render(self, problem: Problem) -> _Rendered:
        check_options(problem)
        options = tuple(map(Completion, problem.options))
        return _Rendered(problem, self.renderer.sequences(Example(problem.prompt, options, problem.source)))

    def _check_lengths(self, rendered: Sequence[_Rendered]) -> None:
        limit = self.loaded.max_length
        lengths = [len(sequence.ids) for each in rendered for sequence in each.sequences]
        long = [length for length in lengths if length > limit]
        if long:
            raise LengthError(
                f"{len(long)} of {len(lengths)} options with their prompts exceed the model's {limit} tokens; "
                f"the longest has {max(long)}"
            )

    def _scored(self, part: Sequence[_Rendered]) -> list[list[tuple[float, ...]]]:
        """Log-probability of each token of each option of the problems, in one forward pass."""
        network = self.loaded.network
        batch = pack([sequence for each in part for sequence in each.sequences])
        with without_dropout(network):
            values = token_logprobs(network, batch.to(self.loaded.device)).tolist()
        left = iter(values)
        return [[tuple(islice(left, len(option))) for option in each.options] for each in part]

    def _choice(
        self, asked: _Rendered, logprobs: Sequence[tuple[float, ...]], seed: int
    ) -> tuple[Sample, OptionScores]:
        scores = OptionScores.of(asked.problem.id, [sum(each) for each in logprobs])
        best = scores.best
        sample = Sample(
            problem_id=asked.problem.id,
            index=0,
            token_ids=asked.options[best],
            logprobs=logprobs[best],
            text=asked.problem.options[best],
            stop=Stop.EOS,
            policy=self.loaded.policy,
            seed=seed,
        )
        return sample, scores


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A problem, and each of its options behind its prompt."""

    problem: Problem
    sequences: list[TokenSequence]

    @property
    def options(self) -> list[tuple[int, ...]]:
        """Token ids of the options alone: what is scored."""
        return [each.ids[-sum(weight != 0 for weight in each.weights) :] for each in self.sequences]


def check_options(problem: Problem) -> None:
    """Refuse a problem that leaves nothing to choose.

    Raises:
        DataError: it offers fewer than two options; names its source.
    """
    if len(problem.options) < 2:
        where = problem.source or f"problem {problem.id}"
        raise DataError(
            f"{where}: options: evaluate.scoring=options needs at least two to choose from, "
            f"found {len(problem.options)}",
            hint="evaluate.scoring=generate grades what the model writes",
        )


def check_settings(config: RunConfig) -> None:
    """Refuse settings of drawing that would do nothing.

    Raises:
        ConfigError: several samples, or a temperature, together with scoring by options.
    """
    if config.evaluate.scoring == "options" and (config.sample.n > 1 or config.sample.temperature > 0):
        name, value = ("n", config.sample.n) if config.sample.n > 1 else ("temperature", config.sample.temperature)
        raise ConfigError(f"sample.{name} = {value}: {_DRAWING}", hint=f"leave sample.{name} out")


def sort_scores(folder: Path, problems: Sequence[Problem]) -> None:
    """Put the scores in a folder into the order of the problems, each once; a line that was cut off goes."""
    rows = {row["problem_id"]: row for row in whole_lines(folder / FILE)}
    if rows:
        write_jsonl(folder / FILE, [rows[problem.id] for problem in problems if problem.id in rows])

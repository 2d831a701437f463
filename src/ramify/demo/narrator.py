"""What the demonstration says while it runs."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ramify.base.config import RunConfig
from ramify.base.runs import Run
from ramify.base.types import Reason
from ramify.console import Bars, output, table
from ramify.demo.speed import Speed
from ramify.demo.stages import DemoStage
from ramify.evaluate import words
from ramify.evaluate.compare.comparison import Comparison
from ramify.evaluate.run import Evaluation
from ramify.evaluate.stages import Stage
from ramify.export.card import parity_head, parity_lines
from ramify.export.run import Export


class Narrator:
    """Tells the story on standard output; progress bars go to standard error.

    Attributes:
        bars: progress of trainings and evaluations.
    """

    def __init__(self, to: Console | None = None) -> None:
        self._to = output() if to is None else to
        self.bars = Bars()

    def begin(self, config: RunConfig) -> None:
        """What this is about."""
        self._line("Ramify demo", "bold")
        self._line(
            f"A small language model ({config.model}) learns {config.task.name.replace('_', ' ')}, here and offline. "
            f"Every stage answers the same {config.evaluate.limit} held-out questions: conversions that neither the "
            "base model's text nor the training rows contain. An answer counts when the task's grader accepts it."
        )

    def stage(self, stage: DemoStage) -> None:
        """A stage begins."""
        self._line("")
        self._line(stage.name, "bold cyan")
        self._line(stage.about)

    def trained(self, run: Run) -> None:
        """A training is finished."""
        record = run.record
        data = record.get("data", {})
        account = _last_account(run)
        if account:
            self._line(
                f"  drew {account['samples']:,} chains for {account['questions']:,} questions: {account['correct']:,} "
                f"correct, {account['solved']:,} questions solved, {account['rows']:,} rows kept",
                "dim",
            )
        self._line(
            f"  trained {record.get('steps', 0):,} steps on {data.get('rows', 0):,} rows in "
            f"{record.get('training_seconds', 0):.0f} s",
            "dim",
        )

    def measured(self, found: Evaluation) -> None:
        """An evaluation is finished: an example and the rates."""
        problem, sample, verdict = found.problems[0], found.samples[0], found.verdicts[0]
        mark = "✓" if verdict.reason is Reason.CORRECT else "✗"
        said = " ".join(sample.text.split())
        self._line(f"  “{problem.prompt[-1].content}”", "dim")
        self._line(f"  {mark} {said[:160]}{'…' if len(said) > 160 else ''}", "dim")
        rates = f"  accuracy {words.rate(found.scores.accuracy)}, answered {words.percent(found.answer_rate)}"
        self._line(f"{rates}  ({found.n} questions, {found.seconds:.0f} s)")

    def kept(self, stage: Stage) -> None:
        """A stage was finished before."""
        self._line(f"  kept from before: accuracy {words.rate(stage.scores.accuracy)}", "dim")

    def speed(self, speed: Speed) -> None:
        """Together against one at a time."""
        same = "the same answers, token for token" if speed.same else "some answers differ in rounding"
        self._line("")
        self._line(
            f"Answering together: {speed.batched:,.0f} new tokens/s, one question at a time: {speed.alone:,.0f} "
            f"({speed.ratio:.0f} times), {same}."
        )

    def exporting(self) -> None:
        """The export begins."""
        self._line("")
        self._line("export", "bold cyan")
        self._line(
            "The adapter is merged and written as GGUF files for llama.cpp. Each is read back, and has to be the model "
            "that was trained: the same prompt ids, the same next tokens, the same ends."
        )

    def exported(self, found: Export) -> None:
        """The parity table."""
        self._print(table("", parity_head(found.rows), parity_lines(found.rows)))

    def not_exported(self) -> None:
        """What it takes to export."""
        self._line("")
        self._line("Not exported to GGUF: pip install 'ramify[export]' brings what that needs.", "dim")

    def end(self, found: Comparison, out: Path, seconds: float) -> None:
        """The table, what it shows, and what to do next."""
        self._line("")
        rows = [
            (arm.name, words.rate(arm.scores.accuracy), words.rate(arm.scores.answer_rate), arm.scores.n)
            for arm in found.arms
        ]
        self._print(table("", ("", "accuracy (95 % interval)", "answered", "questions"), rows))
        self._line("")
        for each in found.contrasts:
            if each.after is found.arms[-1]:
                self._line(f"{each.after.name} against {each.before.name}: {each.verdict}", "bold")
        self._line("")
        self._line(f"report: {out / 'report.html'}   results: {out / 'results.json'}   ({seconds:.0f} s)")
        self._line("next:", "dim")
        self._line(f"  ramify generate questions.txt --model {out / 'rft'}      ask it your own questions, one a line")
        self._line(f"  ramify chat {out / 'rft'}      talk to it; ramify ui opens a page")
        self._line(f"  ramify compare {out / 'sft'} {out / 'rft'} --out compared.html")
        self._line(
            "  ramify train method=sft model=nano data.train=FILE.json out=runs/mine      train on your own rows"
        )

    def _line(self, text: str, style: str = "") -> None:
        self._to.print(text, style=style, markup=False, soft_wrap=not self._to.is_terminal)

    def _print(self, table: Table) -> None:
        self._to.print(table)


def _last_account(run: Run) -> dict[str, int]:
    path = run.folder / "yield.json"
    if not path.is_file():
        return {}
    rounds = json.loads(path.read_text(encoding="utf-8"))["rounds"]
    found: dict[str, int] = rounds[-1] if rounds else {}
    return found

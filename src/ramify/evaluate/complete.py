"""Completions of many prompts, written as they finish, so that a stopped run loses nothing."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramify.base.config import RunConfig
from ramify.base.errors import DataError
from ramify.base.records import append_jsonl, json_line, read_jsonl, to_plain, write_jsonl, write_text
from ramify.base.types import Conversation, Message, Problem, Sample
from ramify.data.sources import read_rows

if TYPE_CHECKING:
    from ramify.model.load import LoadedModel


def read_prompts(source: str) -> list[Problem]:
    """Prompts of a file, or of standard input (`-`): text files hold one a line, JSON files rows of any known shape.

    Raises:
        DataError: there are none, or the file cannot be used.
    """
    if source == "-":
        return _lines(sys.stdin.read(), "standard input")
    path = Path(source)
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
        rows = read_rows(path)
        found = list(rows.problems) or [
            Problem(f"{i}", example.prompt, source=example.source) for i, example in enumerate(rows.examples)
        ]
        return found
    try:
        return _lines(path.read_text(encoding="utf-8-sig"), source)
    except FileNotFoundError:
        raise DataError("no such file", path=path, hint="a file of prompts, or - for standard input") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", path=path) from None


def complete(
    config: RunConfig, loaded: LoadedModel, problems: Sequence[Problem], on_sample: Callable[[Sample], None]
) -> list[list[Sample]]:
    """Draw `config.sample.n` completions of each problem's prompt.

    Raises:
        LengthError: a prompt leaves no room for the new tokens.
    """
    from ramify.model.lora import fit_template
    from ramify.sample.engine import TreeSampler
    from ramify.sample.sampler import PromptTokens

    loaded, renderer, _ = fit_template(loaded, config.prompt)
    prompts = [PromptTokens(problem.id, renderer.prompt_ids(problem.prompt)) for problem in problems]
    return TreeSampler(loaded).sample(prompts, config.sample, seed=config.seed, on_sample=on_sample)


class Destination:
    """Where completions go: a file of JSON lines, or standard output, one row a prompt in the prompts' order.

    Rows are appended to the file as prompts finish; `close` puts them in order.

    Args:
        path: the file, or None for standard output.
        problems: all prompts.
        n: completions of each.
    """

    def __init__(self, path: Path | None, problems: Sequence[Problem], n: int) -> None:
        self._path, self._n = path, n
        self._problems = {problem.id: problem for problem in problems}
        self._rows: dict[str, dict[str, Any]] = {}
        self._unfinished: dict[str, list[Sample]] = defaultdict(list)

    def open(self, resume: bool) -> list[Problem]:
        """Begin the file anew, or keep its finished rows; the prompts that still need completions.

        Raises:
            DataError: a row to keep cannot be read.
            RunError: the file cannot be written.
        """
        if self._path is not None:
            if resume and self._path.is_file():
                self._keep(self._path)
            write_jsonl(self._path, self._rows.values())
        return [problem for name, problem in self._problems.items() if name not in self._rows]

    def add(self, sample: Sample) -> None:
        """Take a finished sample; the row is written when it is the prompt's last."""
        found = self._unfinished[sample.problem_id]
        found.append(sample)
        if len(found) == self._n:
            row = _row(self._problems[sample.problem_id], sorted(found, key=lambda each: each.index))
            self._rows[sample.problem_id] = row
            if self._path is not None:
                append_jsonl(self._path, row)

    def close(self) -> None:
        """Write all rows in the order of the prompts."""
        rows = [self._rows[name] for name in self._problems if name in self._rows]
        if self._path is None:
            sys.stdout.write("".join(json_line(row) for row in rows))
        else:
            write_jsonl(self._path, rows)

    def _keep(self, path: Path) -> None:
        content = path.read_text(encoding="utf-8")
        if not content.endswith("\n"):  # the last line was cut off in writing
            write_text(path, content[: content.rfind("\n") + 1])
        for line, row in read_jsonl(path):
            if not isinstance(row, dict) or "id" not in row:
                raise DataError("not a row that `ramify generate` wrote", path=path, line=line)
            done = len(row.get("completions", [row.get("completion")]))
            if row["id"] in self._problems and done == self._n:
                self._rows[row["id"]] = row


def _row(problem: Problem, samples: Sequence[Sample]) -> dict[str, Any]:
    """One row in a shape that training reads; `stop` says how each completion ended."""
    texts, stops = [sample.text for sample in samples], [sample.stop.value for sample in samples]
    head = {"id": problem.id, "prompt": _prompt(problem.prompt)}
    if len(samples) == 1:
        return {**head, "completion": texts[0], "stop": stops[0]}
    return {**head, "completions": texts, "stop": stops}


def _prompt(prompt: Conversation) -> Any:
    return prompt[0].content if len(prompt) == 1 and prompt[0].role == "user" else to_plain(prompt)


def _lines(text: str, source: str) -> list[Problem]:
    lines = [line.strip() for line in text.splitlines()]
    first = next((line for line in lines if line), None)
    if first is None:
        raise DataError(f"{source}: there are no prompts", hint="one prompt a line")
    if _is_json_row(first):
        raise DataError(
            f"{source}: holds JSON rows, one prompt a line is needed", hint="give JSON rows as a .jsonl file"
        )
    return [
        Problem(f"{number}", (Message("user", line),), source=f"{source}:{number}")
        for number, line in enumerate(lines, start=1)
        if line
    ]


def _is_json_row(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict | list)
    except ValueError:
        return False
